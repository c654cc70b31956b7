"""The arena: memory is given again once nobody looks at it, never before, and not hoarded."""

import gc
import importlib
import os
import threading

import numpy as np
import pytest
from arrays import rand, value_and_grads
from catalogue import ENTRIES

from tinyseg import models, no_grad, ops
from tinyseg.fast.cpu.arena import ALIGNMENT, SMALL, Arena, aligned, empty

SHAPE = (3, 17, 1001)  # above SMALL, and no multiple of a cache line
SIZE = -(-3 * 17 * 1001 * 4 // ALIGNMENT) * ALIGNMENT


@pytest.fixture
def arena(monkeypatch):
    """An arena of the test's own, from which `empty` takes."""
    mine = Arena()
    monkeypatch.setattr(importlib.import_module("tinyseg.fast.cpu.arena"), "arena", mine)
    return mine


def address(a):
    return a.__array_interface__["data"][0]


# ----- whose it is -------------------------------------------------------------------
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_writes_to_memory_of_its_own():
    a = empty(SHAPE)
    a.fill(1)
    child = os.fork()
    if child == 0:
        a.fill(2)
        os._exit(0)
    os.waitpid(child, 0)
    assert (a == 1).all()


# ----- what one gets -----------------------------------------------------------------
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        (SHAPE, np.float32), (SHAPE, "f8"), (SHAPE, bool), ((2, 100_000), np.uint16), (100_000, np.float32),
        ((3, 5), np.float32), (7, np.int64), ((), np.float32), ((0,), np.float32), ((4, 0, 1 << 40), np.float32),
    ],
)  # fmt: skip
def test_shape_dtype_order_and_alignment(shape, dtype, arena):
    for _ in range(2):  # new memory, then used memory
        a = empty(shape, dtype)
        assert a.shape == (shape if isinstance(shape, tuple) else (shape,)) and a.dtype == dtype
        assert a.flags.c_contiguous and a.flags.writeable and (address(a) % ALIGNMENT == 0 or a.size == 0)
        a[...] = 1
        assert (a == 1).all()
        del a


def test_negative_sizes_are_refused(arena):
    with pytest.raises(ValueError, match="negative"):
        empty((3, -1))


def test_only_large_arrays_come_from_the_arena(arena):
    a = empty(SMALL // 4 - ALIGNMENT)
    assert arena.in_use == 0 and a.dtype == np.float32
    b = empty(SMALL // 4)
    assert arena.in_use == SMALL
    del a, b
    assert (arena.in_use, arena.idle) == (0, SMALL)


# ----- reuse ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("shape", "dtype"), [(SHAPE, np.float32), (SHAPE[::-1], np.int32), ((3 * 17 * 1001 * 4,), np.uint8)]
)
def test_memory_is_used_again_for_any_array_of_that_size(shape, dtype, arena):
    a = empty(SHAPE)
    old = address(a)
    del a
    assert (arena.in_use, arena.idle) == (0, SIZE)
    b = empty(shape, dtype)
    assert address(b) == old and (arena.in_use, arena.idle) == (SIZE, 0)


VIEWS = {
    "transposed": lambda a: a.T,
    "sliced": lambda a: a[1:, ::2, 3:-1],
    "of one element": lambda a: a[2, 16, 1000:],
    "reversed": lambda a: a[:, ::-1],
    "reshaped": lambda a: a.reshape(-1),
    "of another type": lambda a: a.view(np.uint8),
    "of a view of a view": lambda a: a.transpose(2, 0, 1)[5:][:, 1].T[..., None][::3],
    "broadcast": lambda a: np.broadcast_to(a, (2, *SHAPE)),
    "windows": lambda a: np.lib.stride_tricks.sliding_window_view(a, 3, axis=2),
    "memoryview": memoryview,
    "with newaxis": lambda a: a[None],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_memory_is_used_again_when_the_last_view_is_gone_and_not_before(view, arena):
    a = empty(SHAPE)
    a[...] = 7
    old, v = address(a), view(a)
    del a
    others = [empty(SHAPE) for _ in range(3)]
    for other in others:
        assert not np.shares_memory(other, np.asarray(v))
        other[...] = -1
    np.testing.assert_array_equal(v, view(np.full(SHAPE, 7, np.float32)))
    assert arena.in_use == 4 * SIZE
    del v
    assert (arena.in_use, arena.idle) == (3 * SIZE, SIZE)
    assert address(empty(SHAPE)) == old


def test_a_copy_does_not_hold_the_memory(arena):
    a = empty(SHAPE)
    old, c = address(a), a.T.copy()
    del a
    b = empty(SHAPE)
    assert address(b) == old and not np.shares_memory(b, c)


def test_living_arrays_never_overlap(arena):
    """A random life of many arrays: each keeps the number that was written into it."""
    rng, living = np.random.default_rng(0), {}
    for number in range(300):
        if living and rng.random() < 0.5:
            old = list(living)[rng.integers(len(living))]
            assert (living.pop(old) == old).all()
        shape = [(20_000,), (200, 100), (30_000,), (17_001,)][rng.integers(4)]
        a = empty(shape)
        a[...] = number
        living[number] = a.T if rng.random() < 0.5 else a
    assert all((a == number).all() for number, a in living.items())
    asked = sum(-(-a.nbytes // ALIGNMENT) * ALIGNMENT for a in living.values())
    assert asked <= arena.in_use <= 1.5 * asked  # idle memory up to half as large again is used too


# ----- what is kept ----------------------------------------------------------------------
def test_a_repeated_step_asks_for_nothing_new(arena, monkeypatch):
    """The sizes of a step, all alive at once, twice: the second time every array lies where one lay before."""

    def step():
        arrays = [empty(20_000 + 1000 * (i % 3)) for i in range(12)]
        return {address(a) for a in arrays}

    first = step()
    monkeypatch.setattr("tinyseg.fast.cpu.arena.aligned", None)  # new memory is made by this function
    assert step() == first


def test_idle_memory_is_let_go_when_a_smaller_job_follows():
    arena = Arena(floor=0)
    large = [arena.take(1000) for _ in range(100)]
    for memory in large:
        arena.give(memory)
    assert arena.idle == 100_000
    for size in range(1, 300):  # ever new sizes: nothing of what is idle fits
        arena.give(arena.take(size))
        assert arena.idle + arena.in_use <= 1.5 * arena.peak / 0.99 + size
    assert 1000 not in arena._free
    assert arena.idle == sum(size * len(memories) for size, memories in arena._free.items())


def test_idle_memory_up_to_the_floor_is_kept():
    arena = Arena(floor=100_000)
    memory = arena.take(90_000)
    arena.give(memory)
    for size in range(1, 1000):
        arena.give(arena.take(size % 7 + 1))
    assert arena.take(90_000) is memory


def test_the_size_given_back_longest_ago_goes_first():
    arena = Arena(floor=0)
    old, young = arena.take(5000), arena.take(4000)
    arena.give(old)
    arena.give(young)
    arena.peak = 4000  # as after many small steps
    arena.take(10)
    assert list(arena._free) == [4000]


def test_memory_in_use_is_never_let_go_of():
    arena = Arena(floor=0)
    mine = [arena.take(1000) for _ in range(5)]
    for size in range(1, 500):
        arena.give(arena.take(size))
    assert arena.in_use == 5000
    for i, memory in enumerate(mine):
        memory[...] = i
    others = [arena.take(1000) for _ in range(5)]
    assert not any(np.shares_memory(a, b) for a in mine for b in others)


def test_clear_forgets_what_is_idle_and_nothing_else(arena):
    a, b = empty(SHAPE), empty(SHAPE)
    a[...] = 3
    del b
    arena.clear()
    assert (arena.in_use, arena.idle, arena._free) == (SIZE, 0, {})
    c = empty(SHAPE)
    c[...] = 4
    assert (a == 3).all()
    del a, c
    assert (arena.in_use, arena.idle) == (0, 2 * SIZE)


# ----- threads -----------------------------------------------------------------------------
def test_threads_never_get_the_same_memory(arena):
    wrong, start = [], threading.Barrier(8)

    def work(number):
        start.wait()
        for i in range(200):
            arrays = [empty(17_000 + 1000 * ((i + k) % 2)) for k in range(3)]
            for a in arrays:
                a[...] = number
            if not all((a == number).all() for a in arrays):
                wrong.append(number)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    assert arena.in_use == 0
    assert arena.idle == sum(size * len(memories) for size, memories in arena._free.items())


def test_a_collection_of_garbage_while_memory_is_taken_does_not_lock_up(arena):
    """The collector runs whenever it likes, also inside `take`, and gives arrays back that die in a cycle."""

    def work():
        cycle = [empty(SHAPE)]
        cycle.append(cycle)
        del cycle
        with arena._lock:
            gc.collect()

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(timeout=30)
    assert not worker.is_alive()
    assert (arena.in_use, arena.idle) == (0, SIZE)


def test_collections_of_garbage_inside_leave_the_arena_in_order(arena):
    """Arrays of ever new sizes die in cycles, whenever the collector runs: also while memory is looked for."""
    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for k in range(300):
            cycle = [empty((20000 + (k * 997) % 200000,))]
            cycle.append(cycle)
            del cycle
            empty((20000 + (k * 331) % 200000,))
    finally:
        gc.set_threshold(*before)
    gc.collect()
    arena.clear()
    assert (arena.in_use, arena.idle, arena._free) == (0, 0, {})


def test_when_memory_runs_short_the_idle_is_handed_back_and_the_next_try_succeeds(arena, monkeypatch):
    module = importlib.import_module("tinyseg.fast.cpu.arena")
    new, refused = module.aligned, []

    def scarce(size):
        if arena.idle or size > 1 << 40:
            refused.append(size)
            raise MemoryError
        return new(size)

    empty(SHAPE)
    monkeypatch.setattr(module, "aligned", scarce)
    a = empty((4, *SHAPE))
    assert len(refused) == 1 and arena.idle == 0
    in_use, peak = arena.in_use, arena.peak
    with pytest.raises(MemoryError):
        empty(1 << 42)
    assert (arena.in_use, arena.idle) == (in_use, 0) and arena.peak <= peak and empty(SHAPE).shape == SHAPE
    del a


def test_memory_may_be_given_back_by_another_thread(arena):
    box = [empty(SHAPE)]
    old = address(box[0])
    worker = threading.Thread(target=box.clear)
    worker.start()
    worker.join()
    assert address(empty(SHAPE)) == old


# ----- what the kernels read of it ---------------------------------------------------------
@pytest.fixture
def nan_in_new_memory(monkeypatch):
    """All memory comes with NaN in it from now on: call the fixture."""

    def full(memory):
        memory[...] = 255  # in every byte: NaN as float32, float64 and bfloat16
        return memory

    def begin():
        take = Arena.take
        monkeypatch.setattr("tinyseg.fast.cpu.arena.aligned", lambda size: full(aligned(size)))
        monkeypatch.setattr(Arena, "take", lambda self, size: full(take(self, size)))
        assert np.isnan(empty(5)).all() and np.isnan(empty(SHAPE)).all()

    return begin


def single(*arrays):
    return [a.astype(np.float32) for a in arrays]


def same_with_nan(f, arrays, begin):
    expected = value_and_grads(f, *arrays)
    begin()
    for a, b in zip(value_and_grads(f, *arrays), expected, strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.isfinite(a).all()


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry[0] for entry in ENTRIES])
def test_no_op_reads_what_it_has_not_written(entry, nan_in_new_memory):
    _, f, *arrays = entry
    same_with_nan(f, single(*arrays), nan_in_new_memory)


LARGER = {
    "conv2d": (lambda x, w: ops.conv2d(x, w, stride=(2, 1), padding="same"), (2, 17, 40, 70), (35, 17, 3, 3)),
    "winograd": (lambda x, w: ops.conv2d(x, w, padding="same"), (2, 17, 41, 70), (35, 17, 3, 3)),
    "few pixels": (lambda x, w: ops.conv2d(x, w, padding="same"), (1, 40, 5, 3), (130, 40, 3, 3)),
    "depthwise": (lambda x, w: ops.depthwise_conv2d(x, w, padding="same"), (2, 17, 40, 70), (17, 3, 3)),
    "dilated": (lambda x, w: ops.depthwise_conv2d(x, w, padding="same", dilation=3), (2, 17, 40, 70), (17, 3, 3)),
    "pointwise": (lambda x, w: ops.pointwise_conv2d(x, w), (2, 17, 40, 70), (35, 17)),
    "upsampled": (lambda x, w: ops.fused_conv2d(x, w, padding="same", upsample=2), (2, 17, 40, 33), (35, 17, 2, 2)),
    "joined": (
        lambda x, x2, w: ops.fused_conv2d([x, x2], w, padding="same", activation="relu"),
        (1, 5, 40, 33), (1, 12, 40, 33), (19, 17, 3, 3),
    ),
    "separable": (
        lambda x, x2, wd, wp: ops.separable_conv2d([x, x2], wd, wp, padding="same", upsample=2, activation="relu"),
        (1, 5, 20, 33), (1, 12, 20, 33), (17, 3, 3), (35, 17),
    ),
    "pool": (lambda x: ops.max_pool2d(x, 2), (2, 17, 40, 70)),
    "group_norm": (lambda x: ops.group_norm(x, 3), (2, 33, 40, 70)),
    "batch_norm": (lambda x: ops.batch_norm(x, None, None, training=True), (2, 33, 40, 70)),
}  # fmt: skip


@pytest.mark.parametrize(("f", "shapes"), [(f, shapes) for f, *shapes in LARGER.values()], ids=LARGER)
def test_no_op_reads_what_it_has_not_written_in_large_arrays_either(f, shapes, nan_in_new_memory):
    same_with_nan(f, single(*(rand(*shape) for shape in shapes)), nan_in_new_memory)


@pytest.mark.parametrize("name", ["unet_gn", "sdunet_bn"])
def test_no_network_reads_what_it_has_not_written(name, nan_in_new_memory):
    model, x = models.build(name, width=6, dropout=0.0).eval(), single(rand(2, 1, 64, 96))[0]
    with no_grad():
        expected = model(x).data.copy()
        nan_in_new_memory()
        np.testing.assert_array_equal(model(x).data, expected)
