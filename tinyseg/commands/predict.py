"""Run a trained network on images: TIFF stacks, PNG, folders of them, NIfTI volumes, BraTS and Decathlon folders.

    python examples/predict.py --checkpoint runs/isbi/best.safetensors stack.tif
    python examples/predict.py --checkpoint best.safetensors folder/ case.nii.gz --out masks --probabilities
    python examples/predict.py --checkpoint best.safetensors test-volume.tif --isbi-submission --transforms all
    python examples/predict.py --checkpoint runs/brats/best.safetensors Task01_BrainTumour BraTS2021_00000

Writes what it was given, at its own resolution: a TIFF for a TIFF, with its resolution tags; a NIfTI volume with its
affine and header; a PNG for any other picture. Sections are read, predicted and written one by one. Run again after
an interruption, it goes on with the first file that is missing; nothing is overwritten without --force.

Of a Decathlon folder (with dataset.json) it predicts imagesTs, or imagesTr if that is empty. A BraTS case (a folder
with <case>_flair.nii.gz, _t1, _t1ce, _t2), or a folder of them, gives one volume a case, from the modalities that the
network was trained with.

Reads top to bottom: what to do, each file, options.
"""

import argparse
import json
import pathlib
import sys
import tempfile
import zlib

import numpy as np
from tqdm import tqdm

import tinyseg as ts
from tinyseg.commands.options import add_device_options, check_memory, load_predictor
from tinyseg.commands.script import run_script
from tinyseg.data.brain import Preparation
from tinyseg.data.files import write_atomically
from tinyseg.data.images import output_name
from tinyseg.data.scans import find_scans, open_scan, write_scan
from tinyseg.prediction import TRANSFORMS, normalizes_over_space
from tinyseg.prediction.predictor import labels

RECORD = "predictions.json"  # in the output folder: how its files were made, and from what


def main():
    run_script(predict, out_of_memory="give a smaller --memory, so that images go through in tiles")


def predict():
    args = parse_arguments()
    predictor = load_predictor(args, args.scale)
    if args.isbi_submission and len(predictor.classes) > 1:
        raise ValueError(f"--isbi-submission is for a network of one class, and this one has {len(predictor.classes)}.")
    print(
        f"{predictor.model.config['name']} for {', '.join(predictor.classes)}, kernels: "
        f"{ts.backend.kernels_in_use(ts.backend.device_of(predictor.model.parameters()[0].data))}"
    )

    # ----- what to do ------------------------------------------------------------
    scans = [scan for path in args.inputs for scan in find_scans(path, predictor.modalities)]
    plan = [(scan, args.out / output_name(scan.name, args.suffix)) for scan in scans]
    check_names(plan)
    make_folder(args.out)
    record = begin_record(args) | {"classes": predictor.classes}
    failed = []

    # ----- each file -------------------------------------------------------------
    for scan, target in plan:
        try:
            if target.exists() and not args.force:
                if len(plan) == 1:
                    raise FileExistsError(f"{target} already exists: give --force to replace it, or another --out.")
                print(f"{target} is there already (--force makes it again)")
                continue
            predict_file(predictor, scan, target, args)
        except (ValueError, OSError) as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            failed.append(scan)
            continue
        record["files"][target.name] = ", ".join(map(str, scan.files))
        write_atomically(args.out / RECORD, json.dumps(record, indent=1) + "\n")
    if failed:
        sys.exit(f"{len(failed)} of {len(plan)} files could not be predicted: {', '.join(s.name for s in failed)}")


def predict_file(predictor, scan, target, args):
    """Predict one scan, which is one file or a file for each modality, section by section."""
    with open_scan(scan, for_network=isinstance(predictor.preparation, Preparation)) as image:
        predictor.look_at(image)
        H, W = predictor.preparation.target(image.shape)
        if max(H, W) > predictor.tile:
            note = ""
            if normalizes_over_space(predictor.model):
                note = ", each with its own GroupNorm statistics (raise --memory to avoid that)"
            print(f"{scan.name}: {H} x {W} pixels go through the network in tiles of {predictor.tile}{note}")
        channels = len(predictor.classes) if args.probabilities else 1
        dtype = np.float32 if args.probabilities else np.uint8
        sections = tqdm(range(len(image)), desc=scan.name, unit="section", disable=len(image) == 1)
        with write_scan(image, target, dtype=dtype, channels=channels, overwrite=args.force) as out, sections:
            for k in sections:
                out.write(choose_output(predictor(image.section(k)), args, image.kind))
    print(f"wrote {target}")


def choose_output(p, args, kind):
    """Return what is to be written for probabilities (classes, H, W): these, or a mask (H, W)."""
    if args.probabilities:
        return p[0] if len(p) == 1 else p
    mask = labels(p, args.threshold)
    if len(p) == 1 and kind != "nifti":
        mask *= np.uint8(255)  # pictures of one class are black and white; volumes hold class numbers
    return mask


def make_folder(path):
    """Make the output folder and, before hours of work, check that it can be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OSError(f"cannot write to the folder {path} ({error.strerror}): give another --out.") from None


def check_names(plan):
    """Refuse two inputs that would be written to one file."""
    first = {}
    for scan, target in plan:
        if target in first:
            both = f"{first[target].files[0]} and {scan.files[0]}"
            raise ValueError(f"{both} would both be written to {target}: predict them one by one.")
        if target.resolve() in [file.resolve() for file in scan.files]:
            raise ValueError(f"{target} would be overwritten by its own prediction: give another --out or --suffix.")
        first[target] = scan


def begin_record(args):
    """Return what `RECORD` is to hold. Refuse a folder whose files were made with other settings, without --force."""
    names = ("transforms", "threshold", "probabilities", "scale", "memory")
    settings = {"checkpoint_crc32": zlib.crc32(args.checkpoint.read_bytes())} | {n: getattr(args, n) for n in names}
    path = args.out / RECORD
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name in settings if before.get(name) != settings[name]]
        if not changed:
            return before
        if not args.force:
            raise ValueError(
                f"{args.out} holds predictions made with another {', '.join(changed)} (see {path.name}): "
                "give another --out, or --force to make them again."
            )
    return settings | {"checkpoint": str(args.checkpoint), "files": {}}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("inputs", metavar="INPUT", nargs="+", type=pathlib.Path, help="image, stack, volume or folder")
    add("--checkpoint", required=True, type=pathlib.Path, help="of train_isbi.py or train_brats.py: best.safetensors")
    add("--out", type=pathlib.Path, default=pathlib.Path("predictions"), help="folder (default: predictions)")
    add("--probabilities", action="store_true", help="write probabilities (float32; 16 bits in PNG), not masks")
    add("--threshold", type=float, default=0.5, help="of the masks of one class (default: 0.5)")
    add("--transforms", choices=list(TRANSFORMS), default="none", help="mean over flips, or flips and turns")
    add("--scale", type=float, help="size of the network's image over the input's (default: the training's)")
    add("--memory", type=float, default=2, help="GiB for activations; larger images in tiles (default: 2)")
    add("--isbi-submission", action="store_true", help="32-bit TIFF of probabilities, as the challenge asks")
    add("--suffix", help="of the output's name (default: _mask or _probability)")
    add_device_options(parser)
    add("--force", action="store_true", help="replace files that are there")
    args = parser.parse_args()
    if not 0 <= args.threshold <= 1:
        parser.error(f"--threshold is a probability, in [0, 1], but is {args.threshold}")
    check_memory(parser, args)
    args.probabilities |= args.isbi_submission
    if args.suffix is None:
        kind = "_probability" if args.probabilities else "_mask"
        args.suffix = "_submission" if args.isbi_submission else kind
    return args
