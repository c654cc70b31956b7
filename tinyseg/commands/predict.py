"""Run a trained network on images: TIFF stacks, PNG, folders of them, NIfTI volumes, BraTS and Decathlon folders.

    tinyseg predict --checkpoint runs/isbi/best.safetensors stack.tif
    tinyseg predict --checkpoint best.safetensors folder/ case.nii.gz --out masks --probabilities
    tinyseg predict --checkpoint best.safetensors cells.tif --instances    # a number for each cell, and a table
    tinyseg predict --checkpoint best.safetensors test-volume.tif --isbi-submission --transforms all
    tinyseg predict --checkpoint runs/brats/best.safetensors Task01_BrainTumour BraTS2021_00000
    tinyseg predict --checkpoint runs/isbi/best.safetensors stack.tif --runtime onnx    # pip install 'tinyseg[export]'

Writes what it was given, at its own resolution: a TIFF for a TIFF, with its resolution tags; a NIfTI volume with its
affine and header; a PNG for any other picture. Sections are read, predicted and written one by one. Run again after
an interruption, it goes on with the first file that is missing; nothing is overwritten without --force. It keeps a
record, predictions.json, beside its files, and never predicts what it wrote itself.

With --instances it writes three files of an image: a TIFF with a number for each object of a section (16 bits, or 32 if
there are more than 65535), a CSV with the area and place of each, and a PNG with the objects in colour.

A network that was trained with --standardize stack takes the images of a folder for one stack, whether they are pages
of a TIFF or files of their own.

Of a Decathlon folder (with dataset.json) it predicts imagesTs, or imagesTr if that is empty. A BraTS case (a folder
with <case>_flair.nii.gz, _t1, _t1ce, _t2), or a folder of them, gives one volume a case, from the modalities that the
network was trained with.

Reads top to bottom: what to do, each file, options.
"""

import argparse
import functools
import os
import pathlib

import tinyseg as ts
from tinyseg.commands.numbers import Number, make_parser, refuse_given
from tinyseg.commands.options import a_path, add_prediction_options, load_predictor
from tinyseg.commands.predict_files import predict_files
from tinyseg.commands.predict_instances import (
    OPTIONS,
    add_instance_options,
    files_of,
    refuse_instances,
)
from tinyseg.commands.runtime import find_runtime_file
from tinyseg.commands.script import run_script
from tinyseg.commands.workers import add_worker_options, part_of, refuse_devices
from tinyseg.data import os_errors
from tinyseg.data.files import expand_pattern, list_names, same_on_disk
from tinyseg.data.images import output_name
from tinyseg.data.locks import locked
from tinyseg.data.pairs import split_masks
from tinyseg.data.predictions_json import NAME, written_in
from tinyseg.data.scans import find_scans
from tinyseg.data.writing import check_writable
from tinyseg.prediction.predictor import SCALES
from tinyseg.prediction.stacks import stacks_of

NOT_IN_NAMES = '<>:"|?*'  # on Windows; a:b.png would be a file a with a hidden second content


def main():
    run_script(predict, out_of_memory="give a smaller --memory, so that images go through in tiles")


def predict():
    args = parse_arguments()
    predictor = load_predictor(args, args.scale)
    if args.isbi_submission and len(predictor.classes) > 1:
        raise ValueError(f"--isbi-submission is for a network of one class, and this one has {len(predictor.classes)}.")
    named = predictor.masks.describe() if predictor.masks else ", ".join(predictor.classes)
    print(f"{predictor.model.config['name']} for {named}, {what_computes(predictor, args)}")

    # ----- what to do ------------------------------------------------------------
    inputs = {path: find_inputs(path, predictor.modalities) for path in args.inputs}
    scans = list({tuple(f.resolve() for f in s.files): s for of_path in inputs.values() for s in of_path}.values())
    if args.instances:
        refuse_instances(predictor, scans)
    channels = len(predictor.classes) if args.probabilities else 1
    plan = [(scan, name_files(scan, args, channels)) for scan in scans]
    check_names(plan)
    other = next((scan for scan, files in plan if files[0].suffix.lower() not in (".tif", ".tiff")), None)
    if args.isbi_submission and other:
        raise ValueError(
            f"--isbi-submission writes TIFF stacks, and {other.name} is none: save the sections as one TIFF, or give "
            "--probabilities."
        )
    stacks = stacks_of(inputs) if predictor.standardizes_stacks else {}
    check_writable(args.out)
    args.out.mkdir(parents=True, exist_ok=True)
    k, parts = args.part
    if parts > 1:
        print(f"part {k} of {parts}: {len(plan[k - 1 :: parts])} of {len(plan)} images")
    with locked(args.out, "predict.py", shared=parts > 1):
        predict_files(predictor, plan[k - 1 :: parts], stacks, args)


def name_files(scan, args, channels):
    """Return the files that are written of a scan; the first holds what was predicted."""
    target = args.out / output_name(scan.name, args.suffix, channels)
    if not args.instances:
        return (target,)
    return files_of(target if target.suffix.lower() in (".tif", ".tiff") else target.with_suffix(".tif"))


def what_computes(predictor, args):
    """Say what runs the network."""
    file = find_runtime_file(args.runtime, args.checkpoint)
    if args.runtime not in ("tinyseg", "int8"):
        return f"run by onnxruntime ({file or 'float'})"
    device = ts.backend.device_of(predictor.model.parameters()[0].data)
    return f"kernels: {ts.backend.kernels_in_use(device)}" + (f", 8 bits ({file})" if file else "")


def find_inputs(path, modalities):
    """List the scans at a path, without what predict.py wrote and without masks that lie beside their images."""
    written = functools.cache(written_in)
    scans = find_scans(path, modalities)
    found = [scan for scan in scans if not any(file.name in written(file.parent) for file in scan.files)]
    if not found:
        raise ValueError(f"{path} holds nothing but what predict.py wrote (see {NAME}): give the images.")
    if len(found) < len(scans):
        print(f"{path}: left out {len(scans) - len(found)} files that predict.py wrote (see {NAME})")
    masks = split_masks([scan.name for scan in found], predictions=True)[1] if path.is_dir() else []
    if masks:
        print(f"{path}: left out {list_names(masks)}, by their names masks or predictions of images beside them")
    return [scan for scan in found if scan.name not in masks]


def check_names(plan):
    """Refuse two inputs that would be written to one file, and outputs that would replace an input."""
    first, inputs = {}, {file.resolve() for scan, _ in plan for file in scan.files}
    for scan, target in ((scan, file) for scan, files in plan for file in files):
        name = same_on_disk(target)
        if name in first:
            both = f"{first[name].files[0]} and {scan.files[0]}"
            raise ValueError(f"{both} would both be written to {target}: predict them one by one.")
        if target.resolve() in inputs:
            raise ValueError(
                f"{target} is an input and would be overwritten by a prediction: give another --out or --suffix."
            )
        first[name] = scan


def suffix(text):
    """Return --suffix, which is a part of a name."""
    try:
        os.fsencode(text)
        fits = not {"/", "\\", "\0", *(NOT_IN_NAMES if os_errors.WINDOWS else "")} & set(text)
    except UnicodeEncodeError:
        fits = False
    if not fits:
        slashes = f"slashes and {NOT_IN_NAMES}" if os_errors.WINDOWS else "slashes"
        raise argparse.ArgumentTypeError(f"expected a part of a file's name, without {slashes}, found {text!r}")
    return text


def build_parser():
    parser = make_parser(__doc__, "INPUT [INPUT ...]")
    add = parser.add_argument
    add("inputs", metavar="INPUT", nargs="+", type=a_path, help="image, stack, volume or folder")
    add("--checkpoint", required=True, type=a_path, help="of train_isbi.py or train_brats.py: best.safetensors")
    add("--out", type=a_path, default=pathlib.Path("predictions"), help="folder (default: predictions)")
    add("--probabilities", action="store_true", help="write probabilities (float32; 16 bits in PNG), not masks")
    add(
        "--scale", type=Number(float, *SCALES),
        help="size of the network's image over the input's (default: the training's)",
    )  # fmt: skip
    add("--instances", action="store_true", help="write a number for each object, a table and a picture of them")
    add_instance_options(parser)
    add("--isbi-submission", action="store_true", help="32-bit TIFF of probabilities, as the challenge asks")
    add("--suffix", type=suffix, help="of the output's name (default: _mask, _probability, _instances)")
    add_prediction_options(parser)
    add("--force", action="store_true", help="replace files that are there")
    add_worker_options(parser, "images")
    add("--part", type=part_of, default=(1, 1), metavar="K/N", help="every N-th image from the K-th on, for job arrays")
    return parser


def parse_arguments():
    parser = build_parser()
    args = parser.parse_args()
    args.inputs = [path for each in args.inputs for path in expand_pattern(each)]
    args.probabilities |= args.isbi_submission
    for name, option in (("threshold", "--threshold"), ("min_component", "--min-component")):
        if args.probabilities and name in args.given:
            parser.error(f"{option} is for masks, and probabilities are to be written: leave one of the two out")
    refuse_devices(parser, args)
    if args.probabilities and args.instances:
        parser.error("--instances writes numbers of objects, not probabilities: leave one of the two out")
    if not args.instances:
        refuse_given(args, OPTIONS, "this is for --instances: give that too, or leave it out")
    if args.suffix is None:
        kind = "_probability" if args.probabilities else "_instances" if args.instances else "_mask"
        args.suffix = "_submission" if args.isbi_submission else kind
    return args
