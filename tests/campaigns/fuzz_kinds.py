"""The kinds of cases: what is damaged, which command reads it, and what its refusal has to name.

A kind is a function ``make(rng, base, place)`` that puts files into the folder `place` and returns a command without
arguments and names, one of which the sentence must have. `base` holds whole files, which `make_base` made.
"""

import gzip
import json
import pathlib
import shutil
import sys

import nibabel as nib
import numpy as np
import tifffile
from PIL import Image

from tests.campaigns import fuzz_changes as change
from tests.campaigns.fuzz_changes import pick

ISBI = ("--size", 32, "--width", 4, "--workers", 0, "--device", "cpu")
BRATS = ("--size", 16, "--width", 4, "--workers", 0, "--device", "cpu", "--batch-size", 1, "--steps-per-epoch", 1)
KINDS, WEIGHTS = {}, {}


def kind(name, weight=1.0):
    """Enter a function into `KINDS` under a name; `weight` says how many cases it gets beside the others."""

    def enter(make):
        KINDS[name], WEIGHTS[name] = make, weight
        return make

    return enter


def command(name, *arguments):
    """Return a function that runs ``tinyseg.commands.<name>`` with arguments in this process."""

    def run():
        import importlib

        sys.argv = [f"{name}.py", *map(str, arguments)]
        importlib.import_module(f"tinyseg.commands.{name}").main()

    return run


def library(call):
    """Return a function that runs a call of the library as a command is run."""

    def run():
        from tinyseg.commands.script import run_script

        run_script(call, out_of_memory="")

    return run


# ----- whole files -------------------------------------------------------------------
def make_base(base):
    """Make the whole files, in a folder that does not exist yet; return it."""
    from tests.campaigns.fuzz_worker import run
    from tinyseg.data import em_sections
    from tinyseg.data.synthetic_brain import write_brains

    def ran(*arguments):
        status, text, _ = run(command(*arguments))
        if status:
            raise RuntimeError(f"{arguments} ended with {status}: {text}")

    (base / "stack").mkdir(parents=True)
    images, labels = em_sections(num_sections=3, size=48)
    masks = np.where(labels, np.uint8(255), np.uint8(0))
    tifffile.imwrite(base / "stack" / "train-volume.tif", images, photometric="minisblack")
    tifffile.imwrite(base / "stack" / "train-labels.tif", masks, photometric="minisblack")
    tifffile.imwrite(base / "lzw.tif", images, photometric="minisblack", compression="zlib", rowsperstrip=7)
    tifffile.imwrite(base / "tiled.tif", images[0].astype(np.uint16), photometric="minisblack", tile=(16, 16))
    tifffile.imwrite(base / "imagej.tif", images, imagej=True)
    tifffile.imwrite(base / "float.tif", images.astype(np.float32) / 255, photometric="minisblack")
    Image.fromarray(images[0]).save(base / "a.png")
    Image.fromarray(images[0].astype(np.uint16) * 257).save(base / "deep.png")
    Image.fromarray(images[0]).convert("P").save(base / "palette.png")
    Image.fromarray(images[0]).save(base / "a.jpg")
    Image.fromarray(images[0]).save(base / "a.bmp")
    brains = write_brains(base / "brains", num_cases=3, shape=(24, 20, 16))
    for path in volumes(base):  # four slices will do
        volume = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(volume.dataobj)[:, :, 6:10], volume.affine), path)
    ran("train_isbi", *ISBI, "--data", base / "stack", "--val-sections", 1, "--epochs", 1, "--out", base / "isbi")
    shares = "--shares", "1:1:1", "--cache", base / "cache"
    ran("train_brats", *BRATS, *shares, "--data", brains, "--epochs", 1, "--out", base / "brats")
    ran("predict", "--checkpoint", base / "isbi/best.safetensors", base / "a.png", "--out", base / "predicted")
    ran("predict", "--checkpoint", base / "brats/best.safetensors", brains / "imagesTr", "--out", base / "masks")
    scored = "--predictions", base / "masks", "--labels", brains, "--out", base / "scores.json"
    ran("evaluate", *scored, "--worst", 0)
    return base


def volumes(base):
    """Return the NIfTI files of the brains."""
    return sorted(base.glob("brains/*/*.nii.gz"))


def copied(base, place, *names):
    """Copy files and folders of the base into the folder of the case; return their paths there."""
    for name in names:
        source, target = base / name, place / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, target)
    return [place / name for name in names]


def predict(place, checkpoint, *images, more=()):
    return command("predict", "--checkpoint", checkpoint, *images, "--out", place / "out", *more)


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
        file.write_bytes(damage(rng, (base / run / pick(rng, ("best", "checkpoint"))).with_suffix(".safetensors").read_bytes()))  # fmt: skip
        return reader(rng, base, place, run, file), ["net.safetensors"]

    @kind(f"{name}, --resume", weight)
    def resume(rng, base, place):
        run = pick(rng, ("isbi", "isbi", "brats"))
        (folder,) = copied(base, place, run)
        file = folder / "checkpoint.safetensors"
        file.write_bytes(damage(rng, file.read_bytes()))
        more = ("--cache", base / "cache") if run == "brats" else ()
        names = f"{folder}", "--val-cases", "does not exist", "is not a folder"  # whose data were given with the run
        return command(f"train_{run}", "--resume", folder, "--epochs", 2, *more), names


def _metadata(rng, content):
    return change.change_metadata(rng, content, pick(rng, ("training", "config", "preprocessing", "model", "classes")))


def _header(rng, content):
    header, rest = change.split_checkpoint(content)
    return change.join_checkpoint(change.change_json(rng, header), rest)


checkpoint_kind("checkpoint: metadata", 12, _metadata)
checkpoint_kind("checkpoint: header", 3, _header)
checkpoint_kind("checkpoint: arrays", 4, change.change_arrays)
checkpoint_kind("checkpoint: bytes", 3, lambda rng, content: change.change_bytes(rng, content, 4096))


@kind("run folder: other files, --resume", 3)
def run_folder(rng, base, place):
    (folder,) = copied(base, place, "isbi")
    name = pick(rng, ("best.safetensors", "log.csv", "config.json", "summary.json"))
    damage = pick(rng, (_metadata, change.change_arrays)) if name == "best.safetensors" else change.change_bytes
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


def brain_commands(base, place, folder):
    """Return commands that read a folder of brains."""
    best = base / "brats/best.safetensors"
    given = "--data", folder, "--epochs", 1, "--cache", place / "cache", "--out", place / "run", "--shares", "1:1:1"
    out = "--out", place / "s.json", "--worst", 0
    return (
        command("train_brats", *BRATS, *given), predict(place, best, folder),
        command("evaluate", "--checkpoint", best, "--images", folder, "--cases", "all", *out),
        command("evaluate", "--predictions", base / "masks", "--labels", folder, *out),
    )  # fmt: skip


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
    for _ in range(rng.integers(1, 3)):
        files = sorted((place / "cache").iterdir())
        file = pick(rng, files)
        if file.suffix == ".json" and rng.random() < 0.8:
            damaged_json(rng, file)
        elif file.suffix == ".npy":
            file.write_bytes(change.change_npy(rng, file.read_bytes()))
        elif rng.random() < 0.5:
            file.write_bytes(change.change_bytes(rng, file.read_bytes()))
        else:
            shutil.copy(pick(rng, files), file)
    given = "--data", base / "brains", "--epochs", 1, "--cache", place / "cache", "--shares", "1:1:1"
    return command("train_brats", *BRATS, *given, "--out", place / "run"), ["cache"]


STUDY = {
    "costs": {"networks": {}, "device": "cpu", "measured": "x"},
    "isbi": {
        "rows": {"sdunet": {"title": "SD-UNet", "model": "sdunet", "failed": [{"seed": 1, "why": "x"}], "figures": {
            "accuracy": {"mean": 0.9, "std": 0.1, "values": [0.9, None]}, "dice": {"mean": None, "std": None, "values": []},
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


# ----- images and volumes --------------------------------------------------------------------
def volume_kind(name, weight, damage):
    @kind(name, weight)
    def volume(rng, base, place):
        (folder,) = copied(base, place, "brains")
        file = pick(rng, volumes(place))
        content = damage(rng, file.read_bytes())
        if rng.random() < 0.3 and damage is change.change_nifti:
            other = place / "one.nii"
            other.write_bytes(gzip.decompress(content))
            return predict(place, base / "brats/best.safetensors", other), ["one.nii"]
        file.write_bytes(content)
        return pick(rng, brain_commands(base, place, folder)), [file.name, str(file.parent)]


def _gzip_stream(rng, content):
    if rng.random() < 0.3:
        return content + pick(rng, (b"x", content, b"\0" * 1000, gzip.compress(b"x")))
    return change.change_bytes(rng, content, 32)


volume_kind("NIfTI: header", 8, change.change_nifti)
volume_kind("NIfTI: gzip stream", 3, _gzip_stream)


def section_kind(name, weight, files, damage):
    @kind(name, weight)
    def section(rng, base, place):
        source = base / pick(rng, files)
        content = damage(rng, source.read_bytes())
        if source.suffix == ".tif" and rng.random() < 0.3:
            (folder,) = copied(base, place, "stack")
            file = folder / pick(rng, ("train-volume.tif", "train-labels.tif"))
            file.write_bytes(content)
            if rng.random() < 0.5:
                given = "--data", folder, "--val-sections", 1, "--epochs", 1, "--out", place / "run"
                return command("train_isbi", *ISBI, *given), [file.name, str(folder)]
            best, given = base / "isbi/best.safetensors", ("--images", folder, "--sections", "all", "--worst", 0)
            return command("evaluate", "--checkpoint", best, *given), [file.name, str(folder)]
        file = place / f"image{source.suffix}"
        file.write_bytes(content)
        return predict(place, base / "isbi/best.safetensors", file), [file.name]


TIFFS = ("stack/train-volume.tif", "stack/train-labels.tif", "lzw.tif", "tiled.tif", "imagej.tif", "float.tif")
section_kind("TIFF: tags", 8, TIFFS, change.change_tiff)
section_kind("TIFF: bytes", 3, TIFFS, change.change_bytes)
section_kind("PNG: chunks", 5, ("a.png", "deep.png", "palette.png"), change.change_png)
section_kind("PNG, JPEG and BMP: bytes", 5, ("a.png", "a.jpg", "a.bmp", "deep.png"), change.change_bytes)


# ----- archives -----------------------------------------------------------------------------
@kind("archive: ZIP", 4)
def archive_zip(rng, base, place):
    from tinyseg.data import download

    names = ("train-volume.tif", "train-labels.tif")
    content = change.change_zip(rng, {f"isbi/{name}": (base / "stack" / name).read_bytes() for name in names})

    def fetch():
        download._download = lambda url, path, *_: pathlib.Path(path).write_bytes(content)
        download.fetch_isbi(place / "isbi_cache", "http://localhost/x.zip", False, dict.fromkeys(names))

    return library(fetch), ["x.zip"]


@kind("archive: TAR", 4)
def archive_tar(rng, base, place):
    import hashlib

    from tinyseg.data import download_brats

    files = [base / "brains/dataset.json", *volumes(base)]
    content = change.change_tar(rng, {str(file.relative_to(base / "brains")): file.read_bytes() for file in files})
    folder = place / "brains_cache"  # what was unpacked before the damage stays there: the next call goes on
    folder.mkdir()
    (folder / download_brats.ARCHIVE).write_bytes(content)
    md5 = hashlib.md5(content).hexdigest()
    given = {"md5": md5, "size": len(content), "progress": False}
    return library(lambda: download_brats.fetch_brain_tumours(folder, **given)), [str(folder)]


# ----- options ------------------------------------------------------------------------------
ODD = (
    "0", "-1", "1", "2", "1e308", "-1e308", "1e-308", "nan", "inf", "-inf", "99999999999999999999", "9" * 5000, "", " ",
    "x", "é\u202e", "\ud800", "0x10", "1,5", "1:2", "2:1", "0:0:0", "1:1", "1" * 400, "all", "--", "-", "./", "1e5",
    "4096", "65536", "1_000", "+1", "٣", "1.0", "[1]", "\n", "a,b", ",", ":", "=", "none", "rotation=1e308", "zoom=0",
    "elastic=1e9", "shift=nan", "hflip,hflip", "4294967295",
)  # fmt: skip


@kind("options", 9)
def options(rng, base, place):
    best, out = base / "isbi/best.safetensors", ("--out", place / "out")
    given, names = pick(
        rng,
        (
            (
                ("train_isbi", *ISBI, "--data", base / "stack", "--val-sections", 1, "--epochs", 1, *out),
                "--augment --model --width --head --ws --dropout --protocol --epochs --batch-size --lr --schedule --warmup "
                "--clip --seed --gpu-memory --workers --foreground --size --val-sections --standardize --out --resume --data",
            ),
            (
                ("train_brats", *BRATS, "--data", base / "brains", "--cache", base / "cache", "--epochs", 1, *out),
                "--shares --val-cases --size --how --standardize --mode --dice-weight --ce-weight --class-weights "
                "--empty-share --steps-per-epoch --width --batch-size --epochs --seed --lr --clip --warmup",
            ),
            (
                ("predict", "--checkpoint", best, base / "a.png", *out),
                "--scale --threshold --transforms --memory --suffix --gpu-memory --checkpoint --out",
            ),
            (
                ("evaluate", "--checkpoint", best, "--images", base / "stack", "--sections", "all", "--worst", 0),
                "--threshold --memory --sections --small --foreground --empty --degenerate --worst --cases --out --images",
            ),
        ),
    )  # fmt: skip
    more = [f"{pick(rng, names.split())}={pick(rng, ODD)}" for _ in range(rng.integers(1, 3))]
    if any(option.startswith(("--epochs=", "--steps-per-epoch=")) for option in more):  # a long training is no fault
        more = [option for option in more if option.split("=")[1] not in ("65536", "4096", "1e5", "1" * 400)]
    return command(*given, *more), [option.split("=")[0] for option in more] + [
        str(place),
        *(o.split("=")[1] for o in more),
    ]
