"""Launches targets.cu, and keeps constants on the GPU: the functions of `tinyseg.ops.targets`."""

import functools

import numpy as np

from tinyseg.backend import devices
from tinyseg.fast.gpu.graphs.recording import recording
from tinyseg.fast.gpu.launch import LIMIT, blocks_for, contiguous, float32, launch, load
from tinyseg.ops.targets import ROUNDING

supports = float32
kernel = load(__file__)


def class_numbers(t, C, ignore_index):
    ignoring = ignore_index is not None
    if t.size >= LIMIT or (ignoring and not -LIMIT <= ignore_index < LIMIT):
        return NotImplemented
    t, record = contiguous(t.astype("int64", copy=False)), recording()
    numbers = devices.cp.empty(t.shape, t.dtype)
    wrong = devices.cp.zeros(1, "int32") if record is None else record.wrong
    args = t, numbers, wrong, t.size, C, ignoring, int(ignore_index) if ignoring else 0, record is not None
    launch(kernel("class_numbers"), blocks_for(t.size), *args)
    if record is None:
        return numbers, not wrong.item()
    record.checks_classes = True  # the step reads `wrong` when it is over: during a capture nothing can be read
    return numbers, True


def in_unit_interval(t):
    if recording() is not None:  # a captured step can read nothing; the steps before the capture have looked
        return True
    return t.size == 0 or bool(((t >= -ROUNDING) & (t <= 1 + ROUNDING)).all())


def constant(z, given):
    """Return numbers as an array, which is made only once: a copy to the GPU in every step would take time."""
    record = recording()
    if record is not None:  # a captured step keeps its constants itself
        return record.put_constant(np.asarray(given, z.dtype))
    return _constant(devices.cp, given, z.dtype)


@functools.lru_cache(maxsize=64)
def _constant(cp, given, dtype):
    return cp.asarray(given, dtype=dtype)
