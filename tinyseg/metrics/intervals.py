"""How sure a mean over few images or patients is."""

import numpy as np


def mean_interval(values, level=0.95):
    """Return an interval of a mean by the bootstrap: percentiles of 9999 resamples (Efron 1979).

    Parameters
    ----------
    values : sequence of float
        One for each image or patient; NaN is left out.
    level : float
        Share of the resampled means that lie inside of the interval.

    Returns
    -------
    (float, float) or None
        Lower and upper end; None if fewer than two values are left.
    """
    from scipy.stats import bootstrap  # here because it takes as long to import as all of tinyseg.metrics

    kept = np.array(values, float)
    kept = kept[~np.isnan(kept)]
    if len(kept) < 2:
        return None
    found = bootstrap((kept,), np.mean, confidence_level=level, method="percentile", rng=0).confidence_interval
    return float(found.low), float(found.high)
