"""The transforms of Winograd's F(4x4, 3x3) for one tile and LANES channels, in registers.

Matrices and their origin: docs/ops/winograd.md. Arrays are flat, indices and strides in floats; the 36 elements of a
transformed tile lie `step` apart, row by row. Each transform goes over the columns of the tile, then over its rows.
"""

import numpy as np

from tinyseg.fast.cpu.kernel_cache import OPTIONS, njit
from tinyseg.fast.cpu.simd import WIDTH, align_stack, load, maximum, splat, store

inline = njit(inline="always")
ONE_4, ONE_6, ONE_12 = np.float32(1 / 4), np.float32(1 / 6), np.float32(1 / 12)
TWO, FOUR, FIVE, EIGHT = (np.float32(n) for n in (2, 4, 5, 8))


# ----- one column: a tuple of vectors times a matrix -------------------------------------
@inline
def bt(d):
    """Bᵀ times six inputs."""
    two, four, five = splat(TWO), splat(FOUR), splat(FIVE)
    e, f, g, h = d[4] - four * d[2], d[3] - four * d[1], d[4] - d[2], two * (d[3] - d[1])
    return four * d[0] - five * d[2] + d[4], e + f, e - f, g + h, g - h, four * d[1] - five * d[3] + d[5]


@inline
def at(m):
    """Aᵀ times six products."""
    two, four, eight = splat(TWO), splat(FOUR), splat(EIGHT)
    s, d, e, f = m[1] + m[2], m[1] - m[2], m[3] + m[4], m[3] - m[4]
    return m[0] + s + e, d + two * f, s + four * e, d + eight * f + m[5]


@inline
def a(g):
    """A times four gradients of outputs."""
    two, four, eight = splat(TWO), splat(FOUR), splat(EIGHT)
    e, f, p, q = g[0] + g[2], g[1] + g[3], g[0] + four * g[2], two * g[1] + eight * g[3]
    return g[0], e + f, e - f, p + q, p - q, g[3]


@inline
def g(w):
    """G times three weights."""
    quarter, sixth, twelfth, zero = splat(ONE_4), splat(ONE_6), splat(ONE_12), splat(np.float32(0))
    e, f, p, q = sixth * (w[0] + w[2]), sixth * w[1], quarter * sixth * w[0] + sixth * w[2], twelfth * w[1]
    return quarter * w[0], zero - e - f, f - e, p + q, p - q, w[2]


@inline
def gt(u):
    """Gᵀ times six gradients of transformed weights."""
    quarter, sixth, twelfth = splat(ONE_4), splat(ONE_6), splat(ONE_12)
    e, f = sixth * (u[1] + u[2]), sixth * (u[3] + u[4])
    return quarter * (u[0] + f) - e, sixth * (u[2] - u[1]) + twelfth * (u[3] - u[4]), f - e + u[5]


# ----- columns in memory ------------------------------------------------------------------
@inline
def three(x, p, step):
    """Three vectors of x, `step` apart."""
    return load(x, p), load(x, p + step), load(x, p + 2 * step)


@inline
def four(x, p, step):
    """Four vectors of x, `step` apart."""
    return load(x, p), load(x, p + step), load(x, p + 2 * step), load(x, p + 3 * step)


@inline
def six(x, p, step):
    """Six vectors of x, `step` apart."""
    return (
        load(x, p), load(x, p + step), load(x, p + 2 * step),
        load(x, p + 3 * step), load(x, p + 4 * step), load(x, p + 5 * step),
    )  # fmt: skip


@inline
def put_three(x, p, step, v):
    """Write three vectors to x, `step` apart."""
    store(x, p, v[0])
    store(x, p + step, v[1])
    store(x, p + 2 * step, v[2])


@inline
def put_six(x, p, step, v):
    """Write six vectors to x, `step` apart."""
    put_three(x, p, step, v)
    store(x, p + 3 * step, v[3])
    store(x, p + 4 * step, v[4])
    store(x, p + 5 * step, v[5])


# ----- whole tiles ------------------------------------------------------------------------
@njit(**OPTIONS)
def input_tile(band, p, row, pitch, V, v, step):
    """V = Bᵀ d B, where d begins at band[p] with pixels `pitch` and rows `row` apart."""
    align_stack()
    c0, c1, c2 = bt(six(band, p, row)), bt(six(band, p + pitch, row)), bt(six(band, p + 2 * pitch, row))
    p += 3 * pitch
    c3, c4, c5 = bt(six(band, p, row)), bt(six(band, p + pitch, row)), bt(six(band, p + 2 * pitch, row))
    put_six(V, v, step, bt((c0[0], c1[0], c2[0], c3[0], c4[0], c5[0])))
    put_six(V, v + 6 * step, step, bt((c0[1], c1[1], c2[1], c3[1], c4[1], c5[1])))
    put_six(V, v + 12 * step, step, bt((c0[2], c1[2], c2[2], c3[2], c4[2], c5[2])))
    put_six(V, v + 18 * step, step, bt((c0[3], c1[3], c2[3], c3[3], c4[3], c5[3])))
    put_six(V, v + 24 * step, step, bt((c0[4], c1[4], c2[4], c3[4], c4[4], c5[4])))
    put_six(V, v + 30 * step, step, bt((c0[5], c1[5], c2[5], c3[5], c4[5], c5[5])))


@njit(**OPTIONS)
def gradient_tile(band, p, row, pitch, Z, z, step):
    """Z = A gy Aᵀ, where gy begins at band[p] with pixels `pitch` and rows `row` apart."""
    align_stack()
    c0, c1 = a(four(band, p, row)), a(four(band, p + pitch, row))
    c2, c3 = a(four(band, p + 2 * pitch, row)), a(four(band, p + 3 * pitch, row))
    put_six(Z, z, step, a((c0[0], c1[0], c2[0], c3[0])))
    put_six(Z, z + 6 * step, step, a((c0[1], c1[1], c2[1], c3[1])))
    put_six(Z, z + 12 * step, step, a((c0[2], c1[2], c2[2], c3[2])))
    put_six(Z, z + 18 * step, step, a((c0[3], c1[3], c2[3], c3[3])))
    put_six(Z, z + 24 * step, step, a((c0[4], c1[4], c2[4], c3[4])))
    put_six(Z, z + 30 * step, step, a((c0[5], c1[5], c2[5], c3[5])))


@njit(**OPTIONS)
def output_tile(M, p, step, bias, b, floor, y, q):
    """y = max(floor, Aᵀ M A + bias): 16 pixels, WIDTH apart, from y[q]."""
    align_stack()
    c0, c1, c2 = at(six(M, p, 6 * step)), at(six(M, p + step, 6 * step)), at(six(M, p + 2 * step, 6 * step))
    p += 3 * step
    c3, c4, c5 = at(six(M, p, 6 * step)), at(six(M, p + step, 6 * step)), at(six(M, p + 2 * step, 6 * step))
    shift, bottom = load(bias, b), splat(floor)
    _put_row(y, q, bottom, shift, at((c0[0], c1[0], c2[0], c3[0], c4[0], c5[0])))
    _put_row(y, q + 4 * WIDTH, bottom, shift, at((c0[1], c1[1], c2[1], c3[1], c4[1], c5[1])))
    _put_row(y, q + 8 * WIDTH, bottom, shift, at((c0[2], c1[2], c2[2], c3[2], c4[2], c5[2])))
    _put_row(y, q + 12 * WIDTH, bottom, shift, at((c0[3], c1[3], c2[3], c3[3], c4[3], c5[3])))


@inline
def _put_row(y, q, bottom, shift, v):
    store(y, q, maximum(bottom, v[0] + shift))
    store(y, q + WIDTH, maximum(bottom, v[1] + shift))
    store(y, q + 2 * WIDTH, maximum(bottom, v[2] + shift))
    store(y, q + 3 * WIDTH, maximum(bottom, v[3] + shift))


@njit(**OPTIONS)
def weights_tile(w, p, U, u, step):
    """U = G w Gᵀ, where the nine weights lie WIDTH² apart from w[p]."""
    align_stack()
    tap = WIDTH * WIDTH
    c0, c1, c2 = g(three(w, p, 3 * tap)), g(three(w, p + tap, 3 * tap)), g(three(w, p + 2 * tap, 3 * tap))
    put_six(U, u, step, g((c0[0], c1[0], c2[0])))
    put_six(U, u + 6 * step, step, g((c0[1], c1[1], c2[1])))
    put_six(U, u + 12 * step, step, g((c0[2], c1[2], c2[2])))
    put_six(U, u + 18 * step, step, g((c0[3], c1[3], c2[3])))
    put_six(U, u + 24 * step, step, g((c0[4], c1[4], c2[4])))
    put_six(U, u + 30 * step, step, g((c0[5], c1[5], c2[5])))


@njit(**OPTIONS)
def weights_gradient_tile(dU, p, step, gw, q, row):
    """gw = Gᵀ dU G, nine vectors `row` apart from gw[q]."""
    align_stack()
    c0, c1, c2 = gt(six(dU, p, 6 * step)), gt(six(dU, p + step, 6 * step)), gt(six(dU, p + 2 * step, 6 * step))
    p += 3 * step
    c3, c4, c5 = gt(six(dU, p, 6 * step)), gt(six(dU, p + step, 6 * step)), gt(six(dU, p + 2 * step, 6 * step))
    put_three(gw, q, row, gt((c0[0], c1[0], c2[0], c3[0], c4[0], c5[0])))
    put_three(gw, q + 3 * row, row, gt((c0[1], c1[1], c2[1], c3[1], c4[1], c5[1])))
    put_three(gw, q + 6 * row, row, gt((c0[2], c1[2], c2[2], c3[2], c4[2], c5[2])))
