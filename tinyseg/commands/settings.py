"""The options of a training script: those that are given, those of the run that is resumed, and the defaults."""

import argparse
import os
import pathlib
from typing import Any

from tinyseg.commands.networks import build_network, refuse_too_costly
from tinyseg.commands.options import REST
from tinyseg.data.files import list_names
from tinyseg.data.isbi import LAYOUTS
from tinyseg.data.json_files import check_shape, read_json
from tinyseg.models import checkpoint

LATEST = "checkpoint.safetensors"
# What a run keeps beside its options, and a resumed run compares or goes on with.
KEPT = {"fingerprints": dict[str, str], "patients": dict[str, list[str]], "computer": dict[str, str]}

PLACES = {"images": "data", "masks": "labels"}  # arguments without a name, and the options that they are
PATHS = {"data", "labels"}
ADDED = {"microbatches": 1}  # options that runs of 0.2.0 did not have, and what these did
BESIDE = {*KEPT, "sections", "written_by"}  # what the config.json of a run has beside its options


def settle(parser, defaults, paper, rest):
    """Settle the options of a training script: first what is given, then what the resumed run has, then the defaults.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Its options default to None. Has ``data``, ``epochs``, ``resume``, ``out``, ``overwrite``, ``protocol`` and
        ``download``.
    defaults : dict
        The options that decide what is learned: they are kept with the run.
    paper : dict
        What takes the place of the defaults with ``--protocol paper``.
    rest : dict
        Defaults of further options that are not kept, beside `REST`: ``out``, and the script's own.

    Returns
    -------
    argparse.Namespace
    """
    parsed = parser.parse_args()
    given = {name: getattr(parsed, name) for name in parsed.given}
    for place, name in PLACES.items():
        if {place, name} <= given.keys():
            parser.error(f"{place} are given twice, and with --{name}: leave one of the two out")
        if place in given:
            given[name] = given.pop(place)
    given = with_absolute_paths(given)
    settings = defaults | (paper if given.get("protocol") == "paper" else {})
    if "config" in given:
        clash = given.keys() & {"protocol", "resume"}
        if clash:
            parser.error(f"--config and --{clash.pop()} both say what the options are: leave one of the two out")
        settings |= read_config(parser, pathlib.Path(given.pop("config")), defaults)
    if "resume" in given:
        path = pathlib.Path(given["resume"])
        settings |= read_settings(parser, path, defaults)
        path = path.parent if path.is_file() else path
        changed = {name for name in defaults if given.get(name, settings[name]) != settings[name]} - {*PATHS, "epochs"}
        changed |= given.keys() & {"protocol", "out", "overwrite"}
        if changed:
            parser.error(f"--resume goes on with the options of {path}: leave out {', '.join(sorted(changed))}")
        if given.get("epochs", settings["epochs"]) != settings["epochs"] and settings["schedule"] in ("cosine", "step"):
            print("Another number of epochs stretches the schedule: the learning rate jumps to where it now would be.")
        given["out"] = given["resume"] = str(path)
    if given.get("download") and "data" not in given:
        parser.error("--download needs --data DIR, the folder to put the files in")
    args = argparse.Namespace(**(REST | {"computer": {}} | rest | settings | given))
    if args.lr is None:
        args.lr = 2e-4 if args.model == "unet" else 2e-3  # 2e-3 needs norm layers, and plain U-Net has none
    args.given = parsed.given | given.keys()
    if args.schedule in ("step", "plateau") and args.warmup and "warmup" in args.given:
        parser.error(f"--warmup is for --schedule cosine and constant, and not for {args.schedule}: leave it out")
    if args.amp and args.cuda_graph:
        parser.error("--amp and --cuda-graph cannot be had together: choose one of the two")
    if args.data is not None:
        refuse_among_data(parser, args)
    refuse_too_costly(args)
    # Hours of reading data can come before the network is built: a small one shows now whether the options go together.
    build_network(argparse.Namespace(**vars(args) | {"width": 2}), 1, 1, "cpu")
    return args


def refuse_among_data(parser, args):
    """End the command if --out is a folder whose pictures are data: those of the run would be taken for some."""
    out = pathlib.Path(args.out).resolve()
    given = [pathlib.Path(path) for path in (args.data, getattr(args, "labels", None)) if path]
    names = {name for part in LAYOUTS[1] for name in part}
    if out in given or (out.parent == given[0] and out.name.casefold() in names):
        parser.error(f"--out {args.out} is a folder of the data: give the run a folder of its own")


def read_settings(parser, path, defaults):
    """Read the options with which a run was begun from its latest checkpoint.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Its options are checked as if they were given at the shell. Nothing else is taken from the file but `KEPT`.
    path : Path
        The folder of the run, or its checkpoint.safetensors.
    defaults : dict
        The options that a run of this script keeps.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        The checkpoint is damaged, or the file is another one.
    """
    file = path if path.is_file() else path / LATEST
    if file.name != LATEST:
        raise ValueError(
            f"--resume goes on from the {LATEST} of a run, which holds the state of the optimizer, and not from "
            f"{file.name}: give the run's folder, {file.parent}."
        )
    try:
        meta = checkpoint.read(file)[1]
    except checkpoint.NewerError:
        raise
    except ValueError as error:
        best = file.with_name("best.safetensors")
        more = f" predict.py and evaluate.py take {best}." if best.is_file() else ""
        raise ValueError(
            f"{error} Without it the run cannot go on: begin it again, with --out {file.parent} --overwrite.{more}"
        ) from None
    config = meta.get("config") or {}
    config = config and ADDED | config
    if not meta.get("training") or not defaults.keys() <= config.keys():
        parser.error(f"{file} was not written by this script: there is no run to go on with")
    for name in PATHS & defaults.keys():
        if config[name] is not None and not os.path.isabs(str(config[name])):
            found = f"--{name} is {config[name]!r}, and not an absolute path"
            raise ValueError(f"{file} is damaged: in its metadata {found}.")
    kept = {name: config[name] for name in KEPT if name in config}
    for name, value in kept.items():
        check_shape(value, KEPT[name], f"{file} is damaged: {name} in its metadata does not fit")
    return check_options(parser, config, defaults, f"{file} is damaged: in its metadata") | kept


def read_config(parser, path, defaults):
    """Read the options in the config.json of a run, or a file like it that names some of them.

    Parameters
    ----------
    parser, defaults
        As `read_settings`.
    path : Path

    Returns
    -------
    dict
        Of the options that the file names.

    Raises
    ------
    ValueError
        The file is not JSON, names an option that this command does not have, or has a value that does not fit.
    """
    config = read_json(path, dict[str, Any], "a file of options, such as the config.json of a run")
    unknown = [name for name in config if name not in defaults and name not in BESIDE]
    if unknown:
        raise ValueError(f"{path} names what is no option of this command: {list_names(unknown)}. Take it out.")
    named = {name: default for name, default in defaults.items() if name in config}
    return with_absolute_paths(check_options(parser, config, named, f"in {path}"))


def with_absolute_paths(options):
    """Return options with the places of data made absolute: a run is resumed from anywhere."""
    places = {name: options[name] for name in PATHS & options.keys() if options[name]}
    return options | {name: str(pathlib.Path(path).resolve()) for name, path in places.items()}


def check_options(parser, config, defaults, where):
    """Return the options that `defaults` names, with their values in `config`, checked as if given at the shell.

    If one does not fit, it is a ValueError whose sentence begins with `where`.
    """
    words = []
    for name, default in defaults.items():
        flag = "--" + name.replace("_", "-")
        shape = bool if isinstance(default, bool) else str | int | float
        check_shape(config[name], shape | None if default is None else shape, f"{where} {flag}")
        if config[name] is True:
            words.append(flag)
        elif config[name] is not None and config[name] is not False:  # 0 is a number
            words.append(f"{flag}={config[name]}")
    try:
        parser.exit_on_error = False
        read = vars(parser.parse_args(words))
    except argparse.ArgumentError as error:
        raise ValueError(f"{where} the options do not fit ({error}).") from None
    finally:
        parser.exit_on_error = True
    return {name: False if config[name] is False else read[name] for name in defaults}
