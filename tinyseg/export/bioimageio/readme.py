"""README and cover of a package of bioimage.io: what people read and see before they use a network."""

import io
import math

import numpy as np
from PIL import Image

from tinyseg.data.brain import Preparation
from tinyseg.export.bioimageio.rdf import printable, trained_on_isbi
from tinyseg.prediction.predictor import labels
from tinyseg.report.colours import class_colours

LARGEST_COVER = 384  # rows; bioimage.io asks for less than 500 kB and a width of twice the height


def draw_cover(x: np.ndarray, p: np.ndarray) -> bytes:
    """Return a PNG: the middle of a section (C, H, W) beside its probabilities, or beside its classes if several."""
    side = min(*x.shape[1:], LARGEST_COVER)
    top, left = ((n - side) // 2 for n in x.shape[1:])
    x, p = (each[:, top : top + side, left : left + side] for each in (x, p))
    low, high = np.percentile(x[0].astype(float), (1, 99))
    grey = ((x[0].astype(float) - low) / max(high - low, 1e-9)).clip(0, 1) * 255
    image = grey.astype(np.uint8)[:, :, None].repeat(3, axis=2)
    if len(p) == 1:
        result = (p[0] * 255).round().astype(np.uint8)[:, :, None].repeat(3, axis=2)
    else:
        black = np.zeros((1, 3))  # of background
        result = np.rint(255 * np.vstack([black, class_colours(len(p) - 1)])).astype(np.uint8)[labels(p)]
    file = io.BytesIO()
    Image.fromarray(np.hstack([image, result])).save(file, "png", optimize=True)
    return file.getvalue()


def write_readme(about, predictor, network, spec, scores=None) -> str:
    """Return the README, in Markdown, from the description `about` and what the training left in the checkpoint."""
    meta = getattr(predictor.model, "meta", {})
    shown = "the class of each pixel" if network.num_classes > 1 else "the probability"
    parts = [
        f"# {about['name']}\n\n{about['description']}\n\n![](cover.png)\n\n*A section, and beside it {shown}.*",
        "## What goes in, what comes out\n\n" + _inputs_and_outputs(predictor, spec),
    ]
    if not spec.prepared_in_graph:
        parts.append("## Size of pixels\n\n" + _pixels(about, spec))
    parts.append("## Preprocessing\n\n" + _preparation(predictor.preparation, about["inputs"][0]["data"]["type"]))
    parts.append("## Validation\n\n" + _validation(meta, scores, predictor.classes))
    parts.append("## Training\n\n" + _training(about, predictor.model, meta))
    parts.append("## Limits\n\n" + _limits(network, spec))
    cited = "\n".join(
        f"- {entry['text']}: {entry.get('url') or 'https://doi.org/' + entry['doi']}" for entry in about["cite"]
    )
    parts.append(f"## Cite\n\n{cited}")
    return "\n\n".join(parts) + "\n"


def _inputs_and_outputs(predictor, spec):
    channels = ", ".join(spec.channels)
    size = f"Height and width are at least {spec.least}"
    size += f", and multiples of {spec.step}." if spec.step > 1 else "."
    lines = [f"In: images with the axes batch, channel, y, x. {size} Channels: {channels}."]
    if spec.prepared_in_graph:
        lines.append("Rows of a slice (y) are the first axis of a NIfTI volume, columns (x) the second.")
    if len(predictor.classes) == 1:
        lines.append(
            f"Out: at each pixel the probability of *{printable(predictor.classes[0])}*, from 0 to 1. Above 0.5 it is "
            "more likely than not."
        )
        if predictor.foreground == "black":
            lines.append("In the masks of the training this class was black; a high probability means this class.")
    else:
        names = ", ".join(f"{k} {printable(name)}" for k, name in enumerate(predictor.classes))
        lines.append(
            f"Out: at each pixel the probability of each class, in the channels ({names}); they sum to 1. The class of "
            "a pixel is the one with the highest."
        )
    return "\n".join(lines)


def _pixels(about, spec):
    known = about["config"]["tinyseg"].get("nanometres_per_pixel")
    size = f"A pixel of the training was {known[0]:.4g} × {known[1]:.4g} nm (height × width). " if known else ""
    if spec.scale == (1.0, 1.0):
        return f"{size}The network was trained on images as they are stored. Others must show things at the same size."
    rows, columns = spec.scale
    return (
        f"{size}**Resize your images first**: the network was trained on images of {rows:.4g} of their height and "
        f"{columns:.4g} of their width, and this format has no step that resizes. In Fiji that is Image ▸ Scale… with "
        f"an X scale of {columns:.4g} and a Y scale of {rows:.4g}, with averaging when downsizing. The sample and the "
        "test section are resized already. Images with another size of pixels must be resized so that things are as "
        "large as there."
    )


def _preparation(preparation, dtype):
    if isinstance(preparation, Preparation):
        crop = (
            f" Then the middle {preparation.size} × {preparation.size} pixels are cut out, and what lies outside of "
            "them is background in the output: give whole slices."
        )
        return (
            "The network does it by itself: each channel gets mean 0 and deviation 1 over the pixels where any channel "
            "is not 0, and all others become 0." + (crop if preparation.size else "")
        )
    if preparation.standardize == "unit":
        if dtype.startswith("float"):
            return "Grey values are expected from 0 to 1."
        return (
            f"The range of {dtype} becomes 0 to 1. Images of another type must be converted and scaled to this range."
        )
    if preparation.standardize == "stack":
        return (
            "Grey values get mean 0 and deviation 1 over all sections of a stack (`zero_mean_unit_variance` with the "
            "axis batch): give all sections of a stack together."
        )
    return "Each section gets mean 0 and deviation 1 (`zero_mean_unit_variance`), so grey values of any range will do."


def _validation(meta, scores, classes):
    taken = "threshold the probability at 0.5" if len(classes) == 1 else "take the class with the highest probability"
    how = (
        f"To validate it on images of your own, outline some by hand that it has not seen, {taken}, and compare the "
        "two by Dice = 2 |A ∩ B| / (|A| + |B|), of each class, and by eye."
    )
    if scores:
        said = "Scores on images that were given when the package was made:"
    else:
        scores, said = _scores_of_training(meta)
    if not scores:
        return f"No scores are known of this network: it was not validated when the package was made.\n\n{how}"
    table = "\n".join(f"| {printable(str(name))} | {float(value):.4f} |" for name, value in scores.items())
    return f"{said}\n\n| score | |\n|---|---|\n{table}\n\n{how}"


def _scores_of_training(meta):
    """Return the scores of the checkpoint's epoch on held-out data, by name, and a sentence about these data."""
    try:
        state = meta["training"]["state"]
        best = state["history"][state["best"]] if state.get("best") is not None else state["history"][-1]
        scores = {
            key.removeprefix("val_").replace("_", " ").replace("dice", "Dice").replace("iou", "IoU"): float(value)
            for key, value in best.items()
            if key.startswith("val_") and key != "val_loss" and math.isfinite(value)
        }
        epoch = best["epoch"]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):  # metadata may hold anything
        return {}, ""
    held_out = "data held out from the training"
    config = meta.get("config")
    config = config if isinstance(config, dict) else {}
    for group, what in (("sections", "sections"), ("patients", "patients")):
        part = config.get(group)
        if isinstance(part, dict) and part.get("val"):
            held_out = f"{len(part['val'])} {what} that were held out from the training"
    return scores, (
        f"Scores on {held_out}. Epoch {epoch} was chosen because it was the best on these very data, so that new data "
        "of the same kind may score a little lower:"
    )


def _training(about, model, meta):
    config = meta.get("config")
    config = config if isinstance(config, dict) else {}
    count = about["config"]["bioimageio"]["model_parameter_count"]
    lines = [f"{type(model).__name__} with {count:,} parameters, trained and packaged with tinyseg."]
    if config.get("data", True) is None:
        lines.append("**It was trained on synthetic images**, which a program drew: it is for trying things out.")
    if trained_on_isbi(meta):
        lines.append("It was trained on sections of the ISBI 2012 challenge (larva of Drosophila, 4 × 4 nm).")
    names = ("epochs", "batch_size", "lr", "schedule", "augment", "size", "seed")
    told = [f"{name} {config[name]}" for name in names if isinstance(config.get(name), int | float | str)]
    if told:
        lines.append(printable("Options: " + ", ".join(told)) + ".")
    options = ", ".join(f"{key}={value}" for key, value in model.config.items())
    lines.append(f"Network: `{printable(options)}`.")
    return "\n".join(lines)


def _limits(network, spec):
    lines = ["- It knows images like those of its training. For others it gives probabilities too, which mean nothing."]
    if spec.halo:
        lines.append(
            "- A program that cuts images into tiles should let them overlap by the halo, "
            f"{spec.halo} pixels on each side."
        )
    if any(level.norm is not None and level.norm.groups for level in network.levels):
        lines.append(
            "- GroupNorm takes a mean and a variance over the image that it is given. In tiles they are those of the "
            "tile, and the probabilities a little different: large tiles are better."
        )
    return "\n".join(lines)
