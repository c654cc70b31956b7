"""Each op's backward pass, broken on purpose: the checks of this suite must see red.

A gradient check that cannot fail proves nothing. Every entry below replaces one function of an op with a
plausible mistake (a forgotten term, a wrong count, a shifted slice …); `check_grads`, which passes on the op as
it is, must then raise.
"""

import importlib

import numpy as np
import pytest
from arrays import EPS32, cotangent, rand, spaced
from scipy.signal import correlate2d

from tinyseg import Tensor, check_grads, ops, using
from tinyseg.ops.joined import join
from tinyseg.ops.window import crop2d, pad2d, taps

BREAKS = []


def breaks(where, f, *arrays):
    """Register a wrong version of ``where`` ("module.function" or "module.Class.method"), seen through `f`."""

    def register(wrong):
        BREAKS.append(pytest.param(where, wrong, f, arrays, id=f"{where}-{wrong.__name__}"))
        return wrong

    return register


X = rand(2, 4, 5, 3)
MASK = np.random.default_rng(0).random(X.shape) < 0.4
CLASSES = np.random.default_rng(0).integers(0, 4, (2, 5, 3))


# ----- convolutions ------------------------------------------------------------
def depthwise(x, w):
    return ops.depthwise_conv2d(x, w, stride=(1, 2), padding=((1, 0), (0, 2)))


DEPTHWISE = depthwise, X, rand(4, 3, 2)


@breaks("depthwise_conv.grad_x", *DEPTHWISE)
def flipped_kernel(gy, w, *args):
    return right["depthwise_conv.grad_x"](gy, w[:, ::-1, ::-1], *args)


@breaks("depthwise_conv.grad_x", *DEPTHWISE)
def pads_of_the_other_side(gy, w, x_shape, stride, pads, dilation):
    return right["depthwise_conv.grad_x"](gy, w, x_shape, stride, tuple(p[::-1] for p in pads), dilation)


@breaks("depthwise_conv.grad_w", *DEPTHWISE)
def taps_one_column_off(x, *args):
    return right["depthwise_conv.grad_w"](np.roll(x, 1, axis=3), *args)


@breaks("depthwise_conv.grad_w", *DEPTHWISE)
def first_image_only(x, gy, *args):
    return right["depthwise_conv.grad_w"](x[:1], gy[:1], *args)


def dilated(x, w):
    return ops.depthwise_conv2d(x, w, stride=(1, 2), padding=((1, 2), (0, 2)), dilation=(2, 1))


DILATED = dilated, X, rand(4, 3, 2)


@breaks("depthwise_conv.grad_x", *DILATED)
def taps_side_by_side(gy, w, x_shape, stride, pads, dilation):
    return right["depthwise_conv.grad_x"](gy, w, x_shape, stride, pads)


@breaks("depthwise_conv.grad_x", *DILATED)
def rows_and_columns_exchanged(gy, w, x_shape, stride, pads, dilation):
    return right["depthwise_conv.grad_x"](gy, w, x_shape, stride, pads, dilation[::-1])


@breaks("depthwise_conv.grad_w", *DILATED)
def border_of_the_other_side(x, gy, w_shape, stride, pads, dilation):
    return right["depthwise_conv.grad_w"](x, gy, w_shape, stride, tuple(p[::-1] for p in pads), dilation)


CONV = lambda x, w, b: ops.conv2d(x, w, b, (2, 1), "same"), X, rand(3, 4, 2, 3), rand(3)  # noqa: E731


@breaks("conv2d.grad_x", *CONV)
def kernel_not_transposed_in_space(gy, w, x_shape, stride, pads):
    return right["conv2d.grad_x"](gy, w[:, :, ::-1, ::-1], x_shape, stride, pads)


@breaks("conv2d.grad_x", *CONV)
def the_last_tap_overwrites(gy, w, x_shape, stride, pads):
    gX = pad2d(np.zeros(x_shape), pads)
    for u, v, view in taps(gX, w.shape[2:], gy.shape[2:], stride):
        view[...] = np.einsum("kc,nkij->ncij", w[:, :, u, v], gy)  # = for +=
    return crop2d(gX, pads)


@breaks("conv2d.grad_w", *CONV)
def mean_over_the_batch(x, gy, w_shape, stride, pads):
    return right["conv2d.grad_w"](x, gy, w_shape, stride, pads) / len(x)


@breaks("conv2d.grad_bias", *CONV)
def bias_averaged(gy, *needed, dtype=None):
    return tuple(gy.mean(axis=(0, 2, 3)) for _ in needed)


TRANSPOSED = lambda x, w: ops.conv_transpose2d(x, w, None, 2, 1), X, rand(4, 2, 3, 4)  # noqa: E731


@breaks("conv2d.forward", *TRANSPOSED)
def flipped_stamp(x, w, stride, pads, out):
    return right["conv2d.forward"](x, w[:, :, ::-1], stride, pads, out)


@breaks("conv2d.grad_w", *TRANSPOSED)
def channels_exchanged(x, gy, w_shape, stride, pads):
    return right["conv2d.grad_w"](x, gy[:, ::-1], w_shape, stride, pads)


POINTWISE = ops.pointwise_conv2d, X, rand(4, 4), rand(4)


@breaks("pointwise_conv.grad_x", *POINTWISE)
def not_transposed(gy, w):
    return right["pointwise_conv.forward"](gy, w)


@breaks("pointwise_conv.grad_w", *POINTWISE)
def transposed(x, gy):
    return right["pointwise_conv.grad_w"](x, gy).T


# ----- convolutions with what stands around them -------------------------------
HALVES = X, rand(2, 4, 5, 3, seed=1)


def fused(x, x2, w, b):
    return ops.fused_conv2d([x, x2], w, b, (2, 1), "same", 2, "relu")


def separable(x, x2, wd, wp, b):
    return ops.separable_conv2d([x, x2], wd, wp, b, 1, "same", 2, "relu")


FUSED = fused, *HALVES, rand(3, 8, 2, 3), rand(3)
SEPARABLE = separable, *HALVES, rand(8, 2, 3), rand(6, 8), rand(6)


@breaks("fused_conv.relu_grad", *FUSED)
@breaks("separable_conv.relu_grad", *SEPARABLE)
def mask_forgotten(gy, y):
    return gy


@breaks("fused_conv.relu_grad", *FUSED)
@breaks("separable_conv.relu_grad", *SEPARABLE)
def mask_where_it_is_off(gy, y):
    return gy * (y <= 0)


@breaks("fused_conv.split", *FUSED)
@breaks("separable_conv.split", *SEPARABLE)
def halves_exchanged(gX, xs, factor):
    return right["fused_conv.split"](gX, xs, factor)[::-1]


@breaks("fused_conv.split", *FUSED)
@breaks("separable_conv.split", *SEPARABLE)
def one_pixel_of_each_block(gX, xs, factor):
    return tuple(np.split(gX[:, :, ::factor, ::factor], [4], axis=1))


@breaks("fused_conv.split", *FUSED)
@breaks("separable_conv.split", *SEPARABLE)
def mean_of_each_block(gX, xs, factor):
    return tuple(g / factor**2 for g in right["fused_conv.split"](gX, xs, factor))


@breaks("fused_conv.backward", *FUSED)
def without_the_biass_gradient(*args):
    gw, gb, gxs = right["fused_conv.backward"](*args)
    return gw, 0 * gb, gxs


@breaks("fused_conv.backward", *FUSED)
def first_input_for_both(gy, xs, *args):
    return right["fused_conv.backward"](gy, (xs[0], xs[0]), *args)


@breaks("fused_conv.grad_w", *FUSED)
def joined_in_the_other_order(x, *args):
    return right["fused_conv.grad_w"](np.roll(x, 4, axis=1), *args)


@breaks("fused_conv.backward", *FUSED)
def bias_and_weights_unmasked(gy, xs, w, y, needs_x, *args):
    _, _, gxs = right["fused_conv.backward"](gy, xs, w, y, needs_x, *args)
    return *right["fused_conv.backward"](gy, xs, w, y, needs_x, *args[:-1], False)[:2], gxs


@breaks("separable_conv.backward", *SEPARABLE)
def bias_summed_over_one_image(gy, *args):
    gwd, gwp, gb, gxs = right["separable_conv.backward"](gy, *args)
    return gwd, gwp, gb / len(gy), gxs


@breaks("separable_conv.backward", *SEPARABLE)
def pointwise_gradient_from_before_the_depthwise_half(gy, xs, wd, wp, y, stride, pads, factor, relu):
    gwd, _, gb, gxs = right["separable_conv.backward"](gy, xs, wd, wp, y, stride, pads, factor, relu)
    return gwd, right["pointwise_conv.grad_w"](join(xs, factor), gy * (y > 0)), gb, gxs


@breaks("separable_conv.backward", *SEPARABLE)
def depthwise_half_unmasked(*args):
    _, gwp, gb, _ = right["separable_conv.backward"](*args)
    gwd, _, _, gxs = right["separable_conv.backward"](*args[:-1], False)
    return gwd, gwp, gb, gxs


@breaks("depthwise_conv.grad_x", *SEPARABLE)
def taps_not_turned_round(gd, wd, *args):
    return right["depthwise_conv.grad_x"](gd, wd[:, ::-1, ::-1], *args)


@breaks("depthwise_conv.grad_w", *SEPARABLE)
def taps_turned_round(X, gd, *args):
    return right["depthwise_conv.grad_w"](X, gd, *args)[:, ::-1, ::-1]


# ----- norms -------------------------------------------------------------------
BATCH = lambda x, w, b: ops.batch_norm(x, None, None, w, b, training=True), X, rand(4), rand(4, seed=1)  # noqa: E731
LAYER = lambda v: ops.weight_standardization(v, "layer", True), rand(4, 3, 2)  # noqa: E731
FILTER = lambda v: ops.weight_standardization(v, "filter", True), rand(4, 3, 2)  # noqa: E731
GROUP = lambda x, w, b: ops.group_norm(x, 2, w, b), X, rand(4), rand(4, seed=1)  # noqa: E731


def batch_norm_backward(gy, x, gamma, mean, rstd, *, centre, scale):
    xhat = (x - mean) * rstd
    g = gamma[:, None, None]
    gx = gy - centre * gy.mean(axis=(0, 2, 3), keepdims=True)
    gx = gx - scale * xhat * (gy * xhat).mean(axis=(0, 2, 3), keepdims=True)
    return gx * rstd * g, (gy * xhat).sum(axis=(0, 2, 3)), gy.sum(axis=(0, 2, 3))


@breaks("batch_norm.backward", *BATCH)
def without_the_mean_term(gy, x, gamma, mean, rstd, training):
    return batch_norm_backward(gy, x, gamma, mean, rstd, centre=0, scale=1)


@breaks("batch_norm.backward", *BATCH)
def without_the_xhat_term(gy, x, gamma, mean, rstd, training):
    return batch_norm_backward(gy, x, gamma, mean, rstd, centre=1, scale=0)


@breaks("batch_norm.backward", *BATCH)
def as_in_evaluation(gy, x, gamma, mean, rstd, training):
    return right["batch_norm.backward"](gy, x, gamma, mean, rstd, False)


@breaks("batch_norm.backward", lambda x: ops.batch_norm(x, rand(4), abs(rand(4)) + 1), X)
def as_in_training(gy, x, gamma, mean, rstd, training):
    return right["batch_norm.backward"](gy, x, gamma, mean, rstd, True)


@breaks("batch_norm.backward", *BATCH)
def gammas_gradient_without_xhat(gy, x, gamma, mean, rstd, training):
    gx, _, gbeta = right["batch_norm.backward"](gy, x, gamma, mean, rstd, training)
    return gx, gbeta, gbeta


def group_norm_backward(gy, x, gamma, mean, rstd, *, centre, scale):
    shape = (*mean.shape[:2], -1)
    xhat = (x.reshape(shape) - mean) * rstd
    g = (gy * gamma[:, None, None]).reshape(shape)
    gx = g - centre * g.mean(axis=2, keepdims=True) - scale * xhat * (g * xhat).mean(axis=2, keepdims=True)
    xhat = xhat.reshape(x.shape)
    return (gx * rstd).reshape(x.shape), (gy * xhat).sum(axis=(0, 2, 3)), gy.sum(axis=(0, 2, 3))


@breaks("group_norm.backward", *GROUP)
def without_the_group_mean(gy, x, gamma, mean, rstd):
    return group_norm_backward(gy, x, gamma, mean, rstd, centre=0, scale=1)


@breaks("group_norm.backward", *GROUP)
def without_xhat_times_its_mean(gy, x, gamma, mean, rstd):
    return group_norm_backward(gy, x, gamma, mean, rstd, centre=1, scale=0)


@breaks("group_norm.backward", *GROUP)
def gamma_applied_after_the_means(gy, x, gamma, mean, rstd):
    gx, ggamma, gbeta = group_norm_backward(gy, x, np.ones(4), mean, rstd, centre=1, scale=1)
    return gx * gamma[:, None, None], ggamma, gbeta


@breaks("weight_standardization.grad_v", *LAYER)
@breaks("weight_standardization.grad_v", *FILTER)
def without_the_deviation(gw, w, std, axes, eps, a):
    return a * (gw - gw.mean(axis=axes, keepdims=True)) / (std + eps)


@breaks("weight_standardization.grad_v", *FILTER)
def without_the_mean(gw, w, std, axes, eps, a):
    return right["weight_standardization.grad_v"](gw, w, std, axes, eps, a) + gw.mean(axes, keepdims=True)


@breaks("weight_standardization.grad_v", *FILTER)
def gain_forgotten(gw, w, std, axes, eps, a):
    return right["weight_standardization.grad_v"](gw, w, std, axes, eps, 1.0)


# ----- pools and upsampling ------------------------------------------------------
MAX = lambda x: ops.max_pool2d(x, (3, 2), 1, (1, 0)), spaced(2, 4, 5, 3)  # noqa: E731
AVERAGE = lambda x: ops.avg_pool2d(x, (3, 2), (2, 1), (1, 0)), X  # noqa: E731


@breaks("pool.max_grad_x", *MAX)
def everybody_wins(gy, winner, x_shape, kernel, stride, pads):
    gX = pad2d(np.zeros(x_shape), pads)
    for _, _, view in taps(gX, kernel, gy.shape[2:], stride):
        view += gy
    return crop2d(gX, pads)


@breaks("pool.max_grad_x", *MAX)
def a_tap_too_far(gy, winner, x_shape, kernel, stride, pads):
    return right["pool.max_grad_x"](gy, (winner + 1) % 6, x_shape, kernel, stride, pads)


@breaks("pool.avg_grad_x", *AVERAGE)
def not_divided(gy, x_shape, kernel, stride, pads):
    return right["pool.avg_grad_x"](gy, x_shape, kernel, stride, pads) * 6


@breaks("pool.avg_grad_x", *AVERAGE)
def a_row_too_far(gy, x_shape, kernel, stride, pads):
    return np.roll(right["pool.avg_grad_x"](gy, x_shape, kernel, stride, pads), 1, axis=2)


@breaks("upsample.nearest_grad_x", lambda x: ops.upsample(x, (2, 3)), X)
def one_pixel_of_the_block(gy, factor):
    return gy[:, :, :: factor[0], :: factor[1]].copy()


@breaks("upsample.bilinear_grad_x", lambda x: ops.upsample(x, (2, 3), "bilinear"), X)
def as_for_nearest(gy, factor):
    return right["upsample.nearest_grad_x"](gy, factor)


# ----- activations and dropout ---------------------------------------------------
@breaks("activation.relu_grad", ops.relu, spaced(2, 4, 5, 3))
def gradient_of_the_identity(gy, y):
    return gy


@breaks("activation.sigmoid_grad", ops.sigmoid, X)
def without_the_cotangent(gy, y):
    return y * (1 - y)


@breaks("activation.softmax_grad", ops.softmax, X)
def diagonal_only(gy, y, axis):
    return gy * y * (1 - y)


@breaks("activation.log_softmax_grad", ops.log_softmax, X)
def without_the_sum(gy, y, axis):
    return gy - np.exp(y)


@breaks("dropout.Dropout.backward", lambda x: ops.dropout(x, 0.3, seed=1), X)
def without_the_mask(self, gy):
    return gy / (1 - self.p)


@breaks("dropout.Dropout.backward", lambda x: ops.dropout2d(x, 0.3, seed=1), X)
def without_the_scale(self, gy):
    return gy * (self.saved > 0)


# ----- moving data ---------------------------------------------------------------
@breaks("shape.Concat.backward", lambda *xs: ops.concat(xs), rand(2, 3, 4, 1), rand(2, 3, 4, 1, seed=1))
def slices_in_the_wrong_order(self, gy):
    return tuple(reversed(np.split(gy, self.saved, axis=self.axis)))


@breaks("shape.Pad.backward", lambda x: ops.pad(x, ((1, 2), (2, 1))), X)
def cropped_from_the_other_side(self, gy):
    return crop2d(gy, tuple(p[::-1] for p in self.pads))


@breaks("shape.Crop.backward", lambda x: ops.center_crop(x, (2, 2)), X)
def padded_on_the_other_side(self, gy):
    return pad2d(gy, tuple(p[::-1] for p in self.pads))


@breaks("shape.Reshape.backward", lambda x: ops.reshape(x, 6, 20), X)
def columns_first(self, gy):
    return gy.reshape(self.saved, order="F")


@breaks("shape.Transpose.backward", lambda x: ops.transpose(x, 1, 2, 0), rand(3, 3, 3))
def the_same_order_again(self, gy):
    return gy.transpose(self.axes)


# ----- arithmetic ----------------------------------------------------------------
@breaks("arithmetic.unbroadcast", ops.add, X, rand(4, 1, 3))
def mean_for_sum(g, shape):
    return right["arithmetic.unbroadcast"](g, shape) / (g.size / np.prod(shape))


@breaks("arithmetic.Subtract.backward", ops.subtract, X, X)
def sign_forgotten(self, gy):
    return gy, gy


@breaks("arithmetic.Multiply.backward", ops.multiply, X, X + 1)
def factors_exchanged(self, gy):
    a, b = self.saved
    return gy * a, gy * b


@breaks("arithmetic.Divide.backward", ops.divide, X, abs(X) + 1)
def numerator_forgotten(self, gy):
    b, _ = self.saved
    return gy / b, -gy / b**2


@breaks("arithmetic.Power.backward", lambda x: x**3, X)
def exponent_forgotten(self, gy):
    return gy * self.saved ** (self.exponent - 1)


@breaks("arithmetic.Exp.backward", ops.exp, X)
def identity(self, gy):
    return gy


@breaks("arithmetic.Log.backward", ops.log, abs(X) + 1)
def times_for_over(self, gy):
    return gy * self.saved


@breaks("arithmetic.Sum.backward", lambda x: ops.sum(x, axis=1), rand(3, 3, 3))
def spread_along_another_axis(self, gy):
    return np.repeat(gy[None], 3, axis=0)


@breaks("arithmetic.Mean.backward", lambda x: ops.mean(x, axis=1), X)
def divided_by_everything(self, gy):
    return np.broadcast_to(gy.reshape(self.kept), self.input_shapes[0]) / np.prod(self.input_shapes[0])


# ----- losses --------------------------------------------------------------------
BCE = lambda z: ops.binary_cross_entropy_with_logits(z, MASK, pos_weight=3.0), X  # noqa: E731
CE = lambda z: ops.cross_entropy(z, CLASSES, [1.0, 0.5, 2.0, 3.0], ignore_index=1), X  # noqa: E731
DICE = lambda z: ops.soft_dice_loss(z, MASK), X  # noqa: E731


@breaks("loss.bce_grad", *BCE)
def pos_weight_forgotten(z, t, weight, pos_weight):
    return right["loss.bce_grad"](z, t, weight, 1.0)


@breaks("loss.BinaryCrossEntropy.backward", *BCE)
def sum_for_mean(self, gy):
    return right["loss.bce_grad"](self.saved, *self.args) * gy


@breaks("loss.ce_grad", *CE)
def ignored_pixels_not_ignored(z, t, weight):
    return right["loss.ce_grad"](z, np.maximum(t, 0), weight)


@breaks("loss.ce_grad", *CE)
def class_weights_forgotten(z, t, weight):
    return right["loss.ce_grad"](z, t, np.ones_like(weight))


@breaks("loss.dice_grad", *DICE)
def denominator_held_constant(gD, p, t, D, denominator):
    return 2 * gD * t / denominator


@breaks("loss.dice_grad", *DICE)
def numerator_held_constant(gD, p, t, D, denominator):
    return -gD * D / denominator + 0 * t


@breaks("cast.Cast.backward", lambda x: ops.cast(x, x.dtype), X)
def a_step_of_the_staircase(self, gy):
    return 0 * gy


# ----- the test ------------------------------------------------------------------
def find(where):
    """Return (holder, attribute name) of "module.function" or "module.Class.method"."""
    module, *path, name = where.split(".")
    holder = importlib.import_module(f"tinyseg.ops.{module}")
    for part in path:
        holder = getattr(holder, part)
    return holder, name


WHERE = [case.values[0] for case in BREAKS]
right = {where: getattr(*find(where)) for where in (*WHERE, "pointwise_conv.forward")}


@pytest.mark.parametrize(("where", "wrong", "f", "arrays"), BREAKS)
def test_a_broken_backward_is_seen(where, wrong, f, arrays, monkeypatch):
    with using(kernels="reference"):
        check_grads(f, *arrays)
        monkeypatch.setattr(*find(where), wrong)
        with pytest.raises(AssertionError, match="numeric .* backward"):
            check_grads(f, *arrays)


# ----- fast kernels, which take float32 only ---------------------------------------
def passes(f, arrays, dtype, size=np.asarray):
    """[y, gx_0, …] of one forward and backward pass, with `size` of all numbers."""
    xs = [Tensor(size(a.astype(np.float32)).astype(dtype), requires_grad=True) for a in arrays]
    y = f(*xs)
    y.backward(size(cotangent(y.data).astype(np.float32)).astype(dtype))
    return [y.data, *(x.grad for x in xs)]


def check_float32(f, *arrays):
    """Raise unless float32 is within the rounding of its sums, none of which has more terms than there are inputs."""
    found = passes(f, arrays, np.float32)
    with using(kernels="reference"):
        expected, sizes = passes(f, arrays, np.float64), passes(f, arrays, np.float64, abs)
    terms = sum(a.size for a in arrays)
    for k, (a, b, size) in enumerate(zip(found, expected, sizes, strict=True)):
        assert (abs(a - b) <= terms * EPS32 * size).all(), f"array {k} is beyond the rounding of its sums"


def joined_separable(x, x2, wd, wp, b):
    return ops.separable_conv2d([x, x2], wd, wp, b, 1, "same", 2)


def joined_fused(x, x2, w, b):
    return ops.fused_conv2d([x, x2], w, b, (2, 1), "same", 2)


FAST = {
    "depthwise_conv": (DEPTHWISE, [("forward", None), ("grad_x", None), ("grad_w", None)]),
    "depthwise_conv dilated": (DILATED, [("forward", None), ("grad_x", None), ("grad_w", None)]),
    "conv2d": (CONV, [("forward", None), ("grad_x", None), ("grad_w", None)]),
    "pointwise_conv": (POINTWISE, [("forward", None), ("grad_x", None), ("grad_w", None)]),
    "separable_conv": ((joined_separable, *SEPARABLE[1:]), [("forward", 0), *[("backward", k) for k in range(4)]]),
    "fused_conv": ((joined_fused, *FUSED[1:]), [("forward", None), *[("backward", k) for k in range(3)]]),
}


@pytest.mark.parametrize(
    ("op", "name", "part"), [(op, name, part) for op, (_, functions) in FAST.items() for name, part in functions]
)
def test_a_fast_kernel_that_is_a_thousandth_off_is_seen(op, name, part, monkeypatch):
    pytest.importorskip("numba")
    fast = pytest.importorskip(f"tinyseg.fast.cpu.{op.split()[0]}")
    correct, called = getattr(fast, name), []

    def wrong(*args):
        called.append(name)
        results = correct(*args)
        if part is None:
            return results * 1.001
        return tuple(scaled(r) if k == part else r for k, r in enumerate(results))

    def scaled(r):
        return tuple(1.001 * g for g in r) if isinstance(r, tuple) else 1.001 * r

    (f, *arrays), _ = FAST[op]
    check_float32(f, *arrays)
    monkeypatch.setattr(fast, name, wrong)
    with pytest.raises(AssertionError, match="beyond the rounding"):
        check_float32(f, *arrays)
    assert called


def test_every_op_is_broken_at_least_once():
    maths = {importlib.import_module(getattr(ops, name).__module__).__name__.split(".")[-1] for name in ops.__all__}
    assert maths - {where.split(".")[0] for where in WHERE} == {"conv_transpose"}  # conv2d's functions do its work


def test_a_mistake_made_forwards_and_backwards_is_for_the_oracles_to_see(monkeypatch):
    """A kernel read from the wrong end has a perfectly good gradient; only SciPy knows that it is wrong."""
    x, w = rand(1, 1, 5, 4), rand(1, 3, 2)

    def flipped(X, kernel, *args):
        for u, v, view in taps(X, kernel, *args):
            yield kernel[0] - 1 - u, kernel[1] - 1 - v, view

    monkeypatch.setattr("tinyseg.ops.depthwise_conv.taps", flipped)
    with using(kernels="reference"):
        check_grads(ops.depthwise_conv2d, x, w)
        y = ops.depthwise_conv2d(x, w).data[0, 0]
    assert abs(y - correlate2d(x[0, 0], w[0], "valid")).max() > 0.1
