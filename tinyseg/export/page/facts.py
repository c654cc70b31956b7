"""What the page says about its network: from a checkpoint's metadata to a few lines for people."""

import html
import pathlib

from tinyseg.data.brain import Preparation
from tinyseg.prediction.predictor import Predictor

NAMES = {
    "unet": "U-Net", "unet_gn": "U-Net with GroupNorm", "unet_dw_bn": "U-Net, separable, with BatchNorm",
    "unet_dw_gn": "U-Net, separable, with GroupNorm", "sdunet": "SD-UNet", "sdunet_bn": "SD-UNet with BatchNorm",
}  # fmt: skip
SCORES = {"dice": "Dice", "iou": "IoU", "mean_iou": "mean IoU", "accuracy": "accuracy"}
STANDARDIZE = {
    "section": "each section gets mean 0 and variance 1",
    "stack": "the stack gets mean 0 and variance 1",
    "unit": "grey values from 0 to 1",
    "volume": "the brain gets mean 0 and variance 1 in each scan",
    "slice": "the brain gets mean 0 and variance 1 in each slice",
}


def collect_facts(predictor: Predictor) -> list[tuple[str, str]]:
    """Return pairs of a heading and what is known, in plain text; what a checkpoint does not say is left out.

    Paths of the computer that trained the network are not among them, only the last name of the data's folder.
    """
    meta = getattr(predictor.model, "meta", {})
    model, config, facts = predictor.model.config, meta.get("config") or {}, []
    facts.append(("It finds", ", ".join(name for name in predictor.classes if name != "background")))
    if predictor.modalities:
        facts.append(("It takes", f"skull-stripped scans of a brain: {', '.join(predictor.modalities)}"))
    name = NAMES.get(model.get("name", ""), model.get("name", "a network"))
    weights = f"{predictor.model.num_parameters():,}".replace(",", "\u202f")
    facts.append(("Network", f"{name}, width {model['width']}, {weights} weights"))
    if trained := _describe_training(config, meta):
        facts.append(("Trained on", trained))
    if scores := _describe_scores(config, meta):
        facts.append(scores)
    if predictor.min_component:
        text = f"For these scores parts smaller than {predictor.min_component:.0%} of the largest in a scan were taken "
        facts.append(("Small parts", f"{text}back, as tinyseg predict does. This page shows them."))
    facts.append(("Images are prepared as in training", _describe_preparation(predictor.preparation)))
    facts.append(("Good to know", _advise(predictor)))
    return facts


def write_facts(facts: list[tuple[str, str]]) -> str:
    """Return the pairs as a list in HTML."""
    rows = (f"<dt>{html.escape(head)}</dt><dd>{html.escape(text)}</dd>" for head, text in facts)
    return f"<dl>{''.join(rows)}</dl>"


def _describe_training(config, meta):
    if "data" not in config:
        return ""
    data = "synthetic images, a stand-in for real ones"
    if config["data"]:
        data = pathlib.PurePath(str(config["data"])).name
    count, state = _count(config, "train"), (meta.get("training") or {}).get("state") or {}
    text = f"{_sections(count)} of {data}" if count else data
    if "step" in state and "batch_size" in config:
        text += f", {state['step']} steps of {config['batch_size']} images"
    return text


def _describe_scores(config, meta):
    """Return (heading, text) of the last validation before the checkpoint was written; None if there was none."""
    history = ((meta.get("training") or {}).get("state") or {}).get("history") or [{}]
    last = history[-1]
    found = [f"{title} {last[f'val_{key}']:.3f}" for key, title in SCORES.items() if f"val_{key}" in last]
    count = _count(config, "val")
    heading = f"Scores on {_sections(count, 'held-out ')}" if count else "Scores on held-out images"
    return (heading, ", ".join(found)) if found else None


def _sections(count, kind=""):
    return f"{count} {kind}{'section' if count == 1 else 'sections'}"


def _count(config, part):
    sections = config.get("sections")
    return len(sections.get(part) or ()) if isinstance(sections, dict) else 0


def _describe_preparation(preparation):
    if isinstance(preparation, Preparation):
        size, change = preparation.size, {"crop": "the middle is cut out", "resize": "resampled"}[preparation.how]
        fitted = f"{change}, {size} × {size} pixels" if size else "at their own size"
        return f"{fitted}; {STANDARDIZE[preparation.standardize]}"
    rows, columns = (float(s) for s in preparation.scale)
    size = f"{rows:.3g}" if rows == columns else f"{rows:.3g} (rows) and {columns:.3g} (columns)"
    resized = "at their own size" if rows == columns == 1 else f"resized by {size}"
    return f"{resized}; {STANDARDIZE[preparation.standardize]}"


def _advise(predictor):
    text = "A network knows what it was trained on: look at its result before you trust it with images of another kind."
    if len(predictor.classes) == 1:
        text += " The threshold is 0.5 unless you move it."
    return text
