"""What the scripts share at the command line: settling options, taking up a run, tables, ending with a sentence."""

import argparse
import math
import pathlib
import sys
import warnings

from tinyseg import backend, models, optim
from tinyseg.models import checkpoint

LEARNING_RATES = {"unet": 2e-4}  # plain U-Net has no norm to tame its gradients; the others take 2e-3
# Options of training that are not kept with a run.
REST = {
    "device": "auto", "gpu_memory": None, "tf32": False, "cuda_graph": False, "workers": 2, "overwrite": False,
    "resume": None, "download": False,
}  # fmt: skip
LATER = {"amp"}  # options that runs of earlier versions do not know: they have the default


def settle(parser, defaults, paper, rest):
    """Settle the options of a training script: what is given, before the resumed run's, before the defaults.

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
    given = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    if "data" in given:
        given["data"] = str(pathlib.Path(given["data"]).resolve())  # a run is resumed from anywhere
    settings = defaults | (paper if given.get("protocol") == "paper" else {})
    if "resume" in given:
        path = pathlib.Path(given["resume"])
        path = path.parent if path.is_file() else path
        meta = checkpoint.read(path / "checkpoint.safetensors")[1]
        known = meta.get("config", {}).keys() | LATER
        if "config" not in meta or "training" not in meta or not defaults.keys() <= known:
            parser.error(f"{path}/checkpoint.safetensors was not written by this script: there is no run to go on with")
        settings |= meta["config"]
        changed = {name for name in settings if given.get(name, settings[name]) != settings[name]} - {"data", "epochs"}
        changed |= given.keys() & {"protocol", "out", "overwrite"}
        if changed:
            parser.error(f"--resume goes on with the options of {path}: leave out {', '.join(sorted(changed))}")
        if given.get("epochs", settings["epochs"]) != settings["epochs"] and settings["schedule"] in ("cosine", "step"):
            print("Another number of epochs stretches the schedule: the learning rate jumps to where it now would be.")
        given["out"] = given["resume"] = str(path)
    if given.get("download") and "data" not in given:
        parser.error("--download needs --data DIR, the folder to put the files in")
    args = argparse.Namespace(**(REST | rest | settings | given))
    if args.lr is None:
        args.lr = LEARNING_RATES.get(args.model, 2e-3)
    return args


def option_adder(parser, defaults):
    """Return ``add(flag, help, **options)``, which adds an option and puts its default into the help."""

    def add(flag, help="", **options):
        default = defaults.get(flag[2:].replace("-", "_"))
        known = f" (default: {default})" if default is not None else ""
        parser.add_argument(flag, help=(help + known).strip(), **options)

    return add


def add_training_options(parser, defaults, paper, out):
    """Add what every training script asks for: the network, the optimizer, the device, and where the run is kept.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    defaults, paper : dict
        See `settle`.
    out : str
        The default of --out.
    """
    add = option_adder(parser, defaults)
    add("--augment", "none, paper or default, and/or hflip,vflip,turns,rotation=…,zoom=…,shift=…,elastic=…")
    add("--model", choices=list(models.MODELS))
    add("--width", "channels of the first level", type=int)
    add("--head", "the last layers; the paper's can die", choices=["direct", "paper"])
    add("--ws", "weight standardization of the depthwise kernels", choices=["default", "layer", "filter", "none"])
    add("--dropout", "probability at the end of the last two encoder levels", type=float)
    add("--protocol", f"what the paper states: {paper}", choices=["paper"])
    add("--epochs", type=int)
    add("--batch-size", type=int)
    add("--lr", "learning rate of Adam (default: 2e-4 for unet, 2e-3 for the others)", type=float)
    add("--schedule", "of the learning rate", choices=["cosine", "constant", "step", "plateau"])
    add("--warmup", "steps of rising learning rate (cosine and constant)", type=int)
    add("--clip", "largest norm of the gradient; 0 for no limit", type=float)
    add("--amp", "mixed precision: activations in float16 (useful on a GPU)", action="store_true", default=None)
    add("--seed", type=int)
    add_device_options(parser)
    add("--workers", f"threads that prepare the data (default: {REST['workers']})", type=int)
    add("--out", f"run directory (default: {out})")
    add("--overwrite", "replace the run that --out holds", action="store_true", default=None)
    add("--resume", "continue the run in this folder, with its own options", metavar="PATH")


def build_network(args, in_channels, num_classes, device):
    """Build the network that the options of `add_training_options` ask for, and see that it takes ``args.size``."""
    options = {"width": args.width, "head": args.head, "dropout": args.dropout, "seed": args.seed}
    if args.ws != "default":
        options["ws"] = None if args.ws == "none" else args.ws
    model = models.build(args.model, in_channels, num_classes, **options).to(device)
    model.check_input((1, in_channels, args.size, args.size))
    return model


def add_device_options(parser):
    """Add --device, --gpu-memory, --tf32 and --cuda-graph, for `choose_device`."""
    add = parser.add_argument
    add("--device", help="where to compute (default: auto)", choices=["auto", "cpu", "gpu"])
    add("--gpu-memory", help="most GPU memory to take (default: all)", type=float, metavar="GiB")
    add("--tf32", help="GPU: faster matrix products of inputs rounded to 10 bits", action="store_true", default=None)
    add("--cuda-graph", help="GPU: launch the network as one CUDA graph", action="store_true", default=None)


def choose_device(args):
    """Return the device that the options of `add_device_options` ask for, and set up the GPU as they say.

    Parameters
    ----------
    args : argparse.Namespace
        Its ``device``, ``gpu_memory``, ``tf32`` and ``cuda_graph``; a missing one counts as not given. The last is only
        checked: who computes must take it to there.

    Returns
    -------
    {"cpu", "gpu"}

    Raises
    ------
    RuntimeError
        If a GPU is asked for and is not there.
    ValueError
        If an option of the GPU is given for the CPU, or the limit is not positive.
    """
    device = backend.parse_device(getattr(args, "device", None) or "auto")
    memory, tf32 = getattr(args, "gpu_memory", None), bool(getattr(args, "tf32", None))
    given = {"--tf32": tf32, "--gpu-memory": memory is not None, "--cuda-graph": getattr(args, "cuda_graph", None)}
    given = [option for option, there in given.items() if there]
    if device == "gpu":
        backend.set_up_gpu(memory, tf32)
    elif given:
        raise ValueError(
            f"{given[0]} is for a GPU, and this runs on the CPU: leave it out, or see what --device gpu says."
        )
    return device


def kernels_line(device, amp):
    """Return what scripts say of the kernels that they train with, and of mixed precision."""
    text = backend.kernels_in_use(device)
    if amp:
        text += ", mixed precision" + " (slower than float32 here: only useful on a GPU)" * (device == "cpu")
    return text


def build_schedule(name, optimizer, steps, warmup):
    """Make the learning-rate schedule called cosine, step, plateau or constant, over a number of steps."""
    if name == "cosine":
        return optim.CosineAnnealingLR(optimizer, T_max=steps, warmup=warmup)
    if name == "step":
        return optim.StepLR(optimizer, step_size=max(1, steps // 3))
    if name == "plateau":
        return optim.ReduceLROnPlateau(optimizer, patience=5, factor=0.5)
    return optim.WarmupLR(optimizer, warmup=warmup)


def run_script(main, out_of_memory):
    """Run a script's `main`; what goes wrong ends in one sentence and a status that is not 0.

    Parameters
    ----------
    main : callable
    out_of_memory : str
        What to try if memory does not suffice, the computer's or the GPU's.
    """
    warnings.formatwarning = lambda message, *_: f"Warning: {message}\n"
    try:
        main()
    except (MemoryError, ValueError, OSError, RuntimeError) as error:
        if not backend.is_out_of_memory(error):
            sys.exit(f"{type(error).__name__}: {error}")
        why = str(error).removeprefix("Out of memory ").rstrip(".")
        more = ", or a larger --gpu-memory" * ("limit set to" in why)  # CuPy's words, where its pool has a limit
        sys.exit(f"Out of memory ({why}): {out_of_memory}{more}.")
    except KeyboardInterrupt:
        sys.exit(130)


def table(titles, rows):
    """Lay out rows, each a name and a cell for each title, as one text.

    Parameters
    ----------
    titles : sequence of str
    rows : sequence of (str, sequence of str)

    Returns
    -------
    str
    """
    width = max(len(name) for name, _ in rows)
    columns = [max(map(len, cells)) + 2 for cells in zip(titles, *(cells for _, cells in rows), strict=True)]
    lines = [("", titles), *rows]
    return "\n".join(f"{name:{width}}" + "".join(map(str.rjust, cells, columns)) for name, cells in lines)


def mean_rows(name, means):
    """Rows of a `table`: means, and below, where there are any, their intervals ("mean" and "interval" of each)."""
    rows = [(name, [f"{mean['mean']:.4f}" for mean in means])]
    if any("interval" in mean for mean in means):
        bounds = [mean.get("interval", (math.nan, math.nan)) for mean in means]
        rows.append(("  95% from", [f"{low:.4f}" for low, _ in bounds]))
        rows.append(("       to", [f"{high:.4f}" for _, high in bounds]))
    return rows
