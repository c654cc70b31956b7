"""Whole files that the campaign damages, and commands that read them, run in this process."""

import importlib
import shutil
import sys

import nibabel as nib
import numpy as np
import tifffile
from PIL import Image

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
