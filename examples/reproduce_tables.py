"""The tables and figures of Gadosey et al. (2020) again, the paper's numbers beside ours.

    python examples/reproduce_tables.py --quick                               # minutes, on synthetic data
    python examples/reproduce_tables.py --data ISBI_DIR BRATS_DIR             # everything at full width: a day on a CPU
    python examples/reproduce_tables.py --data ISBI_DIR --width 32 --epochs 30 --seeds 3

Table 1, what six networks cost, needs no data. Tables 2 and 3 train the six, and SD-UNet in the other reading of
weight standardization, under one protocol with several seeds. Run again after an interruption it goes on where it was;
what another call has put into --out stays beside it. Leaves results.json, tables.md, figures, and every run's folder.

Reads top to bottom: costs, training, tables and figures, options.
"""

import argparse
import json
import pathlib
import sys

import numpy as np
import tifffile
from tqdm import tqdm

import tinyseg as ts
from reproduction import figures, paper, tables
from reproduction.study import Network, Run, RunFailed, spread
from tinyseg.commands.options import add_device_options, choose_device, run_script
from tinyseg.data import em_sections, isbi
from tinyseg.data.brats import REGIONS, find_cases, read_case
from tinyseg.data.files import write_atomically, write_json
from tinyseg.data.synthetic_brain import write_brains
from tinyseg.prediction.predictor import Predictor
from tinyseg.prediction.predictor import labels as labels_of
from tinyseg.report.profile import picture as plots_profile

HERE = pathlib.Path(__file__).resolve().parent
NETWORKS = {name: Network(title, name) for name, title in paper.ROWS.items()} | {
    "sdunet_bn_filter": Network("SD-UNet (depthwise+BN+WS), WS per filter", "sdunet_bn", "filter"),
    "sdunet_filter": Network("SD-UNet, WS per filter", "sdunet", "filter"),
}
FEW_CASES = 20  # with fewer, one is held out for each seed; with more, the paper's shares
QUICK = {"width": 8, "seeds": 1, "isbi": {"--size": 128, "--epochs": 8}, "brats": {"--size": 96, "--epochs": 2}}


def main():
    args = parse_arguments()
    args.device = choose_device(args)
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "results.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    def keep(**parts):
        results.update(parts)
        write_json(file, results)

    if 1 in args.tables:
        keep(costs=measure_costs(args))
    for what in args.data if args.tables != [1] else ():
        kind, folder = find_data(what, args)
        if {"isbi": 2, "brats": 3}[kind] in args.tables:
            study, histories = train_all(kind, folder, args)
            keep(**{kind: study})
            draw(kind, folder, histories, args)
    if "costs" in results:
        draw_costs(results, args.out / "costs.png")
    parts = tables.all_tables(results)
    text = "\n".join(f"## {name.capitalize()}\n\n{part}" for name, part in parts.items())
    write_atomically(args.out / "tables.md", text)
    if args.document:
        tables.insert(args.document, parts)
    print(text)
    print(f"Tables, figures and runs are in {args.out}")


# ----- costs -----------------------------------------------------------------------
def measure_costs(args):
    """Parameters and multiply-adds of the paper's six networks, and their time beside PyTorch's in the same run."""
    found = {}
    for name in paper.ROWS:
        model = ts.models.build(name, head="paper")
        totals = ts.profile.summary(model, (1, 1, 256, 256), show=False)
        found[name] = {"parameters": totals.parameters, "multiply_adds": totals.multiply_adds}
    device = args.device
    about = {"device": ts.backend.device_name(device), "versions": ts.backend.versions()}
    try:
        import torch

        if device != "cpu":
            raise ImportError("PyTorch is timed beside tinyseg on the CPU only: for the GPU see benchmarks/gpu.py")
        about["versions"]["torch"] = torch.__version__
        sys.path.insert(0, str(HERE.parent))
        from benchmarks import models as beside
    except ImportError as error:
        print(f"times of tinyseg alone ({error})")
        for name in tqdm(paper.ROWS, desc="timing", unit="network"):
            model = ts.models.build(name).to(device)
            found[name]["milliseconds"] = 1e3 * ts.profile.latency(model, (1, 1, 256, 256)).median
        return {"networks": found} | about
    cases = [beside.Case(name, (1, 1, 256, 256), 1, "inference") for name in paper.ROWS]
    options = {"rounds": 3, "budget": 10} if args.quick else {"rounds": 9, "budget": 60}
    for name, record in zip(paper.ROWS, beside.run(cases, beside.the_variants(), **options), strict=True):
        ours = record["times"][beside.OURS.name]["time"]["median"]
        best = beside.tables.ratios(record["times"], beside.OURS.name, beside.PYTORCH, "time")
        theirs = record["times"][best["best"]]["time"]["median"]
        found[name] |= {"milliseconds": 1e3 * ours, "pytorch_milliseconds": 1e3 * theirs, "ratio": best["rounds"]}
    return {"networks": found} | about


# ----- training --------------------------------------------------------------------
def find_data(what, args):
    """Which of the two data sets a folder holds; a synthetic stand-in for "isbi" and "brats"."""
    if what not in ("isbi", "brats"):
        folder = pathlib.Path(what)
        is_stack = any((folder / name).exists() for name in ("train-volume.tif", "images"))
        return ("isbi" if is_stack else "brats"), folder
    folder = args.out / "synthetic" / what
    print(f"{what}: SYNTHETIC data, a stand-in for the real ones: give their folder to --data.")
    if what == "brats":
        write_brains(folder, num_cases=3, shape=(96, 96, 24))
    elif not (folder / "train-labels.tif").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        images, labels = em_sections(num_sections=12, size=128)
        tifffile.imwrite(folder / "train-volume.tif", images)
        tifffile.imwrite(folder / "train-labels.tif", np.where(labels, np.uint8(255), np.uint8(0)))
    return what, folder


def train_all(kind, folder, args):
    """Train and score every network with every seed: mean and spread of what is found, and the logs."""
    chosen = {name: NETWORKS[name] for name in args.networks}
    cases = [case.name for case in find_cases(folder)] if kind == "brats" else []
    held_out = cases if len(cases) < FEW_CASES else []
    pairs = [(name, seed) for seed in range(args.seeds) for name in chosen]
    runs = {(name, seed): make_run(kind, folder, name, seed, held_out, args) for name, seed in pairs}
    rows = {n: {"title": c.title, "model": c.model, "found": [], "failed": []} for n, c in chosen.items()}
    bar = tqdm(runs.items(), desc=kind, unit="run")
    for (name, seed), run in bar:
        bar.set_postfix_str(f"{name}, seed {seed}")
        try:
            rows[name]["found"].append({"seed": seed} | run.carry_out())
        except RunFailed as error:
            rows[name]["failed"].append({"seed": seed, "reason": str(error)})
            tqdm.write(f"{name}, seed {seed}: {error}")
    limit = median_tumour(rows) if kind == "brats" else None
    for row in rows.values():
        each = [as_figures(kind, found, limit) for found in row["found"]]
        row["figures"] = {key: spread([figures[key] for figures in each]) for key in (each[0] if each else ())}
    command = next(iter(runs.values())).command.replace(str(folder.resolve()), "DIR")
    histories = {row["title"]: [found["history"] for found in row.pop("found")] for row in rows.values()}
    return {"rows": rows, "command": command, "seeds": args.seeds, "small_below_mm3": limit}, histories


def run_folder(kind, name, seed, args):
    return args.out / "runs" / f"{kind}-{name}-{seed}"


def make_run(kind, folder, name, seed, held_out, args):
    """The commands that train and score one network with one seed; of `held_out` cases, each seed takes the next."""
    options = {"--data": folder.resolve(), "--model": NETWORKS[name].model, "--ws": NETWORKS[name].ws}
    options |= {"--width": args.width, "--seed": seed} | ({"--lr": args.lr} if args.lr else {})
    if args.quick:
        options |= QUICK[kind]
    if args.epochs:
        options["--epochs"] = args.epochs
    script, rest, score = "train_isbi.py", [], ["--images", folder, "--sections", args.val_sections]
    if kind == "isbi":
        options["--val-sections"] = args.val_sections
    else:
        script, rest, score = "train_brats.py", ["--cache", args.out / "slices"], ["--images", folder]
        options["--steps-per-epoch"] = 30 if args.quick else args.steps_per_epoch
        if held_out:
            options["--val-cases"] = held_out[seed % len(held_out)]
    flags = [str(word) for pair in options.items() for word in pair]
    flags += ["--protocol", args.protocol] if args.protocol else []
    tf32 = ["--tf32"] if args.tf32 else []  # changes the result a little, so that such runs are others
    where = ["--device", args.device] + (["--gpu-memory", str(args.gpu_memory)] if args.gpu_memory else [])
    where += ["--cuda-graph"] if args.cuda_graph else []
    flags, rest = flags + tf32, [*map(str, rest), *where]
    score = [HERE / "evaluate.py", *score, "--worst", 0, *where, *tf32]
    return Run(run_folder(kind, name, seed, args), [HERE / script, *flags], score, rest)


def as_figures(kind, found, limit):
    """The figures of one run that go into its table: of the last epoch."""
    last, scores = found["history"][-1], found["scores"]
    figures = {"loss": last["val_loss"], "train_loss": last["train_loss"], "seconds_per_step": last["seconds_per_step"]}
    if kind == "isbi":
        names = ("accuracy", "dice", "iou", "mean_iou", "membrane_iou", "v_rand", "v_info")
        return figures | {name: scores["metrics"][name] for name in names}
    figures |= {name: scores["metrics"][name] for name in ("accuracy", "dice", *REGIONS)}
    for stratum, small in (("small", True), ("large", False)):
        dice = [p["whole tumour"] for p in scores["patients"] if (p["tumour_mm3"] < limit) == small]
        figures[stratum] = float(np.mean(dice)) if dice else None
    return figures


def median_tumour(rows):
    """The volume below which tumours are called small: the median of all patients that were scored."""
    patients = {p["name"]: p["tumour_mm3"] for r in rows.values() for f in r["found"] for p in f["scores"]["patients"]}
    return float(np.median(list(patients.values()))) if patients else None


# ----- tables and figures ------------------------------------------------------------
def draw_costs(results, path):
    """Parameters, multiply-adds, time and, where it is known, Dice on ISBI, beside the paper's."""
    scores = results.get("isbi", {"rows": {}})["rows"]
    networks = {}
    for name, title in paper.ROWS.items():
        costs, theirs = results["costs"]["networks"][name], paper.TABLE_1[name]
        dice = scores.get(name, {"figures": {}})["figures"].get("dice", {"values": []})["values"]
        networks[title] = {
            "parameters": costs["parameters"], "multiply_adds": costs["multiply_adds"],
            "latency": {"median": 1e-3 * costs["milliseconds"]}, "dice": dice,
            "paper": {"parameters": 1e6 * theirs["parameters"], "latency": 1e-3 * theirs["milliseconds"]},
        }  # fmt: skip
    plots_profile.comparison(networks, path, f"256 x 256 x 1; {results['costs']['device']}; the paper's: Tesla K40c")


def draw(kind, folder, histories, args):
    """Training curves of all networks; U-Net and SD-UNet side by side, on typical and on SD-UNet's worst images."""
    histories = {title: of_seeds for title, of_seeds in histories.items() if of_seeds}
    if histories:
        figures.curves(histories, args.out / f"{kind}_curves.png")
    if kind == "isbi":
        draw_sections(folder, args)
    else:
        draw_tumours(folder, args)


def scores_of(kind, seed, args):
    """What U-Net and SD-UNet scored with one seed, by their titles; empty if one of them has not been trained."""
    files = {name: run_folder(kind, name, seed, args) / "scores.json" for name in ("unet", "sdunet")}
    if not all(file.is_file() for file in files.values()):
        return {}
    return {paper.ROWS[name]: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items()}


def predictors(kind, seed, args):
    """Both networks, ready to predict."""
    files = {name: run_folder(kind, name, seed, args) / "checkpoint.safetensors" for name in ("unet", "sdunet")}
    return {paper.ROWS[name]: Predictor.load(file) for name, file in files.items()}


def draw_sections(folder, args):
    """The two sections where SD-UNet does best, and the two where it does worst, by V^Rand; seed 0."""
    scores = scores_of("isbi", 0, args)
    if not scores:
        return
    everything = isbi.load(folder, labels="required")
    held_out = everything.split(str(args.val_sections))[1]
    each = {name: [s["v_rand"] for s in found["sections"]] for name, found in scores.items()}
    order = np.argsort(each[paper.ROWS["sdunet"]], kind="stable")
    networks = predictors("isbi", 0, args)
    for network in networks.values():
        network.take_statistics(everything.images[:, None])
    for name, chosen in (("best", order[::-1][:2]), ("worst", order[:2])):
        found = {title: [network(held_out.images[k])[0] for k in chosen] for title, network in networks.items()}
        captions = {"": [held_out.names[k] for k in chosen]}
        captions |= {title: [f"V^Rand {values[k]:.3f}" for k in chosen] for title, values in each.items()}
        path = args.out / f"isbi_{name}.png"
        figures.sections_side_by_side(held_out.images[chosen], held_out.labels[chosen], found, captions, path)


def draw_tumours(folder, args):
    """Three slices through the smallest tumour that was held out, and through SD-UNet's worst."""
    title = paper.ROWS["sdunet"]
    of_seeds = {seed: scores_of("brats", seed, args) for seed in range(args.seeds)}
    patients = [(patient, k) for k, scores in of_seeds.items() if scores for patient in scores[title]["patients"]]
    if not patients:
        return
    cases = find_cases(folder)
    for name, key in (("small", "tumour_mm3"), ("worst", "whole tumour")):
        patient, seed = min(patients, key=lambda found, key=key: found[0][key])
        volume, label = read_case(next(case for case in cases if case.name == patient["name"]))
        planes, truth = np.moveaxis(volume, 3, 0), np.moveaxis(label, 2, 0)  # (Z, M, X, Y), (Z, X, Y)
        with_tumour = np.flatnonzero(truth.any(axis=(1, 2)))
        shown = with_tumour[[len(with_tumour) * quarter // 4 for quarter in (1, 2, 3)]]
        predicted, captions = {}, {"": [f"{patient['name']}\nslice {z}" for z in shown]}
        for network, predictor in predictors("brats", seed, args).items():
            predictor.take_statistics(planes)
            predicted[network] = [labels_of(predictor(planes[z])) for z in shown]
            dice = {p["name"]: p["whole tumour"] for p in of_seeds[seed][network]["patients"]}[patient["name"]]
            captions[network] = [f"Dice of the whole tumour {dice:.3f}"] * len(shown)
        path = args.out / f"brats_{name}.png"
        figures.tumours_side_by_side(planes[shown, 0], truth[shown], predicted, captions, path, cases.classes)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--data", nargs="+", default=["isbi", "brats"], metavar="DIR",
        help="folders as for train_isbi.py and train_brats.py; isbi, brats: synthetic data (default: both)",
    )  # fmt: skip
    add("--tables", nargs="+", type=int, choices=[1, 2, 3], default=[1, 2, 3], help="default: 1 2 3")
    add("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), help="rows (default: all)")
    add("--seeds", type=int, help="runs of each network (default: 3)")
    add("--epochs", type=int, help="default: those of the training scripts")
    add("--steps-per-epoch", type=int, default=1000, help="brain tumours (default: 1000)")
    add("--width", type=int, help="channels of the first level (default: 64)")
    add("--lr", type=float, help="learning rate of Adam, the same for all (default: 1e-3, or the paper's)")
    add("--protocol", choices=["paper"], help="what the paper states, as for the training scripts")
    add("--val-sections", type=int, default=4, help="sections held out, the last ones (default: 4)")
    add("--quick", action="store_true", help="minutes on two cores: narrow networks, few steps, one seed")
    add_device_options(parser)
    add("--document", type=pathlib.Path, help="page whose places for the tables to fill")
    add("--out", type=pathlib.Path, default=pathlib.Path("runs/reproduction"), help="default: runs/reproduction")
    args = parser.parse_args()
    args.width = args.width or (QUICK["width"] if args.quick else 64)
    args.seeds = args.seeds or (QUICK["seeds"] if args.quick else 3)
    args.lr = args.lr or (None if args.protocol else 1e-3)
    return args


if __name__ == "__main__":
    run_script(main, out_of_memory="try a smaller --width")
