"""Max pooling compiled by numba: what `tinyseg.ops.pool` computes, in loops over single numbers.

    y[n,c,i,j] = max_{u,v} x[n,c,i·sh+u,j·sw+v]

NumPy goes through whole arrays several times for each tap: to compare, to choose the larger value, to note the tap. A
loop that looks at one window after the other reads each number once, and keeps the largest so far in a register. In
Python such a loop takes a microsecond a number; numba compiles it when it is called for the first time, and then it
takes what it takes in C. Images and channels are independent of each other: `prange` shares them among the cores.

This file may stand in for `tinyseg.fast.cpu.pool`. It takes windows without a border and has no gradients: the maths
computes the rest. The kernel that tinyseg itself uses computes 8 or 16 channels at once.
"""

import numba
import numpy as np


def supports(*arrays):
    """Whether the arrays are of the type that the kernel takes; otherwise the maths computes."""
    return all(a.dtype == np.float32 for a in arrays)


def max_forward(x, kernel, stride, pads, out):
    """Return the largest value of each window and the number of its tap (uint8): two arrays (N, C, OH, OW)."""
    if pads != ((0, 0), (0, 0)):
        return NotImplemented  # the maths computes
    y, winner = np.empty((*x.shape[:2], *out), x.dtype), np.empty((*x.shape[:2], *out), np.uint8)
    pool_channels(np.ascontiguousarray(x), kernel, stride, y, winner)
    return y, winner


@numba.njit(parallel=True)
def pool_channels(x, kernel, stride, y, winner):
    """Pool all channels of all images, in all cores: fills y and winner, both (N, C, OH, OW)."""
    N, C = y.shape[:2]
    for k in numba.prange(N * C):
        pool_channel(x[k // C, k % C], kernel, stride, y[k // C, k % C], winner[k // C, k % C])


@numba.njit
def pool_channel(x, kernel, stride, y, winner):
    """Pool one channel of one image: fills y and winner (OH, OW) from x (H, W).

    `winner` gets u·KW + v of the tap (u, v) with the largest value; the first tap wins a tie.
    """
    (KH, KW), (sh, sw), (OH, OW) = kernel, stride, y.shape
    for i in range(OH):
        for j in range(OW):
            largest, tap = x[i * sh, j * sw], 0
            for u in range(KH):
                for v in range(KW):
                    value = x[i * sh + u, j * sw + v]
                    if value > largest:
                        largest, tap = value, u * KW + v
            y[i, j], winner[i, j] = largest, tap
