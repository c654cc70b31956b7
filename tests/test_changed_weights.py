"""Numbers that change between forward and backward are noticed, and `.grad` belongs to nobody else."""

import numpy as np
import pytest
from arrays import rand

from tinyseg import Function, Tensor, nn, ops, optim


def layer_and_loss():
    layer = nn.PointwiseConv2d(2, 3).astype(np.float64)
    return layer, ops.sum(layer(Tensor(rand(1, 2, 3, 4), requires_grad=True)))


def step(layer):
    for p in layer.parameters():
        p.grad = np.ones_like(p.data)
    optim.SGD(layer.parameters(), lr=1.0).step()


def subtract(layer):
    layer.weight.data -= 1.0


def assign(layer):
    layer.weight.data = layer.weight.data * 2


CHANGES = {
    "an optimizer's step": step,
    "load_state_dict": lambda layer: layer.load_state_dict(nn.PointwiseConv2d(2, 3, rng=1).state_dict()),
    "astype": lambda layer: layer.astype(np.float32),
    "subtraction": subtract,
    "assignment": assign,
    "mark_changed": lambda layer: layer.weight.mark_changed(),
    "of a detached tensor": lambda layer: layer.weight.detach().mark_changed(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_weights_changed_between_forward_and_backward_are_an_error(change):
    layer, loss = layer_and_loss()
    change(layer)
    with pytest.raises(RuntimeError, match=r"PointwiseConv2d has saved a .* were changed since.*before the change"):
        loss.backward()


def test_what_changes_nothing_that_was_saved_is_no_error():
    layer, loss = layer_and_loss()
    layer.to("cpu").eval().train()
    layer.bias.data -= 1.0  # no backward pass reads a bias
    loss.backward()
    w = Tensor(rand(3), requires_grad=True)
    total = ops.sum(w + 1.0)
    w.data *= 2
    total.backward()
    np.testing.assert_array_equal(w.grad, 1)


def test_an_output_or_a_view_changed_in_place_is_an_error():
    x = Tensor(rand(2, 3), requires_grad=True)
    y = ops.sigmoid(x)  # whose backward pass reads y
    y.data *= 2
    with pytest.raises(RuntimeError, match="changed since"):
        ops.sum(y).backward()
    view = ops.reshape(x, (3, 2))
    product = ops.sum(view * view)
    x.data += 1  # the view's numbers too
    with pytest.raises(RuntimeError, match="changed since"):
        product.backward()


def function(backward):
    class Mine(Function):
        def forward(self, *xs):
            return np.asarray(sum(x.sum() for x in xs))

    Mine.backward = lambda self, gy: backward(gy)
    return Mine()


KEPT = np.full((2, 3), 3.0)
GRADIENTS = {
    "an array that it keeps": lambda gy: KEPT,
    "a view of one": lambda gy: KEPT.reshape(3, 2).reshape(2, 3),
    "the same array twice": lambda gy: (KEPT, KEPT),
    "a new array twice": lambda gy: (lambda a: (a, a))(np.full((2, 3), 3.0)),
    "a broadcast array": lambda gy: np.broadcast_to(gy * 3.0, (2, 3)),
    "bytes": lambda gy: np.frombuffer(np.full(6, 3.0).tobytes()).reshape(2, 3),
}


@pytest.mark.parametrize("backward", GRADIENTS.values(), ids=GRADIENTS)
def test_gradients_of_a_users_function_are_the_leafs_own(backward):
    inputs = 2 if isinstance(backward(np.ones(())), tuple) else 1
    xs = [nn.Parameter(rand(2, 3)) for _ in range(inputs)]
    function(backward)(*xs).backward()
    for x in xs:
        assert x.grad.flags.writeable
        x.grad *= 2
        np.testing.assert_array_equal(x.grad, 6)
    optim.clip_grad_norm(xs, 0.1)
    np.testing.assert_array_equal(KEPT, 3)


def test_a_new_gradient_is_not_copied():
    made = []

    def backward(gy):
        gx = np.ones((2, 3))
        made.append(gx.__array_interface__["data"][0])
        return gx

    x = nn.Parameter(rand(2, 3))
    function(backward)(x).backward()
    assert x.grad.__array_interface__["data"][0] == made[0]


@pytest.mark.parametrize("kind", [np.memmap, np.matrix, np.recarray], ids=lambda kind: kind.__name__)
def test_subclasses_of_numpys_array_are_arrays(kind, tmp_path):
    a = rand(4, 6)
    if kind is np.memmap:
        np.save(tmp_path / "a.npy", a)
        mine = np.load(tmp_path / "a.npy", mmap_mode="r")
    else:
        mine = a.view(kind)
    x = Tensor(mine)
    assert type(x.data) is np.ndarray and np.shares_memory(x.data, mine)
    p = nn.Parameter(rand(4, 6))
    (p * mine).backward(mine)
    assert type(p.grad) is np.ndarray
    np.testing.assert_allclose(p.grad, a * a)


def test_a_masked_array_is_refused():
    with pytest.raises(TypeError, match="masked array .* its mask would be lost: fill it first"):
        ops.relu(np.ma.masked_array(rand(3), [True, False, False]))


def test_a_change_of_numbers_that_lie_in_a_buffer_or_a_memmap_is_noticed(tmp_path):
    mapped = np.memmap(tmp_path / "x.raw", np.float32, "w+", shape=(1, 2, 8, 8))
    for numbers in (mapped, np.frombuffer(bytearray(mapped.tobytes()), np.float32).reshape(mapped.shape)):
        x, w = Tensor(numbers), Tensor(np.ones((2, 2, 3, 3), np.float32), requires_grad=True)
        y = ops.sum(ops.conv2d(ops.reshape(x, 1, 2, 8, 8), w))
        x.data += 1
        with pytest.raises(RuntimeError, match="numbers were changed"):
            y.backward()


def test_a_training_batch_after_an_evaluated_one_does_not_change_the_gradient_of_the_latter():
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)

    def gradient(between):
        layer = nn.BatchNorm2d(3)
        y = ops.sum(layer.eval()(x) ** 2.0)
        if between:
            layer.train()(x + 5)
        y.backward()
        return layer.weight.grad

    np.testing.assert_array_equal(gradient(True), gradient(False))


def test_an_array_of_the_other_byte_order_gives_the_same_numbers():
    x = np.random.default_rng(0).standard_normal((1, 2, 5, 6)).astype(np.float32)
    grads = []
    for numbers in (x, x.astype(x.dtype.newbyteorder())):
        t = Tensor(numbers, requires_grad=True)
        ops.sum(ops.conv2d(t, np.ones((3, 2, 3, 3), np.float32)) ** 2.0).backward()
        grads.append(t.grad)
    np.testing.assert_array_equal(*grads)
