"""Slices of brains prepared for a network, and put back; and brains that were never scanned."""

import numpy as np
import pytest

from tinyseg.data.brain import Preparation
from tinyseg.data.brats import find_cases, read_case
from tinyseg.data.synthetic_brain import brain, write_brains


def volume(shape=(2, 30, 26, 5), seed=0):
    """Two modalities, 0 outside of a ball, also 0 here and there inside of one of them."""
    rng = np.random.default_rng(seed)
    v = rng.integers(0, 900, shape).astype(np.int16)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[1:]), indexing="ij")
    v[:, sum(a**2 for a in axes) > 0.9] = 0
    return v


def prepared(v, p):
    statistics = p.statistics(np.moveaxis(v, 3, 0))
    return np.stack([p.prepare(v[..., z], statistics) for z in range(v.shape[3])])


def test_a_volume_has_mean_0_and_variance_1_over_the_brain():
    v, p = volume(), Preparation(size=0)
    x, brain = np.moveaxis(prepared(v, p), 0, 3), (v != 0).any(axis=0)
    assert x.dtype == np.float32 and not x[:, ~brain].any()
    np.testing.assert_allclose(x[:, brain].mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(x[:, brain].std(axis=1), 1, atol=1e-5)
    assert np.abs(x[..., 1][:, brain[..., 1]].mean(axis=1)).max() > 1e-3  # not so each slice


def test_each_slice_by_itself():
    v, p = volume(), Preparation(size=0, standardize="slice")
    assert p.statistics(np.moveaxis(v, 3, 0)) is None
    x = prepared(v, p)
    for z in (1, 2, 3):
        inside = (v[..., z] != 0).any(axis=0)
        np.testing.assert_allclose(x[z][:, inside].mean(axis=1), 0, atol=1e-5)
        np.testing.assert_allclose(x[z][:, inside].std(axis=1), 1, atol=1e-5)


def test_what_has_no_variance_is_0_and_not_nan():
    empty = np.zeros((2, 20, 20), np.int16)
    assert not Preparation().prepare(empty).any()
    flat = empty.copy()
    flat[0, 5:9, 5:9] = 300
    x = Preparation(standardize="slice").prepare(flat)
    assert np.isfinite(x).all() and not x.any()
    assert np.isfinite(Preparation().prepare(flat, Preparation().statistics([flat, flat]))).all()


@pytest.mark.parametrize("shape", [(20, 31), (12, 9), (16, 40)])
def test_the_middle_is_cut_out_and_put_back(shape):
    p, planes = Preparation(size=16), np.arange(3 * shape[0] * shape[1]).reshape(3, *shape)
    cut = p.fit(planes)
    assert cut.shape == (3, min(16, shape[0]), min(16, shape[1])) == (3, *p.target(shape))
    whole = p.restore(cut.astype(np.float32), shape)
    inside = np.isin(planes, cut)
    np.testing.assert_array_equal(whole[inside], planes[inside])
    rows = np.flatnonzero(inside[0].any(axis=1))
    assert abs(rows[0] - (shape[0] - 1 - rows[-1])) <= 1  # in the middle
    outside = ~inside[0]
    assert (whole[0][outside] == 1).all() and not whole[1:, outside].any()  # background is class 0
    assert not p.restore(np.ones((1, *p.target(shape)), np.float32), shape)[0][outside].any()


def test_resampled_slices_come_back_in_register():
    p = Preparation(size=20, how="resize")
    r, q = np.mgrid[:40, :60].astype(np.float32)
    small = p.fit(np.stack([r, q]))
    assert small.shape == (2, 20, 20)
    back = p.restore(small, (40, 60))
    np.testing.assert_allclose(back[:, 2:-2, 3:-3], np.stack([r, q])[:, 2:-2, 3:-3], atol=0.4)
    labels = (r > 20).astype(np.uint8) * 3
    assert set(np.unique(p.fit(labels))) == {0, 3} and p.fit(labels).dtype == np.uint8


def test_wrong_options_are_refused():
    for options in ({"how": "squeeze"}, {"standardize": "stack"}, {"size": -1}):
        with pytest.raises(ValueError, match="'crop' or 'resize'"):
            Preparation(**options)


def test_a_synthetic_brain_has_all_tissues_and_is_skull_stripped():
    v, label = brain((96, 96, 32), seed=3)
    assert v.shape == (4, 96, 96, 32) and v.dtype == np.int16 and label.dtype == np.uint8
    inside = (v != 0).any(axis=0)
    assert 0.15 < inside.mean() < 0.6 and not inside[0].any() and not inside[:, 0].any()
    assert set(np.unique(label)) == {0, 1, 2, 3} and not label[~inside].any()
    flair, _, gadolinium, _ = v
    healthy = inside & (label == 0)
    assert flair[label == 1].mean() > 1.3 * flair[healthy].mean()  # edema is bright in FLAIR
    assert gadolinium[label == 3].mean() > 1.3 * gadolinium[healthy].mean()  # the rim after gadolinium


def test_seeds_make_patients():
    assert all(np.array_equal(a, b) for a, b in zip(brain((32, 32, 16), 5), brain((32, 32, 16), 5), strict=True))
    assert not np.array_equal(brain((32, 32, 16), 5)[0], brain((32, 32, 16), 6)[0])
    labels = [brain((48, 48, 20), seed)[1] for seed in range(12)]
    sizes = [np.count_nonzero(label) for label in labels]
    assert max(sizes) > 5 * min(sizes) > 0
    rims = [3 in label for label in labels]
    assert any(rims) and not all(rims)
    with pytest.raises(ValueError, match="at least 16"):
        brain((8, 64, 64))


def test_written_brains_go_through_the_real_loader(tmp_path):
    write_brains(tmp_path, num_cases=2, shape=(32, 40, 16), seed=1)
    cases = find_cases(tmp_path)
    assert len(cases) == 2 and cases.modalities[0] == "FLAIR"
    v, label = read_case(cases.cases[1])
    expected = brain((32, 40, 16), (1, 1))
    np.testing.assert_array_equal(v, expected[0])
    np.testing.assert_array_equal(label, expected[1])
    before = cases.cases[0].images[0].stat().st_mtime_ns
    write_brains(tmp_path, num_cases=3, shape=(32, 40, 16), seed=1)
    assert cases.cases[0].images[0].stat().st_mtime_ns == before and len(find_cases(tmp_path)) == 3
