"""Ratios, numbers as text, and Markdown tables."""

import math
import statistics

from reproduction.tables import table  # noqa: F401 (for the modules beside this one)

RATIOS = (
    "In every round each variant runs alone, in an order drawn anew, and a *ratio* is the median over the rounds of "
    "tinyseg's time divided by the time of that round's fastest PyTorch variant (below 1: tinyseg is faster); "
    "*of medians* and *of minima* divide the median and the minimum of all repetitions by the lowest of PyTorch's."
)


def ratios(times, ours, theirs, direction):
    """Compare one variant with the best of others.

    Parameters
    ----------
    times : dict
        As `benchmarks.worker.measure` returns it.
    ours : str
    theirs : list of str
        Those that are missing in `times` are passed over.
    direction : str

    Returns
    -------
    dict or None
        "rounds": the median over rounds of ours / that round's best of theirs; "median" and "min": ours / the best of
        theirs; "best": the name of the variant of theirs with the lowest median. None if either side is missing.
    """
    theirs = {name: times[name][direction] for name in theirs if name in times}
    if ours not in times or not theirs:
        return None
    mine = times[ours][direction]
    best_of_rounds = [min(of_round) for of_round in zip(*(t["rounds"] for t in theirs.values()), strict=True)]
    best = min(theirs, key=lambda name: theirs[name]["median"])
    return {
        "rounds": statistics.median(a / b for a, b in zip(mine["rounds"], best_of_rounds, strict=True)),
        "median": mine["median"] / theirs[best]["median"],
        "min": mine["min"] / min(t["min"] for t in theirs.values()),
        "best": best,
    }


def significant(value):
    """Return a number as text: three significant digits, never with an exponent."""
    value = float(f"{value:.3g}")
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}" if value else "0"


def milliseconds(seconds):
    """Return a time as text: in ms, three significant digits."""
    return significant(1e3 * seconds)


def ratio(value):
    """Return a ratio as text: two decimals."""
    return f"{value:.2f}"


def image(shape):
    """Return a shape as text, "1×64×256×256"."""
    return "×".join(map(str, shape))


def reason(error, longest=120):
    """Return a failure as text that fits into a table."""
    text = " ".join(str(error).replace("|", "/").split())
    return f"failed: {text if len(text) <= longest else text[: longest - 1] + '…'}"


def summary(of_rows):
    """Return one sentence on a list of ratios: how many are at most 1, their geometric mean, the largest."""
    if not of_rows:
        return "Nothing could be compared.\n"
    mean = math.exp(statistics.fmean(map(math.log, of_rows)))
    faster = sum(r <= 1 for r in of_rows)
    return (
        f"tinyseg is at least as fast in {faster} of {len(of_rows)} rows; "
        f"geometric mean of the ratios {mean:.2f}, largest {max(of_rows):.2f}.\n"
    )
