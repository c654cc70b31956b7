"""The losses against their formulas written out with SciPy, and PyTorch."""

import numpy as np
import pytest
from arrays import equal, equals_torch, rand, value_and_grads
from scipy.special import expit, log_expit
from scipy.special import log_softmax as scipy_log_softmax
from scipy.special import softmax as scipy_softmax

from tinyseg import Tensor, check_grads
from tinyseg.ops import binary_cross_entropy_with_logits as bce
from tinyseg.ops import cross_entropy, dice_bce_with_logits, soft_dice_loss
from tinyseg.training.losses import dice_and_cross_entropy

SHAPE = N, C, H, W = 3, 4, 2, 5
Z = 2 * rand(*SHAPE)
rng = np.random.default_rng(1)
T = rng.random(SHAPE) < 0.4  # masks
SOFT = rng.random(SHAPE)  # probabilities
K = rng.integers(0, C, (N, H, W))  # class numbers
PER_CLASS = [1.0, 0.5, 2.0, 3.0]
PIXELS = rng.uniform(0.5, 2, (N, 1, H, W))


# ----- binary cross-entropy ----------------------------------------------------
def bce_formula(z, t, weight=1.0, pos_weight=1.0):
    """Elementwise, from log σ(z) and log(1 - σ(z)) = log σ(-z)."""
    weight, pos_weight = (np.reshape(w, (-1, 1, 1)) if np.ndim(w) == 1 else w for w in (weight, pos_weight))
    return -weight * (pos_weight * t * log_expit(z) + (1 - t) * log_expit(-z))


@pytest.mark.parametrize(
    "target", [T, T.astype(int), SOFT, T.astype(np.float32)], ids=["bool", "int", "soft", "float32"]
)
@pytest.mark.parametrize("weight", [None, 2.0, PER_CLASS, PIXELS], ids=["none", "number", "classes", "pixels"])
@pytest.mark.parametrize("pos_weight", [None, 3.0, PER_CLASS], ids=["none", "number", "classes"])
def test_bce(target, weight, pos_weight, kernels):
    loss = bce_formula(Z, target, 1.0 if weight is None else weight, 1.0 if pos_weight is None else pos_weight)
    assert bce(Z, target, weight, pos_weight=pos_weight).item() == pytest.approx(loss.mean(), rel=1e-12)
    assert bce(Z, target, weight, "sum", pos_weight).item() == pytest.approx(loss.sum(), rel=1e-12)
    check_grads(lambda z: bce(z, target, weight, pos_weight=pos_weight), Z)
    check_grads(lambda z: bce(z, target, weight, "sum", pos_weight), Z)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_bce_equals_torch(reduction, kernels):
    def theirs(torch, z):
        weight, pos_weight = torch.tensor(PIXELS), torch.tensor(PER_CLASS, dtype=torch.float64)[:, None, None]
        f = torch.nn.functional.binary_cross_entropy_with_logits
        return f(z, torch.tensor(SOFT), weight, reduction=reduction, pos_weight=pos_weight)

    equals_torch(lambda z: bce(z, SOFT, PIXELS, reduction, PER_CLASS), theirs, Z)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bce_at_extreme_logits(dtype, kernels):
    z = np.array([-1000, -1000, 1000, 1000, -1000, 1000], dtype)
    t = np.array([0, 1, 0, 1, 0.5, 0.5])
    values = [bce(z[k : k + 1], t[k : k + 1]).item() for k in range(6)]
    assert values == [0, 1000, 1000, 0, 500, 500]
    x = Tensor(z, requires_grad=True)
    bce(x, t, reduction="sum").backward()
    np.testing.assert_array_equal(x.grad, [0, -1, 1, 0, -0.5, 0.5])


def test_bce_of_any_shape(kernels):
    for shape in ((), (7,), (2, 3), (1, 2, 3, 4, 5)):
        z, t = np.asarray(rand(*shape)), np.asarray(np.ones(shape))
        assert bce(z, t).item() == pytest.approx(bce_formula(z, t).mean(), rel=1e-12)


# ----- cross-entropy -------------------------------------------------------------
def ce_formula(z, k, weight, ignore):
    """Loop over the pixels: weighted mean of -log softmax(z)[k]."""
    logp, total, count = scipy_log_softmax(z, 1), 0.0, 0.0
    for n, i, j in np.ndindex(k.shape):
        if k[n, i, j] != ignore:
            total -= weight[k[n, i, j]] * logp[n, k[n, i, j], i, j]
            count += weight[k[n, i, j]]
    return total / count


@pytest.mark.parametrize("weight", [None, PER_CLASS])
@pytest.mark.parametrize("ignore", [None, 1, 255, -100])
@pytest.mark.parametrize("dtype", [np.int64, np.int16])
def test_cross_entropy(weight, ignore, dtype, kernels):
    k = np.where(K == 1, ignore, K).astype(dtype) if ignore is not None else K.astype(dtype)
    expected = ce_formula(Z, k, [1.0] * C if weight is None else weight, ignore)
    assert cross_entropy(Z, k, weight, ignore).item() == pytest.approx(expected, rel=1e-12)
    check_grads(lambda z: cross_entropy(z, k, weight, ignore), Z)
    _, gz = value_and_grads(lambda z: cross_entropy(z, k, weight, ignore), Z)
    if ignore is not None:
        assert (gz.transpose(0, 2, 3, 1)[k == ignore] == 0).all()


@pytest.mark.parametrize("ignore", [-100, 2])
def test_cross_entropy_equals_torch(ignore, kernels):
    k = np.where(K == 0, ignore, K)

    def theirs(torch, z):
        weight = torch.tensor(PER_CLASS, dtype=torch.float64)
        return torch.nn.functional.cross_entropy(z, torch.tensor(k), weight, ignore_index=ignore)

    equals_torch(lambda z: cross_entropy(z, k, PER_CLASS, ignore), theirs, Z)


def test_cross_entropy_with_everything_ignored_is_zero(kernels):
    y, gz = value_and_grads(lambda z: cross_entropy(z, np.full_like(K, 9), PER_CLASS, ignore_index=9), Z)
    assert y == 0 and (gz == 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_at_extreme_logits(dtype, kernels):
    z = np.array([-1000, 1000, 0], dtype).reshape(1, 3, 1, 1)
    for k, expected in enumerate([2000, 0, 1000]):
        y, gz = value_and_grads(lambda z, k=k: cross_entropy(z, np.array([[[k]]])), z)
        assert y == expected and np.isfinite(gz).all()


def test_two_classes_are_one_logit(kernels):
    z = rand(2, 1, 3, 4)
    t = rng.integers(0, 2, (2, 3, 4))
    two = np.concatenate([0 * z, z], axis=1)
    assert cross_entropy(two, t).item() == pytest.approx(bce(z, t[:, None]).item(), rel=1e-12)


# ----- soft Dice -----------------------------------------------------------------
def dice_formula(p, t, weight=(1.0,) * C, pooled=False, smooth=1.0, empty="smooth"):
    """Weighted mean of D over (image, class) pairs, or over classes where pooled."""
    total = count = 0.0
    for n, c in np.ndindex(1 if pooled else N, C):
        pc, tc = (p[:, c], t[:, c]) if pooled else (p[n, c], t[n, c])
        if empty == "smooth" or tc.any():
            total += weight[c] * (2 * (pc * tc).sum() + smooth) / (pc.sum() + tc.sum() + smooth)
            count += weight[c]
    return total / count


EMPTY = T.copy()  # class 0 is nowhere, class 2 in one image only
EMPTY[:, 0] = EMPTY[1:, 2] = False
options = pytest.mark.parametrize(
    "options",
    [
        {},
        {"pooled": True},
        {"smooth": 0.1, "weight": PER_CLASS},
        {"empty": "ignore"},
        {"empty": "ignore", "smooth": 0.0, "weight": PER_CLASS},
        {"empty": "ignore", "pooled": True, "weight": PER_CLASS},
    ],
    ids=str,
)


@options
def test_soft_dice_of_masks(options, kernels):
    expected = 1 - dice_formula(expit(Z), EMPTY, **options)
    assert soft_dice_loss(Z, EMPTY, **options).item() == pytest.approx(expected, rel=1e-12)
    check_grads(lambda z: soft_dice_loss(z, EMPTY, **options), Z)


@options
def test_soft_dice_of_classes(options, kernels):
    onehot = K[:, None] == np.arange(C).reshape(-1, 1, 1)
    expected = 1 - dice_formula(scipy_softmax(Z, 1), onehot, **options)
    for target in (K, onehot):
        assert soft_dice_loss(Z, target, "softmax", **options).item() == pytest.approx(expected, rel=1e-12)
        check_grads(lambda z, target=target: soft_dice_loss(z, target, "softmax", **options), Z)


@options
def test_dice_bce(options, kernels):
    weight = options.get("weight", 1.0)
    expected = 1.3 * bce_formula(Z, EMPTY, weight).mean() - 0.7 * dice_formula(expit(Z), EMPTY, **options)
    assert dice_bce_with_logits(Z, EMPTY, 0.7, 1.3, **options).item() == pytest.approx(expected, rel=1e-12)
    check_grads(lambda z: dice_bce_with_logits(z, EMPTY, 0.7, 1.3, **options), Z)


def test_soft_dice_equals_torch(kernels):
    def theirs(torch, z):
        p, t = torch.sigmoid(z), torch.tensor(T.astype(float))
        D = (2 * (p * t).sum((2, 3)) + 1) / (p.sum((2, 3)) + t.sum((2, 3)) + 1)
        return 1 - D.mean()

    equals_torch(lambda z: soft_dice_loss(z, T), theirs, Z)


@pytest.mark.parametrize("pooled", [False, True])
def test_empty_masks(pooled, kernels):
    nothing = np.zeros(SHAPE, bool)
    y, gz = value_and_grads(lambda z: soft_dice_loss(z, nothing, pooled=pooled, empty="ignore"), Z)
    assert y == 0 and (gz == 0).all()
    y, gz = value_and_grads(lambda z: soft_dice_loss(z, nothing, pooled=pooled), Z)
    sums = expit(Z).sum(axis=(0, 2, 3) if pooled else (2, 3))
    assert y == pytest.approx(1 - (1 / (sums + 1)).mean()) and (gz != 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("empty", ["smooth", "ignore"])
def test_dice_at_extreme_logits(dtype, empty, kernels):
    z = np.where(EMPTY, 1000, -1000).astype(dtype)
    for sign, dice in ((1, 1.0), (-1, None)):
        for f in (soft_dice_loss, dice_bce_with_logits):
            y, gz = value_and_grads(lambda z, f=f: f(z, EMPTY, empty=empty), sign * z)
            assert np.isfinite(y) and np.isfinite(gz).all()
        if dice is not None:
            assert soft_dice_loss(sign * z, EMPTY, empty=empty).item() == pytest.approx(1 - dice, abs=1e-6)
            assert dice_bce_with_logits(sign * z, EMPTY, empty=empty).item() == pytest.approx(-dice, abs=1e-6)


def test_an_ignored_empty_mask_may_have_probabilities_of_exactly_zero(kernels):
    z, t = np.full(SHAPE, -1000.0, np.float32), np.zeros(SHAPE, bool)  # without smoothing: 0 / 0
    y, gz = value_and_grads(lambda z: soft_dice_loss(z, t, smooth=0.0, empty="ignore"), z)
    assert y == 0 and (gz == 0).all()


# ----- all -----------------------------------------------------------------------
def test_targets_come_back_unchanged_and_may_be_tensors():
    t, k = SOFT.copy(), K.copy()
    for f in (bce, soft_dice_loss, dice_bce_with_logits):
        assert f(Z, Tensor(t)).item() == f(Z, t).item()
    cross_entropy(Z, k, PER_CLASS)
    np.testing.assert_array_equal(t, SOFT)
    np.testing.assert_array_equal(k, K)


def test_losses_are_scalars_with_a_graph():
    z = Tensor(Z, requires_grad=True)
    for loss in (bce(z, T), cross_entropy(z, K), soft_dice_loss(z, T), dice_bce_with_logits(z, T)):
        assert loss.shape == () and loss.requires_grad


@pytest.mark.parametrize(
    ("f", "sentence"),
    [
        (lambda: bce(Z, T[:, :1]), r"target must have the shape of the logits, \(3, 4, 2, 5\), but has \(3, 1, 2, 5\)"),
        (lambda: bce(Z, T, reduction="none"), "reduction must be 'mean' or 'sum', but is 'none'"),
        (lambda: bce(Z, T, weight=[1.0, 2.0]), "weight: expected one number for each of 4 classes, found 2"),
        (lambda: bce(Z, T, pos_weight=[1.0, 2.0]), "pos_weight: expected one number for each of 4 classes, found 2"),
        (
            lambda: bce(Z, T, weight=abs(rand(2, 3))),
            r"weight: shape \(2, 3\) does not broadcast against .* \(3, 4, 2, 5\)",
        ),
        (lambda: cross_entropy(Z, T), "target must hold integer class numbers"),
        (lambda: cross_entropy(Z, K.astype(float)), r"integer class numbers of shape \(3, 2, 5\), but is float64"),
        (
            lambda: cross_entropy(Z, K[:2]),
            r"integer class numbers of shape \(3, 2, 5\), but is int64 of shape \(2, 2, 5\)",
        ),
        (lambda: cross_entropy(Z, K + 1), "class numbers must be 0 … 3, but range from 1 to 4"),
        (lambda: cross_entropy(Z, K - 1), "class numbers must be 0 … 3, but range from -1 to 2"),
        (lambda: cross_entropy(Z[0], K), r"cross_entropy takes x of shape \(N, C, H, W\)"),
        (lambda: cross_entropy(Z, K, [1.0]), "weight: expected one number for each of 4 classes, found 1"),
        (lambda: soft_dice_loss(Z, K), "soft Dice: target must have the shape of the logits"),
        (lambda: soft_dice_loss(Z, T, "tanh"), "activation must be 'sigmoid' or 'softmax', but is 'tanh'"),
        (lambda: soft_dice_loss(Z, T, empty="skip"), "empty must be 'smooth' or 'ignore', but is 'skip'"),
        (lambda: soft_dice_loss(Z, T, smooth=0), "0/0 without smoothing"),
        (lambda: soft_dice_loss(Z, T, weight=PIXELS), "soft Dice: weight must be one number for each of 4 classes"),
        (lambda: soft_dice_loss(Z, T, weight=[1.0]), "weight: expected one number for each of 4 classes, found 1"),
        (lambda: soft_dice_loss(Z[0], T[0]), r"soft Dice takes x of shape \(N, C, H, W\)"),
        (lambda: dice_bce_with_logits(Z, K), "target must have the shape of the logits"),
    ],
)
def test_refuses(f, sentence):
    with pytest.raises(ValueError, match=sentence):
        f()


def test_the_first_argument_order_is_logits_then_target():
    equal(bce(Z, SOFT).data, np.asarray(bce_formula(Z, SOFT).mean()))
    assert bce(Z, SOFT).item() != pytest.approx(bce(SOFT, SOFT).item())


# ----- pixels that are ignored -------------------------------------------------
@pytest.mark.parametrize("weight", [None, PER_CLASS])
@pytest.mark.parametrize("ignore", [-1, 255])
def test_ignored_pixels_are_as_if_cut_off(weight, ignore, kernels):
    rows = np.concatenate([K, np.full((N, 3, W), ignore)], axis=1)
    more = np.concatenate([Z, 3 * rand(N, C, 3, W)], axis=2)
    for cut, whole in (
        (lambda z: soft_dice_loss(z, K, "softmax", weight, pooled=True),
         lambda z: soft_dice_loss(z, rows, "softmax", weight, pooled=True, ignore_index=ignore)),
        (lambda z: dice_and_cross_entropy(0.7, 1.3, weight)(z, K),
         lambda z: dice_and_cross_entropy(0.7, 1.3, weight, ignore)(z, rows)),
    ):  # fmt: skip
        expected, gradient = value_and_grads(cut, Z)
        found, gz = value_and_grads(whole, more)
        assert found == pytest.approx(expected, rel=1e-12)
        np.testing.assert_allclose(gz[:, :, :H], gradient, rtol=1e-9, atol=1e-14)
        assert (gz[:, :, H:] == 0).all()
        check_grads(whole, more)


def test_a_class_number_that_is_not_ignored_is_refused():
    with pytest.raises(ValueError, match="class numbers must be 0 … 3"):
        soft_dice_loss(Z, np.where(K == 0, 9, K), "softmax", ignore_index=8)
