"""Scores of K classes against numbers worked out by hand, a loop over pixels, SciPy's distances and binary scores."""

import json
import math
import statistics

import numpy as np
import pytest
from scipy.spatial import distance

from tinyseg import metrics
from tinyseg.metrics import SegmentationScores, confusion_matrix

# By hand, for three classes.
#   class 0: TP 2, FP 0, FN 1, TN 3;   1: TP 1, FP 1, FN 1, TN 3;   2: TP 1, FP 1, FN 0, TN 4
#   classes 1 and 2 together: TP 3, FP 1, FN 0, TN 2
TARGET = np.array([[[0, 0, 0], [1, 1, 2]]])
PREDICTION = np.array([[[0, 0, 1], [1, 2, 2]]])
MATRIX = [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
BY_HAND = {
    "accuracy": 4 / 6,
    "mean_dice": (4 / 5 + 2 / 4 + 2 / 3) / 3,
    "mean_iou": (2 / 3 + 1 / 3 + 1 / 2) / 3,
    "classes": {
        "air": {"dice": 4 / 5, "iou": 2 / 3, "sensitivity": 2 / 3, "specificity": 1.0},
        "skin": {"dice": 2 / 4, "iou": 1 / 3, "sensitivity": 1 / 2, "specificity": 3 / 4},
        "bone": {"dice": 2 / 3, "iou": 1 / 2, "sensitivity": 1.0, "specificity": 4 / 5},
    },
    "regions": {"body": {"dice": 6 / 7, "iou": 3 / 4, "sensitivity": 1.0, "specificity": 2 / 3}},
    "empty": 0,
}
NAMES = ["air", "skin", "bone"]
BRATS = {"whole tumour": (1, 2, 3), "tumour core": (2, 3), "enhancing": (3,)}
POLICIES = [("nan", math.nan), ("one", 1.0), ("zero", 0.0)]
OF_A_CLASS = ["dice", "iou", "sensitivity", "specificity"]


def random_labels(seed, num_classes=4, shape=(5, 6, 9)):
    """Images that differ in how good the prediction is, and classes that differ in size."""
    rng = np.random.default_rng(seed)
    share = np.arange(1, num_classes + 1) / np.arange(1, num_classes + 1).sum()
    target = rng.choice(num_classes, shape, p=share).astype(np.uint8)
    wrong = rng.random(shape) < np.linspace(0.2, 0.9, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return np.where(wrong, rng.integers(0, num_classes, shape), target).astype(np.uint8), target


def scored(prediction, target, num_classes=4, batch=None, **options):
    scores = SegmentationScores(num_classes, **options)
    for start in range(0, len(target), batch or len(target)):
        stop = start + (batch or len(target))
        scores.update(prediction[start:stop], target[start:stop])
    return scores


def loop_matrix(prediction, target, num_classes):
    matrix = [[0] * num_classes for _ in range(num_classes)]
    for p, t in zip(prediction.ravel().tolist(), target.ravel().tolist(), strict=True):
        matrix[t][p] += 1
    return matrix


def flat(tree, prefix=""):
    """Nested results as one dict, so that pytest.approx can compare them."""
    out = {}
    for key, value in tree.items():
        out |= flat(value, f"{prefix}{key}/") if isinstance(value, dict) else {prefix + key: value}
    return out


def same(a, b, rel=1e-14):
    return flat(a) == pytest.approx(flat(b), rel=rel, abs=0, nan_ok=True)


def test_scores_worked_out_by_hand():
    scores = scored(PREDICTION, TARGET, 3, class_names=NAMES, regions={"body": (1, 2)})
    assert confusion_matrix(PREDICTION, TARGET, 3).tolist() == MATRIX
    assert scores.matrices.tolist() == [MATRIX]
    assert same(scores.pooled(), BY_HAND, rel=1e-15)
    assert same(scores.per_image()[0], BY_HAND, rel=1e-15)


def test_rows_are_the_truth():
    matrix = confusion_matrix([[2, 2, 2]], [[0, 0, 1]], 3)
    assert matrix.tolist() == [[0, 0, 2], [0, 0, 1], [0, 0, 0]]
    assert matrix.dtype == np.int64


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_confusion_matrix_against_a_loop(num_classes):
    prediction, target = random_labels(num_classes, num_classes, (3, 5, 7))
    matrix = confusion_matrix(prediction, target, num_classes)
    assert matrix.tolist() == loop_matrix(prediction, target, num_classes)
    strided, strided_target = prediction[:, ::-2], target[:, ::-2]
    matrix = confusion_matrix(strided, strided_target.tolist(), num_classes)
    assert matrix.tolist() == loop_matrix(strided, strided_target, num_classes)


def test_confusion_matrix_against_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    prediction, target = random_labels(0)
    expected = sklearn.confusion_matrix(target.ravel(), prediction.ravel())
    np.testing.assert_array_equal(confusion_matrix(prediction, target, 4), expected)


@pytest.mark.parametrize("shape", [(4, 5, 8), (3, 2, 5, 7)])
def test_classes_and_regions_against_scipy_image_by_image(shape):
    prediction, target = random_labels(1, 4, shape)
    scores = scored(prediction, target, regions=BRATS)
    groups = {"classes": {str(k): (k,) for k in range(4)}, "regions": BRATS}
    images = scores.per_image()
    assert len(images) == shape[0]
    for found, p, t in zip([*images, scores.pooled()], [*prediction, prediction], [*target, target], strict=True):
        for kind, members_of in groups.items():
            for name, members in members_of.items():
                a, b = np.isin(p, members).ravel(), np.isin(t, members).ravel()
                expected = {
                    "dice": 1 - distance.dice(a, b),
                    "iou": 1 - distance.jaccard(a, b),
                    "sensitivity": a[b].mean(),
                    "specificity": (~a)[~b].mean(),
                }
                assert found[kind][name] == pytest.approx(expected, rel=1e-12)
        assert found["accuracy"] == pytest.approx(1 - distance.hamming(p.ravel(), t.ravel()), rel=1e-12)
        for score in ("dice", "iou"):
            by_class = [found["classes"][str(k)][score] for k in range(4)]
            assert found[f"mean_{score}"] == pytest.approx(sum(by_class) / 4, rel=1e-12)


def test_mean_and_deviation_are_those_of_the_images():
    scores = scored(*random_labels(2), regions=BRATS)
    images, mean = [flat(image) for image in scores.per_image()], flat(scores.mean())
    names = set(images[0]) - {"empty"}
    assert set(mean) == {f"{name}/{key}" for name in names for key in ("mean", "std", "images", "empty")}
    for name in names:
        values = [image[name] for image in images]
        assert len(set(values)) > 1  # or the deviation would be 0 of itself
        assert mean[f"{name}/mean"] == pytest.approx(statistics.fmean(values), rel=1e-14)
        assert mean[f"{name}/std"] == pytest.approx(statistics.pstdev(values), rel=1e-12)
        assert (mean[f"{name}/images"], mean[f"{name}/empty"]) == (5, 0)


def test_pooled_is_not_the_mean_of_images():
    prediction, target = random_labels(3)
    pooled = scored(prediction, target).pooled()
    assert same(pooled, scored(prediction.reshape(1, 30, 9), target.reshape(1, 30, 9)).per_image()[0])
    assert pooled["mean_dice"] != pytest.approx(scored(prediction, target).mean()["mean_dice"]["mean"], rel=1e-3)


@pytest.mark.parametrize("empty", ["nan", "one", "zero"])
@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_results_do_not_depend_on_the_batches(batch, empty):
    prediction, target = random_labels(4)
    prediction[1], target[1] = 0, 0  # most classes are empty here
    options = {"empty": empty, "regions": BRATS}
    whole, parts = (scored(prediction, target, batch=b, **options) for b in (5, batch))
    np.testing.assert_array_equal(parts.matrices, whole.matrices)
    assert same(parts.pooled(), whole.pooled(), rel=0)
    assert same(parts.mean(), whole.mean(), rel=0)
    assert all(same(a, b, rel=0) for a, b in zip(parts.per_image(), whole.per_image(), strict=True))
    alone = scored(prediction[3:4], target[3:4], **options).per_image()[0]
    assert same(alone, whole.per_image()[3], rel=0)


def test_an_image_alone_scores_as_among_others():
    prediction, target = random_labels(11, num_classes=19, shape=(12, 9, 25))  # many classes: sums round
    together = scored(prediction, target, 19).per_image()
    for i in range(12):
        assert same(scored(prediction[i : i + 1], target[i : i + 1], 19).per_image()[0], together[i], rel=0)


def test_results_do_not_depend_on_the_order_of_the_images():
    prediction, target = random_labels(5, num_classes=9, shape=(40, 5, 11))  # many, or rounding might agree by luck
    order = np.random.default_rng(0).permutation(40)
    a, b = scored(prediction, target, 9), scored(prediction[order], target[order], 9)
    assert same(a.mean(), b.mean(), rel=0)
    assert same(a.pooled(), b.pooled(), rel=0)
    assert same(a.per_image()[order[0]], b.per_image()[0], rel=0)
    assert not same(a.per_image()[0], b.per_image()[0])


@pytest.mark.parametrize("empty", ["nan", "one", "zero"])
@pytest.mark.parametrize("case", ["random", "nothing", "all", "missed", "invented"])
def test_two_classes_are_the_binary_scores(case, empty):
    rng = np.random.default_rng(6)
    nothing = np.zeros((1, 5, 8), bool)
    prediction, target = {
        "random": (rng.random(nothing.shape) < 0.4, rng.random(nothing.shape) < 0.6),
        "nothing": (nothing, nothing),
        "all": (~nothing, ~nothing),
        "missed": (nothing, ~nothing),
        "invented": (~nothing, nothing),
    }[case]
    found = scored(prediction, target, 2, class_names=["out", "in"], empty=empty).pooled()
    for name in OF_A_CLASS:
        score = getattr(metrics, name)
        assert found["classes"]["in"][name] == pytest.approx(score(prediction, target, empty), rel=0, nan_ok=True)
        assert found["classes"]["out"][name] == pytest.approx(score(~prediction, ~target, empty), rel=0, nan_ok=True)
    assert found["accuracy"] == metrics.accuracy(prediction, target, empty)
    if empty != "nan" or case not in ("nothing", "all"):  # there a class is left out of the mean, see below
        assert found["mean_iou"] == pytest.approx(metrics.mean_iou(prediction, target, empty), rel=1e-15)
    as_integers = scored(prediction.astype(np.uint8), target.astype(np.int32), 2, empty=empty)
    np.testing.assert_array_equal(as_integers.matrices, scored(prediction, target, 2).matrices)


@pytest.mark.parametrize("seed", range(3))
def test_regions_are_the_binary_scores_of_the_union(seed):
    prediction, target = random_labels(seed, num_classes=5, shape=(2, 3, 5, 7))
    regions = {"a": (1, 2, 3), "b": [4, 0], "c": {2}, "d": np.array([3, 1]), "e": 3}
    found = scored(prediction, target, 5, regions=regions).pooled()["regions"]
    assert list(found) == list(regions)
    for region, members in {**regions, "c": [2], "e": [3]}.items():
        p, t = np.isin(prediction, members), np.isin(target, members)
        for name in OF_A_CLASS:
            assert found[region][name] == pytest.approx(getattr(metrics, name)(p, t), rel=1e-14)


def test_confusing_two_classes_of_a_region_is_no_error_of_the_region():
    target = np.array([[[0, 1, 2], [3, 0, 0]]])
    prediction = np.array([[[0, 2, 3], [1, 0, 0]]])
    found = scored(prediction, target, regions=BRATS).pooled()
    assert found["regions"]["whole tumour"] == dict.fromkeys(OF_A_CLASS, 1.0)
    assert [found["classes"][k]["dice"] for k in "0123"] == [1.0, 0.0, 0.0, 0.0]
    assert found["regions"]["tumour core"]["dice"] == 0.5  # 2 of truth, 2 predicted, 1 in common


@pytest.mark.parametrize(("empty", "value"), POLICIES)
def test_what_empty_does_and_how_often_it_happened(empty, value):
    """Three images: class 1 half found; absent from both; absent, but predicted. Class 2 is nowhere."""
    target = np.array([[[0, 1, 1]], [[0, 0, 0]], [[0, 0, 0]]])
    prediction = np.array([[[0, 1, 0]], [[0, 0, 0]], [[0, 1, 0]]])
    scores = scored(prediction, target, 3, empty=empty, regions={"both": (1, 2)})
    images, mean = scores.per_image(), scores.mean()
    nan = empty == "nan"

    dice = [image["classes"]["1"]["dice"] for image in images]
    assert dice == pytest.approx([2 / 3, value, 0.0], nan_ok=True)  # 0 is a score: a prediction of nothing true
    counted = [2 / 3, 0.0] if nan else [2 / 3, value, 0.0]
    expected = {"mean": statistics.fmean(counted), "std": statistics.pstdev(counted)}
    expected |= {"images": len(counted), "empty": 1}
    assert mean["classes"]["1"]["dice"] == pytest.approx(expected, rel=1e-14)
    assert mean["regions"]["both"] == mean["classes"]["1"]
    sensitivity = mean["classes"]["1"]["sensitivity"]  # the third has nothing to find, either
    assert (sensitivity["images"], sensitivity["empty"]) == ((1, 2) if nan else (3, 2))
    assert mean["classes"]["1"]["specificity"]["empty"] == 0

    nowhere = {"mean": value, "std": math.nan if nan else 0.0, "images": 0 if nan else 3, "empty": 3}
    assert mean["classes"]["2"]["iou"] == pytest.approx(nowhere, nan_ok=True)
    # Class 2 in all images: Dice, IoU, sensitivity. Class 1 and the region: the same in the second, sensitivity in
    # the third. The background's specificity in both.
    assert [image["empty"] for image in images] == [3, 3 + 3 + 3 + 1, 3 + 1 + 1 + 1]
    assert scores.pooled()["empty"] == 3
    assert scores.pooled()["classes"]["2"]["dice"] == pytest.approx(value, nan_ok=True)
    assert scores.pooled()["classes"]["1"]["dice"] == 2 / 4


@pytest.mark.parametrize(("empty", "value"), POLICIES)
def test_mean_over_classes_leaves_out_what_is_undefined(empty, value):
    target = np.array([[[0, 0, 1]], [[0, 0, 0]]])
    prediction = np.array([[[0, 1, 1]], [[0, 0, 0]]])
    first, second = scored(prediction, target, 3, empty=empty).per_image()
    if empty == "nan":
        assert first["mean_iou"] == pytest.approx((1 / 2 + 1 / 2) / 2)
        assert second["mean_iou"] == 1.0
    else:
        assert first["mean_iou"] == pytest.approx((1 / 2 + 1 / 2 + value) / 3)
        assert second["mean_iou"] == pytest.approx((1 + 2 * value) / 3)
    scores = scored(prediction, target, 3, empty=empty, include_background=False)
    assert scores.per_image()[1]["mean_dice"] == pytest.approx(value, nan_ok=True)  # no class is left
    assert scores.mean()["mean_dice"]["empty"] == 1
    assert scores.mean()["mean_dice"]["images"] == (1 if empty == "nan" else 2)


def test_the_background_can_be_left_out_of_the_mean_over_classes():
    options = {"class_names": NAMES, "regions": {"body": (1, 2)}, "include_background": False}
    expected = {**BY_HAND, "mean_dice": (2 / 4 + 2 / 3) / 2, "mean_iou": (1 / 3 + 1 / 2) / 2}
    assert same(scored(PREDICTION, TARGET, 3, **options).pooled(), expected, rel=1e-15)


@pytest.mark.parametrize(("empty", "value"), POLICIES)
def test_no_images_at_all(empty, value):
    scores = SegmentationScores(3, empty=empty, regions={"body": (1, 2)})
    scores.update(np.zeros((0, 4, 5), int), np.zeros((0, 4, 5), int))
    assert scores.per_image() == []
    assert scores.matrices.shape == (0, 3, 3)
    pooled = flat(scores.pooled())
    assert pooled.pop("empty") == len(pooled) == 3 + 4 * 4
    assert pooled == pytest.approx(dict.fromkeys(pooled, value), nan_ok=True)
    nothing = {"mean": math.nan, "std": math.nan, "images": 0, "empty": 0}
    assert scores.mean()["accuracy"] == pytest.approx(nothing, nan_ok=True)
    assert scores.mean()["mean_iou"] == pytest.approx(nothing, nan_ok=True)


def test_an_image_without_pixels_is_an_empty_case():
    nothing = np.zeros((1, 0, 4), np.uint8)
    scores = scored(nothing, nothing, 3)
    assert scores.matrices.tolist() == [[[0, 0, 0]] * 3]
    assert math.isnan(scores.per_image()[0]["accuracy"])
    assert (scores.mean()["accuracy"]["images"], scores.mean()["accuracy"]["empty"]) == (0, 1)


def test_results_can_be_written_as_json():
    prediction, target = random_labels(8)
    prediction[0], target[0] = 0, 0
    scores = scored(prediction, target, regions=BRATS)
    for result in (scores.pooled(), scores.mean(), *scores.per_image()):
        assert same(json.loads(json.dumps(result)), result, rel=0)
        assert {type(value) for value in flat(result).values()} == {float, int}


def test_uint8_does_not_overflow():
    """A cell of the matrix, 250 * 251 + 250, and the counts, 70 000, both exceed a byte and two."""
    target = np.full((1, 200, 350), 250, np.uint8)
    matrix = confusion_matrix(target, target, 251)
    assert matrix[250, 250] == matrix.sum() == 70_000
    assert scored(target, target, 251).pooled()["classes"]["250"]["dice"] == 1.0
    mixed = confusion_matrix(np.array([1], np.uint64), np.array([1], np.int8), 2)
    assert mixed.tolist() == [[0, 0], [0, 1]]


def test_inputs_come_back_unchanged():
    prediction, target = (a.astype(np.int64) for a in random_labels(9))  # int64 is what is computed with
    before = prediction.copy(), target.copy()
    scored(prediction, target)
    np.testing.assert_array_equal(prediction, before[0])
    np.testing.assert_array_equal(target, before[1])


def test_matrices_are_a_copy():
    scores = scored(PREDICTION, TARGET, 3)
    scores.matrices[:] = 0
    assert scores.matrices.tolist() == [MATRIX]


@pytest.mark.parametrize("name", ["prediction", "target"])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.array([[[0, 4]]]), "{} must hold class indices from 0 to 3 .*from 0 to 4.*Renumber"),
        (np.array([[[0, -1]]]), "{} must hold class indices from 0 to 3 .*from -1 to 0.*Renumber"),
        (np.array([[[0, 2**63]]], np.uint64), "{} must hold class indices.*to 9223372036854775808"),
        (np.array([[[0.0, 1.0]]]), "{} must hold .* integers, but its dtype is float64.*argmax"),
        (np.array([[[True, False]]]), "{} must hold class indices from 0 to 3, but is a mask.*num_classes=2"),
    ],
)
def test_what_is_no_class_index_is_refused(name, bad, message):
    good = np.array([[[0, 3]]])
    pair = {"prediction": good, "target": good, name: bad}
    with pytest.raises(ValueError, match=message.format(name)):
        confusion_matrix(**pair, num_classes=4)
    with pytest.raises(ValueError, match=message.format(name)):
        SegmentationScores(4).update(**pair)


def test_a_refused_batch_leaves_no_trace():
    scores = SegmentationScores(3)
    with pytest.raises(ValueError, match="from 0 to 7"):
        scores.update(np.zeros((2, 1, 3), int), np.array([[[0, 1, 2]], [[0, 1, 7]]]))
    assert len(scores.matrices) == 0


def test_shapes_must_agree_even_where_they_would_broadcast():
    with pytest.raises(ValueError, match=r"prediction is \(1, 3, 4\) and target is \(3, 4\).*argmax"):
        confusion_matrix(np.zeros((1, 3, 4), int), np.zeros((3, 4), int), 2)
    with pytest.raises(ValueError, match=r"prediction is \(2, 3, 4\) and target is \(3, 3, 4\).*argmax"):
        SegmentationScores(2).update(np.zeros((2, 3, 4), int), np.zeros((3, 3, 4), int))


def test_rows_of_a_single_image_are_not_taken_for_images():
    with pytest.raises(ValueError, match=r"\(N, H, W\).*have shape \(3, 4\).*image\[None\]"):
        SegmentationScores(2).update(np.zeros((3, 4), int), np.zeros((3, 4), int))


@pytest.mark.parametrize("bad", [1, 0, -3, 2.0, "3", None, 70000, 2**63])
def test_a_number_of_classes_that_cannot_be(bad):
    with pytest.raises(ValueError, match=f"from 2 to 10000, but is {bad!r}.*background is a class"):
        SegmentationScores(bad)
    with pytest.raises(ValueError, match="from 2 to 10000"):
        confusion_matrix([0], [0], bad)


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="'nan', 'one' or 'zero', but is 'skip'"):
        SegmentationScores(3, empty="skip")
    for names in (["a", "b"], ["a", "b", "b"], ["a", "b", 3]):
        with pytest.raises(ValueError, match="3 different strings.*Name the background"):
            SegmentationScores(3, class_names=names)
    for region in ((), (1, 3), (-1,), (1, 1), (1.0,), "12", None):
        with pytest.raises(ValueError, match="Region 'r' must list different classes from 0 to 2.*Write it as"):
            SegmentationScores(3, regions={"r": region})
