"""What users hand over to scores that is no array of numbers, or not of the right ones: a sentence, never a number."""

import math

import numpy as np
import pytest
from scipy.stats import bootstrap

from tinyseg.data.classes import DECATHLON, REGIONS
from tinyseg.metrics import BinaryScores, SegmentationScores, confusion_counts, confusion_matrix, dice, mean_interval
from tinyseg.metrics import intervals as intervals_module
from tinyseg.metrics.isbi import isbi_scores, label_scores, thin, v_rand
from tinyseg.metrics.patients import PatientScores


def update(prediction, target):
    BinaryScores().update(prediction, target)


def update_classes(prediction, target):
    SegmentationScores(2).update(prediction, target)


TWO_ARRAYS = [dice, update, lambda p, t: confusion_matrix(p, t, 2), update_classes, v_rand, label_scores]
MASKED = np.ma.array([[[1, 0, 1]]], mask=[[[0, 0, 1]]])


@pytest.mark.parametrize("score", TWO_ARRAYS)
@pytest.mark.parametrize(
    "wrong",
    [[[["0", "1"]]], [[[True, None]]], None, {1: 2}, b"abc", np.zeros((1, 1, 2), "i4,i4"), np.zeros((1, 1, 2), "M8[s]"),
     [[[1j, 0]]]],
)  # fmt: skip
def test_pixels_that_are_no_numbers(score, wrong):
    with pytest.raises(ValueError, match="must be an array of numbers, or of True and False"):
        score(wrong, wrong)


@pytest.mark.parametrize("score", TWO_ARRAYS)
def test_rows_of_different_lengths(score):
    with pytest.raises(ValueError, match="must be an array, but cannot be made one"):
        score([[[1, 0], [1]]], [[[1, 0], [1]]])


@pytest.mark.parametrize("score", TWO_ARRAYS)
def test_masked_pixels_are_not_counted_silently(score):
    with pytest.raises(ValueError, match=r"masked array, and 1 of its 3 values are masked.*prediction\[~mask\]"):
        score(MASKED, MASKED)
    score(np.ma.array([[[1, 0, 1]]]), [[[1, 0, 1]]])  # nothing is masked


def test_python_objects_that_are_numbers():
    masks = np.array([[True, False], [True, True]], object)
    assert confusion_counts(masks, masks) == (3, 0, 0, 1)


@pytest.mark.parametrize("threshold", [None, "0.5", [0.5, 0.5], np.array([0.5]), 1 + 0j, math.nan, -0.1, 1.1])
def test_a_threshold_that_is_no_probability(threshold):
    scores = BinaryScores()
    with pytest.raises(ValueError, match=r"threshold, a probability, must be a number from 0 to 1"):
        scores.update([[0.3, 0.6]], [[True, True]], threshold)
    assert scores.tp == scores.fn == 0


def test_a_threshold_is_the_same_whatever_the_type_of_its_number():
    for threshold in (0.3, np.float64(0.3), np.float32(0.3), np.array(0.3)):
        scores = BinaryScores()
        scores.update(np.full((2, 3), 0.3, np.float32), np.ones((2, 3), bool), threshold)
        assert (scores.tp, scores.fn) == (0, 6)


@pytest.mark.parametrize("thresholds", [["0.5"], [None], [0.5 + 0j]])
def test_thresholds_that_are_no_numbers(thresholds):
    with pytest.raises(ValueError, match="thresholds must be an array of numbers"):
        isbi_scores(thin([[1, 0, 1]]) > 0, [[1, 0, 1]], thresholds)


@pytest.mark.parametrize("empty", [[], {}, None, math.nan, "NaN"])
def test_a_policy_of_0_by_0_that_there_is_not(empty):
    for make in (lambda: dice([1], [1], empty), lambda: SegmentationScores(2, empty=empty)):
        with pytest.raises(ValueError, match="must be 'nan', 'one' or 'zero'"):
            make()


@pytest.mark.parametrize("names", ["abc", 3, [1, 2, 3]])
def test_names_of_classes_that_are_no_list_of_names(names):
    with pytest.raises(ValueError, match="class_names must be 3 different strings"):
        SegmentationScores(3, names)


def test_regions_as_a_list_of_pairs():
    assert SegmentationScores(3, regions=[("cell", (1, 2))]).regions == {"cell": [1, 2]}


def test_v_info_of_the_same_many_cells_is_not_above_1():
    rng = np.random.default_rng(1)
    for cells in range(3, 60):
        labels = rng.integers(0, cells, (9, 11))
        scores = label_scores(labels + 1, labels)
        assert max(scores) <= 1 and min(scores) >= 0 and scores.info == pytest.approx(1)


# ----- intervals -------------------------------------------------------------------
@pytest.mark.parametrize(
    ("values", "words"),
    [([[1, 2], [3, 4]], r"have shape \(2, 2\)"), ([1, math.inf], "one is infinite"), (["a", "b"], "array of numbers"),
     (3.0, r"shape \(\)")],
)  # fmt: skip
def test_an_interval_of_what_is_no_list_of_numbers(values, words):
    with pytest.raises(ValueError, match=f"values must be.*{words}"):
        mean_interval(values)


@pytest.mark.parametrize("level", [95, -1, math.nan, None, "0.95"])
def test_a_level_in_percent(level):
    with pytest.raises(ValueError, match="level must be a number from 0 to 1"):
        mean_interval([1, 2, 3], level)


def test_scores_of_a_json_file_with_null_where_they_are_undefined():
    assert mean_interval([0.25, None, 0.5, 1.0]) == mean_interval([0.25, 0.5, 1.0])


def test_an_interval_of_many_images_takes_little_memory_and_is_the_same(monkeypatch):
    values = np.random.default_rng(0).random(37)
    found = bootstrap((values,), np.mean, confidence_level=0.95, method="percentile", rng=0).confidence_interval
    for batch in (intervals_module.BATCH, 37 * 1000, 1):
        monkeypatch.setattr(intervals_module, "BATCH", batch)
        assert mean_interval(values) == (found.low, found.high)


# ----- patients --------------------------------------------------------------------
TUMOUR = np.zeros((2, 3, 4), np.uint8)
TUMOUR[0, 0, :2] = 1, 3


def patients(classes=DECATHLON):
    return PatientScores(classes, REGIONS)


@pytest.mark.parametrize("wrong", [TUMOUR * 0.25, TUMOUR * np.nan, -TUMOUR.astype(int)])
def test_probabilities_or_damaged_labels_of_one_tumour_are_not_counted_as_classes(wrong):
    scores = patients(["whole tumour"])
    for pair in ((wrong, TUMOUR), (TUMOUR, wrong)):
        with pytest.raises(ValueError, match="(predicted|truth) must hold class indices"):
            scores.add("a", *pair, 1.0)


def test_a_patient_as_nested_lists():
    for classes in (DECATHLON, ["whole tumour"]):
        scores = patients(classes)
        scores.add("a", TUMOUR.tolist(), TUMOUR.tolist(), 2.0)
        assert scores.report()["patients"][0]["tumour_mm3"] == 4


@pytest.mark.parametrize("voxel", [0, -1, math.nan, math.inf, None, "1"])
def test_a_voxel_without_a_volume(voxel):
    scores = patients()
    with pytest.raises(ValueError, match="voxel, a volume in mm³, must be a number"):
        scores.add("a", TUMOUR, TUMOUR, voxel)
    scores.add("a", TUMOUR, TUMOUR, 1)  # nothing was counted
    assert len(scores.report()["patients"]) == 1


def test_a_patient_twice_or_without_voxels():
    scores = patients()
    scores.add("a", TUMOUR, TUMOUR, 1)
    with pytest.raises(ValueError, match="a was scored already"):
        scores.add("a", TUMOUR, TUMOUR, 1)
    with pytest.raises(ValueError, match=r"b has no voxels \(shape \(0, 3, 4\)\)"):
        scores.add("b", TUMOUR[:0], TUMOUR[:0], 1)


def test_a_report_of_no_patients_or_with_a_limit_that_is_none():
    scores = patients()
    with pytest.raises(ValueError, match="no patient has been scored"):
        scores.report()
    scores.add("a", TUMOUR, TUMOUR, 1)
    for small in (math.nan, -1, "5"):
        with pytest.raises(ValueError, match="small, a volume in mm³, must be"):
            scores.report(small)
    assert scores.report(math.inf)["small"]["patients"] == 1


def test_regions_without_the_whole_tumour():
    for regions in ({"tumour core": (2, 3)}, {}, None):
        with pytest.raises(ValueError, match='must have "whole tumour"'):
            PatientScores(DECATHLON, regions)
