"""The kinds of cases: what is damaged, which command reads it, and what its refusal has to name.

A kind is a function ``make(rng, base, place)`` that puts files into the folder `place` and returns a command without
arguments and names, one of which the sentence must have. `base` holds whole files, which `fuzz_base.make_base` made.
"""

import json
import shutil

from tests.campaigns import fuzz_changes as change
from tests.campaigns import fuzz_formats as formats
from tests.campaigns.fuzz_base import BRATS, brain_commands, command, copied, kind, library, predict, volumes
from tests.campaigns.fuzz_changes import pick


# ----- checkpoints ---------------------------------------------------------------------
def reader(rng, base, place, run, file):
    """Return a command that reads a damaged checkpoint: predict.py or evaluate.py."""
    images = base / "stack" if run == "isbi" else base / "brains"
    if rng.random() < 0.6:
        return predict(place, file, base / "a.png" if run == "isbi" else volumes(base)[0])
    more = ("--sections", "all") if run == "isbi" and rng.random() < 0.5 else ()
    return command("evaluate", "--checkpoint", file, "--images", images, "--out", place / "s.json", "--worst", 0, *more)


def checkpoint_kind(name, weight, damage):
    @kind(f"{name}, predict.py and evaluate.py", weight)
    def read(rng, base, place):
        run, file = pick(rng, ("isbi", "brats")), place / "net.safetensors"
        whole = base / run / pick(rng, ("best.safetensors", "checkpoint.safetensors"))
        file.write_bytes(damage(rng, whole.read_bytes()))
        return reader(rng, base, place, run, file), ["net.safetensors"]

    @kind(f"{name}, --resume", weight)
    def resume(rng, base, place):
        run = pick(rng, ("isbi", "isbi", "brats"))
        (folder,) = copied(base, place, run)
        file = folder / "checkpoint.safetensors"
        file.write_bytes(damage(rng, file.read_bytes()))
        more = ("--cache", base / "cache") if run == "brats" else ()
        names = (
            f"{folder}",
            "--val-cases",
            "--class-weights",
            "does not exist",
            "is not a folder",
            "validation sections",
        )  # whose data were given with the run
        return command(f"train_{run}", "--resume", folder, "--epochs", 2, *more), names


def _metadata(rng, content):
    return formats.change_metadata(rng, content, pick(rng, ("training", "config", "preprocessing", "model", "classes")))


def _header(rng, content):
    header, rest = formats.split_checkpoint(content)
    return formats.join_checkpoint(change.change_json(rng, header), rest)


checkpoint_kind("checkpoint: metadata", 12, _metadata)
checkpoint_kind("checkpoint: header", 3, _header)
checkpoint_kind("checkpoint: arrays", 4, formats.change_arrays)
checkpoint_kind("checkpoint: bytes", 3, lambda rng, content: change.change_bytes(rng, content, 4096))


@kind("run folder: other files, --resume", 3)
def run_folder(rng, base, place):
    (folder,) = copied(base, place, "isbi")
    name = pick(rng, ("best.safetensors", "log.csv", "config.json", "summary.json"))
    damage = pick(rng, (_metadata, formats.change_arrays)) if name == "best.safetensors" else change.change_bytes
    (folder / name).write_bytes(damage(rng, (folder / name).read_bytes()))
    return command("train_isbi", "--resume", folder, "--epochs", 2), [f"{folder}"]


# ----- JSON ------------------------------------------------------------------------------
def damaged_json(rng, path):
    path.write_text(change.change_json(rng, json.loads(path.read_text())), encoding="utf-8", errors="surrogatepass")


@kind("dataset.json", 8)
def dataset_json(rng, base, place):
    (folder,) = copied(base, place, "brains")
    damaged_json(rng, folder / "dataset.json")
    return pick(rng, brain_commands(base, place, folder)), [
        "dataset.json",
        "imagesTr",
        "labelsTr",
        str(folder),
        "patients",
        "modalities",
    ]


@kind("predictions.json", 4)
def predictions_json(rng, base, place):
    if rng.random() < 0.5:
        (folder,) = copied(base, place, "masks")
        run = command("evaluate", "--predictions", folder, "--labels", base / "brains", "--out", place / "s.json")
    else:
        (folder,) = copied(base, place, "predicted")
        more = pick(rng, ((), ("--force",), ("--suffix", "_b"), ("--probabilities",)))
        image = pick(rng, (base / "a.png", folder, folder / "a_mask.png"))
        out = "--out", pick(rng, (folder, place / "out"))
        run = command("predict", "--checkpoint", base / "isbi/best.safetensors", image, *out, *more)
    damaged_json(rng, folder / "predictions.json")
    return run, [str(folder), "predictions.json"]


@kind("scores of evaluate.py, --out", 2)
def scores_json(rng, base, place):
    (file,) = copied(base, place, "scores.json")
    file.write_bytes(change.change_bytes(rng, file.read_bytes(), 64))
    given = "--predictions", base / "masks", "--labels", base / "brains", "--out", file, "--worst", 0
    return command("evaluate", *given), ["scores.json"]


@kind("prepared slices", 8)
def prepared(rng, base, place):
    copied(base, place, "cache")
    files = sorted((place / "cache").iterdir())
    for file in rng.permutation(files)[: rng.integers(1, 3)]:
        if file.suffix == ".json" and rng.random() < 0.8:
            damaged_json(rng, file)
        elif file.suffix == ".npy":
            file.write_bytes(formats.change_npy(rng, file.read_bytes()))
        elif rng.random() < 0.5:
            file.write_bytes(change.change_bytes(rng, file.read_bytes()))
        else:
            file.write_bytes(pick(rng, files).read_bytes())
    given = "--data", base / "brains", "--epochs", 1, "--cache", place / "cache", "--shares", "1:1:1"
    return command("train_brats", *BRATS, *given, "--out", place / "run"), ["cache"]


STUDY = {
    "costs": {"networks": {}, "device": "cpu", "measured": "x"},
    "isbi": {
        "rows": {"sdunet": {"title": "SD-UNet", "model": "sdunet", "failed": [{"seed": 1, "why": "x"}], "figures": {
            "accuracy": {"mean": 0.9, "std": 0.1, "values": [0.9, None]},
            "dice": {"mean": None, "std": None, "values": []},
        }}}, "command": "python x", "seeds": 2,
    },
}  # fmt: skip


@kind("files of a study, reproduction", 4)
def reproduction(rng, base, place):
    from reproduction import paper, results, tables

    file = place / pick(rng, ("results.json", "scores.json", "log.csv"))
    if file.name == "results.json":
        study = json.loads(json.dumps(STUDY))
        cost = {"parameters": 10, "multiply_adds": 20, "milliseconds": 1.5}
        study["costs"]["networks"] = {name: dict(cost) for name in paper.ROWS}
        file.write_text(change.change_json(rng, study))
        return library(lambda: tables.all_tables(results.read(file, results.Results, "results"))), ["results.json"]
    if file.name == "scores.json":
        shutil.copy(base / "scores.json", file)
        damaged_json(rng, file)
        return library(lambda: results.read(file, results.Scores, "scores")), ["scores.json"]
    file.write_bytes(change.change_bytes(rng, (base / "isbi" / "log.csv").read_bytes()))
    return library(lambda: results.read_log(file)), ["log.csv"]
