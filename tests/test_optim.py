import math

import numpy as np
import pytest

from tinyseg import Tensor, nn, optim

CASES = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05}),
    ("SGD", {"lr": 0.05, "momentum": 0.8, "nesterov": True}),
    ("Adam", {"lr": 0.02}),
    ("Adam", {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.02, "weight_decay": 0.1}),
]


def parameters(seed=0):
    rng = np.random.default_rng(seed)
    return [nn.Parameter(rng.standard_normal(shape)) for shape in [(3, 4), (5,)]]


def gradients(step, late=None):
    """With `late` the second parameter has its first gradient in that step, and none in every fifth step after it."""
    rng = np.random.default_rng(100 + step)
    first, second = rng.standard_normal((3, 4)), rng.standard_normal(5)
    return [first, second if late is None or (step >= late and step % 5) else None]


def run(optimizer, steps, start=0, late=None):
    for t in range(start, start + steps):
        for p, g in zip(optimizer.parameters, gradients(t, late), strict=True):
            p.grad = g
        optimizer.step()


def run_beside_pytorchs(name, options, steps, late=None):
    """Step ours and PyTorch's; return ours, whose parameters are those of PyTorch."""
    torch = pytest.importorskip("torch")
    ours = getattr(optim, name)(parameters(), **options)
    theirs = [torch.nn.Parameter(torch.from_numpy(p.data.copy())) for p in parameters()]
    twin = getattr(torch.optim, name)(theirs, **options)
    run(ours, steps, late=late)
    for t in range(steps):
        for p, g in zip(theirs, gradients(t, late), strict=True):
            p.grad = None if g is None else torch.from_numpy(g)
        twin.step()
    for p, q in zip(ours.parameters, theirs, strict=True):
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-12)
    return ours


@pytest.mark.parametrize("name, options", CASES)
def test_ten_steps_equal_pytorchs(name, options):
    run_beside_pytorchs(name, options, 10)


def test_adams_first_step_is_the_learning_rate_times_the_sign():
    adam = optim.Adam(parameters(), lr=0.01)
    before = [p.data.copy() for p in adam.parameters]
    run(adam, 1)
    for p, w, g in zip(adam.parameters, before, gradients(0), strict=True):
        np.testing.assert_allclose(p.data, w - 0.01 * np.sign(g), atol=1e-8)


@pytest.mark.parametrize("name, options", CASES)
def test_saved_state_continues_to_the_same_bits(name, options):
    whole = getattr(optim, name)(parameters(), **options)
    run(whole, 7)
    first = getattr(optim, name)(parameters(), **options)
    run(first, 3)
    second = getattr(optim, name)(first.parameters, **options | {"lr": 1.0})
    second.load_state_dict(first.state_dict())
    run(second, 4, start=3)
    for p, q in zip(whole.parameters, second.parameters, strict=True):
        np.testing.assert_array_equal(p.data, q.data)


@pytest.mark.parametrize("name, options", CASES)
def test_a_parameter_that_gets_its_first_gradient_late_is_stepped_as_by_pytorch(name, options):
    ours = run_beside_pytorchs(name, options, 30, late=21)
    assert ours.counts == [30, 8] and ours.steps == 30


@pytest.mark.parametrize("name, options", CASES)
def test_a_saved_state_keeps_the_steps_of_each_parameter(name, options):
    whole, first = (getattr(optim, name)(parameters(), **options) for _ in range(2))
    run(whole, 12, late=4)
    run(first, 7, late=4)
    second = getattr(optim, name)(first.parameters, **options)
    second.load_state_dict(first.state_dict())
    assert second.counts == [7, 2]
    run(second, 5, start=7, late=4)
    for p, q in zip(whole.parameters, second.parameters, strict=True):
        np.testing.assert_array_equal(p.data, q.data)


def test_a_schedule_refuses_the_state_of_another():
    plateau = optim.ReduceLROnPlateau(optim.SGD(parameters()))
    with pytest.raises(ValueError, match="ReduceLROnPlateau needs .*best.* saved by another schedule"):
        plateau.load_state_dict(optim.StepLR(optim.SGD(parameters()), 3).state_dict())


def test_state_of_another_optimizer_is_refused():
    with pytest.raises(ValueError, match="does not fit SGD with 2 parameters"):
        optim.SGD(parameters()).load_state_dict(optim.Adam(parameters()).state_dict())


def test_parameters_without_gradient_stay():
    sgd = optim.SGD(parameters(), lr=1.0, weight_decay=0.5)
    sgd.step()
    np.testing.assert_array_equal(sgd.parameters[0].data, parameters()[0].data)


@pytest.mark.parametrize("max_norm", [0.5, 100.0, math.inf])
def test_clipping_scales_all_gradients_together(max_norm):
    ps = parameters()
    for p, g in zip(ps, gradients(0), strict=True):
        p.grad = g.copy()
    norm = math.sqrt(sum((g**2).sum() for g in gradients(0)))
    assert optim.clip_grad_norm(ps, max_norm) == pytest.approx(norm)
    for p, g in zip(ps, gradients(0), strict=True):
        np.testing.assert_allclose(p.grad, g * min(1, max_norm / norm))


def test_a_gradient_that_is_not_finite_is_reported_not_scaled():
    ps = parameters()
    ps[0].grad = np.full((3, 4), np.inf)
    assert optim.clip_grad_norm(ps, 1.0) == math.inf
    assert np.isinf(ps[0].grad).all()


@pytest.mark.parametrize("arguments", [{"lr": -1}, {"weight_decay": -1}])
def test_negative_numbers_are_refused(arguments):
    with pytest.raises(ValueError, match=r"must be a number in the interval \[0, inf\), but is -1"):
        optim.Adam(parameters(), **arguments)


def test_no_parameters_are_refused():
    with pytest.raises(ValueError, match="got no parameters"):
        optim.Adam([])


def test_the_norm_of_huge_float32_gradients_does_not_overflow():
    p = nn.Parameter(np.zeros(3, np.float32))
    p.grad = np.full(3, 1e25, np.float32)
    with np.errstate(over="ignore"):
        assert optim.grad_norm([p]) == pytest.approx(1e25 * math.sqrt(3))


# ----- schedules -------------------------------------------------------------------
def rates(schedule, steps):
    values = []
    for _ in range(steps):
        values.append(schedule.optimizer.lr)
        schedule.step()
    return values


def test_step_and_cosine_equal_pytorchs():
    torch = pytest.importorskip("torch")
    for name, options in [
        ("StepLR", {"step_size": 3, "gamma": 0.5}),
        ("CosineAnnealingLR", {"T_max": 12, "eta_min": 0.01}),
    ]:
        ours = rates(getattr(optim, name)(optim.SGD(parameters(), lr=0.3), **options), 12)
        twin_optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
        twin = getattr(torch.optim.lr_scheduler, name)(twin_optimizer, **options)
        for value in ours:
            assert value == pytest.approx(twin_optimizer.param_groups[0]["lr"], rel=1e-9)
            twin_optimizer.step()
            twin.step()


def test_cosine_rises_then_falls_to_its_floor_and_stays():
    values = rates(optim.CosineAnnealingLR(optim.SGD(parameters(), lr=1.0), T_max=20, eta_min=0.1, warmup=4), 30)
    np.testing.assert_allclose(values[:5], [0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(a >= b for a, b in zip(values[4:], values[5:], strict=False))
    np.testing.assert_allclose(values[20:], 0.1)


def test_constant_with_warmup():
    np.testing.assert_allclose(rates(optim.WarmupLR(optim.SGD(parameters(), lr=1.0), warmup=1), 3), [0.5, 1, 1])


@pytest.mark.parametrize("mode, sign", [("min", 1), ("max", -1)])
def test_plateau_waits_for_its_patience(mode, sign):
    plateau = optim.ReduceLROnPlateau(optim.SGD(parameters(), lr=1.0), mode, factor=0.5, patience=1, min_lr=0.2)
    seen = []
    for figure in [3, 2, 2, 2, math.nan, 2, 1, 1, 1, 1, 1]:
        plateau.step(sign * figure)
        seen.append(plateau.optimizer.lr)
    np.testing.assert_allclose(seen, [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2, 0.2, 0.2])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("t", 10**400),
        ("t", -1),
        ("t", "1"),
        ("t", 1.5),
        ("base_lr", float("nan")),
        ("base_lr", 1e308),
        ("base_lr", [0.1]),
    ],
)
def test_a_schedule_refuses_a_state_of_impossible_numbers(name, value):
    schedule = optim.CosineAnnealingLR(optim.SGD(parameters()), T_max=10)
    with pytest.raises(ValueError, match=f"{name} in the saved state of CosineAnnealingLR must be"):
        schedule.load_state_dict(schedule.state_dict() | {name: value})


def test_schedules_continue_from_their_state():
    def make():
        return optim.CosineAnnealingLR(optim.SGD(parameters(), lr=1.0), T_max=10, warmup=2)

    whole, first, second = make(), make(), make()
    expected = rates(whole, 9)[5:]
    rates(first, 5)
    second.load_state_dict(first.state_dict())
    assert rates(second, 4) == expected


def test_what_is_no_list_of_parameters_is_refused_with_a_sentence():
    p = nn.Parameter(np.ones(3, np.float32))
    cases = {"a Parameter": p, "a tuple": [("name", p)], "a dict": [{"params": [p]}], "a ndarray": [np.ones(3)]}
    for found, given in cases.items():
        with pytest.raises(TypeError, match=f"takes a list of parameters, such as .*, but found {found}"):
            optim.SGD(given)
    for given in (Tensor(np.ones(3)), p * 2.0):
        with pytest.raises(ValueError, match="cannot change a tensor that backward"):
            optim.SGD([given])
    with pytest.raises(ValueError, match="twice in the list"):
        optim.SGD([p, p])
