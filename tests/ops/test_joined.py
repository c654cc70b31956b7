"""fused_conv2d and separable_conv2d against the plain ops and PyTorch, and their numba kernels against the maths."""

import numpy as np
import pytest
from arrays import equal, equals_torch, gradients_across, pixels, strided, value_and_grads
from joined_convs import (
    CASES,
    FUSED,
    SEPARABLE,
    activations,
    cases,
    compare,
    composed,
    fast,
    joined,
    maths,
    numbers,
    parts,
    passes,
    some,
)  # fmt: skip

from tinyseg import Tensor, backend, check_grads, ops, using

both = pytest.mark.parametrize("op", [FUSED, SEPARABLE], ids=lambda op: op.name)


# ----- the maths ---------------------------------------------------------------------------------
@both
@cases
@activations
def test_is_the_composition_of_the_plain_ops(op, case, activation):
    *arrays, _ = parts(op, case)
    with using(kernels="reference"):
        expected = value_and_grads(composed(op, case, activation), *arrays)
        equal(value_and_grads(joined(op, case, activation), *arrays), expected)


@both
@cases
@activations
def test_gradients(op, case, activation):
    *arrays, _ = parts(op, case)
    check_grads(joined(op, case, activation), *arrays)


@both
@cases
@activations
def test_equals_torch(op, case, activation):
    channels, *_, factor = case
    stride, ((top, bottom), (left, right)), _ = numbers(case)

    def theirs(torch, *arrays):
        n, F = len(arrays) - len(channels), torch.nn.functional
        X = F.interpolate(torch.cat(arrays[n:], dim=1), scale_factor=factor, mode="nearest")
        y = op.torch(F, F.pad(X, (left, right, top, bottom)), *arrays[:n], stride)
        return torch.relu(y) if activation else y

    equals_torch(joined(op, case, activation), theirs, *parts(op, case)[:-1])


@both
def test_one_input_needs_no_list_and_no_bias_is_a_bias_of_zero(op, kernels):
    for dtype in (np.float64, np.float32):
        *weights, _, x, _ = parts(op, ((3,), 4, 2, 5, 4, (2, 3), 1, "same", 1), dtype)
        y = op.call(x, *weights, np.zeros(4, dtype), padding="same").data
        tensors = map(Tensor, weights)
        for given in (op.call(x, *weights, padding="same"), op.call([x], *weights, None, padding="same"),
                      op.call((Tensor(x),), *tensors, padding="same")):  # fmt: skip
            np.testing.assert_array_equal(given.data, y)
    *weights, _, x, _ = parts(op, ((3,), 4, 2, 5, 4, (2, 3), 1, 0, 1))
    check_grads(lambda *arrays: op.call(*arrays, activation="relu"), x, *weights)


@both
@pytest.mark.parametrize(("dtype", "tol"), [(np.float64, 1e-11), (np.float32, 1e-5)])
def test_one_array_may_be_joined_with_itself(op, dtype, tol):
    *weights, b, x, _, _ = parts(op, ((3, 3), 2, 1, 5, 4, (3, 3), 1, 0, 1), dtype)
    expected = value_and_grads(lambda x, *weights: op.plain(ops.concat([x, x]), *weights, 1, 0), x, *weights, b)
    equal(value_and_grads(lambda x, *weights: op.call([x, x], *weights), x, *weights, b), expected, tol)


@both
@some
@activations
@pytest.mark.parametrize(("first", "second"), [("fast", "reference"), ("reference", "fast")])
def test_forward_and_backward_may_be_on_different_kernels(op, case, activation, first, second):
    """Whoever leaves a `using` block in between gets the same gradients."""
    f, arrays = joined(op, case, activation), parts(op, case, np.float32)[:-1]
    _, *expected = value_and_grads(f, *arrays)
    for gx, g in zip(gradients_across(f, arrays, first, second), expected, strict=True):
        np.testing.assert_allclose(gx, g, rtol=0, atol=1e-5 * abs(g).max())


# ----- the numba kernels in float32 ---------------------------------------------------------------
@pytest.fixture(params=["fused, direct", "fused, phases", "separable"])
def op(request, monkeypatch):
    """Each op with kernels; fused_conv2d upsamples in two ways: repeated pixels, or a convolution for each phase."""
    op = SEPARABLE if request.param == "separable" else FUSED
    kernels = fast(op)
    if op is FUSED:
        monkeypatch.setattr(kernels, "MIN_PIXELS", 0 if request.param == "fused, phases" else 1 << 60)
    return op


@cases
@activations
def test_numba_in_float32_is_within_the_rounding_of_its_sums(case, activation, op):
    with using(winograd=False):
        compare(op, case, activation == "relu")


@some
@pytest.mark.parametrize("layout", [strided, lambda a: np.asfortranarray(a), pixels], ids=["strided", "F", "pixels"])
def test_any_layout_gives_the_same(case, layout, op):
    found, expected = passes(op, fast(op), case, True, layout=layout), passes(op, fast(op), case, True)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@some
@activations
def test_inputs_come_back_unchanged(case, activation, op):
    given = []

    def keep(a):
        given.append((a, a.copy()))
        return a

    passes(op, fast(op), case, activation == "relu", layout=keep)
    for a, old in given:
        np.testing.assert_array_equal(a, old)


@cases
def test_a_nan_pixel_reaches_every_window_that_sees_it(case, op):
    _, _, _, H, W, *_ = case
    arrays = parts(op, case, np.float32)[:-1]
    arrays[-1][-1, -1, H // 2, W // 2] = np.nan
    for activation in (None, "relu"):
        f = joined(op, case, activation)
        with using(kernels="reference"):
            expected = np.isnan(f(*arrays).data)
        assert expected.any()
        with using(winograd=False):
            np.testing.assert_array_equal(np.isnan(f(*arrays).data), expected)
        assert np.isnan(f(*arrays).data)[expected].all()


def test_three_inputs_take_the_maths(op):
    case = (2, 16, 3), 5, 2, 6, 5, (3, 3), 1, "same", 2
    *arrays, _ = parts(op, case, np.float32)
    assert not fast(op).supports(*arrays) and fast(op).supports(*arrays[:-1])
    assert backend.kernels(maths(op).__name__, *arrays) is maths(op)
    found = value_and_grads(joined(op, case, "relu"), *arrays)
    if op is FUSED:
        with using(kernels="reference"):
            expected = value_and_grads(joined(op, case, "relu"), *arrays)
    else:  # of the same fast depthwise and pointwise kernels
        expected = value_and_grads(composed(op, case, "relu"), *arrays)
    for k, (a, b) in enumerate(zip(found, expected, strict=True)):
        of_bias = op is SEPARABLE and k == 3  # sums gy in another order
        np.testing.assert_allclose(a, b, rtol=1e-5 if of_bias else 0)


def test_supports_float32_only(op):
    *arrays, _ = parts(op, CASES[0], np.float32)
    assert fast(op).supports(*arrays)
    for k in range(len(arrays)):
        assert not fast(op).supports(*(a.astype(np.float64) if i == k else a for i, a in enumerate(arrays)))
