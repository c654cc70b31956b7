"""Launches weight_standardization.cu: the functions of `tinyseg.ops.weight_standardization` on float32 arrays.

`axes` are all axes, or all but the first: sets of weights lie one after the other.
"""

from tinyseg.backend import devices
from tinyseg.fast.gpu.launch import contiguous, float32, launch_slices, load
from tinyseg.fast.gpu.slices import moments, products

supports = float32
kernel = load(__file__)


def forward(v, axes, eps, a):
    v, sets = contiguous(v), 1 if len(axes) == v.ndim else len(v)
    w, std = devices.cp.empty(v.shape, v.dtype), devices.cp.empty((sets,) + (1,) * (v.ndim - 1), v.dtype)
    launch_slices(kernel("forward"), sets, v.size // sets, v, *moments(v, 1, sets), w, std, float(eps), float(a))
    return w, std


def grad_v(gw, w, std, axes, eps, a):
    (gw, w, std), sets = contiguous(gw, w, std), std.size
    gv = devices.cp.empty(w.shape, w.dtype)
    args = gw, w, std, *products(gw, w, sets), gv, float(eps), float(a)
    launch_slices(kernel("grad_v"), sets, w.size // sets, *args)
    return gv
