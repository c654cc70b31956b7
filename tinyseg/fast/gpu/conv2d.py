"""Convolution on the GPU: conv2d.cu writes columns, cuBLAS multiplies them, a tile at a time.

The functions of `tinyseg.ops.conv2d` for float32 and float16 arrays. The columns of all images make one matrix, so that
small images fill the GPU together. It is cut into tiles that fit a workspace. `convolve` and `gradients` do the work,
for the fused convolution too.
"""

from tinyseg.backend import devices
from tinyseg.fast.gpu.depthwise_conv import pair_of, supports  # noqa: F401
from tinyseg.fast.gpu.epilogue import columns_of, finish
from tinyseg.fast.gpu.launch import blocks_for, contiguous, fits, launch, load
from tinyseg.fast.gpu.product import outer, product

WORKSPACE = 1 << 28  # bytes of columns that exist at once
ALIGNED = 32  # the width of a tile is a multiple of so many columns, so that cuBLAS reads whole vectors
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
    """Return y (N, K, OH, OW) = W cols(X) + b, without b if it is None, with a ReLU after it if `relu`."""
    N, K = len(xs[0]), len(w)
    x, W, y = pair_of(xs), contiguous(w).reshape(K, -1), devices.cp.empty((N, K, *out), xs[0].dtype)
    pixels = N * out[0] * out[1]
    for first, cols in tiles(W.shape[1], pixels, y.dtype):
        im2col(x, cols, w.shape, stride, pads, out, factor, first)
        in_place = N == 1 and cols.shape[1] == pixels  # y lies in memory as W cols(X) does
        z = product(W, cols, out=y.reshape(K, pixels) if in_place else None)
        if relu or b is not None or not in_place:
            finish(z, b, y, relu, first)
    return y


def gradients(g, out, xs, w, w_shape, stride, pads, factor=1, needs_x=True, x_shapes=()):
    """Return the gradient of w (None without xs) and a tuple of those of the xs (None if `needs_x` is False).

    `g` (K, N·OH·OW) is the gradient of W cols(X); `x_shapes` gives the shapes if the xs are None.
    """
    (K, C, KH, KW), gw = w_shape, None
    shapes = x_shapes or [x.shape for x in xs]
    x = pair_of(xs) if xs else None
    gxs = tuple(devices.cp.empty(shape, g.dtype) if needs_x else None for shape in shapes)
    for first, cols in tiles(C * KH * KW, g.shape[1], g.dtype):
        part = contiguous(g[:, first : first + cols.shape[1]])
        if xs:
            im2col(x, cols, w_shape, stride, pads, out, factor, first)
            gw = outer(part, cols, gw)
        if needs_x:
            product(w.reshape(K, -1).T, part, out=cols)  # the gradient of the columns takes their place
            col2im(cols, gxs, w_shape, stride, pads, out, factor, first)
    return gw if gw is None else gw.reshape(w_shape), gxs


def tiles(rows, columns, dtype):
    """Cut a matrix (rows, columns) into tiles of about the same width: yield their first columns, and room for them.

    The room is an array (rows, width of the tile); all tiles use the same memory.
    """
    most = max(1, WORKSPACE // (dtype.itemsize * rows))
    width = blocks_for(columns, blocks_for(columns, most))
    width = min(columns, ALIGNED * blocks_for(width, ALIGNED))
    room = devices.cp.empty(rows * width, dtype)
    for first in range(0, columns, width):
        count = min(width, columns - first)
        yield first, room[: rows * count].reshape(rows, count)


def im2col(x, cols, w_shape, stride, pads, out, factor, first):
    """Write the columns of X from `first` on to `cols`; `x` is the pair of arrays that X is joined from."""
    (_, C, KH, KW), count = w_shape, cols.shape[1]
    sizes = (C, *x[0].shape[1:], factor, KH, KW, *out, *stride, *(p[0] for p in pads), first, count)
    launch(kernel("im2col", cols.dtype), blocks_for(C * count), *x, cols, *sizes)


def col2im(cols, gxs, w_shape, stride, pads, out, factor, first):
    """Add the columns from `first` on to the pixels of the gxs that they were read from.

    The gxs need not be zeros before: the first tile sets them to zero, and a tile of all columns writes every pixel.
    """
    (_, C, KH, KW), count, (N, C1, H, W) = w_shape, cols.shape[1], gxs[0].shape
    start, end, whole = 0, N * H, count == N * out[0] * out[1]
    if not whole:  # the rows of gx that the columns were read from, counted through all images
        (n, i), (n_last, i_last) = (divmod(m // out[1], out[0]) for m in (first, first + count - 1))
        top, sh = pads[0][0], stride[0]
        start = n * H + min(max((i * sh - top) // factor, 0), H)
        end = n_last * H + min(max((i_last * sh - top + KH - 1) // factor + 1, 0), H)
        if first == 0:
            for gx in gxs:
                gx.fill(0)
    gx2 = gxs[1] if len(gxs) > 1 else None
    sizes = (C, C1, H, W, factor, KH, KW, *out, *stride, *(p[0] for p in pads), first, count)
    pixels = max(0, end - start) * W
    args = cols, gxs[0], gx2, *sizes, start * W, pixels, not whole
    launch(kernel("col2im", cols.dtype), blocks_for(C * pixels), *args)
