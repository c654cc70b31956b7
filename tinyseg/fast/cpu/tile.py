"""The matrix-product tile that all convolutions are made of.

`tile(MR)` is the inner loop of a matrix product: it holds MR x WIDTH sums in registers while it runs down the
common axis, so that each loaded value is used many times (Goto & van de Geijn 2008):

    C[i, j] = max(floor, S[i, j] + sum_t sum_k A[t, i, k] B[t, k, j]),     i < MR,  j < WIDTH

Rows of A may lie anywhere, and may overlap, as the windows of a convolution do. Rows of B may lie anywhere too. S is
added at the end: it is a bias (row stride 0), or C itself, if a long sum is cut into shorter ones, which rounds less.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tinyseg.fast.cpu.simd import (
    INT64,
    LANES,
    REGISTERS,
    VECTOR,
    VECTORS,
    emit_align_stack,
    emit_barrier,
    emit_finish,
    emit_is_large,
    emit_is_multiple,
    emit_load,
    emit_maximum,
    emit_multiply_add,
    emit_pointer,
    emit_splat,
    emit_store,
    emit_store_past,
)

NO_FLOOR = np.float32(-np.inf)


def tile(MR):
    """Make the intrinsic that computes MR rows of the product in the module docstring.

    Its arguments are: the number of `taps` t and the length `K` of each; A, the index `ai` of its first element, and
    the strides of t, i and k; B, `bi` and the distance b_k between its rows: element (t, k, j) is at
    bi + (t·K + k)·b_k + j, with b_k = WIDTH where B is packed; S, `si` and its row stride; the floor; C, `ci` and its
    row stride.
    """

    @intrinsic
    def compute(typing, taps, K, a, ai, a_t, a_i, a_k, b, bi, b_k, s, si, s_i, floor, c, ci, c_i):
        I = types.intp  # noqa: E741
        sig = types.void(I, I, a, I, I, I, I, b, I, I, s, I, I, types.float32, c, I, I)

        def emit(context, builder, sig, args):
            taps, K, a, ai, a_t, a_i, a_k, b, bi, b_k, s, si, s_i, floor, c, ci, c_i = args
            A0 = emit_pointer(context, builder, sig.args[2], a, ai)
            B0 = emit_pointer(context, builder, sig.args[7], b, bi)
            S = emit_pointer(context, builder, sig.args[10], s, si)
            C = emit_pointer(context, builder, sig.args[14], c, ci)
            past = emit_is_large(context, builder, sig.args[14], c)
            past = builder.and_(past, emit_is_multiple(builder, builder.or_(ci, c_i)))
            past = builder.and_(past, builder.icmp_unsigned("!=", S, C))
            emit_tile(builder, MR, taps, K, A0, a_t, a_i, a_k, B0, b_k, S, s_i, floor, C, c_i, past)
            return context.get_dummy_value()

        return sig, emit

    return compute


def emit_tile(builder, MR, taps, K, A0, a_t, a_i, a_k, B0, b_k, S, s_i, floor, C, c_i, past):
    """Emit what `tile` computes, at the end of a block of LLVM's; A0, B0, S and C are pointers to first elements."""

    def number(n):
        return ir.Constant(INT64, n)

    def cell(pointer, stride, i, v):
        return builder.gep(pointer, [builder.add(builder.mul(stride, number(i)), number(v * LANES))])

    cells = [(i, v) for i in range(MR) for v in range(VECTORS)]
    row = [builder.mul(a_i, number(i)) for i in range(MR)]
    start = [ir.Constant(VECTOR, [0.0] * LANES)] * len(cells)

    def add_products(A, B, sums):
        b_row = [emit_load(builder, builder.gep(B, [number(v * LANES)])) for v in range(VECTORS)]
        made = []
        for i in range(MR):  # row by row: of all rows at once, LLVM for some processors keeps sums on the stack
            a = emit_splat(builder, builder.load(builder.gep(A, [row[i]])))
            in_row = range(i * VECTORS, (i + 1) * VECTORS)
            made += [emit_multiply_add(builder, a, b, sums[n]) for b, n in zip(b_row, in_row, strict=True)]
            if (LANES, REGISTERS) == (4, 16):
                emit_finish(builder, made[-VECTORS:])
        return made

    sums = emit_sums(builder, taps, K, A0, a_t, a_k, B0, b_k, start, add_products)
    floors = emit_splat(builder, floor)
    with builder.if_else(past) as branches:
        for branch, emit in zip(branches, (emit_store_past, emit_store), strict=True):
            with branch:
                for (i, v), x in zip(cells, sums, strict=True):
                    x = builder.fadd(x, emit_load(builder, cell(S, s_i, i, v)))
                    emit(builder, emit_maximum(builder, floors, x), cell(C, c_i, i, v))


def emit_sums(builder, taps, K, A0, a_t, a_k, B0, b_k, start, add_products):
    """Emit the two nested loops of a tile, over t and k; return its sums at their end.

    `start` are the sums before; ``add_products(A, B, sums)`` emits one step, which begins on the elements of A and B
    that it is given pointers to, and returns the sums after it.
    """
    zero, one = ir.Constant(INT64, 0), ir.Constant(INT64, 1)
    emit_align_stack(builder)
    before = builder.block
    outer, inner, latch, done = (builder.append_basic_block(name) for name in ("t", "k", "next_t", "done"))
    builder.branch(outer)

    def add_incoming(phis, values, source):
        for phi, value in zip(phis, values, strict=True):
            phi.add_incoming(value, source)

    def make_phis(values, source):
        """What changes inside of a loop: the value from before it, or from the last round."""
        phis = [builder.phi(value.type) for value in values]
        add_incoming(phis, values, source)
        return phis

    builder.position_at_end(outer)
    outer_phis = make_phis([zero, A0, B0, *start], before)
    t, A_t, B_t, *sums_t = outer_phis
    builder.branch(inner)

    builder.position_at_end(inner)
    inner_phis = make_phis([zero, A_t, B_t, *sums_t], outer)
    k, A, B, *sums = inner_phis
    emit_barrier(builder)
    sums = add_products(A, B, sums)
    k, A, B = builder.add(k, one), builder.gep(A, [a_k]), builder.gep(B, [b_k])
    add_incoming(inner_phis, [k, A, B, *sums], inner)
    builder.cbranch(builder.icmp_signed("<", k, K), inner, latch)

    builder.position_at_end(latch)
    t = builder.add(t, one)
    add_incoming(outer_phis, [t, builder.gep(A_t, [a_t]), B, *sums], latch)
    builder.cbranch(builder.icmp_signed("<", t, taps), outer, done)
    builder.position_at_end(done)
    return sums
