"""Numbers out of their range, and saved states that do not fit, get a sentence."""

import math

import numpy as np
import pytest

from tinyseg import models, nn, optim
from tinyseg.backend import check_number, compare_states

WEIGHTS = [nn.Parameter(np.ones(3))]


@pytest.mark.parametrize(
    ("value", "interval", "inside"),
    [
        (0, "[0, 1)", True), (1, "[0, 1)", False), (0, "(0, 1]", False), (1.0, "(0, 1]", True),
        (10**400, "[0, inf)", False), (math.nan, "[0, 1]", False),
        (math.inf, "[0, inf)", False), (math.inf, "[0, inf]", True), (-1e-9, "[0, inf]", False), ("1", "[0, 2]", False),
        (True, "[0, 2]", False), (np.float32(0.5), "[0, 1]", True), (None, "[0, 1]", False),
    ],
)  # fmt: skip
def test_intervals(value, interval, inside):
    if inside:
        assert check_number("x", value, interval) == value
    else:
        with pytest.raises(ValueError, match="x must be a number in the interval .*, but is"):
            check_number("x", value, interval)


def test_integers():
    assert type(check_number("n", np.int64(3), "[1, inf)", integer=True)) is int
    with pytest.raises(ValueError, match="n must be an integer in the interval"):
        check_number("n", 3.0, "[1, inf)", integer=True)


def sgd():
    return optim.SGD(WEIGHTS, lr=0.1)


CALLS = {
    "lr": lambda bad: optim.Adam(WEIGHTS, lr=bad),
    "weight_decay": lambda bad: optim.SGD(WEIGHTS, weight_decay=bad),
    "momentum": lambda bad: optim.SGD(WEIGHTS, momentum=bad),
    "betas": lambda bad: optim.Adam(WEIGHTS, betas=(0.9, bad)),
    "eps": lambda bad: optim.AdamW(WEIGHTS, eps=bad),
    "max_norm": lambda bad: optim.clip_grad_norm(WEIGHTS, bad),
    "warmup": lambda bad: optim.WarmupLR(sgd(), bad),
    "step_size": lambda bad: optim.StepLR(sgd(), bad),
    "gamma": lambda bad: optim.StepLR(sgd(), 3, bad),
    "T_max": lambda bad: optim.CosineAnnealingLR(sgd(), bad),
    "eta_min": lambda bad: optim.CosineAnnealingLR(sgd(), 5, bad),
    "factor": lambda bad: optim.ReduceLROnPlateau(sgd(), factor=bad),
    "patience": lambda bad: optim.ReduceLROnPlateau(sgd(), patience=bad),
    "min_lr": lambda bad: optim.ReduceLROnPlateau(sgd(), min_lr=bad),
    "in_channels": lambda bad: nn.Conv2d(bad, 2, 3),
    "out_channels": lambda bad: nn.SeparableConv2d(2, bad, 3),
    "kernel_size": lambda bad: nn.MaxPool2d(bad),
    "stride": lambda bad: nn.ConvTranspose2d(2, 2, 2, stride=bad),
    "padding": lambda bad: nn.Conv2d(2, 2, 3, padding=bad),
    "dilation": lambda bad: nn.DepthwiseConv2d(2, 3, dilation=bad),
    "scale_factor": lambda bad: nn.Upsample(bad),
    "num_groups": lambda bad: nn.GroupNorm(bad, 4),
    "p must": lambda bad: nn.Dropout(bad),
    "channels": lambda bad: nn.BatchNorm2d(bad),
    "width": lambda bad: models.build("unet", width=bad),
    "levels": lambda bad: models.build("unet", width=2, levels=bad),
    "num_classes": lambda bad: models.build("unet", num_classes=bad, width=2),
    "dropout": lambda bad: models.build("unet", width=2, dropout=bad),
}


@pytest.mark.parametrize("bad", [-1, math.nan, "3"], ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_numbers_out_of_range_are_refused(name, bad):
    with pytest.raises(ValueError, match=f"{name}.* but is .*[.]"):
        CALLS[name](bad)


def test_a_clip_of_nothing_is_refused_and_infinity_clips_nothing():
    with pytest.raises(ValueError, match=r"max_norm must be a number in the interval \(0, inf\]"):
        optim.clip_grad_norm(WEIGHTS, 0)
    assert optim.clip_grad_norm(WEIGHTS, math.inf) == 0


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"w": np.zeros(3, np.float16), "n": np.array(2)}, ""),
        ({"w": np.zeros(3), "n": np.array(2.5)}, "n: expected integers, found float64."),
        ({"w": np.zeros(3, complex), "n": np.array(2)}, "w: expected floating-point numbers, found complex128."),
        ({"w": [0.0, 1.0], "n": 1, "x": 3}, r"unexpected: x; w: expected the shape \(3,\), found \(2,\)."),
        ("model.safetensors", "A state is a dictionary of arrays by name, but this is a str."),
    ],
)
def test_states_are_compared(state, message):
    found = compare_states({"w": np.ones(3, np.float32), "n": np.array(1)}, state)
    assert found == message.replace("\\", "")
