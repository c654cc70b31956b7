"""Every op, and whole networks, on arrays that refuse to mix with NumPy's: the maths is fit for CuPy.

Without a GPU the arrays are those of the stand-in (tests/gpu_stand_in): a NumPy array that slips into an expression on
the device raises there as it would on a GPU. With CuPy and a CUDA device the same tests run on those as well.
"""

import fake_cupy
import numpy as np
import pytest
from arrays import rand, value_and_grads
from catalogue import ENTRIES

import tinyseg
from tinyseg import Tensor, backend, check_grads, models, no_grad, ops, optim
from tinyseg.backend import devices


@pytest.fixture(params=["stand-in", pytest.param("CuPy", marks=pytest.mark.gpu)])
def cp(request, monkeypatch):
    """The array module of the device; the reference kernels."""
    if request.param == "stand-in":
        monkeypatch.setattr(devices, "cp", fake_cupy)
    else:
        try:
            backend.parse_device("gpu")
        except RuntimeError:
            pytest.skip("no GPU")
    with tinyseg.using(kernels="reference"):
        yield devices.cp


# ----- the ops ---------------------------------------------------------------------
@pytest.mark.parametrize("entry", ENTRIES, ids=[entry[0] for entry in ENTRIES])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_op_on_the_device(entry, dtype, cp):
    _, f, *arrays = entry
    arrays = [a.astype(dtype) for a in arrays]
    expected = value_and_grads(f, *arrays)
    found = value_and_grads(f, *(cp.asarray(a) for a in arrays))
    for a, b in zip(found, expected, strict=True):
        assert type(a) is cp.ndarray and a.dtype == dtype and a.shape == b.shape
        tol = 1e-12 if dtype == np.float64 else 1e-5
        np.testing.assert_allclose(cp.asnumpy(a), b, rtol=tol, atol=tol)


def test_gradient_checks_run_on_the_device(cp):
    x, w = cp.asarray(rand(2, 3, 4, 5)), cp.asarray(rand(2, 3, 3, 2))
    check_grads(lambda x, w: ops.conv2d(x, w, padding="same"), x, w)


def test_numbers_become_one_element_on_the_device(cp):
    x = Tensor(cp.asarray(rand(200, 300).astype(np.float32)), requires_grad=True)
    for number in (2.0, 3, np.float64(2), np.float32(2), np.int64(3)):
        for y in (x * number, number * x):
            one = min(y.creator.saved, key=lambda a: a.size)
            assert type(one) is cp.ndarray and one.shape == () and y.dtype == np.float32


def test_arrays_of_both_kinds_are_refused_with_a_sentence(cp):
    x, w = cp.asarray(rand(2, 3, 4, 5)), rand(3, 3, 3)
    for f in (
        lambda: ops.depthwise_conv2d(x, w),
        lambda: ops.multiply(x, rand(5)),
        lambda: ops.concat([x, rand(2, 3, 4, 5)]),
        lambda: Tensor(x) + rand(5),
        lambda: rand(5) * Tensor(x),
    ):
        with pytest.raises(TypeError, match="got arrays on different devices: .* cupy array .*; move them to one"):
            f()
    with pytest.raises(ValueError, match="needs a float64 cupy array .* but gy is float64 numpy array"):
        (Tensor(x, requires_grad=True) * 2.0).backward(rand(2, 3, 4, 5))
    for loss, target in (
        (ops.binary_cross_entropy_with_logits, rand(2, 3, 4, 5)),
        (ops.soft_dice_loss, rand(2, 3, 4, 5) > 0),
        (ops.cross_entropy, np.zeros((2, 4, 5), int)),
    ):
        with pytest.raises(TypeError, match=r"logits are on the gpu, the target is not; .*to_device\(target, 'gpu'\)"):
            loss(x, target)


def test_backend_on_the_device(cp):
    x = rand(2, 3)
    assert backend.parse_device("auto") == backend.parse_device("cuda") == backend.parse_device("gpu") == "gpu"
    y = backend.to_device(x, "gpu")
    assert backend.xp_of(y) is cp and backend.device_of(y) == "gpu" and backend.device_of(x) == "cpu"
    assert backend.to_device(y, "gpu") is y
    np.testing.assert_array_equal(backend.to_device(y, "cpu"), x)
    np.testing.assert_array_equal(backend.to_numpy(y), x)
    assert backend.to_numpy(x) is x
    assert backend.device_name("gpu").startswith("gpu: ")


# ----- networks --------------------------------------------------------------------
@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.parametrize("head", ["direct", "paper"])
def test_networks_train_on_the_device_as_on_the_cpu(name, head, cp):
    x, t = rand(2, 1, 8, 12).astype(np.float32), rand(2, 1, 8, 12, seed=1) > 0
    results = {}
    for device in ("cpu", "gpu"):
        model = models.build(name, width=4, levels=3, groups=2, head=head).to(device)
        optimizer = optim.Adam(model.parameters(), lr=1e-3)
        losses = []
        for _ in range(3):
            logits = model(backend.to_device(x, device))
            loss = ops.dice_bce_with_logits(logits, backend.to_device(t, device))
            optimizer.zero_grad()
            loss.backward()
            optim.clip_grad_norm(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
        assert all(type(p.data) is type(p.grad) is type(logits.data) for p in model.parameters())
        model.eval()
        with no_grad():
            y = ops.sigmoid(model(backend.to_device(x, device))).data
        state = model.state_dict() | {f"adam.{k}": a for k, a in optimizer.state_dict().items()}
        assert all(type(a) is np.ndarray for a in state.values())
        results[device] = losses, backend.to_numpy(y), state
    for a, b in zip(*(results[d][:2] for d in ("cpu", "gpu")), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert results["cpu"][2].keys() == results["gpu"][2].keys()


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam, optim.AdamW])
def test_optimizers_on_the_device(make, cp):
    steps = {}
    for device in ("cpu", "gpu"):
        layer = tinyseg.nn.PointwiseConv2d(3, 2).to(device)
        optimizer = make(layer.parameters(), lr=0.1, weight_decay=0.01)
        for _ in range(2):
            optimizer.zero_grad()
            (layer(backend.to_device(rand(1, 3, 4, 5).astype(np.float32), device)) ** 2).mean().backward()
            optimizer.step()
        other = make(layer.parameters(), lr=0.3)
        other.load_state_dict(optimizer.state_dict())
        steps[device] = backend.to_numpy(layer.weight.data)
    np.testing.assert_allclose(steps["cpu"], steps["gpu"], rtol=1e-5)


def test_models_move_between_devices_with_their_state(cp):
    model = models.build("unet_dw_bn", width=4, levels=2).to("gpu")
    other = models.build("unet_dw_bn", width=4, levels=2, seed=1).to("gpu")
    other.load_state_dict(model.state_dict())
    x = rand(1, 1, 4, 6).astype(np.float32)
    a = model.eval()(cp.asarray(x)).data
    b = other.eval()(cp.asarray(x)).data
    c = other.to("cpu")(x).data
    np.testing.assert_array_equal(cp.asnumpy(a), cp.asnumpy(b))
    np.testing.assert_allclose(cp.asnumpy(a), c, rtol=1e-4, atol=1e-5)
    assert all(type(p.data) is np.ndarray for p in other.parameters())


def test_prediction_takes_and_gives_numpy_arrays(cp):
    from tinyseg.prediction import predict

    model = models.build("sdunet", width=4, levels=2, groups=2)
    images = rand(3, 5, 7).astype(np.float32)
    expected = predict(model, images, batch_size=2)
    found = predict(model.to("gpu"), images, batch_size=2)
    assert type(found) is np.ndarray
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
