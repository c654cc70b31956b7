"""Does weight standardization make depthwise networks quantize well? The table of docs/quantization.md.

    python -m benchmarks.claims --parts quantization --data DIR

The real sections of ISBI 2012 at 256 x 256, turned and flipped, batch 4, a quarter of the width, 200 steps, Adam with a
warm-up and a cosine. The last four sections are scored; the network never saw them. Each network is trained with three
seeds, once: the checkpoints are kept in runs/quantization, and an interrupted run goes on.
"""

import pathlib

import numpy as np

import tinyseg as ts
from benchmarks import worker
from tinyseg import ops
from tinyseg.data import isbi, standardize

SIDE, HELD_OUT, BATCH, STEPS, RATE, SEEDS = 256, 4, 4, 200, 2e-3, (0, 1, 2)
NETWORKS = {
    "SD-UNet": {"name": "sdunet"},
    "SD-UNet without standardized weights": {"name": "sdunet", "ws": None},
    "U-Net, separable, GroupNorm": {"name": "unet_dw_gn"},
    "U-Net, separable, GroupNorm, standardized weights": {"name": "unet_dw_gn", "ws": "layer"},
    "U-Net, GroupNorm": {"name": "unet_gn"},
}
KEPT = worker.ROOT / "runs" / "quantization"


def load_sections(folder):
    """Return the sections to train on and those held out, both 256 × 256."""
    sections = isbi.load(folder, labels="required")
    return [part.resized(SIDE) for part in sections.split(HELD_OUT)]


def train(path, sections, options, seed):
    """Train one network, and write its checkpoint."""
    images, labels, rng = standardize(sections.images), sections.labels, np.random.default_rng(seed)
    model = ts.models.build(width=16, seed=seed, **options)
    optimizer = ts.optim.Adam(model.parameters(), lr=RATE)
    schedule = ts.optim.CosineAnnealingLR(optimizer, STEPS, warmup=STEPS // 10)
    for _ in range(STEPS):
        x, y = (np.stack(arrays) for arrays in zip(*(draw(images, labels, rng) for _ in range(BATCH)), strict=True))
        loss = ops.binary_cross_entropy_with_logits(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    path.parent.mkdir(parents=True, exist_ok=True)
    preprocessing = {"scale": [SIDE / 512] * 2, "standardize": "section"}
    ts.checkpoint.save(path, model, preprocessing=preprocessing, loss=loss.item())


def draw(images, labels, rng):
    """Return a random section and its mask, (1, H, W) each, turned and flipped alike."""
    k, turns, flip = rng.integers((len(images), 4, 2))
    turned = (np.rot90(a[k], turns) for a in (images, labels))
    return [np.ascontiguousarray(a[:, :: 1 - 2 * flip], np.float32)[None] for a in turned]


def train_all(folder, kept=KEPT):
    """Train what has not been trained yet; yield (title, seed, path) of each checkpoint."""
    sections = load_sections(folder)[0]
    for seed in SEEDS:
        for title, options in NETWORKS.items():
            path = pathlib.Path(kept) / f"{'-'.join(str(value) for value in options.values())}-{seed}.safetensors"
            if not path.is_file():
                train(path, sections, options, seed)
            yield title, seed, path
