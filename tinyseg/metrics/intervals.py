"""How sure a mean over few images or patients is."""

from collections.abc import Sequence

import numpy as np

from tinyseg.metrics.arrays import as_numbers, number_within

BATCH = 2**24  # most numbers that are drawn at once


def mean_interval(values: Sequence[float | None] | np.ndarray, level: float = 0.95) -> tuple[float, float] | None:
    """Return an interval of a mean by the bootstrap: percentiles of 9999 resamples (Efron 1979).

    Parameters
    ----------
    values : sequence of float
        One for each image or patient, finite; NaN, and None in a list, is left out.
    level : float
        Share of the resampled means that lie inside of the interval, from 0 to 1.

    Returns
    -------
    (float, float) or None
        Lower and upper end; None if fewer than two values are left.

    Raises
    ------
    ValueError
        The values are no list of numbers, one is infinite, or `level` is not in [0, 1].
    """
    from scipy.stats import bootstrap  # here because it takes as long to import as all of tinyseg.metrics

    level = number_within(level, 0, 1, "level")
    given = as_numbers([np.nan if v is None else v for v in values] if isinstance(values, list) else values, "values")
    if given.ndim != 1 or np.isinf(given).any():
        found = "one is infinite" if given.ndim == 1 else f"they have shape {given.shape}"
        raise ValueError(f"values must be a list of finite numbers, one for each image or patient, but {found}.")
    kept = given[~np.isnan(given)].astype(np.float64)
    if len(kept) < 2:
        return None
    options = {"confidence_level": level, "method": "percentile", "rng": 0, "batch": max(1, BATCH // len(kept))}
    found = bootstrap((kept,), np.mean, **options).confidence_interval
    return float(found.low), float(found.high)
