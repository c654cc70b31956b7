"""Integers of 8 bits for numba kernels: their conversion to vectors of floats, and a matrix product's tile.

`tile8(MR)` is the inner loop of a product of integers, as `tinyseg.fast.cpu.tile.tile` is of floats. It holds
MR x WIDTH sums of 32 bits, and takes four steps of the common axis at once: four bytes of A, the same for all columns,
beside four of each column of B. Processors have instructions for this:

    VNNI        vpdpbusd: sum += a0 b0 + a1 b1 + a2 b2 + a3 b3
    other x86   vpmaddubsw: a0 b0 + a1 b1 and a2 b2 + a3 b3, in 16 bits; vpmaddwd adds both, in 32
    others      whatever LLVM makes of the same in steps

A holds 0 … 255 and B -64 … 64, because sums of two products must fit into 16 bits.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tinyseg.fast.cpu.simd import (
    FEATURES,
    INT32,
    INT64,
    LANES,
    REGISTERS,
    VECTOR,
    VECTORS,
    emit_finish,
    emit_pointer,
    emit_splat,
    vector,
)
from tinyseg.fast.cpu.tile import emit_sums

BYTE = ir.IntType(8)
BYTES, SHORTS, INTS = (
    ir.VectorType(ir.IntType(bits), LANES * 32 // bits) for bits in (8, 16, 32)
)  # of one register each
LARGEST = 64  # of B
# Two vectors of sums each, beside two of B, one of A and two of what is added in pairs.
ROWS8 = 12 if REGISTERS == 32 else 5 if LANES == 8 else 4


def best_dot(features):
    """Return the name in `DOTS` of the fastest way on a processor with these features."""
    has = {feature[1:] for feature in features.split(",") if feature.startswith("+")}
    if LANES == 16:
        return "vnni" if "avx512vnni" in has else "avx512" if "avx512bw" in has else "any"
    if LANES == 8:
        return "vnni" if "avxvnni" in has else "avx2" if "avx2" in has else "any"
    return "ssse3" if {"ssse3", "sse4.1", "sse4.2"} & has else "any"


# ----- sums of four products in each lane --------------------------------------------------
def _call(builder, name, kind, args):
    function = builder.module.globals.get(name) or ir.Function(
        builder.module, ir.FunctionType(kind, [a.type for a in args]), name
    )
    return builder.call(function, args)


def _vnni(builder, total, a, b):
    a, b = (builder.bitcast(x, INTS) for x in (a, b))
    return _call(builder, f"llvm.x86.avx512.vpdpbusd.{LANES * 32}", INTS, [total, a, b])


def _pairs(first, second):
    def dot(builder, total, a, b):
        pairs = _call(builder, first, SHORTS, [a, b])
        return builder.add(total, _call(builder, second, INTS, [pairs, ir.Constant(SHORTS, [1] * SHORTS.count)]))

    return dot


def _any(builder, total, a, b):
    a, b = builder.zext(a, ir.VectorType(ir.IntType(16), BYTES.count)), b
    products = builder.mul(a, builder.sext(b, a.type))
    pairs = _add_neighbours(builder, products)
    return builder.add(total, _add_neighbours(builder, builder.sext(pairs, ir.VectorType(INT32, SHORTS.count))))


def _add_neighbours(builder, x):
    half = x.type.count // 2
    even, odd = (
        builder.shuffle_vector(x, x, ir.Constant(ir.VectorType(INT32, half), list(range(k, 2 * half, 2))))
        for k in (0, 1)
    )
    return builder.add(even, odd)


DOTS = {
    "vnni": _vnni,
    "avx512": _pairs("llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx512.pmaddw.d.512"),
    "avx2": _pairs("llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd"),
    "ssse3": _pairs("llvm.x86.ssse3.pmadd.ub.sw.128", "llvm.x86.sse2.pmadd.wd"),
    "any": _any,
}
DOT = best_dot(FEATURES)


# ----- bytes and vectors of floats ----------------------------------------------------------
def _bytes_of_vector(builder, pointer):
    return builder.bitcast(pointer, ir.VectorType(BYTE, LANES).as_pointer())


@intrinsic
def load_bytes(typing, a, i):
    """The vector of floats of the integers a[i : i + LANES], uint8."""

    def emit(context, builder, sig, args):
        found = builder.load(_bytes_of_vector(builder, emit_pointer(context, builder, sig.args[0], *args)), align=1)
        return builder.uitofp(found, VECTOR)

    return vector(a, types.intp), emit


@intrinsic
def store_bytes(typing, a, i, v):
    """Write the floats of v, whole numbers of any size, to a[i : i + LANES], uint8: cut to 0 … 255."""

    def emit(context, builder, sig, args):
        _store_bytes(builder, args[2], emit_pointer(context, builder, sig.args[0], *args[:2]))
        return context.get_dummy_value()

    return types.void(a, types.intp, vector), emit


def _store_bytes(builder, x, pointer):
    for limit, sign in ((0.0, "<"), (255.0, ">")):
        limit = ir.Constant(VECTOR, [limit] * LANES)
        x = builder.select(builder.fcmp_ordered(sign, x, limit), limit, x)
    whole = builder.trunc(builder.fptosi(x, INTS), ir.VectorType(BYTE, LANES))
    builder.store(whole, _bytes_of_vector(builder, pointer), align=1)


@intrinsic
def round_whole(typing, v):
    """Each lane rounded to a whole number; half way between two, to the even one."""
    return vector(vector), lambda context, builder, sig, args: _round(builder, args[0])


def _round(builder, x):
    return _call(builder, f"llvm.rint.v{LANES}f32", VECTOR, [x])


@intrinsic
def divide(typing, x, y):
    """x / y, lane by lane."""
    return vector(vector, vector), lambda context, builder, sig, args: builder.fdiv(*args)


# ----- the tile ------------------------------------------------------------------------------
def tile8(MR, dot=DOT):
    """Make the intrinsic that computes MR rows of a product of integers.

        C[i, j] = cut(round(F[j] · (S[j] + sum_t sum_k A[t, i, k] B[t, k, j])) + zero),     i < MR,  j < WIDTH

    Its arguments are: the number of `taps` t and the length `K` of each, in fours; A (uint8), the index `ai` of its
    first element, and the strides of t and i; B (int8) and `bi`: the four steps k of column j lie side by side, those
    of all WIDTH columns one after another; S (int32), F (float32) and `si`; zero, a float; C (uint8), `ci` and its row
    stride.
    """

    @intrinsic
    def compute(typing, taps, K, a, ai, a_t, a_i, b, bi, s, f, si, zero, c, ci, c_i):
        I = types.intp  # noqa: E741
        sig = types.void(I, I, a, I, I, I, b, I, s, f, I, types.float32, c, I, I)

        def emit(context, builder, sig, args):
            taps, K, a, ai, a_t, a_i, b, bi, s, f, si, zero, c, ci, c_i = args
            A, B, S, F, C = (
                emit_pointer(context, builder, sig.args[n], args[n], args[m])
                for n, m in ((2, 3), (6, 7), (8, 10), (9, 10), (12, 13))
            )
            emit_tile8(builder, MR, dot, taps, K, A, a_t, a_i, B, S, F, zero, C, c_i)
            return context.get_dummy_value()

        return sig, emit

    return compute


def emit_tile8(builder, MR, dot, taps, K, A0, a_t, a_i, B0, S, F, zero, C, c_i):
    """Emit what `tile8` computes, at the end of a block of LLVM's; A0, B0, S, F and C point to first elements."""

    def number(n):
        return ir.Constant(INT64, n)

    row = [builder.mul(a_i, number(i)) for i in range(MR)]
    start = [ir.Constant(INTS, [0] * LANES)] * (MR * VECTORS)

    def add_products(A, B, sums):
        columns = [
            builder.load(builder.bitcast(builder.gep(B, [number(4 * LANES * v)]), BYTES.as_pointer()), align=1)
            for v in range(VECTORS)
        ]
        made = []
        for i in range(MR):
            four = builder.load(builder.bitcast(builder.gep(A, [row[i]]), INT32.as_pointer()), align=1)
            a = builder.bitcast(emit_splat(builder, four), BYTES)
            made += [DOTS[dot](builder, sums[i * VECTORS + v], a, columns[v]) for v in range(VECTORS)]
            if (LANES, REGISTERS) == (4, 16):
                emit_finish(builder, [builder.bitcast(x, VECTOR) for x in made[-VECTORS:]])
        return made

    made = emit_sums(builder, taps, K, A0, a_t, number(4), B0, number(4 * LANES * VECTORS), start, add_products)
    zeros = emit_splat(builder, zero)
    for v in range(VECTORS):
        at = [number(v * LANES)]
        bias = builder.load(builder.bitcast(builder.gep(S, at), INTS.as_pointer()), align=4)
        factor = builder.load(builder.bitcast(builder.gep(F, at), VECTOR.as_pointer()), align=4)
        for i in range(MR):
            x = builder.sitofp(builder.add(made[i * VECTORS + v], bias), VECTOR)
            x = builder.fadd(_round(builder, builder.fmul(x, factor)), zeros)
            _store_bytes(builder, x, builder.gep(C, [builder.add(builder.mul(c_i, number(i)), at[0])]))
