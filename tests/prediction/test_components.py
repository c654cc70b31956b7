"""What is small beside the largest component of a volume becomes background, and nothing else changes."""

import itertools

import numpy as np
import pytest

from tinyseg.prediction.components import drop_small_components


def components_by_hand(foreground):
    """The components of a volume, each a list of its voxels, from every voxel to its 26 neighbours."""
    left, found = set(map(tuple, np.argwhere(foreground))), []
    while left:
        part, edge = [], [left.pop()]
        while edge:
            voxel = edge.pop()
            part.append(voxel)
            for step in itertools.product((-1, 0, 1), repeat=3):
                other = tuple(np.add(voxel, step))
                if other in left:
                    left.remove(other)
                    edge.append(other)
        found.append(part)
    return found


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 1])
@pytest.mark.parametrize("density", [0.02, 0.05, 0.1, 0.5])
def test_as_a_search_from_voxel_to_voxel_finds_them(density, share):
    rng = np.random.default_rng(round(1000 * density))
    labels = (rng.integers(1, 4, (14, 11, 9)) * (rng.random((14, 11, 9)) < density)).astype(np.uint8)
    labels[2:6, 2:7, 3:6] = 2
    want, parts = labels.copy(), components_by_hand(labels)
    for part in parts:
        if len(part) < share * max(map(len, parts)):
            want[tuple(np.transpose(part))] = 0
    found = drop_small_components(labels, share)
    np.testing.assert_array_equal(found, want)
    assert found.dtype == np.uint8


def two_tumours():
    """Forty voxels of three classes, ten beside them, and one that touches the forty at a corner."""
    labels = np.zeros((12, 12, 6), np.uint8)
    labels[1:5, 1:6, 1:3] = 1
    labels[2:4, 2:4, 1] = 3
    labels[5, 6, 3] = 2
    labels[8:10, 7:12, 4] = 1
    return labels


def test_a_second_tumour_stays_until_it_is_small_beside_the_first():
    labels = two_tumours()
    assert drop_small_components(labels, 0) is labels
    np.testing.assert_array_equal(drop_small_components(labels, 10 / 41), labels)
    alone = drop_small_components(labels, 0.25)
    assert not alone[8:10].any()
    np.testing.assert_array_equal(alone[:8], labels[:8])  # with the classes inside, and what touches at a corner
    assert labels[8, 7, 4] == 1  # the volume that was given is as it was


def test_a_volume_without_a_tumour_and_one_that_is_all_tumour():
    for value in (0, 2):
        labels = np.full((3, 4, 5), value, np.uint8)
        np.testing.assert_array_equal(drop_small_components(labels, 0.5), labels)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), "a", None])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises((ValueError, TypeError), match="share must be"):
        drop_small_components(two_tumours(), share)


def test_a_slice_is_no_volume():
    with pytest.raises(ValueError, match=r"labels must be a volume \(X, Y, Z\), but have the shape \(12, 6\)"):
        drop_small_components(two_tumours()[0], 0.1)
