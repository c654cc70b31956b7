"""Objects from probabilities: what is drawn is found again, in any place and size, and options do what they say."""

import numpy as np
import pytest
import scipy
import tifffile
from scripts import REAL

from tinyseg.metrics.instances import average_precision
from tinyseg.metrics.isbi import label_scores
from tinyseg.prediction.instances import BORDER, find_instances, measure_instances, weigh_border


def disks(shape, *circles):
    """Labels of disks (row, column, radius); a pixel belongs to the disk in which it lies deepest."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    depths = np.stack([r - np.hypot(rows - y, columns - x) for y, x, r in circles])
    return np.where(depths.max(axis=0) > 0, depths.argmax(axis=0) + 1, 0)


def same_objects(labels, expected):
    """Whether two labels are the same but for the numbers: each pair of numbers that meet meets nowhere else."""
    pairs = np.unique(np.stack([labels.ravel(), expected.ravel()]), axis=1)
    return len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1] and [0, 0] in pairs.T.tolist()


def regions_by_hand(mask):
    """Number the regions of a mask, whose pixels meet at their sides, by walking from pixel to pixel."""
    labels, number = np.zeros(mask.shape, int), 0
    for start in zip(*np.nonzero(mask), strict=True):
        if labels[start]:
            continue
        number, ways = number + 1, [start]
        while ways:
            i, j = ways.pop()
            if 0 <= i < mask.shape[0] and 0 <= j < mask.shape[1] and mask[i, j] and not labels[i, j]:
                labels[i, j] = number
                ways += [(i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)]
    return labels


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_disks_that_touch_are_parted_at_any_size(factor):
    circles = [(20, 20, 15), (22, 46, 12), (48, 30, 14), (60, 80, 9)]
    truth = disks((80 * factor, 101 * factor), *(tuple(factor * n for n in c) for c in circles))
    for mask in (truth > 0, np.where(truth > 0, 0.93, 0.07)):
        labels = find_instances(mask, neck=0.7, border=1)
        assert labels.dtype == np.int32 and labels.max() == 4
        assert (average_precision(truth, labels, (0.9,)) == 1).all()
        np.testing.assert_array_equal(labels > 0, truth > 0)


def test_a_gap_in_a_membrane_does_not_join_two_cells():
    p = np.full((40, 63), 0.95)
    p[:, 30:33] = 0.02
    p[18:22, 30:33] = 0.9  # four pixels wide, and the network is sure of it
    left, right = np.split(find_instances(p), [31], axis=1)
    assert left[5, 5] == 1 and right[5, 25] == 2 and find_instances(p).max() == 2
    assert find_instances(p, neck=0).max() == 1
    p[2:38, 30:33] = 0.9  # no gap any more, but a cell with two notches
    assert find_instances(p).max() == 1


def test_a_long_gap_in_a_membrane_does_not_join_two_cells_nor_a_faint_line_part_one():
    p = np.full((40, 63), 0.95)
    p[:, 31] = 0.05
    p[8:20, 31] = 0.9  # a membrane that is missed over twelve pixels of forty: 0.3 on the mean
    for options in ({}, {"neck": 0.9}, {"border": 1}):
        assert find_instances(p, **options).max() == 2
    assert find_instances(p, border=0.2).max() == 1
    p[:, 31] = 0.3
    p[2:34, 31] = 0.65  # a line that the network is in doubt about: 0.58 on the mean
    assert find_instances(p).max() == 1 and find_instances(p, border=0.6).max() == 2
    assert same_objects(find_instances(p, border=0.6), find_instances(p, border=1))


def test_a_cell_that_two_others_have_become_has_one_border_with_a_third():
    p = np.full((40, 61), 0.95)
    p[20, :30] = 0.7  # between the upper left and the lower left
    p[:20, 30], p[20:, 30] = 0.6, 0.1  # of both with the right: 0.35 on the mean
    assert find_instances(p, border=1).max() == 3
    assert find_instances(p[:20]).max() == 1  # without the lower left, the upper left and the right are one cell
    labels = find_instances(p)
    assert labels.max() == 2 and labels[5, 5] == labels[35, 5] == 1 and labels[5, 55] == labels[35, 55] == 2
    assert find_instances(p, border=0.3).max() == 1


def test_a_joined_cell_has_the_number_of_its_first_pixel():
    p = np.full((30, 95), 0.05)
    p[2:28, 2:30], p[2:28, 33:60], p[5:28, 63:93] = 0.95, 0.95, 0.95
    p[1, 63:93] = 0.95  # a strip above the third, joined with it across a faint line
    p[2:5, 63:93] = 0.7
    labels = find_instances(p, min_size=0)
    assert [labels[1, 70], labels[10, 70], labels[10, 10], labels[10, 40], labels.max()] == [1, 1, 2, 3, 3]


@pytest.mark.parametrize(("background", "foreground"), [(1, 1), (1.3, 0.7), (0.5, 4)])
def test_the_border_of_a_weighted_loss_is_where_that_loss_is_least(background, foreground):
    def loss(p, q):
        return -foreground * q * np.log(p) - background * (1 - q) * np.log(1 - p)

    for q in (0.2, 0.5, 0.9):
        least = scipy.optimize.minimize_scalar(loss, args=(q,), bounds=(1e-6, 1 - 1e-6), method="bounded").x
        assert weigh_border(background, foreground, q) == pytest.approx(least, abs=1e-4)
    assert weigh_border(2, 2) == pytest.approx(BORDER)


def test_without_necks_objects_are_the_regions_above_the_threshold_that_have_a_seed():
    rng = np.random.default_rng(0)
    p = scipy.ndimage.gaussian_filter(rng.random((50, 71)), 2)
    p = (p - p.min()) / np.ptp(p)
    regions = regions_by_hand(p > 0.5)
    whole = {"neck": 0, "border": 1, "min_size": 0}
    assert same_objects(find_instances(p, seed_threshold=0.5, **whole), regions)
    sure = np.isin(regions, regions[p > 0.8])
    labels = find_instances(p, seed_threshold=0.8, **whole)
    np.testing.assert_array_equal(labels > 0, sure & (regions > 0))
    assert labels.max() == regions_by_hand(p > 0.8).max() > len(np.unique(regions[sure])) - 1  # cores are parted
    np.testing.assert_array_equal(np.unique(labels), np.arange(labels.max() + 1))


def test_numbers_go_row_by_row_and_leave_out_what_is_small():
    p = np.zeros((30, 41))
    p[2:4, 2:5], p[2:10, 20:30], p[15:25, 5:15], p[15:25, 30:40] = 1, 1, 1, 1
    labels = find_instances(p, min_size=7)
    assert [labels[5, 25], labels[20, 10], labels[20, 35], labels[2, 3], labels.max()] == [1, 2, 3, 0, 3]
    assert find_instances(p, min_size=6).max() == 4 and find_instances(p, min_size=101).max() == 0


def test_a_small_piece_goes_to_the_object_that_it_touches():
    p = np.full((30, 47), 0.9)
    p[:, 40] = 0.6  # between the thresholds: the strip beyond has its own seed
    whole = find_instances(p, border=1, min_size=220)
    assert find_instances(p, border=1).max() == 2
    assert whole.max() == 1 and (whole == 1).all()


def test_objects_grow_until_they_meet():
    p = np.zeros((20, 33))
    p[3:17, 2:12] = p[3:17, 20:31] = 1
    kept, grown = find_instances(p), find_instances(p, grow=True)
    assert (grown > 0).all() and grown.max() == 2
    np.testing.assert_array_equal(grown[kept > 0], kept[kept > 0])
    np.testing.assert_array_equal(np.unique(grown[:, :12]), [1])
    np.testing.assert_array_equal(np.unique(grown[:, 20:]), [2])
    assert find_instances(np.zeros((5, 7)), grow=True).max() == 0


def test_cores_that_only_meet_below_the_threshold_are_parted():
    p = np.full((20, 43), 0.85)
    p[2:18, 2:20] = p[2:18, 23:41] = 0.95
    assert find_instances(p, threshold=0.9, neck=0, border=1).max() == 2
    assert find_instances(p, threshold=0.8, neck=0, border=1).max() == 1


def test_a_section_of_one_cell_and_one_of_none():
    assert (find_instances(np.ones((8, 13))) == 1).all()
    assert (find_instances(np.zeros((8, 13), bool)) == 0).all()
    assert find_instances(np.full((8, 13), 0.79)).max() == 0  # never as sure as a seed
    assert find_instances(np.full((8, 13), 0.85), threshold=0.82).max() == 1
    assert find_instances(np.full((8, 13), 0.85), threshold=0.9).max() == 0  # a lower seed threshold does not count


@pytest.mark.parametrize(
    ("p", "options", "words"),
    [
        (np.zeros((2, 8, 9)), {}, "one section"),
        (np.zeros((0, 9)), {}, "one section"),
        (np.full((8, 9), "a"), {}, "one section"),
        (np.full((8, 9), 255), {}, "divide integers"),
        (np.full((8, 9), np.nan), {}, "in \\[0, 1\\]"),
        (np.zeros((8, 9)), {"threshold": 2}, "threshold"),
        (np.zeros((8, 9)), {"seed_threshold": -1}, "seed_threshold"),
        (np.zeros((8, 9)), {"neck": 1}, "neck"),
        (np.zeros((8, 9)), {"border": -0.1}, "border"),
        (np.zeros((8, 9)), {"min_size": -1}, "min_size"),
    ],
)
def test_what_is_no_section_or_no_option(p, options, words):
    with pytest.raises(ValueError, match=words):
        find_instances(p, **options)


@pytest.mark.skipif(not (REAL / "isbi2012").is_dir(), reason="no ISBI 2012 labels beside the repository")
def test_real_cells_with_blurred_and_broken_membranes_are_kept_apart():
    truth = tifffile.imread(REAL / "isbi2012" / "train-labels.tif")[20, :384] > 0
    p = scipy.ndimage.gaussian_filter(truth.astype(float), 2.0)
    broken = np.random.default_rng(0).random(truth.shape) < 0.0005
    p[scipy.ndimage.binary_dilation(broken, iterations=6)] = 0.95
    cells = scipy.ndimage.label(truth)[0]

    def score(**options):
        return label_scores(find_instances(p, grow=True, **options), cells).rand

    assert score() > 0.98 and score(neck=0) < 0.95


def test_a_mask_that_was_blurred_in_float64_is_a_probability():
    p = np.where(np.arange(400).reshape(20, 20) % 20 < 10, 1 + 2**-52, 0.1)
    assert p.max() > 1
    assert find_instances(p).max() == 1
    with pytest.raises(ValueError, match="found values from 0.1 to 1.00001"):
        find_instances(np.where(p > 1, 1.00001, p))


def test_measures_of_objects():
    labels = np.zeros((20, 31), np.int32)
    labels[2:6, 3:13], labels[10, 30], labels[19, 0:3] = 4, 9, 7
    rows = measure_instances(labels, pixel_size=(0.5, 0.25))
    assert [row["label"] for row in rows] == [4, 7, 9]
    assert rows[0] == pytest.approx(
        {
            "label": 4, "area": 40, "centroid_row": 3.5, "centroid_column": 7.5, "top": 2, "left": 3, "bottom": 6,
            "right": 13, "equivalent_diameter": (160 / np.pi) ** 0.5, "area_um2": 5.0,
            "equivalent_diameter_um": (20 / np.pi) ** 0.5,
        }
    )  # fmt: skip
    assert [type(rows[0][name]) for name in ("label", "area", "top")] == [int] * 3
    assert "area_um2" not in measure_instances(labels)[0]
    assert measure_instances(np.zeros((4, 5), int)) == []
