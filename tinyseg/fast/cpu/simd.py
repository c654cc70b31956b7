"""Vectors of floats for numba kernels.

A *vector* is one register of `LANES` float32 values. `load(a, i)`, `store(a, i, v)`, `splat(s)`, `+ - *`,
`multiply_add` and `maximum` become vector instructions in any case; whether LLVM would have vectorized the loop around
them does not matter. `a` is a flat float32 array and `i` an index into it; nothing checks the bounds.
"""

import operator

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


_triple, _, FEATURES = cpu_target.target_context.codegen().magic_tuple()  # what numba compiles for
LANES, REGISTERS = registers(_triple, FEATURES)
VECTORS = 2  # vectors in a row of the tile
WIDTH = VECTORS * LANES
ROWS = 12 if REGISTERS == 32 else 6  # the sums, ROWS x 2 vectors, leave room for 2 of B and 1 of A

LARGE = 1 << 22  # floats; so large an array is no longer in the caches when it is read
LINE = 16  # floats in a cache line

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
def emit_pointer(context, builder, array_type, array, i):
    """Return a pointer to element i of a numba array."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [i])


def emit_load(builder, pointer):
    return builder.load(builder.bitcast(pointer, VECTOR.as_pointer()), align=4)


def emit_store(builder, value, pointer):
    builder.store(value, builder.bitcast(pointer, VECTOR.as_pointer()), align=4)


def emit_is_large(context, builder, array_type, array):
    """Whether a numba array has at least LARGE floats and begins with a vector, and vectors are whole cache lines.

    Parts of a line that are stored past the caches one by one cost more than the line that is not read.
    """
    if LANES != LINE:
        return ir.Constant(ir.IntType(1), 0)
    made = context.make_array(array_type)(context, builder, array)
    floats = builder.udiv(builder.ptrtoint(made.data, INT64), ir.Constant(INT64, 4))
    large = builder.icmp_signed(">=", made.nitems, ir.Constant(INT64, LARGE))
    return builder.and_(emit_is_multiple(builder, floats), large)


def emit_is_multiple(builder, n):
    """Whether n is a multiple of LANES."""
    zero, rest = ir.Constant(INT64, 0), builder.and_(n, ir.Constant(INT64, LANES - 1))
    return builder.icmp_unsigned("==", rest, zero)


def emit_store_past(builder, value, pointer):
    """Store a vector, at an aligned address, without reading its cache line first."""
    store = builder.store(value, builder.bitcast(pointer, VECTOR.as_pointer()), align=4 * LANES)
    store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(INT32, 1)]))


def emit_splat(builder, scalar):
    empty = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
    first = builder.insert_element(empty, scalar, ir.Constant(INT32, 0))
    return emit_shuffle(builder, first, empty, [0] * LANES)


def emit_shuffle(builder, x, y, lanes):
    """The vector of those lanes of x and, behind them, y."""
    return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(INT32, len(lanes)), lanes))


def emit_multiply_add(builder, x, y, z):
    """Return x·y + z, as one instruction or two. Where the processor has only two, llvm.fma would call a function."""
    name, kind = f"llvm.fmuladd.v{LANES}f32", ir.FunctionType(VECTOR, [VECTOR] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [x, y, z])


def emit_maximum(builder, floor, x):
    """The larger one; x if it is NaN, so that NaN goes on through a ReLU."""
    return builder.select(builder.fcmp_ordered("<", x, floor), floor, x)


def emit_barrier(builder):
    """Keep LLVM from unrolling the loop around this point.

    Unrolled, the loop would need more registers than there are, and keep a sum on the stack. A thread in which this sum
    happens to lie across two cache lines would take twice as long.
    """
    nothing = builder.asm(ir.FunctionType(ir.VoidType(), []), "", "", [], side_effect=True)
    nothing.attributes.add("convergent")


def emit_finish(builder, vectors):
    """Have vectors in registers before anything after this point is loaded (x86).

    Left alone, LLVM for Celerons and Pentiums loads far ahead, and keeps sums on the stack.
    """
    kind = ir.FunctionType(ir.VoidType(), [VECTOR] * len(vectors))
    builder.asm(kind, "", ",".join([*["x"] * len(vectors), "~{memory}"]), vectors, side_effect=True)


def emit_align_stack(builder):
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
    return vector(a, types.intp), lambda context, builder, sig, args: emit_load(
        builder, emit_pointer(context, builder, sig.args[0], *args)
    )


@intrinsic
def store(typing, a, i, v):
    """Write v to a[i : i + LANES]."""

    def emit(context, builder, sig, args):
        emit_store(builder, args[2], emit_pointer(context, builder, sig.args[0], *args[:2]))
        return context.get_dummy_value()

    return types.void(a, types.intp, vector), emit


@intrinsic
def is_large(typing, a):
    """Whether `a` is worth `store_past`: it has at least LARGE floats, and begins at the beginning of a vector."""
    return types.boolean(a), lambda context, builder, sig, args: emit_is_large(context, builder, sig.args[0], *args)


@intrinsic
def store_past(typing, a, i, v, past):
    """`store`, if `past` is true past the caches: for an array that `is_large`, and i a multiple of LANES."""

    def emit(context, builder, sig, args):
        a, i, v, past = args
        pointer = emit_pointer(context, builder, sig.args[0], a, i)
        with builder.if_else(past) as (past_them, into_them):
            with past_them:
                emit_store_past(builder, v, pointer)
            with into_them:
                emit_store(builder, v, pointer)
        return context.get_dummy_value()

    return types.void(a, types.intp, vector, types.boolean), emit


@intrinsic
def align_stack(typing):
    """Align the stack to whole vectors: for a function that needs more vectors than there are registers."""

    def emit(context, builder, sig, args):
        emit_align_stack(builder)
        return context.get_dummy_value()

    return types.void(), emit


@intrinsic
def splat(typing, s):
    """The vector with s in every lane."""
    return vector(types.float32), lambda context, builder, sig, args: emit_splat(builder, *args)


@intrinsic
def multiply_add(typing, x, y, z):
    """x·y + z, rounded once where the processor does it in one instruction."""
    return vector(vector, vector, vector), lambda context, builder, sig, args: emit_multiply_add(builder, *args)


@intrinsic
def maximum(typing, floor, x):
    """The larger one lane by lane; NaN where x is NaN."""
    return vector(vector, vector), lambda context, builder, sig, args: emit_maximum(builder, *args)


@intrinsic
def sum_lanes(typing, x):
    """The sum of the lanes: of halves of them, again and again."""

    def emit(context, builder, sig, args):
        (x,), distance = args, LANES // 2
        while distance:
            x = builder.fadd(x, emit_shuffle(builder, x, x, [(r + distance) % LANES for r in range(LANES)]))
            distance //= 2
        return builder.extract_element(x, ir.Constant(INT32, 0))

    return types.float32(vector), emit


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
        to, of = (
            emit_pointer(context, builder, sig.args[0], target, i),
            emit_pointer(context, builder, sig.args[2], source, j),
        )
        cgutils.raw_memcpy(builder, to, of, n, 4)
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp, types.intp), emit


@intrinsic
def clear(typing, target, i, n):
    """target[i : i + n] = 0."""

    def emit(context, builder, sig, args):
        target, i, n = args
        to, size = emit_pointer(context, builder, sig.args[0], target, i), builder.mul(n, ir.Constant(INT64, 4))
        cgutils.memset(builder, to, size, 0)
        return context.get_dummy_value()

    return types.void(target, types.intp, types.intp), emit


@intrinsic
def transpose(typing, target, source, i, step):
    """target[LANES·q + r] = source[i + r·step + q] for q, r < LANES: rows become columns, in registers."""

    def emit(context, builder, sig, args):
        target, source, i, step = args
        rows, columns = [], range(LANES)
        for r in columns:
            at = builder.add(i, builder.mul(step, ir.Constant(INT64, r)))
            rows.append(emit_load(builder, emit_pointer(context, builder, sig.args[1], source, at)))
        distance = 1
        while distance < LANES:  # blocks of this size change places across the diagonal, two by two
            upper = [q + LANES - distance if q & distance else q for q in columns]
            lower = [q + LANES if q & distance else q + distance for q in columns]
            for r in (r for r in columns if not r & distance):
                pair = rows[r], rows[r + distance]
                rows[r], rows[r + distance] = (emit_shuffle(builder, *pair, lanes) for lanes in (upper, lower))
            distance *= 2
        for q, row in enumerate(rows):
            at = ir.Constant(INT64, q * LANES)
            emit_store(builder, row, emit_pointer(context, builder, sig.args[0], target, at))
        return context.get_dummy_value()

    return types.void(target, source, types.intp, types.intp), emit


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
