"""One step of training: what it returns, and when it leaves the weights alone."""

import math

import numpy as np
import pytest

from tinyseg import models, ops, optim
from tinyseg.training import Step
from tinyseg.training.step import count_foreground


def batch(seed=0):
    x = np.random.default_rng(seed).standard_normal((2, 1, 8, 12)).astype(np.float32)
    return x, (x > 0.3).astype(np.float32)


def pieces(**options):
    model = models.build("sdunet", width=4, levels=2, seed=1, dropout=0.0)
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    return model, optimizer, Step(model, optimizer, **options)


def test_a_step_is_the_textbook_loop():
    model, optimizer, step = pieces(clip=0.1)
    other, other_optimizer, _ = pieces()
    for k in range(3):
        x, y = batch(k)
        figures = step(x, y)
        logits = other(x)
        loss = ops.binary_cross_entropy_with_logits(logits, y)
        other_optimizer.zero_grad()
        loss.backward()
        norm = optim.clip_grad_norm(other.parameters(), 0.1)
        other_optimizer.step()
        assert (figures.loss, figures.norm, figures.updated) == (loss.item(), norm, True)
        predicted = logits.data > 0
        assert figures.overlap == (predicted & (y > 0.5)).sum() and figures.area == predicted.sum() + y.sum()
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, other.state_dict()[name], err_msg=name)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_changes_nothing(value):
    model, optimizer, step = pieces(loss=lambda logits, y: ops.binary_cross_entropy_with_logits(logits, y) * value)
    before = {name: array.copy() for name, array in model.state_dict().items()}
    with np.errstate(invalid="ignore"):
        figures = step(*batch())
    assert not figures.updated and not figures.left_out and not math.isfinite(figures.loss) and optimizer.steps == 0
    for name, array in model.state_dict().items():
        if not name.endswith("counter"):  # of dropout: it counts batches
            np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_foreground_is_counted_for_masks_and_for_class_numbers():
    logits = np.array([[[[1.0, -1.0, 2.0]]]])
    assert tuple(count_foreground(logits, np.array([[[[1, 1, 0]]]]))) == (1, 2, 2)
    logits = np.zeros((1, 3, 1, 3))
    logits[0, 2, 0, 0] = logits[0, 1, 0, 1] = 1
    assert tuple(count_foreground(logits, np.array([[[1, 0, 2]]]))) == (1, 2, 2)
