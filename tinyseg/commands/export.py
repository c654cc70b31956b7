"""Export a trained network: as one HTML file, as C, as ONNX, as a package for bioimage.io.

    tinyseg export runs/isbi/best.safetensors --out exported                        # html, c and onnx
    tinyseg export runs/isbi/best.safetensors --out exported --format html          # a page that runs anywhere
    tinyseg export runs/isbi/best.safetensors --out exported --format onnx --int8 images
    tinyseg export runs/isbi/best.safetensors --out exported --format bioimageio --license CC-BY-4.0 --author "A. Name"

    html         segment.html: network and program in one file; open it in a browser, also on a phone
    c            c/: network.c, main.c and weights.bin; cc -O3 network.c main.c -lm
    onnx         model.onnx, for ONNX Runtime, OpenVINO and others; with --int8 also model_int8.onnx
    (--int8)     model_int8.safetensors, for tinyseg predict --runtime int8
    bioimageio   model.bioimageio.zip, for ilastik, deepImageJ and others

What it has written it runs beside tinyseg, on sections that the training held out or on --check IMAGE, and prints how
far the probabilities are apart and how many pixels of the mask differ. If they differ by more than the format should,
nothing is left behind.

Reads top to bottom: the command, each format, options.
"""

import argparse
import importlib.util
import os
import pathlib
import shutil
import tempfile

import nibabel as nib
import numpy as np
import tifffile

import tinyseg as ts
from tinyseg.commands.numbers import Number, make_parser, refuse_given
from tinyseg.commands.options import a_path
from tinyseg.commands.quantize import quantize
from tinyseg.commands.runtime import INT8
from tinyseg.commands.script import run_script
from tinyseg.commands.tables import table
from tinyseg.commands.warm import compile_for, rehearse_prediction
from tinyseg.data.brain import Preparation
from tinyseg.data.files import list_names
from tinyseg.data.load_tqdm import tqdm
from tinyseg.data.locks import locked
from tinyseg.data.writing import check_writable, rename
from tinyseg.export.bioimageio.package import run_bioimageio, write_bioimageio
from tinyseg.export.c.program import run_c, write_c
from tinyseg.export.checking import NotRunError, compare, refuse_beyond
from tinyseg.export.describing import describe
from tinyseg.export.images import as_pixels, find_check_images, fit, network_inputs
from tinyseg.export.int8_file import save_int8
from tinyseg.export.onnx.file import fix_size, metadata_of, write_onnx
from tinyseg.export.onnx.runtime import OnnxFile
from tinyseg.export.page.html import write_html
from tinyseg.export.page.run import run_html
from tinyseg.prediction.predictor import Predictor
from tinyseg.prediction.tiles import to_probabilities

FORMATS = ("html", "c", "onnx", "bioimageio")
USUAL = ("html", "c", "onnx")  # the fourth asks who gives the network away
OF_FORMAT = {  # options that are for one format
    "html": ("example",), "onnx": ("size", "opset", "norm_operators", "with_preprocessing"),
    "bioimageio": ("license", "author", "name", "pixel_size"),
}  # fmt: skip
FILES = {
    "html": "segment.html", "c": "c", "onnx": "model.onnx", "int8": INT8, "onnx, 8 bits": "model_int8.onnx",
    "bioimageio": "model.bioimageio.zip",
}  # fmt: skip
EIGHT_BITS = ("int8", "onnx, 8 bits")
UNFINISHED = ".exporting-"  # how the name of the folder begins in which formats are written until all are right


def main():
    run_script(export, out_of_memory="give a smaller image with --check")


def export():
    args = parse_arguments()
    predictor = Predictor.load(args.checkpoint)
    compile_for(lambda: rehearse_prediction(predictor.model), "cpu")
    sections, what = find_check_images(predictor, args.check)
    names = args.format or usual_formats(predictor)
    if args.int8:
        names = [*names, "int8", *(["onnx, 8 bits"] if "onnx" in names else [])]
    check_writable(args.out)
    with locked(args.out, "tinyseg export"):
        there = [name for name in names if os.path.lexists(args.out / FILES[name])]
        if there and not args.force:
            files = list_names([FILES[name] for name in there])
            raise FileExistsError(f"{args.out} has {files} already: give another --out, or --force.")
        for name in there:
            refuse_other_kind(args.out / FILES[name], is_folder=FILES[name] == "c")
        for left in args.out.glob(f"{UNFINISHED}*"):  # by a process that was killed
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(dir=args.out, prefix=UNFINISHED) as temporary:
            place = pathlib.Path(temporary)
            bar = tqdm(names, desc="exporting", unit="format")
            rows = [write_and_check(name, args, predictor, sections, place) for name in bar]
            for name in names:
                move(place / FILES[name], args.out / FILES[name])
    print(f"Run beside tinyseg on {what}:")
    print(table(["MB", "largest difference of a probability", "pixels that flip"], rows))
    print(f"wrote {', '.join(str(args.out / FILES[name]) for name in names)}")


def usual_formats(predictor):
    """Return the formats that are written if none is asked for, and print what is left out."""
    left_out = {}
    if not hasattr(predictor.preparation, "scale"):
        left_out["c"] = "the program takes pictures, and this network volumes"
    elif predictor.model.in_channels > 1:
        left_out["html"] = f"the page takes grey pictures, and this network {predictor.model.in_channels} channels"
    if importlib.util.find_spec("onnx") is None:
        left_out["onnx"] = "it needs pip install 'tinyseg[export]'"
    for name, why in left_out.items():
        print(f"{name} is left out: {why}")
    return [name for name in USUAL if name not in left_out]


def write_and_check(name, args, predictor, sections, place):
    """Write one format into the folder `place`, run it, and return its row of the table."""
    path = place / FILES[name]
    expected, run = WRITERS[name](args, predictor, sections, path)
    files = [path] if path.is_file() else path.iterdir()
    size = f"{sum(file.stat().st_size for file in files) / 1e6:.2f}"
    try:
        found = compare(expected(), run())
    except NotRunError as error:
        print(f"{name}: written, and not run here: {error}")
        return name, [size, "not run", ""]
    try:
        refuse_beyond(name, found)
    except RuntimeError as error:
        advice = " Give --int8 more images, such as the network will see." if name in EIGHT_BITS else ""
        raise RuntimeError(f"{error}{advice} Nothing is left behind.") from None
    return name, [size, f"{found.probability:.1e}", f"{found.flipped} of {found.pixels}"]


def refuse_other_kind(target, is_folder):
    """Raise a FileExistsError if a folder is where a file is to be written, or the reverse."""
    if target.is_dir() != is_folder:
        expected, found = ("folder", "file") if is_folder else ("file", "folder")
        raise FileExistsError(
            f"{target} is a {found}, and a {expected} is to be written there: move it away, or give another --out."
        )


def move(written, target):
    """Put a file, or a folder of files, in its place."""
    if written.is_file():
        rename(written, target)
        return
    target.mkdir(exist_ok=True)
    for file in written.iterdir():
        rename(file, target / file.name)


# ===== the formats ===============================================================
# Each writes its file or folder, and returns two functions: what tinyseg gives for the sections, what the export gives.
def write_page(args, predictor, sections, path):
    write_html(path, predictor, example=args.example)
    of_volumes = isinstance(predictor.preparation, Preparation)
    sections = sections if of_volumes else as_pixels(predictor, sections)

    def run():
        with tempfile.TemporaryDirectory() as folder:
            image = pathlib.Path(folder) / ("sections.nii" if of_volumes else "sections.tif")
            if of_volumes:
                voxels = sections.transpose(2, 3, 0, 1).astype(np.float32)  # (X, Y, Z, C)
                nib.save(nib.Nifti1Image(voxels, np.eye(4)), image)
            else:
                tifffile.imwrite(image, sections[:, 0], photometric="minisblack")
            return [run_html(path, image, k) for k in range(len(sections))]

    return lambda: predict(predictor, sections), run


def write_program(args, predictor, sections, path):
    write_c(path, predictor)
    sections = as_pixels(predictor, sections)
    return lambda: predict(predictor, sections), lambda: run_c(path, sections)


def write_float(args, predictor, sections, path):
    return write_network(args, predictor, sections, path, describe(predictor.model))


def write_integers(args, predictor, sections, path):
    args.quantized, _ = quantize(predictor, args.int8)  # which `write_quantized` writes, too
    save_int8(path, args.quantized, metadata_of(predictor.model)["weights"])
    inputs = network_inputs(predictor, sections)
    return (
        lambda: [ts.prediction.predict(predictor.model, x[None])[0] for x in inputs],
        lambda: [to_probabilities(args.quantized(x[None])).data[0] for x in inputs],
    )


def write_quantized(args, predictor, sections, path):
    return write_network(args, predictor, sections, path, args.quantized)


def write_network(args, predictor, sections, path, network):
    write_onnx(
        path, network, opset=args.opset, metadata=metadata_of(predictor.model),
        preparation=predictor.preparation if args.with_preprocessing else None, dtype=args.dtype or sections.dtype,
        exact_norms=not args.norm_operators,
    )  # fmt: skip
    if args.size:
        fix_size(path, args.size)
    if not args.with_preprocessing:
        inputs = network_inputs(predictor, sections, args.size)
        return (
            lambda: [ts.prediction.predict(predictor.model, x[None])[0] for x in inputs],
            lambda: [to_probabilities(y).data[0] for y in run_each(path, inputs)],
        )
    scale = getattr(predictor.preparation, "scale", np.ones(2))
    if (scale != 1).any():
        size = " × ".join(f"{each:.3g}" for each in scale)
        print(f"{path.name} does not resample: resize images by {size} (rows, columns), as in the training.")
    alone = Predictor(predictor.model, scale=1) if hasattr(predictor.preparation, "scale") else predictor
    fitted = [fit(section, args.size or section.shape[1:]) for section in sections]
    return lambda: [alone(x) for x in fitted], lambda: [y[0] for y in run_each(path, fitted)]


def run_each(path, images):
    network = OnnxFile(path)
    return [network(image[None].astype(np.float32)) for image in images]


def write_package(args, predictor, sections, path):
    network = describe(predictor.model)
    write_bioimageio(
        path, predictor, network, sections[0], license=args.license, authors=args.author, name=args.name,
        pixel_size=args.pixel_size,
    )  # fmt: skip
    print(
        f"{path.name} holds a part of the first image that it is checked on, for whoever gets the package: give one "
        "that you may give away with --check IMAGE."
    )
    return lambda: predict(predictor, sections), lambda: run_bioimageio(path, sections)


WRITERS = {
    "html": write_page, "c": write_program, "onnx": write_float, "int8": write_integers,
    "onnx, 8 bits": write_quantized, "bioimageio": write_package,
}  # fmt: skip


def predict(predictor, sections):
    predictor.take_statistics(sections)
    return [predictor(section) for section in sections]


# ===== options ===================================================================
def formats(text):
    """Return the formats that a text names, with commas between them."""
    names = text.split(",")
    odd = [name for name in names if name not in FORMATS]
    if odd:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(FORMATS)} with commas, found {odd[0]!r}")
    return list(dict.fromkeys(names))


def build_parser():
    parser = make_parser(__doc__, "CHECKPOINT")
    add = parser.add_argument
    side = Number(int, 1, 65536)
    add("checkpoint", metavar="CHECKPOINT", type=a_path, help="of a training: best.safetensors")
    add("--out", type=a_path, required=True, help="folder for what is written")
    add("--format", type=formats, help=f"formats with commas (default: {','.join(USUAL)})")
    add("--check", type=a_path, metavar="IMAGE", help="run it on this (default: sections that the training held out)")
    add("--example", type=a_path, metavar="PNG", help="html: an image that the page holds, to try it with")
    add("--int8", type=a_path, metavar="FOLDER", help="write the network with 8 bits, too, after 20 to 50 such images")
    add("--size", type=side, nargs=2, metavar=("H", "W"), help="onnx: of the image, fixed (default: any)")
    add("--opset", type=int, choices=[17, 21], default=17, help="onnx: version of its operators (default: 17)")
    add("--norm-operators", action="store_true", help="onnx: norms as ncnn's converter wants them: less exact")
    add("--with-preprocessing", action="store_true", help="onnx: grey values go in, and probabilities come out")
    add(
        "--dtype",
        choices=["uint8", "uint16", "float32"],
        help="with it: type of the grey values (default: the check's)",
    )
    add("--license", metavar="SPDX", help="bioimageio: under which you give the network away, such as CC-BY-4.0")
    add("--author", action="append", metavar="NAME", help="bioimageio: may be given several times")
    add(
        "--pixel-size", type=Number(float, 0, 1e6, above=True), metavar="MICROMETRES",
        help="bioimageio: of the images of the training",
    )  # fmt: skip
    add("--name", help="bioimageio: of the network (default: from what it segments)")
    add("--force", action="store_true", help="replace files that are there")
    return parser


def parse_arguments():
    parser = build_parser()
    args = parser.parse_args()
    asked_for = args.format or USUAL
    for name, names in OF_FORMAT.items():
        if name not in asked_for:
            refuse_given(args, names, f"this is for --format {name}: leave it out, or give that format too")
    if "bioimageio" in asked_for and not (args.license and args.author):
        parser.error("--format bioimageio needs --license SPDX and --author NAME: who gives the network away, and how")
    if args.dtype and not args.with_preprocessing:
        parser.error("--dtype is for --with-preprocessing: leave it out")
    return args
