"""Compare several networks: numbers, and a picture of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinyseg import models as networks
from tinyseg.data.writing import FilePath
from tinyseg.nn import Module
from tinyseg.report.profile.picture import comparison
from tinyseg.report.profile.steps import check_input_shape
from tinyseg.report.profile.table import format_shape, summary
from tinyseg.report.profile.timing import latency

KEYS = ("parameters", "multiply_adds", "latency", "dice")


def compare(
    models: dict[str, Module] | Sequence[str],
    input_shape: Sequence[int],
    path: FilePath | None = None,
    dice: Mapping[str, float | Sequence[float]] | None = None,
    paper: Mapping[str, Mapping[str, float]] | None = None,
    repeats: int = 20,
    budget: float = 10.0,
) -> dict[str, dict[str, Any]]:
    """Find parameters, multiply-adds and latency of inference of several models, and draw them beside their Dice.

    Parameters
    ----------
    models : dict or list
        ``{name: model}``, or names of `tinyseg.models.MODELS`: these models are built for the channels of the input and
        one class.
    input_shape : tuple
        (N, C, H, W).
    path : str or path-like, optional
        Picture to write; its ending says the format (``.png``, ``.pdf``, ``.svg``; PNG without one). By default none.
    dice : dict, optional
        ``{name: Dice}``, a number or a list of numbers, one for each seed.
    paper : dict, optional
        ``{name: {"parameters", "multiply_adds", "latency" (in seconds), "dice"}}``, any of these: what somebody else
        reported, drawn as diamonds beside the bars.
    repeats, budget
        See `tinyseg.report.profile.latency`; for each model.

    Returns
    -------
    dict
        ``{name: {"parameters": int, "multiply_adds": int, "latency": dict, "dice": list, "paper": dict}}``, with the
        latency as `Latency.as_dict` returns it.

    Raises
    ------
    ValueError
        If there is no model, `dice` or `paper` names a model that is not among them, `paper` has another key, or a
        model does not take this shape, or not within this computer's memory.
    FileNotFoundError
        If the folder of ``path`` does not exist.
    """
    input_shape = check_input_shape(input_shape)
    if not isinstance(models, dict):
        models = {name: networks.build(name, in_channels=input_shape[1]) for name in models}
    dice, paper = dice or {}, paper or {}
    unknown = [name for name in (*dice, *paper) if name not in models]
    if not models:
        raise ValueError("compare needs at least one model, but there is no model.")
    if unknown:
        raise ValueError(
            f"dice and paper must be of models that are compared, but there is no {', '.join(unknown)}; "
            f"the models are {', '.join(models)}."
        )
    wrong = sorted({key for values in paper.values() for key in values} - set(KEYS))
    if wrong:
        raise ValueError(f"paper takes {', '.join(KEYS)} for each model, but has {', '.join(wrong)}.")
    found: dict[str, dict[str, Any]] = {}
    for name, model in models.items():
        counted = summary(model, input_shape, show=False)
        found[name] = {
            "parameters": counted.parameters,
            "multiply_adds": counted.multiply_adds,
            "latency": latency(model, input_shape, repeats=repeats, budget=budget).as_dict(),
            "dice": [float(d) for d in np.atleast_1d(dice.get(name, []))],
            "paper": dict(paper.get(name, {})),
        }
    if path is not None:
        where = next(iter(found.values()))["latency"]
        threads = f", {where['threads']} threads" if where["threads"] else ""
        comparison(found, path, f"input {format_shape(input_shape)}; {where['device']}{threads}, {where['kernels']}")
    return found
