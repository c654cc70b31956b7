"""Launches dropout.cu: the mask of dropout.py for a float32 array of the GPU."""

import numpy as np

from tinyseg import backend
from tinyseg.cuda import blocks_for, launch, load, supports

__all__ = ["mask", "supports"]

kernel = load(__file__)


def mask(x, shape, p, seed):
    key1, key2 = np.random.SeedSequence(seed).generate_state(2, np.uint32)
    threshold, scale = np.uint32(min(round(p * 2**32), 2**32 - 1)), np.float32(1 / (1 - p))
    m = backend.cp.empty(shape, x.dtype)
    launch(kernel("mask"), blocks_for(m.size), m, m.size, key1, key2, threshold, scale)
    return m
