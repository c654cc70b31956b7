"""Convolution on the GPU: columns written by conv2d.cu, multiplied by cuBLAS, a tile of the workspace at a time.

The functions of `tinyseg.ops.conv2d` for float32 and float16 arrays. The columns of all images make one matrix: small
images fill the GPU together, and large ones are cut into tiles. `convolve` and `gradients` do the work, for the fused
convolution too.
"""

from tinyseg.backend import devices
from tinyseg.fast.gpu.depthwise_conv import halves, supports
from tinyseg.fast.gpu.epilogue import columns_of, finish
from tinyseg.fast.gpu.launch import blocks_for, contiguous, fits, launch, load
from tinyseg.fast.gpu.product import outer, product

__all__ = ["forward", "grad_w", "grad_x", "supports"]

WORKSPACE = 1 << 28  # bytes of columns that exist at once
ALIGNED = 32  # tiles are multiples of so many columns: whole vectors for cuBLAS
kernel = load(__file__)


def forward(x, w, stride, pads, out):
    if not fits(x.shape, (len(x), len(w), *out)):
        return NotImplemented
    return convolve((x,), w, None, stride, pads, out)


def grad_w(x, gy, w_shape, stride, pads):
    if not fits(x.shape, gy.shape):
        return NotImplemented
    return gradients(columns_of(gy), gy.shape[2:], (x,), None, w_shape, stride, pads, needs_x=False)[0]


def grad_x(gy, w, x_shape, stride, pads):
    if not fits(x_shape, gy.shape):
        return NotImplemented
    _, gxs = gradients(columns_of(gy), gy.shape[2:], None, w, w.shape, stride, pads, x_shapes=[x_shape])
    return gxs[0]


# ----- on one or two inputs ----------------------------------------------------------
def convolve(xs, w, b, stride, pads, out, factor=1, relu=False):
    """Return y (N, K, OH, OW) = W cols(X) + b (unless that is None), through a ReLU if `relu`."""
    N, K = len(xs[0]), len(w)
    x, W, y = halves(xs), contiguous(w).reshape(K, -1), devices.cp.empty((N, K, *out), xs[0].dtype)
    pixels = N * out[0] * out[1]
    for first, cols in tiles(W.shape[1], pixels, y.dtype):
        im2col(x, cols, w.shape, stride, pads, out, factor, first)
        in_place = N == 1 and cols.shape[1] == pixels  # y itself is W cols(X)
        z = product(W, cols, out=y.reshape(K, pixels) if in_place else None)
        if relu or b is not None or not in_place:
            finish(z, b, y, relu, first)
    return y


def gradients(g, out, xs, w, w_shape, stride, pads, factor=1, needs_x=True, x_shapes=()):
    """Return the gradient of w (None without xs) and a tuple of those of the xs (None if `needs_x` is False).

    `g` (K, N·OH·OW) is the gradient of W cols(X); `x_shapes` gives the shapes if the xs are None.
    """
    cp, (K, C, KH, KW), gw = devices.cp, w_shape, None
    shapes = x_shapes or [x.shape for x in xs]
    x = halves(xs) if xs else None
    gxs = tuple(cp.empty(shape, g.dtype) for shape in shapes) if needs_x else (None,) * len(shapes)
    for first, cols in tiles(C * KH * KW, g.shape[1], g.dtype):
        part = contiguous(g[:, first : first + cols.shape[1]])
        if xs:
            im2col(x, cols, w_shape, stride, pads, out, factor, first)
            gw = outer(part, cols, gw)
        if needs_x:
            product(w.reshape(K, -1).T, part, out=cols)  # gcols, over the columns
            col2im(cols, gxs, w_shape, stride, pads, out, factor, first, whole=cols.shape[1] == g.shape[1])
    return gw if gw is None else gw.reshape(w_shape), gxs


def tiles(rows, columns, dtype):
    """Yield (first column, room for the columns from there on, an array (rows, ·)): tiles of about the same size."""
    most = max(1, WORKSPACE // (dtype.itemsize * rows))
    width = blocks_for(columns, blocks_for(columns, most))
    width = min(columns, ALIGNED * blocks_for(width, ALIGNED))
    room = devices.cp.empty(rows * width, dtype)
    for first in range(0, columns, width):
        count = min(width, columns - first)
        yield first, room[: rows * count].reshape(rows, count)


def im2col(x, cols, w_shape, stride, pads, out, factor, first):
    """Write columns `first` and following of X, put together from the `halves` x."""
    (_, C, KH, KW), count, before = w_shape, cols.shape[1], [p[0] for p in pads]
    sizes = (C, *x[0].shape[1:], factor, KH, KW, *out, *stride, *before, first, count)
    launch(kernel("im2col", cols.dtype), blocks_for(C * count), *x, cols, *sizes)


def col2im(cols, gxs, w_shape, stride, pads, out, factor, first, whole):
    """Add columns `first` and following to where they were read; write the gxs, if these are the `whole` of them."""
    (_, C, KH, KW), count, (N, C1, H, W) = w_shape, cols.shape[1], gxs[0].shape
    if whole:
        start, end = 0, N * H
    else:  # rows of gx, counted through all images, that the columns touch
        (n, i), (n_last, i_last) = (divmod(m // out[1], out[0]) for m in (first, first + count - 1))
        top, sh = pads[0][0], stride[0]
        start = n * H + min(max((i * sh - top) // factor, 0), H)
        end = n_last * H + min(max((i_last * sh - top + KH - 1) // factor + 1, 0), H)
    if first == 0 and not whole:
        for gx in gxs:
            gx.fill(0)
    gx2 = gxs[1] if len(gxs) > 1 else None
    sizes = (C, C1, H, W, factor, KH, KW, *out, *stride, *(p[0] for p in pads), first, count)
    pixels = max(0, end - start) * W
    launch(
        kernel("col2im", cols.dtype), blocks_for(C * pixels), cols, gxs[0], gx2, *sizes, start * W, pixels, not whole
    )
