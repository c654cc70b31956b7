"""How sure a mean over few images or patients is."""

import numpy as np


def mean_interval(values, level=0.95):
    """Return an interval of a mean by the bootstrap: percentiles of 9999 resamples (Efron 1979).

    Parameters
    ----------
    values : sequence of float
        One an image or patient; NaN is left out.
    level : float
        Share of the resampled means inside.

    Returns
    -------
    (float, float) or None
        None if fewer than two values are left.
    """
    from scipy.stats import bootstrap  # here, not above: it takes as long to import as the rest of this package

    kept = np.array(values, float)
    kept = kept[~np.isnan(kept)]
    if len(kept) < 2:
        return None
    found = bootstrap((kept,), np.mean, confidence_level=level, method="percentile", rng=0).confidence_interval
    return float(found.low), float(found.high)
