"""The tables and figures of Gadosey et al. (2020) again, the paper's numbers beside ours.

    python examples/reproduce_tables.py --quick                               # minutes, on synthetic data
    python examples/reproduce_tables.py --data ISBI_DIR BRATS_DIR             # everything at full width: a day on a CPU
    python examples/reproduce_tables.py --data ISBI_DIR --width 32 --epochs 30 --seeds 3

Table 1, what six networks cost, needs no data. Tables 2 and 3 train the six, and SD-UNet in the other reading of
weight standardization, under one protocol with several seeds. --jobs 2 trains two at a time; --part 2/8 is for the
second of eight commands, which share --out. Run again after an interruption it goes on where it was;
what another call has put into --out stays beside it, also other --networks of a table that were trained in the same
way. Leaves results.json, tables.md, figures, and every run's folder.

Reads top to bottom: costs, training, tables and figures, options.
"""

import contextlib
import functools
import os
import pathlib
import shlex
import sys

import numpy as np

from benchmarks.machine import how_measured
from reproduction import paper, tables
from reproduction.costs import draw_costs, measure_costs
from reproduction.drawing import draw
from reproduction.results import SCORES, Results, metrics_of, read
from reproduction.side_by_side import carry_out, workers_of
from reproduction.study import Network, Run, RunFailed, run_folder, spread
from tinyseg.commands import train_brats, train_isbi
from tinyseg.commands.jobs import WorkerLost, run_jobs
from tinyseg.commands.numbers import Number, make_parser
from tinyseg.commands.options import a_path, add_device_options, choose_device
from tinyseg.commands.script import run_script
from tinyseg.commands.workers import part_of, refuse_devices
from tinyseg.data import isbi
from tinyseg.data.brats import find_cases
from tinyseg.data.files import list_names
from tinyseg.data.json_files import write_json
from tinyseg.data.load_tqdm import tqdm
from tinyseg.data.locks import locked
from tinyseg.data.synthetic import write_sections
from tinyseg.data.synthetic_brain import write_brains
from tinyseg.data.writing import check_writable, write_atomically
from tinyseg.report import plots

EXAMPLES = pathlib.Path(__file__).resolve().parents[1] / "examples"
NETWORKS = {name: Network(title, name) for name, title in paper.ROWS.items()} | {
    "sdunet_bn_filter": Network("SD-UNet (depthwise+BN+WS), WS per filter", "sdunet_bn", "filter"),
    "sdunet_filter": Network("SD-UNet, WS per filter", "sdunet", "filter"),
}
FEW_CASES = 20  # with fewer cases, one is held out for each seed; otherwise the cases are split as in the paper
SCRIPTS = {"isbi": train_isbi, "brats": train_brats}
TABLE_OF = {"isbi": 2, "brats": 3}  # the number of the table that each data set fills
WRITTEN = [  # into --out, results.json first
    "results.json", "tables.md", "costs.png", "isbi_curves.png", "isbi_best.png", "isbi_worst.png", "brats_curves.png",
    "brats_small.png", "brats_worst.png",
]  # fmt: skip
QUICK = {
    "width": 8, "seeds": 1, "isbi": {"--size": 128, "--epochs": 8},
    "brats": {"--size": 96, "--epochs": 2, "--steps-per-epoch": 30},
}  # fmt: skip


def main():
    run_script(reproduce, out_of_memory="try a smaller --width")


def reproduce():
    args = parse_arguments()
    args.device = choose_device(args)
    check_writable(args.out)
    with locked(args.out, "a study", shared=args.part[1] > 1):
        make_tables(args)


def make_tables(args):
    file = args.out / "results.json"
    refuse_strangers(args.out, file)
    results = read(file, Results, "the results of a study, so give another --out") if file.is_file() else {}

    def keep(name, part, command):
        if {**results.get(name, {}), "measured": None} != {**part, "measured": None}:  # not only read again
            results[name] = part | {"measured": how_measured(command)}
        write_json(file, results)

    data = [find_data(what, args) for what in args.data] if set(args.tables) != {1} else []
    kinds = [kind for kind, _ in data]
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"--data has two folders of {max(kinds, key=kinds.count)}: give one folder for each table.")
    for kind, table in TABLE_OF.items():
        if "tables" in args.given and table in args.tables and kind not in kinds:
            raise ValueError(f"--tables {table} needs data: give a folder of such data to --data, or {kind}.")
    whole = args.part[1] == 1
    if 1 in args.tables and whole:
        keep("costs", measure_costs(args.device, args.quick), "python examples/reproduce_tables.py --tables 1")
    failed = []
    for kind, folder in data:
        if TABLE_OF[kind] in args.tables:
            rows, command = train_all(kind, folder, args)
            for name, row in rows.items():
                failed += [f"{kind}, {name}, seed {run['seed']}" for run in row["failed"]]
            if whole:
                histories = {row["title"]: [found["history"] for found in row["found"]] for row in rows.values()}
                study = summarize(kind, rows, command, args)
                keep(kind, study | {"rows": join_rows(results.get(kind), study)}, command)
                with plots.drawing(args.out / f"{kind}_*.png"):
                    draw(kind, folder, histories, args)
    if whole:
        write_tables(results, args.out)
    else:
        k, parts = args.part
        print(f"Part {k} of {parts} is done. When all are, the same command without --part makes the tables.")
    if failed:
        sys.exit(f"Runs that failed, as said above: {'; '.join(failed)}. The same command makes them alone again.")


def write_tables(results, out):
    """Write and print the tables, and draw what the networks cost."""
    if "costs" in results:
        with plots.drawing(out / "costs.png") as picture:
            draw_costs(results, picture)
    parts = tables.all_tables(results)
    text = "\n".join(f"## {name.capitalize()}\n\n{part}" for name, part in parts.items())
    write_atomically(out / "tables.md", text)
    print(text)
    print(f"Tables, figures and runs are in {out}")


def refuse_strangers(out, file):
    """Raise a ValueError if a folder has files that a study would replace, but not results.json, its first."""
    found = [] if file.is_file() else [name for name in WRITTEN if os.path.lexists(out / name)]
    if found:
        raise ValueError(
            f"{out} holds {list_names(found)}, which the study would write, and no {file.name} of a study: move them "
            "elsewhere, or give another --out."
        )


# ----- training --------------------------------------------------------------------
def find_data(what, args):
    """Return the kind of data, "isbi" or "brats", and its folder; write synthetic data if `what` is only the kind."""
    if what not in ("isbi", "brats"):
        folder = pathlib.Path(what)
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{folder} is not a folder: expected one with sections (ISBI) or with brain volumes."
            )
        return "isbi" if isbi.holds_sections(folder) else "brats", folder
    folder = args.out / "synthetic" / what
    print(f"{what}: SYNTHETIC data, a stand-in for the real ones: give their folder to --data.")
    if what == "brats":
        write_brains(folder, num_cases=3, shape=(96, 96, 24))
    else:
        write_sections(folder, num_sections=12, size=128)
    return what, folder


def train_all(kind, folder, args):
    """Train and score every network with every seed, or those of --part; return the rows, and a run's command.

    A row has what the runs of a network `found`, in the order of the seeds, and those that `failed`.
    """
    cases = [case.name for case in find_cases(folder)] if kind == "brats" else []
    held_out = cases if len(cases) < FEW_CASES else []
    pairs = [(name, seed) for seed in range(args.seeds) for name in args.networks]
    runs = {(name, seed): make_run(kind, folder, name, seed, held_out, args) for name, seed in pairs}
    rows = {}
    for name in args.networks:
        rows[name] = {"title": NETWORKS[name].title, "model": NETWORKS[name].model, "found": [], "failed": []}
    k, parts = args.part
    chosen = list(runs.items())[k - 1 :: parts]
    workers, threads = workers_of(args)
    with contextlib.closing(run_jobs(functools.partial(carry_out, threads), chosen, workers)) as done:
        for ((name, seed), _), found, error in tqdm(done, desc=kind, unit="run", total=len(chosen)):
            if isinstance(error, RunFailed | WorkerLost):
                rows[name]["failed"].append({"seed": seed, "reason": str(error)})
                tqdm.write(f"{name}, seed {seed}: {error}")
            elif error is not None:
                raise error
            else:
                rows[name]["found"].append({"seed": seed} | found)
    for row in rows.values():
        row["found"].sort(key=lambda found: found["seed"])
    return rows, next(iter(runs.values())).command.replace(str(folder.resolve()), "DIR")


def summarize(kind, rows, command, args):
    """Return the study of `rows`, as of `train_all`: mean and spread of their scores."""
    limit = median_tumour(rows) if kind == "brats" else None
    for row in rows.values():
        each = [as_figures(kind, found, limit) for found in row.pop("found")]
        row["figures"] = {key: spread([figures[key] for figures in each]) for key in (each[0] if each else ())}
    return {"rows": rows, "command": command, "seeds": args.seeds, "small_below_mm3": limit}


def join_rows(before, study):
    """Return the rows of a study and, beside them, those that another call has made in the same way."""
    same = before is not None and protocol_of(before) == protocol_of(study)
    rows = (before["rows"] if same else {}) | study["rows"]
    return {name: rows[name] for name in NETWORKS if name in rows}


def protocol_of(study):
    """Return how the networks were trained: the command without what differs from run to run, and how many seeds."""
    words = shlex.split(study["command"])
    own = {k for k, word in enumerate(words) if word in ("--model", "--ws", "--seed", "--val-cases")}
    return [word for k, word in enumerate(words) if not own & {k, k - 1}], study["seeds"]


def make_run(kind, folder, name, seed, held_out, args):
    """Make the run of one network with one seed; if there are `held_out` cases, each seed holds out the next one."""
    network = NETWORKS[name]
    options = {"--data": folder.resolve(), "--model": network.model, "--ws": network.ws}
    options |= {"--width": args.width, "--seed": seed}
    if args.lr:
        options["--lr"] = args.lr
    if args.quick:
        options |= QUICK[kind]
    if args.epochs:
        options["--epochs"] = args.epochs
    if kind == "isbi":
        options |= {"--val-sections": args.val_sections, "--batch-size": 2}  # BatchNorm would mind a batch of one
    elif args.steps_per_epoch or not args.quick:
        options["--steps-per-epoch"] = args.steps_per_epoch or 1000
    if held_out:
        options["--val-cases"] = held_out[seed % len(held_out)]
    if args.protocol:
        options["--protocol"] = args.protocol
    tf32 = ["--tf32"] if args.tf32 else []  # it changes the result a little, so it belongs to what is learned
    train = [EXAMPLES / f"train_{kind}.py", *(word for pair in options.items() for word in pair), *tf32]

    device = ["--device", args.device]
    if args.gpu_memory:
        device += ["--gpu-memory", args.gpu_memory]
    if args.cuda_graph:
        device.append("--cuda-graph")
    sections = ["--sections", args.val_sections] if kind == "isbi" else []
    cache = ["--cache", args.out / "slices"] if kind == "brats" else []
    score = [EXAMPLES / "evaluate.py", "--images", folder, *sections, "--worst", 0, *device, *tf32]
    defaults = SCRIPTS[kind].DEFAULTS | (SCRIPTS[kind].PAPER if args.protocol else {})
    return Run(run_folder(args.out, kind, name, seed), train, score, [*cache, *device], defaults, SCORES[kind])


def as_figures(kind, found, limit):
    """Return the figures of one run that go into its table: those of the last epoch."""
    last, scores = found["history"][-1], found["scores"]
    figures = {"loss": last["val_loss"], "train_loss": last["train_loss"], "seconds_per_step": last["seconds_per_step"]}
    figures |= {name: scores["metrics"].get(name) for name in metrics_of(kind)}
    if kind == "isbi":
        return figures
    for stratum, small in (("small", True), ("large", False)):
        dice = [p["whole tumour"] for p in scores["patients"] if (p["tumour_mm3"] < limit) == small]
        figures[stratum] = spread(dice)["mean"]
    return figures


def median_tumour(rows):
    """Return the volume below which tumours are called small: the median of all patients that were scored."""
    patients = {p["name"]: p["tumour_mm3"] for r in rows.values() for f in r["found"] for p in f["scores"]["patients"]}
    return float(np.median(list(patients.values()))) if patients else None


# ----- options -----------------------------------------------------------------------
def parse_arguments():
    parser = make_parser(__doc__)
    add = parser.add_argument
    add(
        "--data", nargs="+", action="extend", default=["isbi", "brats"], metavar="DIR",
        help="folders as for train_isbi.py and train_brats.py; isbi, brats: synthetic data (default: both)",
    )  # fmt: skip
    add("--tables", nargs="+", action="extend", type=int, choices=[1, 2, 3], default=[1, 2, 3], help="default: 1 2 3")
    rows = list(NETWORKS)
    add("--networks", nargs="+", action="extend", choices=rows, default=rows, help="rows (default: all)")
    add("--seeds", type=Number(int, 1, 1000), help="runs of each network (default: 3)")
    add("--epochs", type=Number(int, 1, 10**6), help="default: those of the training scripts")
    add("--steps-per-epoch", type=Number(int, 1, 10**6), help="brain tumours (default: 1000)")
    add("--width", type=Number(int, 1, 4096), help="channels of the first level (default: 64)")
    add(
        "--lr",
        type=Number(float, 0, 10, above=True),
        help="learning rate of Adam, the same for all (default: 1e-3, or the paper's)",
    )
    add("--protocol", choices=["paper"], help="what the paper states, as for the training scripts")
    add("--val-sections", type=Number(int, 1, 10**6), default=4, help="sections held out, the last ones (default: 4)")
    add("--quick", action="store_true", help="minutes on two cores: narrow networks, few steps, one seed")
    add_device_options(parser)
    add("--jobs", type=Number(int, 1, 1024), default=1, help="runs at a time, which share the cores")
    add("--dask", metavar="ADDRESS", help="of a Dask scheduler, whose workers share the runs")
    add("--part", type=part_of, default=(1, 1), metavar="K/N", help="every N-th run from the K-th on, for job arrays")
    add("--out", type=a_path, default=pathlib.Path("runs/reproduction"), help="default: runs/reproduction")
    args = parser.parse_args()
    refuse_devices(parser, args)
    args.width = args.width or (QUICK["width"] if args.quick else 64)
    args.seeds = args.seeds or (QUICK["seeds"] if args.quick else 3)
    args.lr = args.lr or (None if args.protocol else 1e-3)
    return args
