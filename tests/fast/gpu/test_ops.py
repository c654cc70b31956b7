"""What is asked of all CUDA siblings: chosen, called as the maths is, right through every public op, twice the same."""

import importlib
import inspect
import pathlib
import re

import numpy as np
import pytest
from arrays import rand, value_and_grads
from catalogue import ENTRIES

import tinyseg
from tinyseg import backend, models, no_grad, ops, optim, using

PACKAGE = pathlib.Path(tinyseg.__file__).parent
SIBLINGS = [p for p in sorted(PACKAGE.rglob("*_cuda.py")) if p.with_name(p.name.replace("_cuda", "")).exists()]
siblings = pytest.mark.parametrize("path", SIBLINGS, ids=lambda path: path.stem)


def module(path):
    """The sibling, and the maths file beside it."""
    name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    return importlib.import_module(name), importlib.import_module(name.removesuffix("_cuda"))


@siblings
def test_a_sibling_is_chosen_for_float32(path, stand_in):
    fast, maths = module(path)
    single = stand_in.asarray(rand(2, 4, 5, 3).astype(np.float32))
    assert backend.kernels(maths.__name__, *[single] * 4) is fast
    assert backend.kernels(maths.__name__, *[single.astype(np.float64)] * 4) is maths
    with using(kernels="reference"):
        assert backend.kernels(maths.__name__, *[single] * 4) is maths


@siblings
def test_a_sibling_has_the_functions_of_the_maths(path):
    fast, maths = module(path)
    code = inspect.getsource(maths)
    called = set(re.findall(r"kernels\(__name__[^\n]*\)\.(\w+)\(", code) + re.findall(r"\bk\.(\w+)", code))
    assert called
    for name in called:
        ours, theirs = (inspect.signature(getattr(m, name)).parameters.values() for m in (fast, maths))
        assert [(p.kind, p.default) for p in ours] == [(p.kind, p.default) for p in theirs], name


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry[0] for entry in ENTRIES])
def test_every_op(entry, stand_in):
    _, f, *arrays = entry
    with using(kernels="reference"):
        expected = value_and_grads(f, *arrays)
    given = [a.astype(np.float32) for a in arrays]
    on_device = [stand_in.asarray(a) for a in given]
    found, again = value_and_grads(f, *on_device), value_and_grads(f, *on_device)
    for a, b, c in zip(found, expected, again, strict=True):
        assert type(a) is stand_in.ndarray and a.dtype == np.float32 and a.shape == b.shape
        np.testing.assert_allclose(stand_in.asnumpy(a), b, rtol=1e-4, atol=2e-5)
        np.testing.assert_array_equal(stand_in.asnumpy(a), stand_in.asnumpy(c))
    for a, old in zip(on_device, given, strict=True):
        np.testing.assert_array_equal(stand_in.asnumpy(a), old)


ACTIVATED = {
    "group_norm": lambda x, w, b: ops.group_norm(x, 3, w, b, activation="relu"),
    "batch_norm": lambda x, w, b: ops.batch_norm(x, None, None, w, b, training=True, activation="relu"),
}


@pytest.mark.parametrize("op", ACTIVATED)
def test_norms_with_their_relu(op, stand_in):
    arrays = rand(2, 6, 5, 3), rand(6, seed=1), rand(6, seed=2)
    with using(kernels="reference"):
        expected = value_and_grads(ACTIVATED[op], *arrays)
    found = value_and_grads(ACTIVATED[op], *(stand_in.asarray(a.astype(np.float32)) for a in arrays))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(stand_in.asnumpy(a), b, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", ["sdunet", "unet_dw_bn"])
def test_networks_train_as_on_the_cpu(name, stand_in):
    x, t, results = rand(2, 1, 4, 6).astype(np.float32), rand(2, 1, 4, 6, seed=1) > 0, {}
    for device, path in (("cpu", "reference"), ("gpu", "fast")):
        model, losses = models.build(name, width=4, levels=2, groups=2, head="direct").to(device), []
        optimizer = optim.Adam(model.parameters(), lr=1e-3)
        with using(kernels=path):
            for _ in range(3):
                loss = ops.dice_bce_with_logits(model(backend.to_device(x, device)), backend.to_device(t, device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            with no_grad():
                y = ops.sigmoid(model.eval()(backend.to_device(x, device))).data
        results[device] = losses, backend.to_numpy(y)
    for a, b in zip(*results.values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
