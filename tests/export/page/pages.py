"""Pages for the tests, and what tinyseg itself gives for the weights that they hold."""

import nibabel
import numpy as np
import tifffile

from tests.export.networks import trained_like
from tinyseg import models
from tinyseg.export.describing import describe
from tinyseg.export.page.html import write_html
from tinyseg.prediction.predictor import Predictor

THREE = ["background", "cell", "membrane"]
MODALITIES = ["flair", "t1", "t1ce"]
MIXED = {"scale": [0.8, 0.6], "standardize": "section"}


def make_model(preprocessing=None, classes=None, **options):
    """Build a network with the metadata of a checkpoint. Its logits are spread, so that both sides of 0.5 occur."""
    options = {"name": "sdunet", "width": 8, "levels": 3, "num_classes": len(classes or ["cell"])} | options
    model = trained_like(**options)
    model.meta = {
        "preprocessing": preprocessing or {"scale": [1, 1], "standardize": "section"},
        "classes": classes or ["cell"],
    }
    return model


def make_page(path, example=None, **options):
    """Write a page; return a Predictor with the same weights, rounded as the page's are."""
    model = make_model(**options)
    write_html(path, model, example=example)
    return Predictor(rounded(model))


def rounded(model):
    """Return a plain network, whose kernels are fixed, with each matrix rounded to 8 or 16 bits a column."""
    plain = models.build(**(model.config | {"ws": None})).eval()
    network, state = describe(model), plain.state_dict()
    layers = [layer for level in network.levels for layer in (level.up, *level.convolutions) if layer]
    for layer in (*layers, *network.head):
        kernel = layer.kernel
        if layer.size > 1:
            limit = 127 if kernel.size > 65536 else 32767
            step = abs(kernel).max(axis=(1, 2, 3), keepdims=True) / np.float32(limit)
            kernel = np.rint(kernel / np.where(step > 0, step, 1)) * step
        part = "pointwise." if layer.depthwise is not None else ""
        state[f"{layer.name}.{part}weight"] = kernel[:, :, 0, 0] if layer.size == 1 or part else kernel
        if part:
            state[f"{layer.name}.depthwise.weight"] = layer.depthwise
        state[f"{layer.name}.{part}bias"] = layer.bias
    for name, array in model.state_dict().items():
        if "norm" in name:
            state[name] = array
    like = plain.state_dict()
    plain.load_state_dict({name: np.reshape(x, like[name].shape).astype(like[name].dtype) for name, x in state.items()})
    plain.meta = model.meta
    return plain


def make_stack(path, shape, dtype="uint8", seed=0):
    """Write a TIFF of smooth noise (sections, height, width) and return its pixels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    for axis in (1, 2):
        x = x + np.roll(x, 1, axis) + np.roll(x, 2, axis)
    x = (x - x.min()) / (x.max() - x.min())
    stack = x.astype(dtype) if dtype == "float32" else (x * np.iinfo(dtype).max).astype(dtype)
    tifffile.imwrite(path, stack, photometric="minisblack", compression="zlib")
    return stack


def make_brain(path, shape, dtype="int16", seed=0):
    """Write a NIfTI volume of channels (C, X, Y, Z), 0 outside of an ellipse, and return its voxels.

    Its axes run to the left, to the back and up, as networks see them.
    """
    rng = np.random.default_rng(seed)
    axes = [np.linspace(-1, 1, n) for n in shape[1:3]]
    inside = (np.add.outer(axes[0] ** 2, axes[1] ** 2) < 0.8)[None, :, :, None]
    x = rng.uniform(50, 900, shape)
    x = (x + np.roll(x, 1, 1) + np.roll(x, 1, 2)) * inside
    volume = x.astype(dtype)
    stored = np.moveaxis(volume, 0, 3)
    affine = np.diag([-1.5, -2, 3, 1])
    nibabel.save(nibabel.Nifti1Image(stored[..., 0] if shape[0] == 1 else stored, affine, dtype=dtype), path)
    return volume


def flips(p, q, threshold=0.5):
    """Return how many pixels get another class from probabilities p than from q (classes, H, W), and are no tie."""
    if len(p) > 1:
        top = np.sort(q, axis=0)
        return ((p.argmax(axis=0) != q.argmax(axis=0)) & (top[-1] - top[-2] > 1e-4)).sum()
    return (((p > threshold) != (q > threshold)) & (abs(q - threshold) > 1e-4)).sum()
