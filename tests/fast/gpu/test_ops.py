"""All namesakes for the GPU: chosen, called as the maths is, right in every public op, twice the same."""

import inspect
import pathlib
import re

import numpy as np
import pytest
from arrays import rand, value_and_grads
from catalogue import ENTRIES
from stand_in import both, chosen

import tinyseg
from tinyseg import backend, models, no_grad, ops, optim, using

PACKAGE = pathlib.Path(tinyseg.__file__).parent
OPS = {path.stem for path in (PACKAGE / "ops").glob("*.py")} - {"__init__"}
NAMESAKES = sorted(OPS & {path.stem for path in (PACKAGE / "fast" / "gpu").glob("*.py")})
namesakes = pytest.mark.parametrize("op", NAMESAKES)


def test_there_are_namesakes():
    assert len(NAMESAKES) >= 14


@namesakes
def test_a_namesake_is_chosen_for_float32(op, stand_in):
    maths, fast = both(op)
    single = stand_in.asarray(rand(2, 4, 5, 3).astype(np.float32))
    assert chosen(maths.__name__, *[single] * 4) is fast
    assert chosen(maths.__name__, *[single.astype(np.float64)] * 4) is maths
    with using(kernels="reference"):
        assert chosen(maths.__name__, *[single] * 4) is maths


@namesakes
def test_a_namesake_has_the_functions_of_the_maths(op):
    maths, fast = both(op)
    code = inspect.getsource(maths)
    called = set(re.findall(r"kernels\(__name__[^\n]*\)\.(\w+)\(", code) + re.findall(r"\bk\.(\w+)", code))
    there = [name for name in called if hasattr(fast, name)]  # the maths computes what a namesake leaves out
    assert there
    for name in there:
        ours, theirs = (inspect.signature(getattr(m, name)).parameters.values() for m in (fast, maths))
        assert [(p.kind, p.default) for p in ours] == [(p.kind, p.default) for p in theirs], name


@namesakes
def test_a_namesake_says_what_it_supports(op):
    _, fast = both(op)
    assert callable(fast.supports) and not hasattr(fast, "maths")  # the dispatcher takes the maths


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
