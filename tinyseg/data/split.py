"""Which patients a network is trained on, and which are held out: all scans of a patient are on one side."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def patient_of(name: str) -> str:
    """Return the patient of a case, whose name may say which scan of him it is.

    BraTS 2023 puts the number of the scan at the end (BraTS-GLI-00001-000), BIDS puts all but the subject there
    (sub-01_ses-2_T1w). Any other name is that of the patient.
    """
    return re.sub(r"^(BraTS-\w+-\d+)-\d{3}$|^(sub-[^\W_]+)_.*$", lambda match: match[1] or match[2], name)


def split(
    cases: Iterable[Any], shares: Sequence[float] = (406, 32, 46), seed: int = 0
) -> tuple[list[Any], list[Any], list[Any]]:
    """Split cases by patient into training, validation and test.

    Parameters
    ----------
    cases : sequence of str or of Case
        Names of cases, or cases. Those of one patient (see `patient_of`) stay together.
    shares : three non-negative numbers
        Proportions of the three parts; the paper split its 484 cases 406 : 32 : 46. A share above 0 gets one patient or
        more.
    seed : int

    Returns
    -------
    train, val, test : lists
        In the order of `cases`.

    Raises
    ------
    ValueError
        The shares are not three non-negative numbers, all are 0, or there are fewer patients than shares above 0.
    """
    cases, wanted = list(cases), np.asarray(shares, float)
    patients: dict[str, list[int]] = {}
    for i, case in enumerate(cases):
        patients.setdefault(patient_of(str(getattr(case, "name", case))), []).append(i)
    size, groups = len(patients), list(patients.values())
    if (
        wanted.shape != (3,)
        or not np.isfinite(wanted).all()
        or (wanted < 0).any()
        or size < (wanted > 0).sum()
        or (not wanted.any())
    ):
        raise ValueError(
            f"{size} patients cannot be split into shares of {wanted.tolist()}: give three numbers for training, "
            "validation and test, one or more of them above 0, but no more than there are patients."
        )
    exact = size * wanted / wanted.sum()
    counts = np.maximum(np.floor(exact).astype(int), wanted > 0)
    while counts.sum() > size:
        counts[np.argmax(counts)] -= 1
    for k in np.argsort(counts - exact, kind="stable")[: size - counts.sum()]:  # largest remainders first
        counts[k] += 1
    parts = np.split(np.random.default_rng(seed).permutation(size), np.cumsum(counts)[:2])
    train, val, test = ([cases[i] for i in sorted(i for p in part for i in groups[p])] for part in parts)
    return train, val, test
