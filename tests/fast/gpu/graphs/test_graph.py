"""Inference that is captured and replayed: the results of ordinary launches, to the bit; and the memory of graphs.

On the stand-in (fake_graphs.py); on a GPU to rounding, because ordinary products are CuPy's.
"""

import gc

import fake_graphs
import numpy as np
import pytest
from arrays import rand

from benchmarks import gpu_worker
from tinyseg import backend, models, no_grad
from tinyseg.backend import devices
from tinyseg.fast.gpu import graphs
from tinyseg.prediction import predict


# ----- inference -----------------------------------------------------------------------
@pytest.fixture
def model(stand_in):
    return models.build("sdunet", width=4, levels=2, seed=1).to("gpu").eval()


def logits(model, x):
    with no_grad():
        return backend.to_numpy(model(backend.to_device(x, "gpu")).data)


def images(*shape, seed=0):
    return rand(*shape, seed=seed).astype(np.float32)


def equal(cp, found, expected):
    if cp.__name__ == "cupy":
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    else:
        np.testing.assert_array_equal(found, expected)


def test_inference_is_replayed(model, stand_in):
    with no_grad():
        run = graphs.capture(lambda x: model(x).data, images(2, 1, 8, 12))
    first = run(images(2, 1, 8, 12, seed=1))
    equal(stand_in, backend.to_numpy(first), logits(model, images(2, 1, 8, 12, seed=1)))
    second = run(stand_in.asarray(images(2, 1, 8, 12, seed=2)))
    assert second is first  # the graph's own array
    equal(stand_in, backend.to_numpy(second), logits(model, images(2, 1, 8, 12, seed=2)))
    with no_grad():
        equal(stand_in, backend.to_numpy(run(images(1, 1, 4, 4))), logits(model, images(1, 1, 4, 4)))
    model.head.weight.data *= 2  # in place: the graph sees it
    equal(stand_in, backend.to_numpy(run(images(2, 1, 8, 12))), logits(model, images(2, 1, 8, 12)))


def test_on_the_cpu_it_is_an_error():
    with pytest.raises(ValueError, match="CUDA graphs are for a GPU, but the model is on the CPU"):
        graphs.Inference(models.build("sdunet", width=4, levels=2))


def test_only_inference_is_captured_so(model, monkeypatch, stand_in):
    with pytest.raises(ValueError, match=r"capture\(\) is for inference, but the function draws random numbers"):
        graphs.capture(lambda x: model.train()(x).detach().data, images(1, 1, 8, 8))
    with pytest.raises(ValueError, match="call model.eval"):
        graphs.Inference(model)(images(1, 1, 8, 8))
    monkeypatch.setattr(devices, "cp", None)
    with pytest.raises(ValueError, match="CUDA graphs are for a GPU, and CuPy is not installed"):
        graphs.capture(lambda x: x, images(1))


def test_shapes_that_come_often_are_captured(model, stand_in):
    run = graphs.Inference(model)
    for turn in range(4):
        for width in (4, 8, 12, 16, 20):
            x = images(1, 1, 4, width, seed=turn)
            equal(stand_in, run(x), logits(model, x))
    assert len(run.graphs) == graphs.SHAPES == 4
    for p in model.parameters():
        p.data = p.data * 2
    equal(stand_in, run(images(1, 1, 4, 4)), logits(model, images(1, 1, 4, 4)))
    assert run.graphs == {}


def test_predictions_in_tiles(model, stand_in):
    x, run = images(2, 19, 26), graphs.Inference(model)
    found = predict(model, x, tile=16, transforms="flips", forward=run)
    assert len(run.graphs) == 1
    equal(stand_in, found, predict(model, x, tile=16, transforms="flips"))


# ----- memory --------------------------------------------------------------------------
UNIT = 1 << 22  # bytes of the arrays below


def left(cp):
    """Bytes that are free on the device."""
    cp.get_default_memory_pool().free_all_blocks()
    return cp.cuda.runtime.memGetInfo()[0]


def test_what_a_graph_took_is_given_back(stand_in):
    x, free = np.ones(UNIT // 4, np.float32), []
    for _ in range(5):
        run = graphs.capture(lambda a: (a + 1) * 2, x)
        y = run(x)
        assert graphs.bytes_in_pools() >= 2 * UNIT
        del run
        gc.collect()
        free.append(left(stand_in))
    assert free[0] - free[-1] < UNIT
    graphs.capture(lambda a: a + 1, x[:2])
    assert float(y.sum()) == UNIT  # it outlives its graph, and is counted
    before = graphs.bytes_in_pools()
    del y
    gc.collect()
    assert graphs.bytes_in_pools() <= before - UNIT


@pytest.mark.parametrize("what", ["limit", "device"])
def test_a_capture_that_runs_short_of_memory_frees_nothing_that_it_recorded(what, stand_in, monkeypatch):
    if what == "device" and stand_in.__name__ == "cupy":
        pytest.skip("the device is too large")
    everything, runs = stand_in.get_default_memory_pool(), []

    def function(x):
        if not runs:
            left(stand_in)
            if what == "limit":
                everything.set_limit(size=everything.total_bytes() + graphs.bytes_in_pools() + 4 * UNIT)
            else:
                used = fake_graphs.capacity - left(stand_in)
                monkeypatch.setattr(fake_graphs, "capacity", used + 4 * UNIT)
        runs.append(x)
        first = x + 1
        y = first * 2
        del first  # its memory is the pool's again, and written to by every replay
        if len(runs) > graphs.WARM_UP:
            stand_in.empty(3 * x.size, np.float32)
        return y

    try:
        with pytest.raises(MemoryError, match="ran short while a CUDA graph was captured, which asked for .* more"):
            graphs.capture(function, np.ones(UNIT // 4, np.float32))(np.ones(UNIT // 4, np.float32))
    finally:
        everything.set_limit(size=0)


def test_one_limit_holds_for_all(stand_in, monkeypatch):
    if stand_in.__name__ == "cupy":
        pytest.skip("the default pool holds what other tests keep")
    default, kept, x = stand_in.get_default_memory_pool(), [9 * UNIT], np.ones(UNIT // 4, np.float32)
    monkeypatch.setattr(default, "total_bytes", lambda: UNIT + sum(kept))  # an array, and what ordinary steps left
    monkeypatch.setattr(default, "free_all_blocks", kept.clear)
    monkeypatch.setattr(default, "limit", graphs.bytes_in_pools() + 6 * UNIT)
    runs = [graphs.capture(lambda a: (a + 1) * 2, x) for _ in range(2)]
    assert kept == []
    with pytest.raises(MemoryError, match="Out of memory allocating"):
        graphs.capture(lambda a: (a + 1) * 2, x)
    runs.pop()
    graphs.capture(lambda a: (a + 1) * 2, x)
    assert len(runs) == 1


def test_the_benchmark_counts_the_memory_of_graphs(stand_in):
    gpu, x = gpu_worker.CuPy(), np.ones(UNIT // 4, np.float32)
    gpu.release()
    before = gpu.taken()
    run = graphs.capture(lambda a: a + 1, x)
    gpu.release()
    assert gpu.taken() >= before + UNIT
    del run
