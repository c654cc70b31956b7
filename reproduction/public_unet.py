"""A public 2-D U-Net on what a run of ours has seen: MONAI's BasicUNet, in PyTorch.

    tinyseg train-brats --data DIR --val-cases BRATS_904 --out runs/brats
    python -m reproduction.public_unet runs/brats --out public.json

BasicUNet (32 to 256 channels, instance normalization, leaky ReLU) is trained on the batches of the run: the same
patients, slices, windows and augmentation in the same order, as many steps, the same warm-up, cosine and clipping. The
loss is MONAI's own sum of Dice and cross-entropy. At the last step the run's patients of the validation are scored as
`tinyseg train-brats` scores them. Needs ``pip install torch monai``.
"""

import argparse
import math
import pathlib
import time

import numpy as np

import tinyseg as ts
from benchmarks.machine import how_measured
from tinyseg.commands.numbers import PROBABILITY, Number, make_parser
from tinyseg.commands.options import a_path
from tinyseg.commands.script import run_script
from tinyseg.commands.train_brats import SMALL
from tinyseg.data import Augment, Loader
from tinyseg.data.brain import Preparation
from tinyseg.data.brats import find_cases
from tinyseg.data.classes import regions_of
from tinyseg.data.json_files import read_json, write_json
from tinyseg.data.load_tqdm import tqdm
from tinyseg.data.slice_sampler import SliceSampler
from tinyseg.data.slices import SliceCache, default_folder
from tinyseg.prediction.evaluation import score_patients
from tinyseg.training.losses import dice_and_cross_entropy


class FromTorch(ts.nn.Module):
    """A network of PyTorch as `score_patients` takes one: it predicts, and learns nothing here."""

    multiple = 16  # BasicUNet halves its input four times

    def __init__(self, network, num_classes):
        self.network, self.num_classes = network, num_classes
        self.dtype_of_images = ts.nn.Parameter(np.zeros(1, np.float32))

    def forward(self, x):
        import torch

        with torch.no_grad():
            return ts.Tensor(self.network(torch.from_numpy(x)).numpy())


def main():
    run_script(compare, out_of_memory="try a run with a smaller --batch-size or --crop")


def compare():
    args = build_parser().parse_args()
    run = argparse.Namespace(**read_json(args.run / "config.json", dict, "the options of a run of train-brats"))
    if not getattr(run, "patients", None) or run.mode != "classes" or not run.data:
        raise ValueError(f"{args.run} is not a run of tinyseg train-brats with --data and all classes: give one.")
    cases = find_cases(run.data)
    preparation = Preparation(run.size, run.how, run.standardize)
    cache = SliceCache.build(cases, args.cache or default_folder(), preparation)
    crop = [
        min(run.crop, side // FromTorch.multiple * FromTorch.multiple)
        for side in cache.labels(run.patients["train"][0]).shape[1:]
    ]
    batches = SliceSampler(
        cache, run.patients["train"], run.steps_per_epoch * run.batch_size, run.empty_share, run.balanced,
        augment=Augment.parse(run.augment), seed=run.seed, crop=tuple(crop),
    )  # fmt: skip
    loader = Loader(batches, run.batch_size, shuffle=False, seed=run.seed)
    network, seconds = train(loader, len(cases.modalities), len(cases.classes), run, args.lr)
    loss = dice_and_cross_entropy(run.dice_weight, run.ce_weight)
    model = FromTorch(network.eval(), len(cases.classes))
    scores = {
        f"{share:g}": score_patients(
            model, cache, run.patients["val"], regions_of(cache.classes), loss, min_component=share
        )
        for share in (0, args.min_component)
    }
    parameters = sum(p.numel() for p in network.parameters())
    command = f"python -m reproduction.public_unet RUN --lr {args.lr:g}"
    measured = {"parameters": parameters, "seconds_per_step": seconds, "measured": how_measured(command)}
    write_json(args.out, measured | {"of_min_component": scores})
    for share, report in scores.items():
        for patient in report["patients"]:
            print(f"{patient['name']}, --min-component {share}: whole tumour {patient['whole tumour']:.4f}")
    print(f"BasicUNet, {parameters:,} parameters, {seconds:.2f} s a step; all scores are in {args.out}")


def train(loader, channels, classes, run, lr):
    """Train BasicUNet as the run was trained; return it, and the median time of a step in seconds."""
    import torch
    from monai.losses import DiceCELoss
    from monai.networks.nets import BasicUNet

    torch.manual_seed(run.seed)
    network = BasicUNet(spatial_dims=2, in_channels=channels, out_channels=classes).train()
    loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    steps, times = run.epochs * run.steps_per_epoch, []

    ours = ts.optim.CosineAnnealingLR(argparse.Namespace(lr=lr), T_max=steps, warmup=run.warmup)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, ours.rate)
    with tqdm(total=steps, desc="BasicUNet", unit="step") as bar:
        for epoch in range(run.epochs):
            for images, labels in loader.epoch(epoch):
                start = time.perf_counter()
                optimizer.zero_grad()
                logits = network(torch.from_numpy(images))
                loss(logits, torch.from_numpy(labels)[:, None]).backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), run.clip or math.inf)
                optimizer.step()
                schedule.step()
                times.append(time.perf_counter() - start)
                bar.update()
    return network, float(np.median(times))


def build_parser():
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("run", type=a_path, help="folder of a run of tinyseg train-brats")
    add("--lr", type=Number(float, 0, 10, above=True), default=1e-3, help="learning rate of Adam (default: 1e-3)")
    add("--cache", type=a_path, help="folder for the prepared slices, as for train-brats")
    add(
        "--min-component", type=PROBABILITY, default=SMALL,
        help=f"scored with all components, and without those below this share of the largest (default: {SMALL:g})",
    )  # fmt: skip
    add("--out", type=a_path, default=pathlib.Path("public.json"), help="scores (default: public.json)")
    return parser


if __name__ == "__main__":
    main()
