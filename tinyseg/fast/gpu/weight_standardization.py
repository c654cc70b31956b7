"""Launches weight_standardization.cu: the functions of `tinyseg.ops.weight_standardization` on float32 arrays.

`axes` are all, or all but the first: sets of weights lie one after the other.
"""

from tinyseg.backend import devices
from tinyseg.fast.gpu.launch import SLICE, contiguous, cut, launch, load, supports
from tinyseg.fast.gpu.slices import moments, products

__all__ = ["forward", "grad_v", "supports"]

kernel = load(__file__)


def forward(v, axes, eps, a):
    v, sets = contiguous(v), 1 if len(axes) == v.ndim else len(v)
    P, numbers = v.size // sets, (float(eps), float(a))
    w, std = devices.cp.empty(v.shape, v.dtype), devices.cp.empty((sets,) + (1,) * (v.ndim - 1), v.dtype)
    slices, threads = cut(P)
    launch(kernel("forward"), sets * slices, v, *moments(v, 1, sets), w, std, *numbers, P, SLICE, threads=threads)
    return w, std


def grad_v(gw, w, std, axes, eps, a):
    gw, w, std = contiguous(gw, w, std)
    P = w.size // std.size
    gv, sums = devices.cp.empty(w.shape, w.dtype), products(gw, w, std.size)
    slices, threads = cut(P)
    args = gw, w, std, sums[0], sums[1], gv, float(eps), float(a), P, SLICE
    launch(kernel("grad_v"), std.size * slices, *args, threads=threads)
    return gv
