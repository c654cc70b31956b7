"""Steps and predictions that are captured and replayed: those of ordinary launches, to the bit.

On the stand-in (fake_graphs.py). On a GPU the replays are held against the same launches without a capture: products of
ordinary steps are CuPy's, whose bits may be others.
"""

import gc
import sys
import types

import fake_graphs
import numpy as np
import pytest
from arrays import rand
from captured import Training, differ

from benchmarks import gpu_worker
from tinyseg import backend, models, no_grad, ops, optim, using
from tinyseg.backend import devices
from tinyseg.fast.gpu import graphs
from tinyseg.fast.gpu.graphs import products as cublas
from tinyseg.fast.gpu.graphs import recording
from tinyseg.fast.gpu.graphs import training_step as training_graph
from tinyseg.ops import loss
from tinyseg.ops.loss import dice_and_cross_entropy
from tinyseg.prediction import predict

TRAININGS = {
    "sdunet": {},
    "unet, classes, Adam with decay": {
        "name": "unet", "classes": 3, "loss": dice_and_cross_entropy(), "optimizer": optim.Adam,
        "options": {"lr": 2e-3, "weight_decay": 0.01},
    },
    "batch norm, no clipping": {"name": "unet_dw_bn", "clip": None, "options": {"lr": 1e-3}},
    "Dice": {"loss": lambda z, y: ops.soft_dice_loss(z, y, empty="ignore"), "model_options": {"head": "paper"}},
}  # fmt: skip


def expected(options, steps, cp, monkeypatch):
    """A training of the same launches, none of them replayed."""
    training = Training(**options)
    if cp.__name__ == "cupy":
        monkeypatch.setattr(training_graph, "WARM_UP", steps)
        training.capture()
    found = training.run(steps).state()
    monkeypatch.undo()
    return found


# ----- training ----------------------------------------------------------------------
def test_fifty_replayed_steps_are_fifty_ordinary_ones(stand_in):
    ordinary, replayed = Training().run(50), Training().capture().run(50)
    if stand_in.__name__ == "cupy":
        np.testing.assert_allclose(replayed.figures[:5], ordinary.figures[:5], rtol=1e-3)
    else:
        assert replayed.launches == 48 and differ(ordinary.state(), replayed.state()) == []
    assert replayed.model.drops[0].counter[1] == 50 and replayed.adam.steps == 50


@pytest.mark.parametrize("options", TRAININGS.values(), ids=TRAININGS)
def test_replays_are_what_was_captured(options, stand_in):
    with pytest.MonkeyPatch.context() as patch:
        before = expected(options, 7, stand_in, patch)
    replayed = Training(**options).capture().run(7)
    assert replayed.captured.key is not None and differ(before, replayed.state()) == []


def test_other_shapes_take_the_ordinary_step(stand_in):
    runs = [Training(), Training().capture()]
    for training in runs:
        for k in range(8):
            training.step(*training.batch(k, (1, 8, 8) if k % 4 == 3 else (2, 8, 8)))
    if stand_in.__name__ != "cupy":
        assert runs[1].launches == 4 and differ(runs[0].state(), runs[1].state()) == []
    assert runs[1].captured.key[0][0] == (2, 1, 8, 8)


def test_weights_that_lie_elsewhere_are_captured_again(stand_in):
    runs = [Training().run(6), Training().capture().run(4)]
    graph = runs[1].captured.graph
    for p in runs[1].model.parameters():
        p.data = p.data.copy()
    runs[1].run(2, first=4)
    assert runs[1].captured.graph is not graph and runs[1].captured.key is None
    assert stand_in.__name__ == "cupy" or differ(runs[0].state(), runs[1].state()) == []


def spoiled(training, how):
    """A batch at which an ordinary step raises, or goes on in its own way."""
    x, y = training.batch(5)
    if how == "loss":
        x[0, 0, 2, 3] = np.nan
    if how == "labels":
        y[1, 2, 3] = 3
    return x, y


@pytest.mark.parametrize("how", ["loss", "labels"])
def test_a_bad_batch_changes_no_weight_and_goes_to_the_ordinary_step(how, stand_in):
    training = Training(classes=3, loss=ops.cross_entropy).capture().run(5)
    before, asked = training.state(), []
    training.captured.ordinary = lambda *batch: asked.append(differ(before, training.state()))
    training.captured(*spoiled(training, how))
    assert asked == [[]]  # weights, Adam's state, number of steps and dropout's counters are those from before
    training.captured.ordinary = training.ordinary
    if how == "labels":
        with pytest.raises(ValueError, match="class numbers must be 0 … 2, but range from 0 to 3"):
            training.captured(*spoiled(training, how))
    training.run(2, first=5)
    assert np.isfinite(training.figures[-1]).all()


def test_squares_that_float32_cannot_hold(stand_in):
    def steep(z, y):
        return ops.binary_cross_entropy_with_logits(z, y) * 1e25

    with np.errstate(over="ignore"):  # on the stand-in NumPy would warn
        runs = [Training(loss=steep).run(5), Training(loss=steep).capture().run(5)]
    assert runs[1].adam.steps == 5
    assert stand_in.__name__ == "cupy" or differ(runs[0].state(), runs[1].state()) == []


def test_what_cannot_be_captured_is_said_and_leaves_everything_in_order(stand_in):
    def looking(z, y):
        value = ops.binary_cross_entropy_with_logits(z, y)
        value.item()
        return value

    training = Training(loss=looking).capture().run(2)
    before = training.state()
    with pytest.raises(RuntimeError, match="cannot be captured as a CUDA graph: .*permitted.*reads results on the way"):
        training.run(1, first=2)
    assert differ(before, training.state()) == [] and recording.recording() is None
    training.captured = None
    training.run(2, first=2)
    assert stand_in.__name__ == "cupy" or differ(Training().run(4).state(), training.state()) == []
    Training().capture().run(4)


def test_numbers_that_would_be_frozen_are_refused(stand_in):
    def masked(z, y):
        return ops.binary_cross_entropy_with_logits(ops.dropout(z, 0.5, seed=3), y)

    with pytest.raises(ValueError, match="needs for a seed an array that is counted up, as nn.Dropout has, but got 3"):
        Training(loss=masked).capture().run(1)
    with pytest.raises(ValueError, match="with Adam or AdamW, float32 parameters .* but the optimizer is SGD"):
        Training(optimizer=optim.SGD, options={"lr": 0.1}).capture()
    with using(kernels="reference"), pytest.raises(ValueError, match="and the fast kernels"):
        Training().capture()
    training = Training().capture()
    forward, training.model.buffers, training.model.calls = training.model.forward, ("calls",), np.zeros(1, int)

    def counting(x):
        training.model.calls += 1
        return forward(x)

    training.model.forward = counting
    training.capture()
    with pytest.raises(ValueError, match="The model counts something on the host"):
        training.run(3)


def test_on_the_cpu_it_is_an_error():
    model = models.build("sdunet", width=4, levels=2)
    for make in (graphs.Inference, lambda m: training_graph.TrainingStep(m, optim.Adam(m.parameters()), *[None] * 4)):
        with pytest.raises(ValueError, match="CUDA graphs are for a GPU, but the model is on the CPU"):
            make(model)


# ----- that these tests can fail -------------------------------------------------------
def frozen(kind):
    """`Recording.changing`, which looks at numbers of one dtype only once."""
    whole = recording.Recording.changing

    def changing(self, make, dtype):
        values = make()
        return whole(self, (lambda: values) if dtype is kind else make, dtype)

    return recording.Recording, "changing", changing


BREAKS = {
    "dropout's key": frozen(np.uint32),
    "Adam's rate": frozen(np.float32),
    "the inputs": (training_graph, "copy_in", lambda arrays, inputs: None),
    "the numbers of a step": (recording.Recording, "write", lambda self: None),
    "the constants": (recording.Recording, "settle", recording.Recording.back),
}


@pytest.mark.parametrize("what", BREAKS)
def test_what_is_frozen_is_seen(what, stand_in):
    with pytest.MonkeyPatch.context() as patch:
        before = expected({}, 5, stand_in, patch)
        assert differ(before, Training().capture().run(5).state()) == []
        patch.setattr(*BREAKS[what])
        if what == "the constants" and stand_in.__name__ == "cupy":
            pytest.skip("a kernel would follow addresses that are none")
        assert differ(before, Training().capture().run(5).state()) != []


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
        assert graphs.taken() >= 2 * UNIT
        del run
        gc.collect()
        free.append(left(stand_in))
    assert free[0] - free[-1] < UNIT
    graphs.capture(lambda a: a + 1, x[:2])
    assert float(y.sum()) == UNIT  # it outlives its graph, and is counted
    before = graphs.taken()
    del y
    gc.collect()
    assert graphs.taken() <= before - UNIT


def test_a_training_step_that_is_made_anew_gives_its_memory_back(stand_in):
    training, taken = Training().capture(), []
    for k in range(4):
        training.run(3, first=3 * k)
        gc.collect()
        taken.append(graphs.taken())
        for p in training.model.parameters():
            p.data = p.data.copy()
    assert taken[1] == taken[2] == taken[3]


@pytest.mark.parametrize("what", ["limit", "device"])
def test_a_capture_that_runs_short_of_memory_frees_nothing_that_it_recorded(what, stand_in, monkeypatch):
    if what == "device" and stand_in.__name__ == "cupy":
        pytest.skip("the device is too large")
    everything, runs = stand_in.get_default_memory_pool(), []

    def function(x):
        if not runs:
            left(stand_in)
            if what == "limit":
                everything.set_limit(size=everything.total_bytes() + graphs.taken() + 4 * UNIT)
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
    monkeypatch.setattr(default, "limit", graphs.taken() + 6 * UNIT)
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


def test_weights_of_a_loss_that_a_graph_uses_stay(stand_in):
    weights = [0.25, 0.5, 2.0]
    runs = [Training(classes=3, loss=lambda z, y: ops.cross_entropy(z, y, weight=weights)) for _ in range(2)]
    runs[1].run(1).capture().run(4, first=1)
    for k in range(100):
        loss._constant(stand_in, (float(k), 1.0), np.dtype(np.float32))
    assert loss._constant.cache_info().currsize <= 64
    gc.collect()
    runs[1].run(2, first=5)
    assert stand_in.__name__ == "cupy" or differ(runs[0].run(7).state(), runs[1].state()) == []


# ----- products ------------------------------------------------------------------------
@pytest.mark.parametrize(("n", "k", "m"), [(3, 5, 7), (1, 4, 6), (4, 1, 2), (5, 3, 1), (1, 9, 1), (2, 0, 3)])
@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True)])
def test_products_of_cublas(n, k, m, turned, stand_in):
    a, b = (stand_in.asarray(images(*(s[::-1] if t else s))) for s, t in zip(((n, k), (k, m)), turned, strict=True))
    a, b = (x.T if t else x for x, t in zip((a, b), turned, strict=True))
    expected = stand_in.asnumpy(cublas.product(a, b))
    with recording.Recording().on(capturing=False):
        found, out = cublas.product(a, b), stand_in.empty((n, m), np.float32)
        assert cublas.product(a, b, out=out) is out
    equal(stand_in, stand_in.asnumpy(found), expected)
    equal(stand_in, stand_in.asnumpy(out), expected)


def test_other_products_are_not_captured(stand_in):
    a = stand_in.asarray(rand(3, 4))
    with recording.Recording().on(capturing=False), pytest.raises(TypeError, match="float32 .*, not float64 times"):
        cublas.product(a, a.T)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere pathfinder is asked")
def test_cublas_is_the_one_that_cupy_is_linked_with(monkeypatch):
    extension = np._core._multiarray_umath.__file__  # linked with libm, as CuPy's is with cuBLAS
    cuda = types.SimpleNamespace(cublas=types.SimpleNamespace(__file__=extension))
    monkeypatch.setattr(devices, "cp", types.SimpleNamespace(cuda=cuda))
    library = cublas.library.__wrapped__()
    assert library._name == extension and library.lgamma_r is not None
    with pytest.raises(AttributeError, match="cublasGemmEx"):
        library.cublasGemmEx  # noqa: B018
