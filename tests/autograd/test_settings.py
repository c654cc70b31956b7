"""Settings of a block: each thread and task has its own, and a decorated function computes inside the block."""

import asyncio
import threading

import numpy as np
import pytest

from tinyseg import Tensor, no_grad, ops, using
from tinyseg.autograd import is_grad_enabled
from tinyseg.backend import config
from tinyseg.data.loader import Loader


def test_blocks_of_two_threads_that_overlap_leave_the_options_as_they_were():
    a_in, b_in, a_out, seen = threading.Event(), threading.Event(), threading.Event(), []

    def first():
        with using(kernels="reference"):
            a_in.set()
            b_in.wait(30)
        a_out.set()
        seen.append(config.kernels)

    def second():
        a_in.wait(30)
        seen.append(config.kernels)  # the other thread's block is not this one's
        with using(kernels="reference", winograd=False):
            b_in.set()
            a_out.wait(30)
            seen.append((config.kernels, config.winograd))
        seen.append(config.kernels)

    threads = [threading.Thread(target=f) for f in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(map(str, seen)) == ["('reference', False)", "fast", "fast", "fast"]
    assert config.kernels == "fast" and config.winograd


def test_the_threads_of_a_loader_compute_as_their_caller():
    class Options:
        def __len__(self):
            return 3

        def sample(self, index, epoch):
            return np.zeros(1), np.array([config.kernels == "reference", not is_grad_enabled()])

    with using(kernels="reference"), no_grad():
        batches = [y for _, y in Loader(Options(), 1, workers=2, shuffle=False).epoch(0)]
    assert np.all(batches)


@pytest.mark.parametrize("block", [no_grad, lambda: using(kernels="reference")], ids=["no_grad", "using"])
def test_a_decorated_function_generator_or_coroutine_computes_inside(block):
    def inside():
        return (is_grad_enabled(), config.kernels) != (True, "fast")

    @block()
    def function():
        return inside()

    @block()
    def generator(n):
        sent = None
        try:
            for _ in range(n):
                sent = yield inside(), sent
        except KeyError:
            yield inside(), "thrown"
        finally:
            closed.append(inside())
        return "end"

    @block()
    async def coroutine():
        await asyncio.sleep(0)
        return inside()

    async def two_tasks():
        task = asyncio.create_task(coroutine())
        await asyncio.sleep(0)
        return inside(), await task

    closed = []
    assert function() and function() and not inside()
    steps = generator(3)
    assert next(steps) == (True, None) and not inside()
    assert steps.send("word") == (True, "word") and not inside()
    assert steps.throw(KeyError()) == (True, "thrown")
    steps.close()
    assert closed == [True]
    with pytest.raises(StopIteration, match="end"):
        next(generator(0))
    assert asyncio.run(two_tasks()) == (False, True)
    assert generator.__name__ == "generator" and not inside()


def test_no_grad_on_a_generator_records_no_graph():
    w = Tensor(np.ones(3), requires_grad=True)

    @no_grad()
    def outputs():
        for k in range(2):
            yield ops.sum(w * float(k))

    assert [(y.requires_grad, ops.sum(w).requires_grad) for y in outputs()] == [(False, True)] * 2


def test_an_asynchronous_generator_is_refused():
    async def generator():
        yield 1

    with pytest.raises(TypeError, match="use the block inside of it"):
        no_grad()(generator)


def test_two_decorators_on_one_generator_both_hold_inside_of_it():
    @no_grad()
    @using(kernels="reference")
    def found():
        for _ in range(2):
            yield is_grad_enabled(), config.kernels

    assert list(found()) == [(False, "reference")] * 2
    assert (is_grad_enabled(), config.kernels) == (True, "fast")


def test_blocks_of_two_generators_that_end_in_the_order_they_began_leave_nothing_behind():
    def generator():
        with using(kernels="reference"):
            yield

    first, second = generator(), generator()
    next(first), next(second)
    first.close()
    assert config.kernels == "reference"
    second.close()
    assert config.kernels == "fast"
