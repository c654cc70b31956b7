"""Scores of objects, against pairs of pixels, sets and pairings that are tried one by one."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from tinyseg.metrics.instances import (
    THRESHOLDS,
    adapted_rand_error,
    average_precision,
    match_objects,
    variation_of_information,
)


def blocks(seed, shape=(9, 13), objects=4):
    """Labels of a few rectangles over each other, numbered with gaps."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int64)
    for _ in range(objects):
        top, left = rng.integers(0, shape[0] - 2), rng.integers(0, shape[1] - 3)
        labels[top : top + rng.integers(2, 6), left : left + rng.integers(2, 8)] = rng.integers(1, 900)
    return labels


def disturbed(labels, seed):
    rng = np.random.default_rng(seed + 100)
    moved = np.roll(labels, rng.integers(-1, 2, 2), (0, 1))
    return np.where(rng.random(labels.shape) < 0.1, blocks(seed + 50, labels.shape, 2), moved)


PAIRS = [(blocks(seed), disturbed(blocks(seed), seed)) for seed in range(12)]


def objects_of(labels):
    return [set(zip(*np.nonzero(labels == k), strict=True)) for k in np.unique(labels[labels > 0])]


def most_pairs(truth, prediction, threshold):
    """Try every way to pair the objects, and return the largest number of pairs with an IoU of at least a threshold."""
    A, B = sorted((objects_of(truth), objects_of(prediction)), key=len)
    good = [[len(a & b) >= threshold * len(a | b) - 1e-12 for b in B] for a in A]
    return max(sum(good[i][j] for i, j in enumerate(way)) for way in itertools.permutations(range(len(B)), len(A)))


@pytest.mark.parametrize(("truth", "prediction"), PAIRS)
def test_average_precision_of_the_best_of_all_pairings(truth, prediction):
    thresholds = (0.1, 0.3, *THRESHOLDS)  # below 0.5 an object can have several partners
    found = match_objects(truth, prediction, thresholds)
    n, m = len(objects_of(truth)), len(objects_of(prediction))
    expected = [most_pairs(truth, prediction, t) for t in thresholds]
    assert found.found.tolist() == expected and (found.true, found.predicted) == (n, m)
    ap = average_precision(truth, prediction, thresholds)
    np.testing.assert_allclose(ap, [tp / (n + m - tp) for tp in expected], rtol=1e-12)


def test_two_halves_are_one_of_two_found_at_a_half_and_none_above():
    truth, halves = np.full((2, 4), 7), np.array([[1, 1, 2, 2]] * 2)
    np.testing.assert_array_equal(match_objects(truth, halves).found, [1, *[0] * 9])
    np.testing.assert_array_equal(average_precision(truth, halves), [0.5, *[0] * 9])
    np.testing.assert_array_equal(average_precision(halves, truth), [0.5, *[0] * 9])


def test_a_threshold_is_reached_by_an_iou_that_equals_it():
    truth, prediction = np.zeros((2, 4, 25), np.uint16)
    truth[0:4, :], prediction.flat[: 3 * 25] = 3, 1  # IoU 75 / 100
    assert match_objects(truth, prediction).found.tolist() == [1] * 6 + [0] * 4


def test_sections_are_added_up():
    matches = [match_objects(*pair) for pair in PAIRS[:3]]
    both = sum(matches[1:], start=matches[0])
    found, true, predicted = (sum(getattr(m, name) for m in matches) for name in ("found", "true", "predicted"))
    np.testing.assert_allclose(both.average_precision(), found / (true + predicted - found))


def test_nothing_to_find():
    nothing, something = np.zeros((3, 5), int), np.array([[0, 0, 1, 1, 0]] * 3)
    assert np.isnan(average_precision(nothing, nothing)).all()
    assert (average_precision(nothing, nothing, empty="one") == 1).all()
    assert (average_precision(nothing, something) == 0).all() and (average_precision(something, nothing) == 0).all()
    assert math.isnan(adapted_rand_error(nothing, something))
    assert all(map(math.isnan, variation_of_information(nothing, something)))


@pytest.mark.parametrize(("truth", "prediction"), PAIRS)
def test_the_rand_error_of_pairs_of_pixels(truth, prediction):
    pixels = [(t, s) for t, s in zip(truth.ravel(), prediction.ravel(), strict=True) if t > 0]
    ways = list(itertools.permutations(pixels, 2))
    together = sum(t == u and s == v for (t, s), (u, v) in ways)
    of_truth, of_prediction = sum(t == u for (t, _), (u, _) in ways), sum(s == v for (_, s), (_, v) in ways)
    error = adapted_rand_error(truth, prediction)
    assert error == pytest.approx(1 - 2 * together / (of_truth + of_prediction), abs=1e-12) and 0 < error < 1


@pytest.mark.parametrize(("truth", "prediction"), PAIRS)
def test_the_information_that_one_lacks_of_the_other(truth, prediction):
    pixels = [(t, s) for t, s in zip(truth.ravel(), prediction.ravel(), strict=True) if t > 0]
    joint, of_truth, of_prediction = Counter(pixels), Counter(t for t, _ in pixels), Counter(s for _, s in pixels)
    split = sum(n * math.log2(of_truth[t] / n) for (t, _), n in joint.items()) / len(pixels)
    merge = sum(n * math.log2(of_prediction[s] / n) for (_, s), n in joint.items()) / len(pixels)
    assert variation_of_information(truth, prediction) == pytest.approx((split, merge), abs=1e-12)
    assert split > 0 and merge > 0


def test_what_is_split_and_what_is_merged():
    two, one = np.array([[1, 1, 2, 2, 2]] * 4), np.ones((4, 5), int)
    split, merge = variation_of_information(one, two)
    assert split > 0.9 and merge < 1e-12
    split, merge = variation_of_information(two, one)
    assert split < 1e-12 and merge > 0.9
    assert sum(variation_of_information(two, 9 * two)) < 1e-12 and adapted_rand_error(two, 9 * two) == 0


@pytest.mark.parametrize(
    ("truth", "prediction", "words"),
    [
        (np.ones((3, 4), int), np.ones((4, 3), int), "one shape"),
        (np.ones((0, 4), int), np.ones((0, 4), int), "pixels"),
        (np.ones((3, 4)), np.ones((3, 4), int), "truth must be labels, integers from 0, found float64"),
        (
            np.ones((3, 4), int),
            -np.ones((3, 4), int),
            "prediction must be labels, .* found int64 from -1",
        ),
    ],
)
def test_what_are_no_labels(truth, prediction, words):
    for score in (match_objects, average_precision, adapted_rand_error, variation_of_information):
        with pytest.raises(ValueError, match=words):
            score(truth, prediction)


@pytest.mark.parametrize("thresholds", [(0.0,), (1.1,), (np.nan,), 0.5])
def test_thresholds_that_are_none(thresholds):
    with pytest.raises(ValueError, match=r"numbers in \(0, 1\]"):
        match_objects(*PAIRS[0], thresholds)
