"""Solutions of notebook 4, making it fast."""

import numpy as np
from numba import njit, prange

from tinyseg import ops

# %% 1
# A pixel takes 2CK operations; C values are read and K written, of 4 bytes each. With
# C = K the intensity is C / 4, so the ridge is reached at C = 4 · ridge. For K → ∞ it
# tends to C / 2, since each output must be written and is a sum of C products only:
# with C = 4 that is 2 flop/byte, and 10 are never reached.


def solution_1(C, K):
    return 2 * C * K / (4 * (C + K))


# %% 2
# The padded copy, a product and the sum have the size of a block. A large block leaves
# the cache. A small one leaves the interpreter's share, some microseconds for each call
# of NumPy, to few values: one plane of 32 × 32 is 4 KiB. tinyseg aims at 1 MiB
# (`fast/cpu/by_channels.py`), whatever the shape.


def blocks(in_blocks, x, w, size):
    """Version b with blocks of 1, 4, 16 and 64 channels, {KiB of a block: function}."""
    images = x.reshape(len(x), -1, size, size)
    taps = np.repeat(w, images.shape[1] // len(w), axis=0)
    return {
        3 * 4 * k * size**2 / 1024: lambda k=k: in_blocks(images, taps, k)
        for k in (1, 4, 16, 64)
    }


def solution_2(race, in_blocks, x, w):
    sizes = [blocks(in_blocks, x, w, size) for size in (256, 32)]
    for cases in sizes:
        for kib, seconds in race(cases, rounds=3).items():
            print(f"blocks of {kib:5.0f} KiB: {1e3 * np.median(seconds):5.0f} ms")
    return [list(cases) for cases in sizes]


# %% 3
# Each of three ops reads a value and writes one, 24 bytes an output; one op 8. Where
# memory is the limit, a third of the time is the prediction. NumPy's two steps run on
# one core, so that the ratio may be larger.


@njit(parallel=True, fastmath={"contract"})
def fused(x, w, b, y):
    N, C, H, W = x.shape
    for p in prange(N * C):
        n, c = p // C, p % C
        X = np.zeros((H + 2, W + 2), np.float32)
        X[1:-1, 1:-1] = x[n, c]
        for i in range(H):
            for j in range(W):
                s = b[c]  # where the sum starts: the bias costs nothing
                for u in range(3):
                    for v in range(3):
                        s += X[i + u, j + v] * w[c, u, v]
                y[n, c, i, j] = max(s, np.float32(0))
    return y


def solution_3(race, kernel, x, w):
    b, y = np.linspace(-1, 1, len(w), dtype=np.float32), np.empty_like(x)

    def three_ops():
        kernel(x, w, y)
        np.add(y, b[:, None, None], out=y)
        return np.maximum(y, 0, out=y)

    cases = {"three": three_ops, "one": lambda: fused(x, w, b, y)}
    expected = ops.relu(ops.depthwise_conv2d(x, w, b, padding="same")).data
    assert all(np.allclose(run(), expected, atol=1e-4) for run in cases.values())
    three, one = (np.median(seconds) for seconds in race(cases, rounds=7).values())
    print(f"three ops take {three / one:.1f} times as long as one")
    return 24, 8, fused
