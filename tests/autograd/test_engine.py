"""The engine: order, accumulation, memory, switches and error sentences of backward()."""

import gc
import threading
import weakref

import numpy as np
import pytest
from arrays import equal, rand

from tinyseg import Function, Tensor, check_grads, no_grad, ops
from tinyseg.autograd import is_grad_enabled


def leaf(*shape, dtype=np.float64):
    return Tensor(np.asarray(rand(*shape), dtype), requires_grad=True)


class Identity(Function):
    """y = x, with the very arrays it was given: what a careless op might do."""

    def forward(self, x):
        return x

    def backward(self, gy):
        return gy


class Returns(Function):
    """A node whose backward returns what it is told to."""

    def __init__(self, *gxs):
        self.gxs = gxs

    def forward(self, *xs):
        return xs[0] + 0

    def backward(self, gy):
        return self.gxs


# ----- order and accumulation ----------------------------------------------------
def test_a_long_chain():
    x = y = leaf(2)
    for _ in range(10_000):
        y = Identity()(y)
    y.backward(np.array([1.0, 2.0]))
    np.testing.assert_array_equal(x.grad, [1, 2])


def test_a_long_chain_can_be_dropped_without_backward():
    y = leaf(2)
    for _ in range(50_000):
        y = Identity()(y)
    del y
    gc.collect()


@pytest.mark.parametrize(
    ("f", "n"),
    [
        (lambda x: x * x, 1),
        (lambda x: x + x, 1),
        (lambda x: x / x + x - x, 1),
        (lambda x: ops.concat([x, x]), 1),
        (lambda x: ops.concat([x, x * x, x]), 1),
        (lambda x, y: ops.exp(x * y) + x * y, 2),  # diamond
        (lambda x, y: (x + y) * (x - y) * (x + y), 2),
        (lambda x, y: ops.sum(x * y) * y + x, 2),  # one path far shorter than the other
        (lambda x, y, z: ops.concat([x, y]) * ops.concat([y, z]), 3),
    ],
)
def test_shared_expressions(f, n):
    check_grads(f, *(0.5 + abs(rand(2, 3, seed=k)) for k in range(n)))


def test_a_node_used_many_times_is_visited_once():
    visits = []

    class Counted(Identity):
        def backward(self, gy):
            visits.append(gy.copy())
            return gy

    x = leaf(3)
    y = Counted()(x)
    z = y + y
    for _ in range(20):  # 2^20 paths
        z = z + z
    z.backward(np.ones(3))
    assert len(visits) == 1
    np.testing.assert_array_equal(x.grad, np.full(3, 2.0**21))


def test_gradients_of_two_graphs_add_up():
    x, w = leaf(3), rand(3)
    (x * w).sum().backward()
    (x * x).sum().backward()
    equal(x.grad, w + 2 * x.data)
    x.grad = None
    assert x.grad is None


def test_a_leaf_is_its_own_root():
    x = leaf(3)
    gy = np.arange(3.0)
    x.backward(gy)
    x.backward(gy)
    np.testing.assert_array_equal(x.grad, 2 * gy)
    assert not np.shares_memory(x.grad, gy)


def test_leaves_that_want_none_get_none():
    a, b = leaf(2), Tensor(rand(2))
    (a * b).sum().backward()
    assert b.grad is None


def test_intermediate_tensors_keep_a_gradient_on_request_only():
    x = leaf(3)
    y, z = x * 2.0, None
    z = y * y
    z.retain_grad()
    z.sum().backward()
    assert y.grad is None
    np.testing.assert_array_equal(z.grad, np.ones(3))
    z.grad[...] = 7
    equal(x.grad, 8 * x.data)
    x.retain_grad()  # on a leaf: nothing to ask for
    with pytest.raises(RuntimeError, match="no gradient reaches"):
        Tensor(rand(2)).retain_grad()


# ----- memory ----------------------------------------------------------------------
@pytest.mark.parametrize(
    "f",
    [
        lambda a, b: a + b,
        lambda a, b: Identity()(a) + Identity()(b),
        lambda a, b: a.reshape(6) + b.reshape(6),
        lambda a, b: a.transpose(1, 0) + b.transpose(1, 0),
        lambda a, b: ops.concat([a, b], axis=0),
        lambda a, b: ops.concat([a, b, a], axis=1),
        lambda a, b: Identity()(a + b),
        lambda a, b: (a.reshape(3, 2) + b.reshape(3, 2)).reshape(2, 3),
    ],
)
def test_every_gradient_owns_its_memory(f):
    a, b = leaf(2, 3), leaf(2, 3)
    y = f(a, b)
    y.retain_grad()
    gy = rand(*y.shape)
    y.backward(gy)
    owners = [a.grad, b.grad, y.grad, gy]
    for i, one in enumerate(owners):
        old = [o.copy() for o in owners]
        one += 100
        for j, (now, before) in enumerate(zip(owners, old, strict=True)):
            assert i == j or (now == before).all(), (i, j)
    assert all(g.base is None for g in owners[:3])


def test_accumulating_leaves_an_array_somebody_kept_alone():
    x = leaf(3)
    (x * 2.0).sum().backward()
    kept = x.grad
    old = kept.copy()
    (x * 2.0).sum().backward()
    np.testing.assert_array_equal(kept, old)


def test_what_no_backward_needs_dies_at_once():
    x = leaf(50)
    hidden = x + 1.0  # an addition saves nothing, a ReLU keeps its own output
    watch = weakref.ref(hidden.data)
    y = ops.relu(hidden)
    del hidden
    assert watch() is None
    y.sum().backward()


def test_saved_arrays_are_freed_as_backward_passes():
    alive = []

    class Watched(Function):
        def forward(self, x):
            self.saved = x + 0
            references.append(weakref.ref(self.saved))
            return x * 2.0

        def backward(self, gy):
            alive.append(sum(r() is not None for r in references))
            return gy * 2.0

    references = []
    y = leaf(4)
    for _ in range(5):
        y = Watched()(y)
    y.backward(np.ones(4))
    assert alive == [5, 4, 3, 2, 1]
    assert all(r() is None for r in references)  # although y, and so the last node, is still here
    assert y.creator is not None


def test_the_graph_dies_with_its_output_without_the_garbage_collector():
    gc.disable()
    try:
        x = leaf(3)
        y = ops.exp(x * x)
        watch = weakref.ref(y.creator)
        del y
        assert watch() is None
    finally:
        gc.enable()


# ----- wrong uses of backward --------------------------------------------------------
def test_backward_twice():
    y = (leaf(3) * 2.0).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="an earlier backward.. has used; its saved arrays are freed"):
        y.backward()


def test_a_partly_shared_graph_can_be_used_once():
    x, w = leaf(3), leaf(3)
    shared = x * x
    shared.sum().backward()
    old = x.grad.copy()
    with pytest.raises(RuntimeError, match="add the losses and call backward.. once on the sum"):
        (shared * w).sum().backward()
    np.testing.assert_array_equal(x.grad, old)
    assert w.grad is None  # nothing was changed before the error


def test_backward_without_a_cotangent_needs_one_element():
    with pytest.raises(RuntimeError, match=r"needs a one-element tensor .*, but this one has shape \(2, 3\)"):
        (leaf(2, 3) * 2.0).backward()
    x = leaf(1, 1)
    (x * 3.0).backward()
    assert x.grad == [[3]]


def test_backward_where_nothing_requires_grad():
    for y in (Tensor(rand(2)), Tensor(rand(2)).sum(), Tensor(rand(2)) * rand(2)):
        with pytest.raises(RuntimeError, match="backward.. on a tensor that does not require grad"):
            y.backward()


@pytest.mark.parametrize(
    ("gy", "found"),
    [
        (np.ones(3), r"float64 numpy array of shape \(3,\)"),
        (np.ones((2, 3), np.float32), r"float32 numpy array of shape \(2, 3\)"),
        (np.ones((1, 2, 3)), r"float64 numpy array of shape \(1, 2, 3\)"),
        (1.0, "float"),
        ([[1.0] * 3] * 2, "list"),
    ],
)
def test_the_cotangent_must_be_like_the_tensor(gy, found):
    with pytest.raises(ValueError, match=rf"needs a float64 numpy array of shape \(2, 3\), like .*, but gy is {found}"):
        (leaf(2, 3) * 2.0).backward(gy)


def test_the_cotangent_may_be_a_tensor_or_a_numpy_scalar():
    x = leaf(2, 3)
    (x * 2.0).backward(Tensor(np.ones((2, 3))))
    np.testing.assert_array_equal(x.grad, np.full((2, 3), 2.0))
    x.grad = None
    x.sum().backward(np.float64(3))
    np.testing.assert_array_equal(x.grad, np.full((2, 3), 3.0))


@pytest.mark.parametrize(
    ("gx", "found"),
    [
        (np.ones((3, 2)), r"float64 numpy array of shape \(3, 2\)"),
        (None, "none"),
        (np.ones((2, 3), np.float32), r"float32 numpy array of shape \(2, 3\)"),
    ],
)
def test_a_wrong_gradient_names_its_function(gx, found):
    y = Returns(np.ones((2, 3)), gx)(leaf(2, 3), leaf(2, 3))
    with pytest.raises(RuntimeError, match=rf"Returns.backward: expected a float64 gradient of .*3.*, found {found}"):
        y.backward(np.ones((2, 3)))


def test_a_wrong_number_of_gradients():
    y = Returns(np.ones(3))(leaf(3), leaf(3))
    with pytest.raises(RuntimeError, match=r"Returns\.backward: expected 2 gradients, found 1"):
        y.backward(np.ones(3))


def test_a_function_without_forward_or_backward():
    class Nothing(Function):
        pass

    class Half(Function):
        def forward(self, x):
            return x * 2

    with pytest.raises(NotImplementedError, match=r"Nothing has no forward"):
        Nothing()(leaf(2))
    with pytest.raises(NotImplementedError, match=r"Half has no backward"):
        Half()(leaf(2)).backward(np.ones(2))


def test_a_node_is_used_once():
    relu = ops.activation.Relu()
    relu(leaf(2))
    with pytest.raises(RuntimeError, match="Relu: a node of the graph stands for one call; make a new one"):
        relu(leaf(2))


# ----- no_grad -----------------------------------------------------------------------
def test_no_grad_as_context_manager_and_nested():
    x = leaf(2)
    with no_grad():
        assert not is_grad_enabled()
        with no_grad():
            assert (x * 2.0).creator is None
        assert not is_grad_enabled()
        assert not (x * 2.0).requires_grad
    assert is_grad_enabled() and (x * 2.0).requires_grad


def test_no_grad_as_decorator():
    @no_grad()
    def f(x):
        return x * 2.0

    for _ in range(2):  # a decorator is entered again at every call
        assert not f(leaf(2)).requires_grad
        assert is_grad_enabled()


def test_no_grad_ends_with_an_exception():
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert is_grad_enabled()


def test_no_grad_is_for_its_thread_alone():
    inside, go_on, seen = threading.Event(), threading.Event(), []

    def worker():
        with no_grad():
            inside.set()
            go_on.wait(10)
            seen.append(is_grad_enabled())

    thread = threading.Thread(target=worker)
    thread.start()
    assert inside.wait(10)
    assert is_grad_enabled() and (leaf(2) * 2.0).requires_grad
    go_on.set()
    thread.join()
    assert seen == [False]
    with no_grad():
        thread = threading.Thread(target=lambda: seen.append(is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [False, True]


# ----- inputs ------------------------------------------------------------------------
def test_integers_and_booleans_are_refused():
    for data in (np.arange(3), np.ones(3, bool), [1, 2], np.int64(3)):
        with pytest.raises(TypeError, match="Only floating-point tensors can require gradients"):
            Tensor(data, requires_grad=True)
        with pytest.raises(TypeError, match="Exp needs floating-point data .such as float32., but got"):
            ops.exp(Tensor(data))


def test_mixed_precision_is_refused():
    with pytest.raises(TypeError, match=r"Add got mixed precision: float32 numpy array of shape \(3,\) and float64"):
        leaf(3, dtype=np.float32) + leaf(3)
    with pytest.raises(TypeError, match=r"Multiply got mixed precision: .*; convert one of them with .astype"):
        leaf(3) * np.ones(3, np.float32)


class Elsewhere:
    """An array of another library, as far as the engine looks."""

    def __init__(self, array):
        self.dtype, self.shape, self.ndim, self.size = array.dtype, array.shape, array.ndim, array.size


Elsewhere.__module__ = "cupy.core"


def test_mixed_devices_are_refused():
    sentence = r"got arrays on different devices: float64 numpy array of shape \(3,\) and float64 cupy array of shape"
    with pytest.raises(TypeError, match=rf"Add {sentence} .*to_device"):
        leaf(3) + Tensor(Elsewhere(np.ones(3)))
    with pytest.raises(ValueError, match=r"needs a float64 numpy array .*, but gy is float64 cupy array"):
        leaf(3).backward(Elsewhere(np.ones(3)))


def test_other_things_are_refused():
    for thing in ("a", None, True, {}, object()):
        with pytest.raises(TypeError, match=rf"Add takes tensors, arrays or numbers, but got {type(thing).__name__}"):
            ops.add(leaf(2), thing)
    with pytest.raises(TypeError, match="takes an array, not a Tensor; use tensor.detach"):
        Tensor(leaf(2))


def test_lists_and_numbers_become_float64_arrays():
    assert ops.add([1.0, 2.0], [3.0, 4.0]).data.tolist() == [4, 6]
    assert ops.add(1, 2.5).data == 3.5 and ops.add(1, 2.5).dtype == np.float64
    assert ops.exp(np.float32(0)).dtype == np.float32


def test_results_of_0_d_arithmetic_are_arrays():
    x = Tensor(np.array(2.0, np.float32), requires_grad=True)
    y = x * x + 1.0
    assert type(y.data) is np.ndarray and y.dtype == np.float32 and y.item() == 5.0
    y.backward()
    assert type(x.grad) is np.ndarray and x.grad.dtype == np.float32 and x.grad == 4


def test_looks():
    x = Tensor(np.array([[1.0, 2.0]]), requires_grad=True)
    assert (x.shape, x.ndim, x.size, len(x), x.dtype) == ((1, 2), 2, 2, 1, np.float64)
    assert repr(x) == "Tensor(array([[1., 2.]]), requires_grad=True)"
    assert repr(x * 2.0) == "Tensor(array([[2., 4.]]), creator=Multiply)"
    assert repr(x.detach()) == "Tensor(array([[1., 2.]]))"
    assert x.detach().data is x.data and not x.detach().requires_grad
    assert Tensor(np.array([3.5])).item() == 3.5


def test_a_tensor_is_not_silently_an_array_or_a_truth():
    x = Tensor(np.ones((2, 3)))
    with pytest.raises(TypeError, match=r"use tensor\.data"):
        np.asarray(x)
    with pytest.raises(ValueError, match="ambiguous"):
        bool(x)
    assert float(x.sum()) == 6.0 and not Tensor(np.zeros(()))


def test_a_number_beside_an_array_takes_its_type_in_a_function_of_ones_own():
    class Scale(Function):
        def forward(self, x, a):
            self.saved = a
            return x * a

        def backward(self, gy):
            return gy * self.saved, None

    x = Tensor(np.ones(3, np.float32), requires_grad=True)
    y = Scale()(x, 2.0)
    y.backward(np.ones(3, np.float32))
    assert y.dtype == x.grad.dtype == np.float32 and ops.exp(2).item() == pytest.approx(np.exp(2))


def test_a_list_that_does_not_broadcast_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="shapes .3,. and .2,. do not broadcast"):
        Tensor(np.ones(3)) + [1.0, 2.0]
