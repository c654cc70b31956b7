"""Train U-Net or SD-UNet to find cell membranes in electron micrographs.

    tinyseg train-isbi                                  # synthetic sections
    tinyseg train-isbi --data path/to/isbi2012          # train-volume.tif and train-labels.tif
    tinyseg train-isbi --data DIR --download            # fetch the public files into DIR first
    tinyseg train-isbi --resume runs/isbi               # go on where it stopped

Reads top to bottom: data, model, training, report, options.
"""

import tinyseg as ts
from tinyseg.commands import networks, options, together
from tinyseg.commands.numbers import BALANCED_WEIGHTS, CLASS_NAMES, NAME, SECTIONS, Number, make_parser
from tinyseg.commands.settings import settle
from tinyseg.commands.tasks import choose_task
from tinyseg.data import Augment, Loader, Sections, SegmentationDataset, em_sections, fetch_isbi, isbi, standardize
from tinyseg.data.class_masks import parse_class_names
from tinyseg.data.fingerprint import fingerprint, refuse_changed
from tinyseg.data.sections import describe_copies
from tinyseg.prediction.tiles import tile_within
from tinyseg.training import fit

# What was measured to train sdunet and unet well (docs/results.md) ...
DEFAULTS = {
    "data": None, "labels": None, "foreground": "white", "target": "inside of a cell",
    "class_names": None, "class_weights": "balanced",
    "size": None, "crop": 256, "val_sections": "4", "standardize": "section",
    "augment": "default", "model": "sdunet", "width": 64, "head": "direct", "ws": "default", "dropout": 0.5,
    "epochs": 150, "batch_size": 1, "microbatches": None, "lr": None, "schedule": "cosine", "warmup": 20, "clip": 1.0,
    "ema": 0.999, "amp": False, "seed": 0,
}  # fmt: skip
# ... and what the paper states: Adam 1e-4, three augmentations, 256 x 256. It does not say how images are scaled (the
# Keras code that it builds on scales them to [0, 1]), how many are in a batch, and how long it trains.
PAPER = {
    "size": 256, "augment": "paper", "class_weights": "none", "lr": 1e-4, "schedule": "constant", "warmup": 0,
    "clip": 0, "ema": 0, "standardize": "unit", "epochs": 100, "batch_size": 2,
}  # fmt: skip

OUT, LESS_MEMORY = "runs/isbi", "try a smaller --batch-size, --crop or --width"
SYNTHETIC = 256  # side of the synthetic sections, in pixels
VALIDATION = 2 << 30  # bytes for the activations of the validation


def main():
    together.run_together(lambda: train_network(parse_arguments()), out_of_memory=LESS_MEMORY)


def train_network(args):
    device = options.choose_device(args, together.group())
    together.settle_microbatches(args)
    with together.open_run(args) as run:
        train_in(run, args, device)
    return run.path


def train_in(run, args, device):
    # ----- data ------------------------------------------------------------------
    sections = load_sections(args)
    parts = sections.split(args.val_sections)
    train, val = (part.resized(args.size or part.shape) for part in parts)
    task = choose_task(args, train, val)
    train_x, val_x = standardize(train.images, args.standardize), standardize(val.images, args.standardize)
    print(f"{len(train)} sections to train on, {len(val)} held out, {train.shape[0]} x {train.shape[1]} pixels")
    if copies := describe_copies(*parts):
        print(copies)

    # ----- model -----------------------------------------------------------------
    model = networks.build_network(args, 1, task.channels, device)
    crop = networks.fit_crop(args, model, train.shape, f" Give --size {args.crop}, to which they are resized.")
    dataset = SegmentationDataset(train_x, train.labels, Augment.parse(args.augment), seed=args.seed, crop=crop)
    loader = Loader(dataset, args.batch_size, seed=args.seed, workers=args.workers, part=together.part())
    if crop != train.shape:
        print(f"in windows of {crop[0]} x {crop[1]}, {dataset.windows} of a section in an epoch")
    optimizer = ts.optim.Adam(model.parameters(), lr=args.lr)
    schedule = options.build_schedule(args, optimizer, args.epochs * len(loader))
    network = options.report_network(args, model, device)
    together.describe_parts(args, model)

    # ----- training --------------------------------------------------------------
    config = {name: getattr(args, name) for name in DEFAULTS} | {"computer": options.note_computer(args, device)}
    config["fingerprints"] = {
        "training images": fingerprint(train_x), "training masks": fingerprint(train.labels),
        "held-out images": fingerprint(val_x), "held-out masks": fingerprint(val.labels),
        "options of reading": fingerprint(args.foreground, str(args.size), args.val_sections, args.standardize),
    } | task.fingerprints  # fmt: skip
    if args.resume:
        refuse_changed(args.fingerprints, config["fingerprints"], args.resume)
    # So that evaluate.py knows the sections that the network was trained on, wherever and however they are stored.
    config["sections"] = {name: parts[k].fingerprints() for k, name in enumerate(("train", "val"))}
    scale = [m / n for m, n in zip(train.shape, sections.shape, strict=True)]
    preprocessing = {"scale": scale, "standardize": args.standardize} | task.masks
    meta = {"config": config, "preprocessing": preprocessing, "classes": task.names}
    meta["postprocessing"] = task.postprocessing
    tile = tile_within(model, VALIDATION)

    def validate(model):
        return task.score(model, val_x, val.labels, tile)[0]

    step = options.make_step(args, model, optimizer, task.loss, max(crop))
    average = options.make_average(args, model)
    result = fit(
        step, loader, validate, schedule=schedule, epochs=args.epochs, run=run, meta=meta, average=average
    )  # fmt: skip
    options.exit_if_interrupted(result, run, args)
    if together.group().rank > 0:
        return

    # ----- report ----------------------------------------------------------------
    best = ts.checkpoint.load(run.best, device)
    scores, found = task.score(best, val_x, val.labels, tile)
    last = {k.removeprefix("val_"): v for k, v in result["history"][-1].items() if k.startswith("val_")}
    summary = network | {
        "steps": result["steps"], "seconds_per_step": result["seconds_per_step"],
        "best_epoch": result["best"]["epoch"], "val": task.nest(scores), "val_last_epoch": task.nest(last),
    }  # fmt: skip
    with ts.plots.drawing(run.path / "predictions.png") as picture:
        task.draw(val, found, picture)
    run.write_json("summary.json", summary)  # the last file: where it is, the run is done
    print("Held-out sections (the best epoch is the one with the highest mean IoU on these very sections):")
    task.print_scores({f"best, epoch {result['best']['epoch']}": scores, "last": last})
    print(f"Pictures, log and checkpoints are in {run.path}: look at predictions.png")


def load_sections(args):
    if args.data is None:
        print("No --data given: training on a SYNTHETIC stack of sections, a stand-in for real data.")
        images, labels = em_sections(num_sections=24, size=args.size or SYNTHETIC, seed=args.seed)
        return Sections(images, labels, [f"synthetic[{k}]" for k in range(len(images))])
    if args.download:
        together.group().first_alone(lambda: fetch_isbi(args.data))
    classes = parse_class_names(args.class_names) if args.class_names else "auto"
    sections = isbi.load(args.data, labels=args.labels or "required", foreground=args.foreground, classes=classes)
    H, W = sections.shape
    distorted = ", not square: resizing distorts them" if args.size and H != W else ""
    print(f"{args.data}: {len(sections)} sections of {H} x {W}{distorted}")
    return sections


def build_parser(description=__doc__, inputs="", defaults=DEFAULTS, out=OUT):
    parser = make_parser(description, inputs)

    add = options.option_adder(parser, defaults)
    add(
        "--data", "folder with train-volume.tif and train-labels.tif, or with images/ and labels/",
        type=options.folder_name,
    )  # fmt: skip
    add("--labels", "masks, a stack or a folder, if they are not in --data", type=options.folder_name)
    add("--download", "fetch the public ISBI 2012 files into --data first", action="store_true", default=None)
    add("--foreground", "which mask value is the inside of a cell", choices=["white", "black"])
    add("--target", "what that is, in a few words, for tables and pictures", type=NAME)
    add("--class-names", "of masks of several values, as in background,nucleus or background=0,nucleus=85,ignore=255 "
        "(default: classes.json beside the masks, or by their values)", type=CLASS_NAMES)  # fmt: skip
    add("--class-weights", "in the loss: balanced, none, or a number for each class from the background on, as in 3,1",
        type=BALANCED_WEIGHTS)  # fmt: skip
    add(
        "--size", "side of the square that sections are resized to, in pixels (default: their own size)",
        type=Number(int, 16, 65536),
    )  # fmt: skip
    add(
        "--crop", "side of the windows of sections, at random places, that are trained on; at most the whole section",
        type=Number(int, 16, 65536),
    )  # fmt: skip
    add("--val-sections", "sections held out: a number (the last ones) or a:b (a to b-1, from 0)", type=SECTIONS)
    add("--standardize", "how grey values are scaled", choices=["section", "stack", "unit"])
    options.add_training_options(parser, defaults, PAPER, out=out)
    return parser


def parse_arguments(parser=None, defaults=DEFAULTS, out=OUT):
    parser = parser or build_parser()
    args = settle(parser, defaults, PAPER, {"out": out, "fingerprints": {}})
    for name in ("foreground", "labels", "class_names"):
        if args.data is None and name in args.given:
            parser.error(f"--{name.replace('_', '-')} is for the masks in --data DIR, and none is given: leave it out")
    if args.labels and args.download:
        parser.error("--download fetches masks too: leave --labels out")
    return args
