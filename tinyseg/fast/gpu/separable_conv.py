"""Depthwise separable convolution on the GPU: a depthwise kernel that joins and upsamples what it reads, and a product.

The functions of `tinyseg.ops.separable_conv`. D is (C, N, OH, OW) here: the pixels of all images are the columns of one
matrix, so that forward is one product and backward two, whatever the batch. D is not kept for the backward pass but
computed again: that costs a tenth of a step's traffic, and D would be half of what a layer keeps in memory.
"""

from tinyseg.backend import devices
from tinyseg.fast.gpu.depthwise_conv import correlate, correlate_gradient, correlate_transposed
from tinyseg.fast.gpu.epilogue import begin_backward, finish
from tinyseg.fast.gpu.fused_conv import supports as supports_joined
from tinyseg.fast.gpu.launch import fits, float32
from tinyseg.fast.gpu.product import outer, product


def supports(wd, wp, b, *xs):
    """As for the fused convolution. In backward b is gy."""
    return float32(wd) and supports_joined(wp, b, *xs)


def forward(xs, wd, wp, b, stride, pads, out, factor, relu):
    N, (K, C), pixels = len(xs[0]), wp.shape, len(xs[0]) * out[0] * out[1]
    if not fits((pixels, C), (pixels, K)):
        return NotImplemented
    z = product(wp, correlate(xs, wd, stride, pads, out, factor, by_channel=True).reshape(C, pixels))
    y = z.reshape(N, K, *out) if N == 1 else devices.cp.empty((N, K, *out), z.dtype)
    finish(z, b, y, relu)
    return y


def backward(gy, xs, wd, wp, y, stride, pads, factor, relu):
    (N, _, *out), C = gy.shape, len(wd)
    if not fits((N, C, *out), (N, C, *xs[0].shape[2:])):
        return NotImplemented
    g, gb = begin_backward(gy, y if relu else None)
    gwp = outer(g, correlate(xs, wd, stride, pads, out, factor, by_channel=True).reshape(C, -1))
    gd = product(wp.T, g).reshape(C, N, *out)
    gwd = correlate_gradient(xs, gd, wd.shape, stride, pads, factor, by_channel=True)
    return gwd, gwp, gb, correlate_transposed(gd, wd, [x.shape for x in xs], stride, pads, factor, by_channel=True)
