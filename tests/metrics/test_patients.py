"""A patient is scored as one volume, with what the preparation cut off."""

import math

import numpy as np
import pytest

import tinyseg as ts
from tinyseg import ops
from tinyseg.data.brain import Preparation
from tinyseg.data.brats import find_cases, read_case
from tinyseg.data.classes import REGIONS
from tinyseg.data.slices import SliceCache
from tinyseg.data.synthetic_brain import write_brains
from tinyseg.metrics import dice
from tinyseg.metrics.patients import as_log
from tinyseg.prediction import predict_logits
from tinyseg.prediction.evaluation import examples_of, score_patients
from tinyseg.training.losses import dice_and_cross_entropy


@pytest.fixture(scope="module")
def brains(tmp_path_factory):
    """The cache of four patients, and their whole labels."""
    path = tmp_path_factory.mktemp("brains")
    cases = find_cases(write_brains(path, num_cases=4, shape=(36, 40, 16)))
    cache = SliceCache.build(cases, path / "cache", Preparation(size=24), progress=False)
    return cache, {case.name: read_case(case)[1] for case in cases}


def build(classes=4, seed=0):
    return ts.models.build("sdunet", 4, classes, width=4, levels=3, seed=seed)


def whole_prediction(model, cache, name):
    """Class of every voxel of the uncut volume, (Z, X, Y), slice by slice."""
    p = Preparation(size=24)
    found = []
    for x in cache.images(name):
        logits = predict_logits(model, x[None].astype(np.float32))[0]
        masks = np.concatenate([logits < 0, logits > 0]) if len(logits) == 1 else logits == logits.max(axis=0)
        found.append(p.restore(masks.astype(np.float32), (36, 40)).argmax(axis=0))
    return np.stack(found)


@pytest.mark.parametrize("classes", [4, 1])
def test_scores_are_those_of_the_whole_volumes(brains, classes):
    cache, labels = brains
    model, names = build(classes), list(labels)[1:]
    report = score_patients(model, cache, names, REGIONS, dice_and_cross_entropy(), batch_size=3)
    regions = REGIONS if classes == 4 else {"whole tumour": (1, 2, 3)}
    expected = {}
    for region, members in regions.items():
        each = []
        for name in names:
            predicted, truth = whole_prediction(model, cache, name), np.moveaxis(labels[name], 2, 0)
            mask = np.isin(predicted, members if classes == 4 else (1,))
            each.append(dice(mask, np.isin(truth, members), empty="one"))
        expected[region] = each
        assert report["regions"][region]["mean"] == pytest.approx(np.mean(each))
        assert [patient[region] for patient in report["patients"]] == pytest.approx(each)
    assert report["dice"] == pytest.approx(np.mean([np.mean(each) for each in expected.values()]))
    volumes = [np.count_nonzero(labels[name]) for name in names]
    assert [patient["tumour_mm3"] for patient in report["patients"]] == volumes
    small = np.array(volumes) < np.median(volumes)
    assert report["small"] == {"dice": pytest.approx(np.mean(np.array(expected["whole tumour"])[small])), "patients": 1}
    assert report["large"]["patients"] == 2
    row = as_log(report)
    assert row["whole_tumour"] == report["regions"]["whole tumour"]["mean"] and row["small"] == report["small"]["dice"]
    assert all(isinstance(value, float) for value in row.values())


def test_the_batch_size_does_not_matter(brains):
    cache, labels = brains
    given = build(), cache, list(labels), REGIONS, dice_and_cross_entropy(0, 1)
    one, many = (score_patients(*given, batch_size=n) for n in (1, 16))
    assert one["patients"] == many["patients"] and one["loss"] == pytest.approx(many["loss"], rel=1e-5)


def test_a_given_limit_between_small_and_large(brains):
    cache, labels = brains
    report = score_patients(build(), cache, list(labels), REGIONS, dice_and_cross_entropy(), small=1)
    assert report["small"]["patients"] == 0 and math.isnan(report["small"]["dice"])


def test_the_loss_is_the_sum_it_says():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((2, 4, 6, 5)).astype(np.float32)
    t = rng.integers(0, 4, (2, 6, 5))

    def soft_dice(weights):
        return 1 - ops.soft_dice_loss(z, t, "softmax", weight=weights, pooled=True).item()

    plain = 0.5 * ops.cross_entropy(z, t).item() - 2 * soft_dice([0, 1, 1, 1])
    assert dice_and_cross_entropy(2.0, 0.5)(z, t).item() == pytest.approx(plain, rel=1e-5)
    weights = [0.1, 1, 2, 3]
    weighted = ops.cross_entropy(z, t, weight=weights).item() - soft_dice(weights)
    assert dice_and_cross_entropy(class_weights=weights)(z, t).item() == pytest.approx(weighted, rel=1e-5)
    mask = (t[:, None] > 0).astype(np.float32)
    binary = ops.dice_bce_with_logits(z[:, :1], mask, dice_weight=2.0, bce_weight=0.5).item()
    assert dice_and_cross_entropy(2.0, 0.5)(z[:, :1], mask).item() == pytest.approx(binary, rel=1e-6)


def test_examples_show_the_slice_with_most_tumour(brains):
    cache, labels = brains
    images, truth, predicted, captions = examples_of(build(), cache, list(labels), rows=3)
    assert images.shape == (3, 4, 24, 24) and truth.shape == predicted.shape == (3, 24, 24) and len(captions) == 3
    name = list(labels)[0]
    counts = cache.entries[name].counts[:, 1:].sum(axis=1)
    np.testing.assert_array_equal(truth[0], cache.labels(name)[counts.argmax()])
    assert set(np.unique(examples_of(build(1), cache, list(labels))[1])) == {0, 1}


def test_of_a_single_patient_several_slices_are_shown(brains):
    cache, labels = brains
    name = list(labels)[0]
    _, truth, _, captions = examples_of(build(), cache, [name], rows=3)
    slices = [int(caption.split()[-1]) for caption in captions]
    assert len(slices) == 3 and slices == sorted(set(slices)) and truth.any(axis=(1, 2)).all()
    for z, label in zip(slices, truth, strict=True):
        np.testing.assert_array_equal(label, cache.labels(name)[z])
