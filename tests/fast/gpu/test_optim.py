"""Adam on the GPU, all parameters in one launch, against the equations in NumPy."""

import numpy as np
import pytest
from arrays import EPS32, rand
from stand_in import chosen, layouts, planes, strided

from tinyseg import nn, optim, using
from tinyseg.fast.gpu import optim as optim_gpu

SHAPES = [(1,), (0, 3), (7, 5), (3, 2, 1, 9), (1024,), (1025,), (0,), (3, 1031), (65, 4, 3, 3), (0, 2)]
OPTIMIZERS = [
    ("Adam", {"lr": 0.02}),
    ("Adam", {"lr": 1, "betas": (0, 0.95), "eps": 1e-3, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.02, "weight_decay": 0.1}),
]


def steps(name, options, shapes, put, steps=3):
    """Train a parameter of each shape, its gradients put where they are to lie; every third is left out at times."""
    parameters = [nn.Parameter(put(rand(*shape).astype(np.float32))) for shape in shapes]
    held = [p.data for p in parameters]
    optimizer = getattr(optim, name)(parameters, **options)
    for t in range(steps):
        for k, (p, shape) in enumerate(zip(parameters, shapes, strict=True)):
            g = rand(*shape, seed=t + 1).astype(np.float32) * np.float32(10.0 ** (-4 * t))
            p.grad = None if t == 1 and k % 3 == 2 else put(g)
        optimizer.step()
    assert all(p.data is a for p, a in zip(parameters, held, strict=True))  # in place
    return held + optimizer.state["m"] + optimizer.state["v"]


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS)
def test_the_steps_of_the_equations(name, options, stand_in):
    found = steps(name, options, SHAPES, lambda a: planes(stand_in, a))
    with using(kernels="reference"):
        expected = steps(name, options, SHAPES, np.asarray)
    for a, b in zip(found, expected, strict=True):
        assert type(a) is stand_in.ndarray and a.dtype == np.float32
        np.testing.assert_allclose(stand_in.asnumpy(a), b, rtol=32 * EPS32, atol=32 * EPS32 * options["lr"])


@layouts
def test_gradients_lie_as_they_like_and_are_left_as_they_are(layout, stand_in):
    w, g = rand(2, 5, 7, 3).astype(np.float32), rand(2, 5, 7, 3, seed=1).astype(np.float32)
    results = []
    for lay in (planes, layout):
        p = nn.Parameter(planes(stand_in, w))
        p.grad = lay(stand_in, g)
        optim.Adam([p]).step()
        np.testing.assert_array_equal(stand_in.asnumpy(p.grad), g)
        results.append(stand_in.asnumpy(p.data))
    np.testing.assert_array_equal(*results)
    assert (results[0] != w).all()


def test_one_launch_for_all_and_a_table_that_stays(stand_in, monkeypatch):
    launches = []
    monkeypatch.setattr(optim_gpu, "launch", lambda *args: launches.append(args))
    optim_gpu._table.cache_clear()
    parameters = [nn.Parameter(planes(stand_in, rand(*shape).astype(np.float32))) for shape in SHAPES]
    optimizer = optim.AdamW(parameters)
    for p in parameters:
        p.grad = planes(stand_in, rand(*p.shape, seed=1).astype(np.float32))
    optimizer.step()
    optimizer.step()
    parameters[3].grad = parameters[3].grad.copy()  # elsewhere in memory
    optimizer.step()
    assert len(launches) == 3
    assert launches[0][2] is launches[1][2] is not launches[2][2]
    blocks = sum(-(-p.size // 1024) for p in parameters)
    assert [args[1] for args in launches] == [blocks] * 3


def test_nan_is_seen(stand_in):
    g = np.ones(1500, np.float32)
    g[1203] = np.nan
    parameters = [nn.Parameter(planes(stand_in, np.zeros(1500, np.float32))) for _ in range(2)]
    parameters[0].grad, parameters[1].grad = planes(stand_in, g), planes(stand_in, np.ones(1500, np.float32))
    optim.Adam(parameters).step()
    assert np.argwhere(np.isnan(stand_in.asnumpy(parameters[0].data))).tolist() == [[1203]]
    assert np.isfinite(stand_in.asnumpy(parameters[1].data)).all()


def test_without_any_gradient_nothing_changes(stand_in):
    p = nn.Parameter(planes(stand_in, rand(5).astype(np.float32)))
    optim.Adam([p]).step()
    np.testing.assert_array_equal(stand_in.asnumpy(p.data), rand(5).astype(np.float32))


def test_what_is_taken(stand_in):
    w, name = planes(stand_in, rand(4, 3, 2).astype(np.float32)), "tinyseg.optim"
    odd, double = strided(stand_in, rand(4, 3, 2).astype(np.float32)), w.astype(np.float64)
    assert chosen(name, w, odd, w, w, w, odd, w, w) is optim_gpu
    for arrays in ((double,) * 4, (w, double, w, w), (odd, w, w, w), (w, w, w, w, w, w, odd, w)):
        assert chosen(name, *arrays) is optim


def test_parameters_of_both_precisions(stand_in):
    """Where not all are fit for one launch, each gets the kernels that it takes."""
    shapes, results = [(3, 2), (5,)], []
    for path in ("fast", "reference"):
        parameters = [
            nn.Parameter(planes(stand_in, rand(*shape).astype(dtype)))
            for shape, dtype in zip(shapes, (np.float32, np.float64), strict=True)
        ]
        for p in parameters:
            p.grad = planes(stand_in, rand(*p.shape, seed=1).astype(p.dtype))
        with using(kernels=path):
            optim.Adam(parameters).step()
        results.append([stand_in.asnumpy(p.data) for p in parameters])
    for a, b in zip(*results, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-6)
