"""`evaluate`: a network scored on images; whole patients are in tests/metrics/test_patients.py."""

import warnings

import numpy as np
import pytest

from tinyseg import models
from tinyseg.data import SegmentationDataset
from tinyseg.training import ConstantOutputWarning, evaluate


@pytest.fixture
def data():
    images = np.random.default_rng(0).standard_normal((6, 16, 24)).astype(np.float32)
    return SegmentationDataset(images, images > 0.2, seed=1)


def sdunet():
    return models.build("sdunet", width=4, levels=3, seed=1)


def test_a_constant_output_is_warned_about(data):
    model = models.build("unet", width=4, levels=3, head="paper")
    conv = model.head.layers[0]
    conv.bias.data[...] = -1000.0  # the ReLU behind it is dead
    with pytest.warns(ConstantOutputWarning, match="constant .* use head='direct'"):
        scores, probabilities = evaluate(model, data.images[:, 0], data.labels)
    assert np.ptp(probabilities) < 1e-3


def test_a_live_network_is_not(data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(sdunet(), data.images[:, 0], data.labels)


def test_scores_do_not_depend_on_batch_size_and_fit_any_size(data):
    model = sdunet()
    images, labels = data.images[:, 0, :13, :18], data.labels[:, :13, :18]
    one, _ = evaluate(model, images, labels, batch_size=1)
    four, probabilities = evaluate(model, images, labels, batch_size=4)
    assert one["accuracy"] == four["accuracy"] and one["loss"] == pytest.approx(four["loss"], rel=1e-5)
    assert probabilities.shape == (6, 13, 18)
    assert one["accuracy"] == ((probabilities > 0.5) == labels).mean()
