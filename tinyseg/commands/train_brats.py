"""Train U-Net or SD-UNet to find brain tumours in MRI.

    tinyseg train-brats                                       # synthetic brains
    tinyseg train-brats --data Task01_BrainTumour             # Medical Decathlon, or BraTS folders
    tinyseg train-brats --data DIR --download                 # fetch the public archive, 7.6 GB, first
    tinyseg train-brats --data DIR --mode whole               # one class: tumour or not
    tinyseg train-brats --resume runs/brats                   # go on where it stopped

Reads top to bottom: data, model, training, report, options.
"""

import pathlib

import tinyseg as ts
from tinyseg.commands import networks, options, together
from tinyseg.commands.numbers import CLASS_WEIGHTS, PROBABILITY, SHARES, Number, make_parser, read_class_weights
from tinyseg.commands.settings import settle
from tinyseg.data import Augment, Loader
from tinyseg.data.brain import Preparation
from tinyseg.data.brats import find_cases
from tinyseg.data.classes import DECATHLON, regions_of, same_classes
from tinyseg.data.download_brats import fetch_brain_tumours
from tinyseg.data.fingerprint import refuse_changed
from tinyseg.data.slice_sampler import SliceSampler
from tinyseg.data.slices import SliceCache, default_folder
from tinyseg.data.split import split
from tinyseg.data.synthetic_brain import write_brains
from tinyseg.metrics.patients import as_log
from tinyseg.prediction.evaluation import examples_of, score_patients
from tinyseg.prediction.volumes import select_cases
from tinyseg.training import fit
from tinyseg.training.losses import dice_and_cross_entropy

DEFAULTS = {
    "data": None, "shares": "406:32:46", "val_cases": None, "size": 192, "how": "crop", "crop": 144,
    "standardize": "volume", "skip_bad": False, "mode": "classes", "dice_weight": 1.0, "ce_weight": 1.0,
    "class_weights": None, "empty_share": None, "balanced": False, "min_component": None, "augment": "hflip",
    "model": "sdunet", "width": 64, "head": "direct", "ws": "default", "dropout": 0.5, "epochs": 4,
    "steps_per_epoch": 1000, "batch_size": 4, "microbatches": None, "lr": None, "schedule": "cosine", "warmup": 20,
    "clip": 1.0, "ema": 0.0, "amp": False, "seed": 0,
}  # fmt: skip
SMALL = 0.1  # of the largest component: parts of a tumour that are taken back
# What the paper states: Adam 1e-5, no augmentation, 4 epochs of 1000 steps.
PAPER = {
    "size": 144, "min_component": 0.0, "augment": "none", "lr": 1e-5, "schedule": "constant", "warmup": 0, "clip": 0,
}  # fmt: skip


def main():
    together.run_together(train_network, out_of_memory="try a smaller --batch-size, --crop or --width")


def train_network():
    args = parse_arguments()
    device = options.choose_device(args, together.group())
    together.settle_microbatches(args)
    with together.open_run(args) as run:
        train_in(run, args, device)


def train_in(run, args, device):
    # ----- data ------------------------------------------------------------------
    folder, group = args.data, together.group()
    if folder is None:
        print("No --data given: training on SYNTHETIC brains, a stand-in for real data.")
        place = pathlib.Path(args.cache or "runs") / f"synthetic_brains_{args.seed}"
        folder = group.first_alone(lambda: write_brains(place, num_cases=12, seed=args.seed))
    elif args.download:
        group.first_alone(lambda: fetch_brain_tumours(folder))
    cases = find_cases(folder, skip_bad=True)  # with cases.skipped; the cache refuses them without --skip-bad
    if args.min_component is None:  # small lesions or organs may be what a user is after
        args.min_component = SMALL if same_classes(cases.classes, DECATHLON) else 0.0
    split_cases(cases, args, folder, cases.skipped)  # what cannot be split is refused before hours of preparing slices

    # ----- model -----------------------------------------------------------------
    classes = ["whole tumour"] if args.mode == "whole" else list(cases.classes)
    model = networks.build_network(args, len(cases.modalities), len(classes), device)
    weights = read_class_weights(args.class_weights, classes) if args.class_weights else None
    loss = dice_and_cross_entropy(args.dice_weight, args.ce_weight, weights)
    network = options.report_network(args, model, device)
    together.describe_parts(args, model)

    # ----- slices ----------------------------------------------------------------
    preparation = Preparation(args.size, args.how, args.standardize)
    cache = group.first_alone(lambda: SliceCache.build(
        cases, args.cache or default_folder(), preparation, args.workers, args.skip_bad,
        check_shape=lambda h, w: networks.fit_crop(args, model, (h, w)),
    ))  # fmt: skip
    for name, why in cache.skipped.items():
        print(f"left out {name}: {why}")
    train, val, test = split_cases([case for case in cases if case.name in cache.entries], args, folder, cache.skipped)
    read = cache.fingerprints(training=train, validation=val, test=test)
    if args.resume is not None:
        refuse_changed(args.fingerprints or {}, read, args.resume)
    crop = networks.fit_crop(args, model, cache.labels(train[0]).shape[1:])
    sampler = SliceSampler(
        cache, train, args.steps_per_epoch * args.batch_size, args.empty_share, args.balanced, args.mode == "whole",
        Augment.parse(args.augment), args.seed, crop,
    )  # fmt: skip
    loader = Loader(sampler, args.batch_size, shuffle=False, seed=args.seed, workers=args.workers, part=together.part())
    print(
        f"{folder}: {len(train)} patients to train on, {len(val)} for validation, {len(test)} for the test; "
        f"{', '.join(cache.modalities)}"
    )

    # ----- training --------------------------------------------------------------
    optimizer = ts.optim.Adam(model.parameters(), lr=args.lr)
    schedule = options.build_schedule(args, optimizer, args.epochs * len(loader))
    config = {name: getattr(args, name) for name in DEFAULTS} | {"computer": options.note_computer(args, device)}
    config |= {"patients": {"train": train, "val": val, "test": test}, "fingerprints": read}
    preprocessing = {"kind": "brain", "modalities": list(cache.modalities)} | preparation.as_dict()
    postprocessing = {"min_component": args.min_component}
    meta = {"config": config, "classes": classes, "preprocessing": preprocessing, "postprocessing": postprocessing}
    regions = regions_of(cache.classes)

    def score(model, names):
        return score_patients(model, cache, names, regions, loss, args.batch_size, min_component=args.min_component)

    def validate(model):
        return as_log(score(model, val))

    step = options.make_step(args, model, optimizer, loss, max(crop))
    average = options.make_average(args, model)
    result = fit(
        step, loader, validate, schedule=schedule, epochs=args.epochs, run=run, meta=meta, best="dice", average=average
    )  # fmt: skip
    options.exit_if_interrupted(result, run, args)
    if group.rank > 0:
        return

    # ----- report ----------------------------------------------------------------
    best = ts.checkpoint.load(run.best, device)
    scored = test or val
    report = score(best, scored)
    summary = network | {
        "steps": result["steps"], "seconds_per_step": result["seconds_per_step"],
        "best_epoch": result["best"]["epoch"], "val": result["best"], "test" if test else "val_patients": report,
    }  # fmt: skip
    with ts.plots.drawing(run.path / "predictions.png") as picture:
        ts.plots.tumours(*examples_of(best, cache, scored), picture, cache.modalities, classes)
    run.write_json("summary.json", summary)  # the last file: where it is, the run is done
    part = "test" if test else "validation"
    print(f"{len(scored)} patients of the {part} (best epoch: {result['best']['epoch']}), Dice:")
    for name, value in (report["regions"] | report["classes"]).items():
        spread = f" ± {value['std']:.4f}" if len(scored) > 1 else ""
        without = f", {value['empty']} without it" if value["empty"] else ""
        print(f"  {name}: {value['mean']:.4f}{spread}{without}")
    if len(scored) > 1:
        for name in ("small", "large"):
            print(f"  {name} tumours, whole: {report[name]['dice']:.4f} ({report[name]['patients']} patients)")
    print(f"Pictures, log and checkpoints are in {run.path}: look at predictions.png")


def split_cases(cases, args, folder, skipped):
    """Return the names of the cases for training, validation and test. Those of one patient stay together.

    `skipped` has the reason why a case cannot be used, by name, for the message if it is one of --val-cases.
    """
    names = [case.name for case in cases]
    if args.val_cases is None:
        parts = split(names, [float(share) for share in args.shares.split(":")], args.seed)
        if not (parts[0] and parts[1]):
            raise ValueError(
                f"--shares {args.shares} leaves no patient to train on, or none for validation: give both."
            )
        return parts
    unusable = next((name for name in map(str.strip, args.val_cases.split(",")) if name in skipped), None)
    if unusable:
        raise ValueError(f"--val-cases names {unusable}, which cannot be used: {skipped[unusable]}")
    chosen = select_cases(cases, args.val_cases.split(","), f"--val-cases must name some of the cases: {folder}")
    val = [case.name for case in select_cases(cases, [case.patient for case in chosen], folder)]
    if len(val) == len(names):
        raise ValueError(f"--val-cases {args.val_cases} names all cases of {folder}: none is left to train on.")
    return [name for name in names if name not in val], val, []


def build_parser():
    parser = make_parser(__doc__)

    add = options.option_adder(parser, DEFAULTS)
    add(
        "--data",
        "folder with dataset.json, imagesTr and labelsTr, or with one folder a BraTS case",
        type=options.folder_name,
    )
    add("--download", "fetch the public archive, 7.6 GB, into --data first", action="store_true", default=None)
    add(
        "--cache",
        "folder for the prepared slices (default: tinyseg/slices in your cache folder)",
        type=options.folder_name,
    )
    add("--skip-bad", "leave out cases that cannot be read, and list them", action="store_true", default=None)
    add("--shares", "training:validation:test, by patient", type=SHARES)
    add("--val-cases", "cases for validation, as in A,B; all others are trained on (instead of --shares)")
    add("--size", "side of the square slices, in pixels", type=Number(int, 16, 65536))
    add("--crop", "side of the windows of slices, at random places, that are trained on; at most the whole slice",
        type=Number(int, 16, 65536))  # fmt: skip
    add("--how", "cut out the middle, or resample the slice", choices=["crop", "resize"])
    add("--standardize", "mean 0 and variance 1 over the brain of", choices=["volume", "slice"])
    add("--mode", "all classes, or whole tumour or not", choices=["classes", "whole"])
    add("--dice-weight", "of the negative Dice in the loss", type=Number(float, 0, 10**6))
    add("--ce-weight", "of the cross-entropy in the loss", type=Number(float, 0, 10**6))
    add("--class-weights", "one number a class, as in 0.1,1,1,1", type=CLASS_WEIGHTS)
    add("--empty-share", "share of the samples without tumour (default: as they come)", type=PROBABILITY)
    add("--balanced", "draw a class, then a slice that has it", action="store_true", default=None)
    add("--steps-per-epoch", type=Number(int, 1, 10**6))
    add("--min-component", f"parts smaller than this share of the largest become background; 0 keeps all (default: "
        f"{SMALL:g} of brain tumours, 0 of other classes)", type=PROBABILITY, metavar="SHARE")  # fmt: skip
    options.add_training_options(parser, DEFAULTS, PAPER, out="runs/brats")
    return parser


def parse_arguments():
    parser = build_parser()
    rest = {"out": "runs/brats", "cache": None, "patients": None, "fingerprints": None}  # the last two: a resumed run's
    args = settle(parser, DEFAULTS, PAPER, rest)
    if {"shares", "val_cases"} <= args.given:
        parser.error("--shares and --val-cases cannot be had together: choose one of the two")
    if args.dice_weight == args.ce_weight == 0:
        parser.error("--dice-weight and --ce-weight are both 0: there is no loss to learn from")
    return args
