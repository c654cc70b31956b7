"""Scores against numbers worked out by hand, a loop over pixels, and SciPy's Jaccard and Dice distances."""

import math

import numpy as np
import pytest
from scipy.spatial import distance

from tinyseg.metrics import BinaryScores, accuracy, confusion_counts, dice, iou, mean_iou, sensitivity, specificity

# By hand: TP = 3, FP = 2, FN = 1, TN = 4.
PREDICTION = np.array([[1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], bool)
TARGET = np.array([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]], bool)
KEYS = ["accuracy", "dice", "iou", "mean_iou", "membrane_dice", "membrane_iou"]
BY_HAND = dict(zip(KEYS, [7 / 10, 6 / 9, 3 / 6, (3 / 6 + 4 / 7) / 2, 8 / 11, 4 / 7], strict=True))


def random_masks(seed, shape=(3, 7, 11)):
    rng = np.random.default_rng(seed)
    return rng.random(shape) < 0.7, rng.random(shape) < 0.8


def loop_counts(prediction, target):
    counts = {(p, t): 0 for p in (True, False) for t in (True, False)}
    for p, t in zip(prediction.ravel().tolist(), target.ravel().tolist(), strict=True):
        counts[p, t] += 1
    return counts[True, True], counts[True, False], counts[False, True], counts[False, False]


def test_scores_worked_out_by_hand():
    scores = BinaryScores()
    scores.update(PREDICTION, TARGET)
    assert scores.compute() == pytest.approx(BY_HAND, rel=1e-15)
    assert list(scores.compute()) == KEYS
    for score in (accuracy, dice, iou, mean_iou):
        assert score(PREDICTION, TARGET) == pytest.approx(BY_HAND[score.__name__], rel=1e-15)
    assert dice(~PREDICTION, ~TARGET) == pytest.approx(BY_HAND["membrane_dice"], rel=1e-15)
    assert iou(~PREDICTION, ~TARGET) == pytest.approx(BY_HAND["membrane_iou"], rel=1e-15)
    assert sensitivity(PREDICTION, TARGET) == 3 / 4
    assert specificity(PREDICTION, TARGET) == 4 / 6


@pytest.mark.parametrize("seed", range(3))
def test_against_a_loop_and_scipy(seed):
    prediction, target = random_masks(seed)
    assert confusion_counts(prediction, target) == loop_counts(prediction, target)
    p, t = prediction.ravel(), target.ravel()
    assert dice(prediction, target) == pytest.approx(1 - distance.dice(p, t), rel=1e-14)
    assert iou(prediction, target) == pytest.approx(1 - distance.jaccard(p, t), rel=1e-14)
    assert accuracy(prediction, target) == pytest.approx(1 - distance.hamming(p, t), rel=1e-14)
    both = (1 - distance.jaccard(p, t)) / 2 + (1 - distance.jaccard(~p, ~t)) / 2
    assert mean_iou(prediction, target) == pytest.approx(both, rel=1e-14)
    assert sensitivity(prediction, target) == pytest.approx(p[t].mean(), rel=1e-14)
    assert specificity(prediction, target) == pytest.approx((~p)[~t].mean(), rel=1e-14)


def test_dice_is_a_function_of_iou():
    scores = BinaryScores()
    scores.update(*random_masks(7))
    s = scores.compute()
    assert s["dice"] == pytest.approx(2 * s["iou"] / (1 + s["iou"]), rel=1e-14)
    assert s["membrane_dice"] == pytest.approx(2 * s["membrane_iou"] / (1 + s["membrane_iou"]), rel=1e-14)


def test_all_white_is_unmasked_by_the_membrane_scores():
    target = np.ones((10, 12), bool)
    target[:, :3] = False  # a quarter is membrane
    scores = BinaryScores()
    scores.update(np.ones(target.shape), target)
    expected = [0.75, 2 * 0.75 / 1.75, 0.75, 0.375, 0.0, 0.0]
    assert scores.compute() == pytest.approx(dict(zip(KEYS, expected, strict=True)), rel=1e-15)


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_pooled_scores_do_not_depend_on_the_batches(batch):
    rng = np.random.default_rng(3)
    probability = rng.random((5, 1, 6, 9)) ** np.arange(1, 6)[:, None, None, None]  # images differ in score
    target = rng.random(probability.shape) < 0.6
    pooled = BinaryScores()
    for start in range(0, 5, batch):
        pooled.update(probability[start : start + batch], target[start : start + batch])
    assert (pooled.tp, pooled.fp, pooled.fn, pooled.tn) == loop_counts(probability > 0.5, target)


def test_the_threshold_itself_is_background():
    scores = BinaryScores()
    scores.update(np.array([0.2, 0.25, 0.3, 1.0]), np.array([1, 1, 1, 0]), threshold=0.25)
    assert (scores.tp, scores.fp, scores.fn, scores.tn) == (1, 1, 2, 0)


def test_masks_of_integers_floats_and_lists_count_alike():
    expected = confusion_counts(PREDICTION, TARGET)
    for dtype in (np.uint8, np.int64, np.float32):
        assert confusion_counts(PREDICTION.astype(dtype), TARGET.astype(dtype)) == expected
    assert confusion_counts(PREDICTION.tolist(), TARGET.tolist()) == expected
    assert confusion_counts(PREDICTION[:, ::-2], TARGET[:, ::-2]) == loop_counts(PREDICTION[:, ::-2], TARGET[:, ::-2])


@pytest.mark.parametrize(("empty", "value"), [("nan", math.nan), ("one", 1.0), ("zero", 0.0)])
def test_zero_over_zero_is_what_the_caller_says(empty, value):
    nothing = np.zeros((3, 4), bool)
    assert dice(nothing, nothing, empty) == pytest.approx(value, nan_ok=True)
    assert iou(nothing, nothing, empty) == pytest.approx(value, nan_ok=True)
    assert mean_iou(nothing, nothing, empty) == pytest.approx((value + 1) / 2, nan_ok=True)
    assert accuracy(nothing, nothing, empty) == 1.0
    assert accuracy(nothing[:0], nothing[:0], empty) == pytest.approx(value, nan_ok=True)
    assert BinaryScores(empty).compute() == pytest.approx(dict.fromkeys(KEYS, value), nan_ok=True)
    assert dice(~nothing, nothing, empty) == 0.0  # wrong everywhere is 0, not 0/0
    for prediction in (nothing, ~nothing):  # only the target decides what there was to find
        assert sensitivity(prediction, nothing, empty) == pytest.approx(value, nan_ok=True)
        assert specificity(prediction, ~nothing, empty) == pytest.approx(value, nan_ok=True)
    assert (sensitivity(nothing, ~nothing, empty), specificity(~nothing, nothing, empty)) == (0.0, 0.0)


def test_the_default_for_zero_over_zero_is_nan():
    assert math.isnan(BinaryScores().compute()["dice"])


def test_inputs_come_back_unchanged():
    probability, target = np.random.default_rng(0).random((4, 5)), np.eye(4, 5, dtype=bool)
    before = probability.copy(), target.copy()
    BinaryScores().update(probability, target)
    np.testing.assert_array_equal(probability, before[0])
    np.testing.assert_array_equal(target, before[1])


def test_shapes_must_agree_even_where_they_would_broadcast():
    with pytest.raises(ValueError, match=r"\(1, 3, 4\).*\(3, 4\)"):
        dice(np.ones((1, 3, 4), bool), np.ones((3, 4), bool))


def test_a_target_that_is_no_mask_is_refused():
    with pytest.raises(ValueError, match="target must be a mask.*255.*> 127"):
        iou(np.ones((2, 3), bool), np.full((2, 3), 255, np.uint8))
    with pytest.raises(ValueError, match="target must be a mask"):
        BinaryScores().update(np.ones((2, 3)), np.full((2, 3), 0.5))


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan])
def test_values_that_are_no_probability_are_refused(bad):
    with pytest.raises(ValueError, match="apply the sigmoid"):
        BinaryScores().update(np.array([0.5, bad]), np.array([True, False]))


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="'nan', 'one' or 'zero'"):
        BinaryScores(empty="skip")
    with pytest.raises(ValueError, match="'nan', 'one' or 'zero'.*'skip'"):
        sensitivity(PREDICTION, TARGET, empty="skip")
    with pytest.raises(ValueError, match="threshold"):
        BinaryScores().update(np.array([0.5]), np.array([True]), threshold=127)
