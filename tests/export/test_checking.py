"""How far an export may be from tinyseg."""

import numpy as np
import pytest

from tinyseg.export.checking import Difference, compare, refuse_beyond


def test_the_largest_difference_and_the_flips_of_all_sections():
    p = [np.full((1, 3, 5), 0.4, np.float32), np.full((1, 2, 4), 0.9, np.float32)]
    q = [p[0].copy(), p[1].copy()]
    q[0][0, 1, 1:3] = 0.6
    q[1][0, 0, 0] = 0.6
    found = compare(p, q)
    assert found.probability == pytest.approx(0.3, abs=1e-6) and (found.flipped, found.pixels) == (2, 23)


def test_several_classes_flip_where_another_is_the_most_probable():
    p = np.array([0.5, 0.3, 0.2], np.float32)[:, None, None].repeat(2, 1).repeat(3, 2)
    q = p.copy()
    q[:, 0, 0] = [0.3, 0.5, 0.2]
    assert compare([p], [q]).flipped == 1


def test_nan_is_never_within_the_limit():
    p = np.full((1, 3, 5), 0.4, np.float32)
    with pytest.raises(RuntimeError, match="differs from tinyseg: a probability by"):
        refuse_beyond("int8", compare([p], [np.full_like(p, np.nan)]))


@pytest.mark.parametrize(
    "found", [Difference(2e-4, 0, 10**6), Difference(1e-5, 13, 10**6)], ids=["probability", "mask"]
)
def test_beyond_the_limit(found):
    with pytest.raises(RuntimeError, match=r"exported as c differs.*Expected at most 0\.0001, and 0\.001% of"):
        refuse_beyond("c", found)


def test_within_the_limit():
    refuse_beyond("c", Difference(1e-4, 12, 10**6))
    refuse_beyond("c", Difference(1e-4, 2, 64))  # of a small image


def test_another_shape_is_said():
    with pytest.raises(RuntimeError, match=r"shape \(1, 3, 5\), but found \(1, 5, 3\)"):
        compare([np.zeros((1, 3, 5))], [np.zeros((1, 5, 3))])
