"""Vectors of floats for numba kernels, and the matrix-product tile that all convolutions are made of.

A *vector* is one register of `LANES` float32 values. `load(a, i)`, `store(a, i, v)`, `splat(s)`, `+ - *`,
`multiply_add` and `maximum` become vector instructions in any case; whether LLVM would have vectorized the loop around
them does not matter. `a` is a flat float32 array and `i` an index into it; nothing checks the bounds.

`tile(MR)` is the inner loop of a matrix product: it holds MR x WIDTH sums in registers while it runs down the
common axis, so that each loaded value is used many times (Goto & van de Geijn 2008):

    C[i, j] = max(floor, S[i, j] + sum_t sum_k A[t, i, k] B[t, k, j]),     i < MR,  j < WIDTH

Rows of A may lie anywhere, and may overlap, as the windows of a convolution do. Rows of B may lie anywhere too. S is
added at the end: it is a bias (row stride 0), or C itself, if a long sum is cut into shorter ones, which rounds less.
"""

import operator

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel.models import PrimitiveModel
from numba.core.registry import cpu_target
from numba.extending import intrinsic, lower_builtin, register_model, type_callable


def registers(triple, features):
    """Return how many floats a vector register holds, and how many there are, on the processor that LLVM calls so."""
    if triple.startswith(("aarch64", "arm64")):
        return 4, 32
    features = features.split(",")
    return (16, 32) if "+avx512f" in features else (8 if "+avx" in features else 4, 16)


_triple, _, _features = cpu_target.target_context.codegen().magic_tuple()  # what numba compiles for
LANES, REGISTERS = registers(_triple, _features)
VECTORS = 2  # vectors in a row of the tile
WIDTH = VECTORS * LANES
ROWS = 12 if REGISTERS == 32 else 6  # the sums, ROWS x 2 vectors, leave room for 2 of B and 1 of A

FLOAT, INT32, INT64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
VECTOR = ir.VectorType(FLOAT, LANES)
CONTRACT = ("contract", "nsz")  # a product and a sum may become one fma


class VectorType(types.Type):
    """numba's type of a vector."""

    def __init__(self):
        super().__init__("float32_vector")


vector = VectorType()


@register_model(VectorType)
class _VectorModel(PrimitiveModel):
    def __init__(self, manager, fe_type):
        super().__init__(manager, fe_type, VECTOR)


# ----- what the intrinsics emit ------------------------------------------------
def _pointer(context, builder, array_type, array, i):
    """Return a pointer to element i of a numba array."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [i])


def _load(builder, pointer):
    return builder.load(builder.bitcast(pointer, VECTOR.as_pointer()), align=4)


def _store(builder, value, pointer):
    builder.store(value, builder.bitcast(pointer, VECTOR.as_pointer()), align=4)


def _splat(builder, scalar):
    empty = ir.Constant(VECTOR, ir.Undefined)
    first = builder.insert_element(empty, scalar, ir.Constant(INT32, 0))
    return builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(INT32, LANES), [0] * LANES))


def _multiply_add(builder, x, y, z):
    """Return x·y + z, as one instruction or two. Where the processor has only two, llvm.fma would call a function."""
    name, kind = f"llvm.fmuladd.v{LANES}f32", ir.FunctionType(VECTOR, [VECTOR] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [x, y, z])


def _maximum(builder, floor, x):
    """The larger one; x if it is NaN, so that NaN goes on through a ReLU."""
    return builder.select(builder.fcmp_ordered("<", x, floor), floor, x)


def _keep_as_one(builder):
    """Keep LLVM from unrolling the loop around this point.

    Unrolled, the loop would need more registers than there are, and keep a sum on the stack. A thread in which this sum
    happens to lie across two cache lines would take twice as long.
    """
    nothing = builder.asm(ir.FunctionType(ir.VoidType(), []), "", "", [], side_effect=True)
    nothing.attributes.add("convergent")


def _finish(builder, vectors):
    """Have vectors in registers before anything after this point is loaded (x86).

    Left alone, LLVM for Celerons and Pentiums loads far ahead, and keeps sums on the stack.
    """
    kind = ir.FunctionType(ir.VoidType(), [VECTOR] * len(vectors))
    builder.asm(kind, "", ",".join([*["x"] * len(vectors), "~{memory}"]), vectors, side_effect=True)


def _align_stack(builder):
    """Align the stack of the function that this is part of to whole vectors.

    LLVM puts vectors for which there is no register on the stack, wherever that lies, which differs from process to
    process and from thread to thread. Vectors that lie across two cache lines cost several times as much.
    """
    with builder.goto_entry_block():
        slot = builder.alloca(VECTOR)
        slot.align = 4 * LANES
    builder.asm(ir.FunctionType(ir.VoidType(), [slot.type]), "", "r", [slot], side_effect=True)


# ----- vectors -----------------------------------------------------------------
@intrinsic
def load(typing, a, i):
    """The vector at a[i : i + LANES]."""
    return vector(a, types.intp), lambda context, builder, sig, args: _load(
        builder, _pointer(context, builder, sig.args[0], *args)
    )


@intrinsic
def store(typing, a, i, v):
    """Write v to a[i : i + LANES]."""

    def emit(context, builder, sig, args):
        _store(builder, args[2], _pointer(context, builder, sig.args[0], *args[:2]))
        return context.get_dummy_value()

    return types.void(a, types.intp, vector), emit


@intrinsic
def align_stack(typing):
    """Align the stack to whole vectors: for a function that needs more vectors than there are registers."""

    def emit(context, builder, sig, args):
        _align_stack(builder)
        return context.get_dummy_value()

    return types.void(), emit


@intrinsic
def splat(typing, s):
    """The vector with s in every lane."""
    return vector(types.float32), lambda context, builder, sig, args: _splat(builder, *args)


@intrinsic
def multiply_add(typing, x, y, z):
    """x·y + z, rounded once where the processor does it in one instruction."""
    return vector(vector, vector, vector), lambda context, builder, sig, args: _multiply_add(builder, *args)


@intrinsic
def maximum(typing, floor, x):
    """The larger one lane by lane; NaN where x is NaN."""
    return vector(vector, vector), lambda context, builder, sig, args: _maximum(builder, *args)


@intrinsic
def keep_where_positive(typing, x, y):
    """Lanes of x where y > 0, else 0: the backward pass of a ReLU with output y."""

    def emit(context, builder, sig, args):
        positive = builder.fcmp_ordered(">", args[1], ir.Constant(VECTOR, [0.0] * LANES))
        return builder.select(positive, args[0], ir.Constant(VECTOR, [0.0] * LANES))

    return vector(vector, vector), emit


@intrinsic
def copy(typing, target, i, source, j, n):
    """target[i : i + n] = source[j : j + n]."""

    def emit(context, builder, sig, args):
        target, i, source, j, n = args
        to, of = _pointer(context, builder, sig.args[0], target, i), _pointer(context, builder, sig.args[2], source, j)
        cgutils.raw_memcpy(builder, to, of, n, 4)
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp, types.intp), emit


@intrinsic
def clear(typing, target, i, n):
    """target[i : i + n] = 0."""

    def emit(context, builder, sig, args):
        target, i, n = args
        to, size = _pointer(context, builder, sig.args[0], target, i), builder.mul(n, ir.Constant(INT64, 4))
        cgutils.memset(builder, to, size, 0)
        return context.get_dummy_value()

    return types.void(target, types.intp, types.intp), emit


def _arithmetic(symbol, instruction):
    @type_callable(symbol)
    def type_of(context):
        return lambda x, y: vector if x == y == vector else None  # not ours: numba goes on looking

    @lower_builtin(symbol, vector, vector)
    def emit(context, builder, sig, args):
        return getattr(builder, instruction)(*args, flags=CONTRACT)


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")


# ----- the tile ------------------------------------------------------------------
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
            A0 = _pointer(context, builder, sig.args[2], a, ai)
            B0 = _pointer(context, builder, sig.args[7], b, bi)
            S = _pointer(context, builder, sig.args[10], s, si)
            C = _pointer(context, builder, sig.args[14], c, ci)
            emit_tile(builder, MR, taps, K, A0, a_t, a_i, a_k, B0, b_k, S, s_i, floor, C, c_i)
            return context.get_dummy_value()

        return sig, emit

    return compute


def emit_tile(builder, MR, taps, K, A0, a_t, a_i, a_k, B0, b_k, S, s_i, floor, C, c_i):
    """Emit what `tile` computes, at the end of a block of LLVM's; A0, B0, S and C are pointers to first elements."""

    def number(n):
        return ir.Constant(INT64, n)

    def cell(pointer, stride, i, v):
        return builder.gep(pointer, [builder.add(builder.mul(stride, number(i)), number(v * LANES))])

    cells = [(i, v) for i in range(MR) for v in range(VECTORS)]
    row = [builder.mul(a_i, number(i)) for i in range(MR)]
    start = [ir.Constant(VECTOR, [0.0] * LANES)] * len(cells)

    # two nested counting loops; what changes inside is a phi: the value from before or from the last round
    _align_stack(builder)
    before = builder.block
    outer, inner, latch, done = (builder.append_basic_block(name) for name in ("t", "k", "next_t", "done"))
    builder.branch(outer)

    def add_incoming(phis, values, source):
        for phi, value in zip(phis, values, strict=True):
            phi.add_incoming(value, source)

    def make_phis(values, source):
        phis = [builder.phi(value.type) for value in values]
        add_incoming(phis, values, source)
        return phis

    builder.position_at_end(outer)
    outer_phis = make_phis([number(0), A0, B0, *start], before)
    t, A_t, B_t, *sums_t = outer_phis
    builder.branch(inner)

    builder.position_at_end(inner)
    inner_phis = make_phis([number(0), A_t, B_t, *sums_t], outer)
    k, A, B, *sums = inner_phis
    _keep_as_one(builder)
    b_row = [_load(builder, builder.gep(B, [number(v * LANES)])) for v in range(VECTORS)]
    made = []
    for i in range(MR):  # row by row: of all rows at once, LLVM for some processors keeps sums on the stack
        a = _splat(builder, builder.load(builder.gep(A, [row[i]])))
        in_row = range(i * VECTORS, (i + 1) * VECTORS)
        made += [_multiply_add(builder, a, b, sums[n]) for b, n in zip(b_row, in_row, strict=True)]
        if (LANES, REGISTERS) == (4, 16):
            _finish(builder, made[-VECTORS:])
    sums = made
    k, A, B = builder.add(k, number(1)), builder.gep(A, [a_k]), builder.gep(B, [b_k])
    add_incoming(inner_phis, [k, A, B, *sums], inner)
    builder.cbranch(builder.icmp_signed("<", k, K), inner, latch)

    builder.position_at_end(latch)
    t = builder.add(t, number(1))
    add_incoming(outer_phis, [t, builder.gep(A_t, [a_t]), B, *sums], latch)
    builder.cbranch(builder.icmp_signed("<", t, taps), outer, done)

    builder.position_at_end(done)
    floors = _splat(builder, floor)
    for (i, v), x in zip(cells, sums, strict=True):
        x = builder.fadd(x, _load(builder, cell(S, s_i, i, v)))
        _store(builder, _maximum(builder, floors, x), cell(C, c_i, i, v))


NO_FLOOR = np.float32(-np.inf)
