"""Export a trained network: as one HTML file, as C, as ONNX, as a package for bioimage.io.

    tinyseg export runs/isbi/best.safetensors --out exported                        # html, c and onnx
    tinyseg export runs/isbi/best.safetensors --out exported --format html          # a page that runs anywhere
    tinyseg export runs/isbi/best.safetensors --out exported --format onnx --int8 images
    tinyseg export runs/isbi/best.safetensors --out exported --format bioimageio --license CC-BY-4.0 --author "A. Name"

    html         segment.html: network and program in one file; open it in a browser, also on a phone
    c            c/: network.c, main.c and weights.bin; cc -O3 network.c main.c -lm
    onnx         model.onnx, for ONNX Runtime, OpenVINO and others; with --int8 also model_int8.onnx
    bioimageio   model.bioimageio.zip, for ilastik, deepImageJ and others

What it has written it runs beside tinyseg, on sections that the training held out or on --check IMAGE, and prints how far
the probabilities are apart and how many pixels of the mask differ. If they differ by more than the format should, nothing
is left behind.

Reads top to bottom: the command, each format, options.
"""

import argparse
import os
import pathlib
import shutil
import sys
import tempfile
import warnings

import numpy as np

import tinyseg as ts
from tinyseg.commands.numbers import Number, make_parser, refuse_given
from tinyseg.commands.options import a_path
from tinyseg.commands.script import run_script
from tinyseg.commands.tables import table
from tinyseg.data.files import list_names
from tinyseg.data.locks import locked
from tinyseg.data.writing import check_writable
from tinyseg.export.check_images import find_check_images
from tinyseg.export.checking import NotRunError, compare, refuse_beyond
from tinyseg.prediction.predictor import Predictor

FORMATS = ("html", "c", "onnx", "bioimageio")
FILES = {
    "html": "segment.html", "c": "c", "onnx": "model.onnx", "int8": "model_int8.onnx",
    "bioimageio": "model.bioimageio.zip",
}  # fmt: skip


def main():
    run_script(export, out_of_memory="give a smaller image with --check")


def export():
    args = parse_arguments()
    predictor = Predictor.load(args.checkpoint)
    sections, what = find_check_images(predictor, args.check)
    check_writable(args.out)
    args.out.mkdir(parents=True, exist_ok=True)
    with locked(args.out, "tinyseg export"):
        names = [*args.format, *(["int8"] if args.int8 else [])]
        refuse_replacing(args, names)
        with tempfile.TemporaryDirectory(dir=args.out, prefix=".export-") as temporary:
            place = pathlib.Path(temporary)
            rows = [write_and_check(name, args, predictor, sections, place) for name in names]
            for name in names:
                move(place / FILES[name], args.out / FILES[name])
    print(f"Run beside tinyseg on {what}:")
    print(table(["MB", "largest difference of a probability", "pixels that flip"], rows))


def write_and_check(name, args, predictor, sections, place):
    """Write one format into the folder `place`, run it, and return its row of the table."""
    path = place / FILES[name]
    expected, run = WRITERS[name](args, predictor, sections, path)
    files = [path] if path.is_file() else sorted(path.iterdir())
    size = f"{sum(file.stat().st_size for file in files) / 1e6:.2f}"
    try:
        found = compare(expected, run())
    except NotRunError as error:
        print(f"{name}: not run here: {error}")
        return name, [size, "not run", ""]
    try:
        refuse_beyond(name, found)
    except RuntimeError as error:
        raise RuntimeError(f"{error} Nothing is left behind.") from None
    return name, [size, f"{found.probability:.2g}", f"{found.flipped} of {found.pixels}"]
