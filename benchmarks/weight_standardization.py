"""How SD-UNet learns with each reading of weight standardization: the table of docs/ops/weight_standardization.md.

    python -m benchmarks.claims --parts weight_standardization --data DIR

The real sections of ISBI 2012, crops of 128 x 128 turned and flipped, batch 4, a quarter of the width, 400 steps, Adam
at a constant rate, one seed. The last four sections are scored whole, at threshold 0.5; the network never saw them.
"""

import numpy as np

import tinyseg as ts
from tinyseg import ops
from tinyseg.data import isbi, standardize

STEPS, AT, BATCH, CROP = 400, (100, 200, 400), 4, 128
READINGS = {
    "each filter": {"ws": "filter", "ws_gain": False},
    "each filter, with gain 1/√9": {"ws": "filter"},
    "the layer": {"ws": "layer", "ws_gain": False},
    "the layer, with gain 1/√9": {"ws": "layer"},
    "nothing (GroupNorm alone)": {"ws": None},
    "nothing, and no GroupNorm": {"ws": None, "norm": None},
}
RATES = {
    "1e-4": (1e-4, list(READINGS)),
    "1e-3": (1e-3, [name for name in READINGS if "gain" in name or "alone" in name]),
}
COLUMNS = {f"loss at {step}": ".2f" for step in AT} | {"accuracy": ".3f", "membrane IoU": ".2f"}


def run(folder):
    """Train one network for each reading and rate.

    Parameters
    ----------
    folder : path-like
        With train-volume.tif and train-labels.tif.

    Yields
    ------
    title : str
        The reading, and Adam's rate.
    row : dict of str to float
        For each of `COLUMNS`; the loss is the mean of the ten steps before.
    """
    sections = isbi.load(folder, labels="required")
    images = standardize(sections.images)
    train, held_out = slice(0, len(images) - 4), slice(len(images) - 4, None)
    for name, (rate, readings) in RATES.items():
        for reading in readings:
            model = ts.models.build("sdunet", width=16, **READINGS[reading])
            losses = _train(model, images[train], sections.labels[train], rate)
            accuracy, membrane = _score(model, images[held_out], sections.labels[held_out])
            row = {f"loss at {step}": float(np.mean(losses[step - 10 : step])) for step in AT}
            yield f"{reading}; {name}", row | {"accuracy": accuracy, "membrane IoU": membrane}


def _train(model, images, labels, rate):
    rng, optimizer = np.random.default_rng(0), ts.optim.Adam(model.parameters(), lr=rate)
    losses = []
    for _ in range(STEPS):
        x, y = zip(*(_crop(images, labels, rng) for _ in range(BATCH)), strict=True)
        loss = ops.binary_cross_entropy_with_logits(model(np.stack(x)), np.stack(y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def _crop(images, labels, rng):
    """A random crop of a random section and of its mask, (1, CROP, CROP) each, turned and flipped alike."""
    k, i, j, turns, flip = rng.integers((len(images), *np.subtract(images.shape[1:], CROP - 1), 4, 2))
    crops = (np.rot90(a[k, i : i + CROP, j : j + CROP], turns) for a in (images, labels))
    return [np.ascontiguousarray(a[:, :: 1 - 2 * flip], np.float32)[None] for a in crops]


def _score(model, images, labels):
    """Accuracy, and IoU of the membrane."""
    inside = np.concatenate([ts.prediction.predict(model, image[None, None])[:, 0] for image in images]) > 0.5
    membrane, found = ~labels, ~inside
    both, either = (membrane & found).sum(), (membrane | found).sum()
    return float((inside == labels).mean()), float(both / either)
