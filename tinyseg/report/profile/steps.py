"""What a profile runs: a copy of the model, a batch of random numbers, a step of inference or of training."""

import copy
import math

import numpy as np

from tinyseg import nn
from tinyseg.autograd import Tensor, is_grad_enabled, no_grad
from tinyseg.backend import device_of, to_device, xp_of
from tinyseg.data.memory import refuse_beyond_memory
from tinyseg.models.size import least_memory
from tinyseg.models.unet import UNet
from tinyseg.ops import binary_cross_entropy_with_logits
from tinyseg.optim import Adam


def copy_model(model, training):
    """Return a copy of a model without gradients, in training or in evaluation mode."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"A profile needs a Module, but this is a {type(model).__name__}.")
    if training and not is_grad_enabled():
        raise RuntimeError("A profile of training needs gradients, but no_grad() is on: call it outside of it.")
    model = copy.deepcopy(model).train(training)
    model.zero_grad()
    return model


def check_input_shape(input_shape):
    """Return an input shape as a tuple of four ints; anything else is a ValueError."""
    shape = tuple(input_shape) if isinstance(input_shape, (tuple, list, np.ndarray)) else ()
    if len(shape) != 4 or not all(isinstance(n, (int, np.integer)) and n > 0 for n in shape):
        raise ValueError(f"input_shape must be whole numbers of at least 1, (N, C, H, W), but is {input_shape!r}.")
    return tuple(map(int, shape))


def make_batch(model, input_shape):
    """Return random numbers between 0 and 1, on the device and in the precision of the model's first parameter.

    If they, or inference of a U-Net with them, would take more than this computer's memory, it is a ValueError.
    """
    shape = check_input_shape(input_shape)
    like = next((p.data for p in model.parameters()), np.zeros(0, np.float32))
    size = 4 * math.prod(shape)
    if isinstance(model, UNet) and device_of(like) == "cpu":
        width = getattr(model, "config", {}).get("width", 1)
        size += least_memory(0, width, math.prod(shape) // shape[1], training=False)
    refuse_beyond_memory(size, f"input_shape {shape} would take at least", "memory", "give a smaller one")
    return to_device(np.random.default_rng(0).random(shape, np.float32).astype(like.dtype), device_of(like))


def default_loss(output):
    """Return the binary cross-entropy of logits with zeros: the loss of a profile if none is given."""
    if not isinstance(output, Tensor):
        raise TypeError(
            f"The model returns a {type(output).__name__} and not a Tensor: pass loss=, a function of what it returns "
            "that gives the Tensor to call backward() on."
        )
    return binary_cross_entropy_with_logits(output, xp_of(output.data).zeros_like(output.data))


def make_step(model, x, training, loss=None):
    """Return a function that runs the model once: inference, or a training step with Adam, which changes the model."""

    def infer():
        with no_grad():
            return model(x)

    if not training:
        return infer
    optimizer, loss = Adam(model.parameters(), lr=1e-4), loss or default_loss

    def train():
        optimizer.zero_grad()
        loss(model(x)).backward()
        optimizer.step()

    return train
