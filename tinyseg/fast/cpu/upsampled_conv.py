"""Convolution of an upsampled image without the upsampled image: 9 products of matrices where there were 16.

Repeat every pixel f x f times, then convolve with w (k x k, `before` rows of padding above). Along one axis, output p
sees input q through all taps u with (p + u - before) // f = q: u = t + r, t = f·q - p + before, r = 0 … f - 1. Hence

    y[p] = sum_q W[f·q - p + before] x[q],     W[t] = sum_r w[t + r],     t = -(f - 1) … k - 1

This is a transposed convolution with the k + f - 1 taps of W and stride f. So, both axes alike:

    forward   the outputs p = f·i + a for each a = 0 … f - 1 are a convolution of x with every f-th tap of W
    grad_x    gx[q] = sum_p W[f·q - p + before] gy[p], a convolution of gy with stride f
    grad_w    gW[t] = sum_q gy[f·q - t + before] x[q], the gradient of that convolution;  gw[u] = sum_r gW[u - r]

For the 2x2 kernels of U-Net, upsampled by 2, W has 3x3 taps on a quarter of the pixels.
"""

import numpy as np

from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.conv2d import convolve, convolve_gradient
from tinyseg.fast.cpu.parallel import parallel
from tinyseg.fast.cpu.prepared import prepared

EVERY = slice(None)


def forward(x, w, b, relu, pads, f, y):
    """Upsample x (N, H, W, C) f x f, convolve it with w (K, C, KH, KW), add b, apply the ReLU if `relu`; write to y."""
    for a, c, taps, border in prepared(w, ("phases", pads, f), lambda: split_into_phases(w, pads, f)):
        convolve(x, taps, (1, 1), border, y, b=b, relu=relu, every=f, at=(a, c))


def backward(x, w, gy, pads, f, gx):
    """Write the gradient of x to gx, unless that is None; return the gradient of w."""
    (K, C, KH, KW), ((top, _), (left, _)) = w.shape, pads
    shape, pads = (C, K, KH + f - 1, KW + f - 1), ((KH - 1 - top, 0), (KW - 1 - left, 0))
    if gx is not None:
        turned = sum_windows(w, f)[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
        convolve(gy, turned, (f, f), pads, gx)
    gw = empty(w.shape)
    _sum_windows_back(K, convolve_gradient(gy, x, shape, (f, f), pads), f, gw)
    return gw


def split_into_phases(w, pads, f):
    """List (a, c, the taps of W that outputs (f·i + a, f·j + c) use, their padding)."""
    ((top, _), (left, _)), out = pads, []
    for a in range(f):
        rows, above = _taps_of_phase(w.shape[2], top, f, a)
        for c in range(f):
            columns, before = _taps_of_phase(w.shape[3], left, f, c)
            out.append((a, c, sum_windows(w, f, rows, columns), ((above, 0), (before, 0))))
    return out


def sum_windows(w, f, rows=EVERY, columns=EVERY):
    """Return W (K, C, KH + f - 1, KW + f - 1): the sums of w over windows of f x f, also those that reach beyond it.

    With `rows` and `columns`, slices of the last two axes, only those sums.
    """
    K, C, KH, KW = w.shape
    rows, columns = range(KH + f - 1)[rows], range(KW + f - 1)[columns]
    W = empty((K, C, len(rows), len(columns)))
    _sum_windows(K, w, f, rows.start, rows.step, columns.start, columns.step, W)
    return W


@parallel
def _sum_windows(k, w, f, t0, t_step, s0, s_step, W):
    K, C, KH, KW = w.shape
    for c in range(C):
        for i in range(W.shape[2]):
            for j in range(W.shape[3]):
                t, s = t0 + i * t_step, s0 + j * s_step
                total = np.float32(0)
                for u in range(max(0, t - f + 1), min(KH, t + 1)):
                    for v in range(max(0, s - f + 1), min(KW, s + 1)):
                        total += w[k, c, u, v]
                W[k, c, i, j] = total


@parallel
def _sum_windows_back(k, gW, f, gw):
    """gw[u] = sum_r gW[u - r]. gW is (C, K, …), input channels first, and its taps are in reverse order."""
    K, C, KH, KW = gw.shape
    for c in range(C):
        for u in range(KH):
            for v in range(KW):
                total = np.float32(0)
                for r in range(KH - 1 - u, KH - 1 - u + f):
                    for s in range(KW - 1 - v, KW - 1 - v + f):
                        total += gW[c, k, r, s]
                gw[k, c, u, v] = total


def _taps_of_phase(k, before, f, a):
    """Return the taps of W that the outputs f·i + a use, as a slice, and how far before input i the first one reads."""
    t = f - 1 - a + before  # index of the tap that meets input i
    first = t % f
    return slice(first, k + f - 1, f), (t - first) // f
