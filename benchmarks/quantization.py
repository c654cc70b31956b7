"""Does weight standardization make depthwise networks quantize well? The table of docs/quantization.md.

    python -m benchmarks.claims --parts quantization --data DIR

The real sections of ISBI 2012 at 256 x 256, turned and flipped, batch 4, a quarter of the width, 200 steps, Adam with a
warm-up and a cosine. The last four sections are scored; the network never saw them. Each network is trained with three
seeds, once: the checkpoints are kept in runs/quantization, and an interrupted run goes on.
"""

import dataclasses
import pathlib

import numpy as np

import tinyseg as ts
from benchmarks import worker
from tinyseg import ops
from tinyseg.data import isbi, standardize
from tinyseg.export.calibration import quantize
from tinyseg.export.describing import describe
from tinyseg.export.onnx.file import make_onnx
from tinyseg.export.onnx.runtime import OnnxFile
from tinyseg.metrics import accuracy, dice

SIDE, HELD_OUT, BATCH, STEPS, RATE, SEEDS = 256, 4, 4, 200, 2e-3, (0, 1, 2)
NETWORKS = {
    "SD-UNet": {"name": "sdunet"},
    "SD-UNet without standardized weights": {"name": "sdunet", "ws": None},
    "U-Net, separable, GroupNorm": {"name": "unet_dw_gn"},
    "U-Net, separable, GroupNorm, standardized weights": {"name": "unet_dw_gn", "ws": "layer"},
    "U-Net, GroupNorm": {"name": "unet_gn"},
}
UNEVEN = "SD-UNet, kernels made uneven"  # and what reads them in turn
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


# ----- with integers -------------------------------------------------------------------
KINDS = {
    "one scale": {"per_channel": False}, "a scale a channel": {"per_channel": True},
    "4 bits, one scale": {"per_channel": False, "kernel_bits": 4},
    "4 bits, a scale a channel": {"per_channel": True, "kernel_bits": 4},
}  # fmt: skip
COLUMNS = {"accuracy": ".4f", "Dice": ".4f"}
COLUMNS |= {f"{what}, {kind}": form for kind in ("one scale", "a scale a channel") for what, form in (
    ("accuracy", ".4f"), ("Dice", ".4f"))}  # fmt: skip
COLUMNS |= {f"changed %, {kind}": "" for kind in KINDS} | {"spread": ".1f"}


def run(folder, kept=KEPT):
    """Quantize each network in each way.

    Parameters
    ----------
    folder : path-like
        With train-volume.tif and train-labels.tif.

    Yields
    ------
    title : str
        The network.
    row : dict
        For each of `COLUMNS`, the mean over the seeds, of shares of changed pixels as a text with the least and the
        most; and ``seeds``, the same of each.
    """
    train, held_out = load_sections(folder)
    arrays = standardize(train.images), standardize(held_out.images), held_out.labels
    found = {title: [] for title in (*NETWORKS, UNEVEN)}
    for title, seed, path in train_all(folder, kept):
        network = describe(ts.checkpoint.load(path))
        found[title].append(measure(network, *arrays))
        if title == "SD-UNet":
            found[UNEVEN].append(measure(make_uneven(network, seed), *arrays))
    for title, seeds in found.items():
        row = {name: [each[name] for each in seeds] for name in COLUMNS}
        mean = {name: float(np.mean(values)) for name, values in row.items()}
        texts = {name: f"{mean[name]:.2f} ({min(row[name]):.2f}–{max(row[name]):.2f})" for name in COLUMNS
                 if "changed" in name}  # fmt: skip
        yield title, mean | texts | {"seeds": row}


def make_uneven(network, seed):
    """Multiply each depthwise kernel by a factor e^n, n normal, and divide what reads it: the same function."""
    rng = np.random.default_rng(seed)

    def change(layer):
        if layer is None or layer.depthwise is None:
            return layer
        factors = np.exp(rng.normal(size=len(layer.depthwise))).astype(np.float32)
        parts = {"depthwise": layer.depthwise * factors[:, None, None], "kernel": layer.kernel / factors[:, None, None]}
        return dataclasses.replace(layer, **parts)

    def change_level(level):
        layers = tuple(map(change, level.convolutions))
        return dataclasses.replace(level, convolutions=layers, up=change(level.up))

    encoder, decoder = (tuple(map(change_level, part)) for part in (network.encoder, network.decoder))
    return dataclasses.replace(network, encoder=encoder, decoder=decoder)


def measure(network, calibration, images, labels):
    """Return the scores of a network as float and quantized, over all held-out pixels, and its kernels' spread."""

    def run(network):
        return OnnxFile("a network", content=make_onnx(network))(images[:, None])[:, 0] > 0

    mask = run(network)
    row = score(mask, labels) | {"spread": spread(network)}
    for kind, how in KINDS.items():
        quantized = run(quantize(network, calibration[:, None], **how))
        row |= {f"{name}, {kind}": value for name, value in score(quantized, labels).items()}
        row[f"changed %, {kind}"] = 100 * float(np.mean(quantized != mask))
    return row


def score(mask, labels):
    return {"accuracy": float(accuracy(mask, labels)), "Dice": float(dice(mask, labels))}


def spread(network):
    """Return how much larger the largest kernel of a layer is than its median one, by their largest weights.

    Of depthwise kernels, or where there are none of standard ones; the geometric mean over the layers.
    """
    layers = [layer for level in network.levels for layer in (level.up, *level.convolutions) if layer is not None]
    kernels = [layer.depthwise for layer in layers if layer.depthwise is not None] or [each.kernel for each in layers]
    largest = [np.abs(kernel).reshape(len(kernel), -1).max(axis=1) for kernel in kernels]
    return float(np.exp(np.mean([np.log(each.max() / np.median(each)) for each in largest])))
