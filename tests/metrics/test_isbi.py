"""The ISBI-2012 score: vectors of the challenge, slow oracles written another way, and all that can be given wrong."""

import itertools
import json
import math
import sys
from collections import Counter, deque
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from tinyseg import isbi_metrics as isbi_door
from tinyseg.metrics import isbi as isbi_metrics
from tinyseg.metrics.isbi import THRESHOLDS, isbi_scores, label_scores, thin, v_info, v_rand

LABELS = Path(__file__).resolve().parents[3] / "shared" / "data" / "isbi2012" / "train-labels.tif"
needs_real_data = pytest.mark.skipif(not LABELS.is_file(), reason="no ISBI 2012 labels beside the repository")


def rows(text):
    """ "110/011" -> [[1, 1, 0], [0, 1, 1]]; "2*110" is "110/110"."""
    if "*" in text:
        count, row = text.split("*")
        text = "/".join([row] * int(count))
    return np.array([[int(c) for c in row] for row in text.split("/")])


def need_compiled_flood():
    pytest.importorskip("numba", reason="numba is not installed")
    if not (Path(isbi_metrics.__file__).parents[1] / "fast").is_dir():
        pytest.skip("tinyseg/fast is not there")
    assert isbi_metrics._fastest_flood() is not isbi_metrics.flood


@pytest.fixture(params=["plain", "compiled"])
def path(request, monkeypatch):
    """Run the test with the plain flood, and again with the compiled one."""
    if request.param == "compiled":
        need_compiled_flood()
    else:
        monkeypatch.setattr(isbi_metrics, "_fastest_flood", lambda: isbi_metrics.flood)
    return request.param


# ---- the challenge's numbers

LABEL_VECTORS = [  # truth, segmentation, V^Rand, merge, split, V^Info, merge, split
    ("1122/1122", "1122/1122", 1, 1, 1, 1, 1, 1),
    ("1122/1122", "1111/1111", 2 / 3, 0.5, 1, 0, 1, 0),
    ("1111/1111", "1122/1122", 2 / 3, 1, 0.5, 0, 0, 1),
    ("1102/1102", "1112/1112", 1, 1, 1, 1, 1, 1),
    ("1112/1112", "1102/1102", 22 / 31, 1, 0.55, 0.633494751477, 1, 0.463587499691),
    (
        "11122/11122/11122",
        "11112/11202/33332",
        *(47 / 93, 47 / 69, 47 / 117),
        *(0.200389607624, 0.286585085798, 0.154054901045),
    ),
    ("11110/11110/00000/22220", "11011/11011/00000/22222", *(54 / 67, 1, 0.675), *(0.721899354406, 1, 0.564821993396)),
    ("1122/1122", "0000/0000", 0.4, 1, 0.25, 0.5, 1, 1 / 3),
]


@pytest.mark.parametrize("vector", LABEL_VECTORS, ids=lambda v: f"{v[0]}-{v[1]}")
def test_label_vectors(vector):
    truth, segmentation, *expected = vector
    s = label_scores(rows(segmentation), rows(truth))
    found = [s.rand, s.rand_merge, s.rand_split, s.info, s.info_merge, s.info_split]
    assert found == pytest.approx(expected, abs=1e-11)
    assert all(type(number) is float for number in s)


IMAGE_VECTORS = [  # truth, prediction, thinned prediction, V^Rand, V^Info
    ("5*11011", "5*11011", "5*11022", 1, 1),
    ("5*11011", "5*11111", "5*11111", 2 / 3, 0),
    ("5*11011", "11011/11011/00000/11011/11011", "11022/11022/00000/33044/33044", 34 / 67, 0.537355894313839),
    ("5*11011", "11011/11111/11011/11011/11011", "5*11111", 2 / 3, 0),
    ("5*11011", "5*10001", "5*11022", 1, 1),
    ("5*11111", "5*11011", "5*11022", 41 / 83, 0),
    ("1101/1101/0000/1101", "1001/1001/0001/1111", "1102/1102/0022/2222", 25 / 33, 0.700984808110897),
    ("5*00000", "5*11011", "5*11022", 0, 0),
]


@pytest.mark.parametrize("vector", IMAGE_VECTORS, ids=lambda v: f"{v[0]}-{v[1]}")
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
def test_image_vectors(vector, dtype, path):
    truth, prediction, thinned, rand, info = vector
    truth, prediction = rows(truth).astype(dtype), rows(prediction).astype(dtype)
    np.testing.assert_array_equal(thin(prediction), rows(thinned))
    assert v_rand(prediction, truth) == pytest.approx(rand, abs=1e-14)
    assert v_info(prediction, truth) == pytest.approx(info, abs=1e-14)
    assert isbi_scores(prediction, truth).thresholds.tolist() == [0.0]


def test_the_best_of_eleven_thresholds(path):
    truth = rows("5*11011")
    prediction = np.where(truth, 0.9, 0.3)
    prediction[2, 2] = 0.65  # a gap up to threshold 0.6
    scores = isbi_scores(prediction, truth)
    assert (scores.v_rand, scores.v_info) == pytest.approx((1, 1), abs=1e-15)
    assert scores.v_rand_threshold == scores.v_info_threshold == pytest.approx(0.7, abs=1e-12)
    assert scores.rand.shape == (11, 1)
    # One cell to 0.6, then two, then none, which counts as one: 0.9 is above 0.8999999999999999 …
    np.testing.assert_allclose(scores.rand[:, 0], [2 / 3] * 7 + [1] * 3 + [2 / 3], rtol=1e-14)
    # … but not when it is rounded to float32.
    scores = isbi_scores(prediction.astype(np.float32), truth)
    np.testing.assert_allclose(scores.rand[:, 0], [2 / 3] * 7 + [1] * 2 + [2 / 3] * 2, rtol=1e-14)


@needs_real_data
@pytest.mark.parametrize(
    ("change", "rand", "info"),
    [
        (lambda mask: ndimage.binary_erosion(mask, iterations=2), 0.996756773458789, 0.995691603793249),
        (ndimage.binary_dilation, 0.970576688934059, 0.990726644973933),
    ],
    ids=["eroded", "dilated"],
)
def test_real_labels(change, rand, info, path):
    truth = tifffile.imread(LABELS, key=range(3)) > 0
    prediction = np.stack([change(section) for section in truth])  # in the plane, so 4-connected
    assert v_rand(prediction, truth) == pytest.approx(rand, abs=1e-14)
    assert v_info(prediction, truth) == pytest.approx(info, abs=1e-14)


# ---- thinning


def literal_thin(mask):
    """The watershed step by step: a queue, a flag for the whole section, neighbours in the challenge's order."""
    H, W = mask.shape
    unseen, queued, line = "unseen", "queued", 0
    basins, count = ndimage.label(mask)
    label = {(x, y): int(basins[y, x]) or unseen for x in range(W) for y in range(H)}
    if count == 0:
        return np.ones((H, W), int)

    def neighbours(x, y):
        return [q for q in ((x - 1, y), (x, y - 1), (x + 1, y), (x, y + 1)) if q in label]

    queue = deque(p for p in label if label[p] == unseen and any(label[q] != unseen for q in neighbours(*p)))
    label |= dict.fromkeys(queue, queued)
    flag = False
    while queue:
        p = queue.popleft()
        for q in neighbours(*p):
            if label[q] == unseen:
                label[q] = queued
                queue.append(q)
            elif label[q] == line:
                if label[p] == queued:
                    label[p], flag = line, True
            elif label[q] != queued:
                if label[p] == queued or (label[p] == line and flag):
                    label[p] = label[q]
                elif label[p] not in (line, label[q]):
                    label[p], flag = line, False
    return np.array([[label[x, y] for x in range(W)] for y in range(H)])


def masks():
    """Noise at every density, spots, grids, spirals of one pixel, and shapes without an inside."""
    rng = np.random.default_rng(5)
    shapes = [(1, 1), (1, 17), (17, 1), (2, 9), (13, 13), (23, 31), (40, 27)]
    for shape, density in itertools.product(shapes, (0.0, 0.02, 0.1, 0.5, 0.9, 1.0)):
        yield rng.random(shape) < density
    y, x = np.mgrid[:29, :38]
    yield (x % 6 != 0) & (y % 7 != 0)  # thin membranes
    yield (x % 9 < 2) & (y % 8 < 3)  # thick ones
    yield (x + y) % 2 == 0
    yield np.sin(np.hypot(x - 15, y - 12)) > 0
    smooth = ndimage.gaussian_filter(rng.standard_normal((64, 90)), 2.5)
    yield from (smooth > np.quantile(smooth, q) for q in (0.05, 0.3, 0.7, 0.95))


def test_thinning_step_by_step(path):
    for mask in masks():
        labels = thin(mask)
        assert labels.dtype == np.int32
        assert labels.flags.c_contiguous
        np.testing.assert_array_equal(labels, literal_thin(mask), err_msg=str(mask.astype(int)))


def test_both_floods_on_a_large_section(monkeypatch):
    need_compiled_flood()
    noise = np.random.default_rng(1).standard_normal((301, 257))
    for mask in (noise > 0.3, ndimage.gaussian_filter(noise, 2) > 0.02):
        compiled = thin(mask)
        with monkeypatch.context() as patch:
            patch.setattr(isbi_metrics, "_fastest_flood", lambda: isbi_metrics.flood)
            np.testing.assert_array_equal(thin(mask), compiled)


def test_lines_separate_and_cells_are_kept():
    mask = ndimage.gaussian_filter(np.random.default_rng(2).standard_normal((70, 91)), 2) > 0
    labels = thin(mask)
    basins, count = ndimage.label(mask)
    np.testing.assert_array_equal(labels[mask], basins[mask])
    for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        assert not np.any((a != b) & (a > 0) & (b > 0))  # no two cells touch


def test_columns_come_before_rows(path):
    """Worked by hand. Row by row, the top right corner would come first, and the line would end in the top left one."""
    np.testing.assert_array_equal(thin(rows("000/001/100")), rows("201/201/220"))


@pytest.mark.parametrize("missing", ["numba", "the folder fast"])
def test_without_numba_or_its_folder_the_plain_flood_is_taken(missing, monkeypatch):
    if missing == "numba":
        monkeypatch.setitem(sys.modules, "numba", None)  # cannot be imported
    else:
        monkeypatch.setattr(isbi_metrics, "fast", lambda name: None)
    isbi_metrics._fastest_flood.cache_clear()
    try:
        assert isbi_metrics._fastest_flood() is isbi_metrics.flood
        assert v_rand(rows("5*10001"), rows("5*11011")) == 1
    finally:
        isbi_metrics._fastest_flood.cache_clear()


# ---- the scores of labels, counted another way


def pixels_that_count(segmentation, truth):
    """Lists of labels, with a name of its own for each pixel on a line."""
    counted = [(s, t) for s, t in zip(segmentation.ravel().tolist(), truth.ravel().tolist(), strict=True) if t]
    return [s or -k for k, (s, _) in enumerate(counted, 1)], [t for _, t in counted]


def entropy(names):
    return -math.fsum(c / len(names) * math.log(c / len(names)) for c in Counter(names).values())


@pytest.mark.parametrize("seed", range(6))
def test_rand_counts_pairs_and_info_is_mutual_information(seed):
    rng = np.random.default_rng(seed)
    truth, segmentation = rng.integers(0, 5, (7, 9)), rng.integers(0, [4, 2, 9, 40, 3, 1000][seed], (7, 9))
    S, T = pixels_that_count(segmentation, truth)
    together = [(s == u, t == v) for s, t in zip(S, T, strict=True) for u, v in zip(S, T, strict=True)]
    in_both, in_s, in_t = (sum(pair) for pair in ([a and b for a, b in together], *zip(*together, strict=True)))
    HS, HT, I = entropy(S), entropy(T), entropy(S) + entropy(T) - entropy(list(zip(S, T, strict=True)))
    expected = [2 * in_both / (in_s + in_t), in_both / in_t, in_both / in_s, 2 * I / (HS + HT), I / HS, I / HT]
    np.testing.assert_allclose(label_scores(segmentation, truth), expected, rtol=1e-12, atol=1e-14)


def test_info_against_scikit_image():
    """Its variation of information, in bits, is H(S|T) and H(T|S), once each pixel on a line has its own label."""
    metrics = pytest.importorskip("skimage.metrics")
    noise = np.random.default_rng(8).standard_normal((2, 90, 70))
    truth, _ = ndimage.label(ndimage.gaussian_filter(noise[0], 3) > -0.02)
    segmentation = thin(ndimage.gaussian_filter(noise[0] + 0.4 * noise[1], 3) > -0.02)
    apart = np.where(segmentation, segmentation, segmentation.max() + 1 + np.arange(truth.size).reshape(truth.shape))
    split, merge = metrics.variation_of_information(truth, apart, ignore_labels=(0,)) * math.log(2)
    HS, HT = entropy(apart[truth > 0].tolist()), entropy(truth[truth > 0].tolist())
    scores = label_scores(segmentation, truth)
    assert 0.1 < scores.info < 0.95
    assert scores.info_split == pytest.approx(1 - split / HS, rel=1e-11)
    assert scores.info_merge == pytest.approx(1 - merge / HT, rel=1e-11)
    assert scores.info == pytest.approx(1 - (split + merge) / (HS + HT), rel=1e-11)


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.int32])
def test_what_labels_are_called_does_not_matter(dtype):
    rng = np.random.default_rng(3)
    truth, segmentation = rng.integers(0, 6, (11, 8)), rng.integers(0, 7, (11, 8))
    names = rng.integers(1, 2**16 if dtype == np.uint16 else 2**31, (2, 7))
    assert np.unique(names).size == names.size
    names[:, 0] = 0  # but 0 is 0
    found = label_scores(names[0][segmentation].astype(dtype), names[1][truth].astype(dtype))
    np.testing.assert_allclose(found, label_scores(segmentation, truth), rtol=1e-13)
    assert label_scores(segmentation + 1, truth) != label_scores(segmentation, truth)  # 0 now is a cell


def test_split_and_merge_change_places_without_lines():
    rng = np.random.default_rng(4)
    a, b = rng.integers(1, 6, (2, 9, 13))
    x, y = label_scores(a, b), label_scores(b, a)
    np.testing.assert_allclose([x.rand_split, x.info_split], [y.rand_merge, y.info_merge], rtol=1e-12)
    np.testing.assert_allclose([x.rand, x.info], [y.rand, y.info], rtol=1e-12)


# ---- thresholds and stacks


def test_the_thresholds_are_added_up():
    t, expected = 0.0, []
    while t <= 1.0:
        expected.append(t)
        t += 0.1
    assert list(THRESHOLDS) == expected
    assert len(THRESHOLDS) == 11
    assert THRESHOLDS[-1] == 0.9999999999999999


def test_comparison_is_strict_and_in_float64(path):
    """The middle is membrane where its value is not above the threshold; float32 of 0.3 is above, of 0.9 is not."""
    truth = rows("5*11011")
    for dtype, value, gaps in ((np.float64, 0.5, 5), (np.float64, 0.3, 3), (np.float32, 0.3, 4), (np.float32, 0.9, 9)):
        prediction = np.where(truth, 1, value).astype(dtype)
        scores = isbi_scores(prediction, truth)
        exceeds = [float(dtype(value)) > t for t in THRESHOLDS]
        assert sum(exceeds) == gaps
        np.testing.assert_allclose(scores.rand[:, 0], np.where(exceeds, 2 / 3, 1), rtol=1e-14)


def test_one_is_inside_at_the_last_threshold_and_zero_is_not_at_the_first(path):
    truth = rows("5*11011")
    scores = isbi_scores(truth.astype(float), truth, thresholds=THRESHOLDS)
    np.testing.assert_allclose(scores.rand, np.ones((11, 1)), rtol=1e-14)
    np.testing.assert_allclose(isbi_scores(truth, truth, thresholds=[1.0]).rand, 0)  # nothing of the truth is > 1


def test_the_threshold_is_the_truths_too(path):
    truth = np.array([[0.9, 0.9, 0.25, 0.9, 0.9]] * 3)
    prediction = np.array([[0.8, 0.8, 0.45, 0.8, 0.8]] * 3)
    scores = isbi_scores(prediction, truth)
    for t, found in zip(THRESHOLDS, scores.rand[:, 0], strict=True):
        assert found == isbi_scores(prediction > t, truth > t).v_rand
    # One cell each to 0.2; truth two, prediction one to 0.4; two each to 0.7999999999999999; then no prediction, which
    # is one cell; then no truth.
    np.testing.assert_allclose(scores.rand[:, 0], [1] * 3 + [2 / 3] * 2 + [1] * 4 + [2 / 3] + [0], rtol=1e-14)


def test_mean_over_sections_comes_before_the_maximum(path):
    """One section needs a threshold below 0.4, the other one above 0.6: no threshold serves both."""
    truth = np.stack([rows("5*11011")] * 2)
    prediction = np.where(truth, 0.95, 0.0)
    prediction[0] = np.where(truth[0], 0.35, 0.0)
    prediction[1, 2, 2] = 0.65
    scores = isbi_scores(prediction, truth)
    assert scores.rand.max(0).mean() == pytest.approx(1)
    assert scores.v_rand == scores.rand.mean(1).max() == pytest.approx((1 + 2 / 3) / 2)
    assert scores.v_rand_threshold == 0.0  # the lowest of several
    np.testing.assert_allclose(scores.v_rand_sections, [1, 2 / 3], rtol=1e-14)
    assert scores.v_rand_merge == pytest.approx((1 + 0.5) / 2)
    assert scores.v_rand_split == pytest.approx(1)
    assert scores.v_info == pytest.approx(0.5)


def test_rand_and_info_each_have_their_own_threshold():
    truth = np.stack([rows("2*1011111111110")] * 2)
    found = None
    for seed in range(200):
        prediction = np.round(np.random.default_rng(seed).random(truth.shape), 2)
        scores = isbi_scores(prediction, truth)
        if scores.v_rand_threshold != scores.v_info_threshold:
            found = scores
            break
    assert found is not None
    best = found.thresholds.tolist().index(found.v_info_threshold)
    assert found.v_info == found.info.mean(1).max() == pytest.approx(found.info[best].mean())
    assert found.v_info_split == pytest.approx(found.info_split[best].mean())
    assert found.v_info_merge == pytest.approx(found.info_merge[best].mean())
    np.testing.assert_array_equal(found.v_info_sections, found.info[best])


def random_stack(sections=5, shape=(31, 44), seed=0):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal((sections, *shape)), (0, 2, 2))
    truth = smooth > 0  # 4 to 9 cells a section
    return np.clip(0.5 + 3 * smooth + 0.3 * rng.standard_normal(smooth.shape), 0, 1), truth


def test_sections_do_not_know_of_each_other(path):
    prediction, truth = random_stack()
    scores = isbi_scores(prediction, truth)
    assert 0.1 < scores.v_info < 0.99
    for k in range(len(truth)):
        alone = isbi_scores(prediction[k], truth[k])
        for name in ("rand", "rand_split", "rand_merge", "info", "info_split", "info_merge"):
            np.testing.assert_array_equal(getattr(alone, name)[:, 0], getattr(scores, name)[:, k])


def test_each_threshold_is_the_score_of_its_masks(path):
    prediction, truth = random_stack(sections=2)
    scores = isbi_scores(prediction, truth)
    for k, t in enumerate(THRESHOLDS):
        for z in range(2):
            expected = label_scores(thin(prediction[z] > t), ndimage.label(truth[z])[0])
            found = [getattr(scores, name)[k, z] for name in expected._fields]
            np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_equal_masks_are_flooded_once(monkeypatch):
    floods = []

    def counting(cells, pitch):
        floods.append(pitch)
        isbi_metrics.flood(cells, pitch)

    monkeypatch.setattr(isbi_metrics, "_fastest_flood", lambda: counting)
    truth = rows("5*11011")
    scores = isbi_scores(np.where(truth, 0.75, 0.35), truth)  # three masks, and the empty one needs no flood
    assert len(floods) == 2
    np.testing.assert_allclose(scores.info[:, 0], [0] * 4 + [1] * 4 + [0] * 3, atol=1e-14)


def test_a_perfect_prediction_scores_one(path):
    _, truth = random_stack()
    scores = isbi_scores(truth, truth)
    for name in ("v_rand", "v_rand_split", "v_rand_merge", "v_info", "v_info_split", "v_info_merge"):
        assert getattr(scores, name) == pytest.approx(1, abs=1e-13)


def test_summary_goes_through_json():
    scores = isbi_scores(*random_stack())
    summary = json.loads(json.dumps(scores.summary(), allow_nan=False))
    assert summary["v_rand"] == scores.v_rand
    assert summary["v_info_sections"] == scores.v_info_sections.tolist()
    assert summary["thresholds"] == list(THRESHOLDS)
    assert max(summary["rand"]) == summary["v_rand"]
    assert list(summary) == [  # in the order of the files that `tinyseg evaluate` has written
        *("thresholds", "rand", "rand_split", "rand_merge", "info", "info_split", "info_merge"),
        *(f"v_{s}{part}" for s in ("rand", "info") for part in ("", "_threshold", "_split", "_merge", "_sections")),
    ]


# ---- 0/0


@pytest.mark.parametrize(
    ("segmentation", "truth", "challenge", "one"),
    [  # V^Info, split, merge
        ("1111/1111", "1111/1111", (0, 1, 0), (1, 1, 1)),
        ("1111/1111", "1100/1100", (0, 1, 0), (1, 1, 1)),
        ("1122/1122", "1111/1111", (0, 1, 0), (0, 0, 1)),
        ("1111/1111", "1122/1122", (0, 0, 1), (0, 1, 0)),
        ("0000/0000", "0001/0000", (0, 1, 0), (1, 1, 1)),
        ("1122/1122", "0000/0000", (0, 0, 0), (0, 0, 0)),
    ],
)
def test_what_a_single_segment_scores(segmentation, truth, challenge, one):
    for empty, expected in (("challenge", challenge), ("one", one), ("zero", (0, 0, 0))):
        scores = label_scores(rows(segmentation), rows(truth), empty)
        assert tuple(scores[3:]) == expected
        assert scores[:3] == label_scores(rows(segmentation), rows(truth))[:3]
    assert label_scores(rows(segmentation), rows(truth)) == label_scores(rows(segmentation), rows(truth), "challenge")


def test_what_0_over_0_is_reaches_the_sections(path):
    ones = np.ones((2, 3, 5), bool)
    assert (v_rand(ones, ones), v_info(ones, ones)) == (1, 0)
    assert (v_rand(ones, ones, "one"), v_info(ones, ones, empty="one")) == (1, 1)
    ones[1] = False  # a section without truth is 0, whatever is said
    assert (v_rand(ones, ones, "one"), v_info(ones, ones, "one")) == (0.5, 0.5)
    assert isbi_scores(ones, ones).rand_merge.tolist() == [[1, 0]]


def test_a_section_all_membrane_is_one_cell(path):
    truth = rows("5*11011")
    np.testing.assert_array_equal(thin(np.zeros((3, 4))), np.ones((3, 4)))
    assert v_rand(np.zeros((5, 5)), truth) == v_rand(np.ones((5, 5)), truth)


# ---- what comes in


def test_kinds_of_arrays_count_alike(path):
    prediction, truth = random_stack()
    expected = v_rand(prediction, truth), v_info(prediction, truth)
    for other in (truth.astype(np.uint8), truth.astype(np.int64), truth.astype(np.float32), truth.tolist()):
        assert (v_rand(prediction, other), v_info(prediction, other)) == expected
    fortran, strided = np.asfortranarray(prediction), np.repeat(prediction, 2, axis=2)[:, :, ::2]
    assert v_rand(fortran, truth) == v_rand(strided, np.asfortranarray(truth)) == expected[0]
    mask = prediction > 0.5
    for binary in (mask.astype(np.uint8), mask.astype(np.float16), mask.astype(float)):
        assert v_rand(binary, truth) == v_rand(mask, truth)


def test_prediction_comes_first():
    truth, prediction = rows("1101/1101/0000/1101"), rows("1001/1001/0001/1111")
    assert v_rand(prediction, truth) == pytest.approx(25 / 33)
    assert v_rand(truth, prediction) != pytest.approx(25 / 33)


def test_inputs_come_back_unchanged(path):
    prediction, truth = random_stack()
    labels = thin(truth[0])
    before = [array.copy() for array in (prediction, truth, labels)]
    for array in (prediction, truth, labels):
        array.flags.writeable = False
    isbi_scores(prediction, truth)
    isbi_scores(prediction, truth, thresholds=np.array([0.5]))
    label_scores(labels, labels)
    thin(truth[0])
    for array, copy in zip((prediction, truth, labels), before, strict=True):
        np.testing.assert_array_equal(array, copy)


GOOD = np.eye(4, 5, dtype=bool)


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (GOOD * np.uint8(255), GOOD, r"prediction must be in \[0, 1\].*from 0 to 255 \(dtype uint8\).*by 255"),
        (GOOD, GOOD * 255, r"truth must be in \[0, 1\].*0 to 255.*labels > 0"),
        (GOOD - 0.1, GOOD, "prediction must be in.*-0.1 to 0.9.*sigmoid"),
        (np.where(GOOD, np.nan, 0.5), GOOD, "prediction must be in.*4 of 20 values are NaN"),
        (np.full((4, 5), np.nan), GOOD, "20 of 20 values are NaN"),
        (np.where(GOOD, np.inf, 0.5), GOOD, "0.5 to inf"),
        (GOOD, np.stack([GOOD, GOOD]), r"one shape.*prediction is \(1, 4, 5\).*truth is \(2, 4, 5\)"),
        (GOOD[:, :4], GOOD, r"one shape.*\(1, 4, 4\).*\(1, 4, 5\)"),
        (GOOD[None, None], GOOD, r"prediction must be.*\(S, H, W\) or \(H, W\).*\(1, 1, 4, 5\).*channel"),
        (GOOD, GOOD[0], r"truth must be.*shape \(5,\)"),
        (GOOD[:0], GOOD[:0], r"shape \(0, 5\)"),
        (GOOD * 1j, GOOD, "numbers.*complex"),
    ],
)
def test_what_cannot_be_scored_is_refused(prediction, truth, message):
    for score in (v_rand, v_info, isbi_scores):
        with pytest.raises(ValueError, match=message):
            score(prediction, truth)


def test_the_door_opens():
    """Users import the score from `tinyseg.isbi_metrics`, too."""
    names = ["THRESHOLDS", "IsbiScores", "LabelScores", "isbi_scores", "label_scores", "thin", "v_info", "v_rand"]
    for name in names:
        assert getattr(isbi_door, name) is getattr(isbi_metrics, name)


def test_wrong_options_and_labels_are_refused():
    for score in (v_rand, v_info, label_scores):
        with pytest.raises(ValueError, match="'challenge', 'one' or 'zero', but is 'nan'"):
            score(GOOD, GOOD, empty="nan")
    for thresholds in ([], [0.5, 1.5], [-0.1], [np.nan], 0.5):
        with pytest.raises(ValueError, match="thresholds must be"):
            isbi_scores(GOOD, GOOD, thresholds=thresholds)
    with pytest.raises(ValueError, match="truth_labels must be integers.*float64"):
        label_scores(GOOD, GOOD * 1.0)
    with pytest.raises(ValueError, match="segmentation must be integers.*4 are negative"):
        label_scores(GOOD * -1, GOOD)
    with pytest.raises(ValueError, match=r"one shape.*\(5, 4\)"):
        label_scores(GOOD.T, GOOD)
    for mask in (np.full((4, 5), 0.5), np.stack([GOOD, GOOD])):
        with pytest.raises(ValueError, match="thin takes one mask"):
            thin(mask)
    with pytest.raises(ValueError, match="mask must be in.*255"):
        thin(GOOD * 255)
