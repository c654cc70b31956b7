"""The stand-in's captures refuse what CUDA and CuPy refuse, and compute nothing before they are launched."""

import contextlib
import gc

import fake_cuda
import fake_cupy as cp
import fake_graphs
import numpy as np
import pytest


class Captured:
    """What a `with` block launches on a stream of its own, with memory of its own."""

    def __init__(self):
        self.stream, self.pool = cp.cuda.Stream(non_blocking=True), cp.cuda.MemoryPool()

    def __enter__(self):
        self.stream.__enter__()
        self.allocator = cp.cuda.using_allocator(self.pool.malloc)
        self.allocator.__enter__()
        self.stream.begin_capture()
        return self

    def __exit__(self, kind, error, trace):
        try:
            self.graph = self.stream.end_capture()
        finally:
            self.allocator.__exit__()
            self.stream.__exit__()


def numbers(*values):
    return cp.asarray(np.array(values, np.float32))


def test_nothing_is_computed_before_the_launch_and_everything_at_each():
    x, factor = numbers(1, 2), 3.0
    with Captured() as captured:
        y = x * factor + 1
        y += x
        assert captured.stream.is_capturing()
    assert np.isnan(cp.asnumpy(y)).all() and cp.asnumpy(x).tolist() == [1, 2]
    captured.graph.launch()
    assert cp.asnumpy(y).tolist() == [5, 9]
    x[...] = numbers(10, 20)
    factor = 100.0  # frozen as it was
    captured.graph.launch()
    assert cp.asnumpy(y).tolist() == [41, 81]


REFUSED = {
    "reading": lambda x: cp.asnumpy(x),
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x.sum()),
    "bool": lambda x: bool((x > 0).all()),
    "a list": lambda x: cp.asarray([1.0, 2.0]),
    "set": lambda x: x.set(np.zeros(2, np.float32)),
    "waiting": lambda x: fake_cuda.current_stream().synchronize(),
    "many addresses": lambda x: cp.stack([x] * 9),
    "a product": lambda x: cp.matmul(x[:, None], x[None]),
    "einsum": lambda x: cp.einsum("i,j->ij", x, x),
    "memory elsewhere": lambda x: _with_the_allocator(None, lambda: cp.empty(3)),
    "a launch": lambda x: fake_graphs.Graph().launch(),
}


def _with_the_allocator(malloc, function):
    with cp.cuda.using_allocator(malloc):
        return function()


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what):
    x = numbers(1, 2)
    with (
        pytest.raises((RuntimeError, NotImplementedError), match="capturing|capture is currently unsupported|previous"),
        Captured(),
    ):
        REFUSED[what](x)
    assert fake_graphs.capture is None and fake_cuda.current_stream() is fake_cuda.NULL
    if what not in ("memory elsewhere", "a launch", "waiting"):
        REFUSED[what](x)  # not otherwise
    with Captured() as again:
        y = x + 1
    again.graph.launch()
    assert cp.asnumpy(y).tolist() == [2, 3] or what == "set"


def test_a_capture_that_was_disturbed_is_lost():
    x = numbers(1, 2)
    swallowed = contextlib.suppress(RuntimeError)  # by whomever
    lost = pytest.raises(fake_graphs.CUDARuntimeError, match="previous error during capture")
    with lost, Captured(), swallowed:
        x.sum().item()
    with pytest.raises(RuntimeError, match="default"):
        fake_cuda.NULL.begin_capture()


def test_what_is_given_back_is_used_again_and_what_others_gave_back_is_missed():
    x = numbers(1, 2)
    with Captured() as captured:
        first = x + 1
        address = first.data.ptr
        y = first * 2
        del first
        second = x - 5
        assert second.data.ptr == address != y.data.ptr
    captured.graph.launch()
    assert cp.asnumpy(y).tolist() == [4, 6] and cp.asnumpy(second).tolist() == [-4, -3]
    del x
    gc.collect()
    with pytest.raises(AssertionError, match="memory that was given back"):
        captured.graph.launch()
    x = numbers(1, 2)
    with Captured() as captured:
        y = x + 1
    del captured.pool, captured.allocator
    gc.collect()
    with pytest.raises(AssertionError, match="memory that was given back"):
        captured.graph.launch()


def test_a_pool_that_runs_short_frees_what_it_keeps_and_goes_on():
    x, captured = cp.asarray(np.ones(256, np.float32)), Captured()
    captured.pool.set_limit(size=3 << 10)
    with captured:
        first = x + 1
        y = first * 2
        del first
        assert captured.pool.total_bytes() == 2 << 10
        z = cp.repeat(x, 2)  # needs the memory of `first`, among others
    assert captured.pool.total_bytes() == 3 << 10
    with pytest.raises(AssertionError, match="memory that was given back"):
        captured.graph.launch()
    with cp.cuda.using_allocator(captured.pool.malloc), pytest.raises(MemoryError, match="allocating 1,024 bytes"):
        cp.empty(256, np.float32)
    del y, z


def test_an_allocator_says_how_it_goes_on():
    def allocate(size):
        raise errors.pop(0)

    pool = cp.cuda.MemoryPool(allocate)
    for status, left in ((2, 0), (700, 2)):  # cudaErrorMemoryAllocation is asked three times, others are raised
        errors = [fake_graphs.CUDARuntimeError(status) for _ in range(3)]
        with pytest.raises(MemoryError if status == 2 else fake_graphs.CUDARuntimeError):
            pool.malloc(9)
        assert len(errors) == left and pool.total_bytes() == 0


def test_blocks_outlive_a_pool_that_is_dropped():
    before, left = fake_graphs.device.copy(), []
    for free in (True, False):
        pool = cp.cuda.MemoryPool()
        with cp.cuda.using_allocator(pool.malloc):
            cp.empty(256, np.float32)
        if free:
            pool.free_all_blocks()
        del pool
        gc.collect()
        left.append(cp.cuda.runtime.memGetInfo()[0])
    assert left[0] - left[1] == 1 << 10
    fake_graphs.device.intersection_update(before)


def test_views_need_no_work():
    x = cp.asarray(np.arange(12, dtype=np.float32).reshape(3, 4))
    with Captured() as captured:
        rows, column, parts = x[1:], x.T[2], cp.split(x, [1])
        one = x[1, 2]
        found = rows.reshape(8), cp.broadcast_to(column, (2, 3)), parts[1], x.view("int32")
        work = len(captured_work())
    assert work == 0 and cp.asnumpy(found[1]).tolist() == [[2, 6, 10]] * 2 and float(one) == 6
    assert len(captured.graph.work) == 0


def captured_work():
    return fake_graphs.capture.work
