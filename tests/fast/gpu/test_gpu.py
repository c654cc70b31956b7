"""The proof on a GPU: training, gradients, memory, prediction. On the stand-in the same, in fewer steps.

The kernels one by one are in the other files of this folder, CUDA graphs in graphs/. What needs a real device is
skipped elsewhere with 'no GPU'.
"""

import subprocess
import sys

import numpy as np
import pytest
from arrays import rand
from captured import Training
from catalogue import ENTRIES

from tinyseg import backend, check_grads, models, ops, optim, using
from tinyseg.backend import devices
from tinyseg.metrics import BinaryScores
from tinyseg.prediction import predict
from tinyseg.training import evaluate


@pytest.fixture
def steps(stand_in):
    """How many steps: the stand-in runs every thread of a kernel one after the other."""
    return {"fake_cupy": 4, "cupy": 50}[stand_in.__name__]


@pytest.fixture
def real():
    """CuPy, with a device."""
    try:
        backend.parse_device("gpu")
    except RuntimeError:
        pytest.skip("no GPU")
    return devices.cp


def losses_of(device, steps, shape=(2, 1, 16, 24), name="sdunet"):
    """Train a small network, with dropout; return the losses and the model."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((steps, *shape)).astype(np.float32)
    model = models.build(name, width=4, levels=3, seed=1).to(device)
    optimizer, losses = optim.Adam(model.parameters(), lr=1e-3), []
    for batch in x:
        batch, mask = backend.to_device(batch, device), backend.to_device((batch > 0.3).astype(np.float32), device)
        loss = ops.dice_bce_with_logits(model(batch), mask)
        optimizer.zero_grad()
        loss.backward()
        optim.clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses, model


@pytest.mark.parametrize("name", ["sdunet", "unet", "unet_dw_bn"])
def test_training_is_that_of_the_cpu(name, stand_in, steps):
    with using(kernels="reference"):
        expected, _ = losses_of("cpu", steps, name=name)
    found, _ = losses_of("gpu", steps, name=name)
    np.testing.assert_allclose(found[:4], expected[:4], rtol=1e-4)
    np.testing.assert_allclose(found, expected, rtol=1e-2)  # CPU kernels against the maths, 50 steps: 1.2e-3
    again, _ = losses_of("gpu", steps, name=name)
    assert found == again  # no kernel adds in an order of its own


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry[0] for entry in ENTRIES])
def test_gradients_in_float64(entry, stand_in):
    _, f, *arrays = entry
    check_grads(f, *(stand_in.asarray(a) for a in arrays))


def test_a_thousand_steps_leave_no_memory_behind(stand_in, steps):
    pool = stand_in.get_default_memory_pool()
    x, y = (stand_in.asarray(a) for a in (rand(2, 1, 8, 8).astype(np.float32), rand(2, 1, 8, 8, seed=1) > 0))
    model = models.build("sdunet", width=4, levels=3).to("gpu")
    optimizer, used = optim.Adam(model.parameters()), []
    for _ in range(1000 if steps == 50 else steps):
        optimizer.zero_grad()
        ops.binary_cross_entropy_with_logits(model(x), y).backward()
        optimizer.step()
        used.append(pool.used_bytes())
    # A leak of the smallest block, 512 bytes, would be half a MiB by now. What is kept is there after 50 steps, but for
    # a few tables of Adam's (fast/gpu/optim.py).
    assert max(used[-50:]) <= max(used[:100][-50:]) + 2**14


def test_replays_leave_no_memory_behind(stand_in, steps):
    pool, training = stand_in.get_default_memory_pool(), Training().capture().run(3)
    own, batch, used = training.trained.graph.pool, training.batch(0), []
    for _ in range(1000 if steps == 50 else steps):
        training.step(*batch)
        used.append((pool.used_bytes(), own.used_bytes()) if steps == 50 else len(own._blocks))
    assert len(set(used)) == 1


def test_prediction_and_scores_are_those_of_the_cpu(stand_in):
    images = rand(2, 19, 26).astype(np.float32)
    labels, results = images > 0.2, {}
    for device in ("cpu", "gpu"):
        model = models.build("sdunet", width=4, levels=3, seed=1).to(device)
        p = predict(model, images, tile=16, transforms="flips")
        scores, probabilities = evaluate(model, images, labels)
        results[device] = p, probabilities, scores
    (p, q, scores), (p_, q_, scores_) = results["gpu"], results["cpu"]
    assert type(p) is type(q) is np.ndarray
    np.testing.assert_allclose(p, p_, atol=1e-5)
    np.testing.assert_allclose(q, q_, atol=1e-5)
    assert scores == pytest.approx(scores_, rel=1e-2)  # a pixel may fall on the other side of the threshold
    counted = BinaryScores()
    counted.update(q, labels)
    assert counted.compute() == {name: scores[name] for name in counted.compute()}


# ----- what only a device can show --------------------------------------------------
TF32 = """
import numpy as np
from tinyseg import backend
from tinyseg.backend import devices
backend.set_up_gpu(tf32={})
cp = devices.cp
a, b = (np.random.default_rng(k).standard_normal((256, 256)) for k in range(2))
found = cp.asnumpy(cp.asarray(a, np.float32) @ cp.asarray(b, np.float32))
print(np.linalg.norm(found - a @ b) / np.linalg.norm(a @ b), backend.kernels_in_use("gpu"))
"""


@pytest.mark.gpu
@pytest.mark.parametrize("tf32", [False, True])
def test_tf32_is_off_unless_asked_for(tf32, real, monkeypatch):
    if tf32 and real.cuda.Device().compute_capability < "80":
        pytest.skip("TF32 needs an Ampere GPU or later")
    monkeypatch.delenv("CUPY_TF32", raising=False)
    done = subprocess.run([sys.executable, "-c", TF32.format(tf32)], capture_output=True, text=True, check=True)
    error, kernels = done.stdout.split(maxsplit=1)
    assert (1e-5 < float(error) < 1e-2) if tf32 else float(error) < 1e-5
    assert ("TF32" in kernels) == tf32


@pytest.mark.gpu
def test_the_limit_of_memory_holds(real):
    pool = real.get_default_memory_pool()
    pool.free_all_blocks()
    try:
        backend.set_up_gpu(memory=pool.total_bytes() / 2**30 + 1 / 1024)  # one MiB more
        with pytest.raises(MemoryError, match="limit set to") as error:
            real.zeros(2**22, np.float32)
        assert backend.is_out_of_memory(error.value)
    finally:
        pool.set_limit(size=0)


@pytest.mark.gpu
def test_more_memory_than_there_is(real):
    with pytest.raises(Exception, match="(?i)memory") as error:
        real.zeros(2**40, np.float32)
    assert backend.is_out_of_memory(error.value)
