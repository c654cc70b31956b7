"""Launches dropout.cu: the mask of `tinyseg.ops.dropout` for a float32 array of the GPU."""

import numpy as np

from tinyseg.backend import devices
from tinyseg.fast.gpu.graphs.recording import recording
from tinyseg.fast.gpu.launch import blocks_for, float32, launch, load
from tinyseg.ops.dropout import keys_of

supports = float32
kernel = load(__file__)


def mask(x, shape, p, seed):
    keys, record = None, recording()
    if record is not None:
        seed_of_step = record.track_counter(seed)
        keys = record.put_changing(lambda: keys_of(seed_of_step()), np.uint32)
    threshold, scale = np.uint32(min(round(p * 2**32), 2**32 - 1)), np.float32(1 / (1 - p))
    m = devices.cp.empty(shape, x.dtype)
    launch(kernel("mask"), blocks_for(m.size), m, m.size, keys, *keys_of(seed), threshold, scale)
    return m
