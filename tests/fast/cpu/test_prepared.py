"""What is made of weights is remembered in inference, for as long as the weights are what they were."""

import gc
import threading
import weakref

import numpy as np
import pytest
from arrays import rand

pytest.importorskip("numba")

from tinyseg import Tensor, no_grad, ops  # noqa: E402
from tinyseg.fast.cpu import prepared as module  # noqa: E402
from tinyseg.fast.cpu.prepared import fingerprint, prepared  # noqa: E402


@pytest.fixture(autouse=True)
def made(monkeypatch):
    """An empty memory for every test."""
    gc.collect()
    memory = {}
    monkeypatch.setattr(module, "_cache", memory)
    return memory


def weights(*shape, seed=0):
    return rand(*shape, seed=seed).astype(np.float32)


class Counted:
    """A `make` that returns a new object each time and counts."""

    def __init__(self):
        self.times = 0

    def __call__(self):
        self.times += 1
        return [self.times]


# ----- prepared ----------------------------------------------------------------------------
def test_inference_makes_it_once():
    w, make = weights(4, 3, 3, 3), Counted()
    with no_grad():
        first = prepared(w, "packed", make)
        assert all(prepared(w, "packed", make) is first for _ in range(5))
    assert make.times == 1


def test_each_form_is_kept_for_itself():
    w, packed, other = weights(4, 3), Counted(), Counted()
    with no_grad():
        a, b = prepared(w, "packed", packed), prepared(w, ("phases", 2), other)
        assert prepared(w, "packed", packed) is a and prepared(w, ("phases", 2), other) is b
    assert packed.times == other.times == 1


def test_each_array_is_kept_for_itself():
    w, same, make = weights(4, 3), weights(4, 3), Counted()
    with no_grad():
        assert prepared(w, "packed", make) is not prepared(same, "packed", make)


@pytest.mark.parametrize("index", [(0, 0), (3, 2), (1, 1)])
@pytest.mark.parametrize("change", [lambda v: np.nextafter(v, np.float32(9)), lambda v: -v], ids=["last bit", "sign"])
def test_a_change_of_one_element_in_place_makes_it_anew(index, change):
    w, make = weights(4, 3), Counted()
    with no_grad():
        prepared(w, "packed", make)
        old = w[index]
        w[index] = change(old)
        assert prepared(w, "packed", make) == [2]
        assert prepared(w, "packed", make) == [2]
        w[index] = old
        assert prepared(w, "packed", make) == [3]


def test_training_makes_it_every_time_and_forgets_what_was_remembered(made):
    w, make = weights(4, 3), Counted()
    with no_grad():
        prepared(w, "packed", make)
    assert len(made) == 1
    assert [prepared(w, "packed", make) for _ in range(3)] == [[2], [3], [4]]
    assert not made
    with no_grad():
        assert prepared(w, "packed", make) == [5]


def test_nothing_is_left_of_weights_that_are_gone(made):
    with no_grad():
        for k in range(20):
            w = weights(4, 3, seed=k)
            prepared(w, "packed", Counted())
            prepared(w, "phases", Counted())
            assert [len(forms) for forms in made.values()] == [2]
    del w
    assert not made


def test_weights_that_lie_where_others_lay_are_new():
    """An array may get the id of one that died; where also its content is the same, only the weak reference knows."""
    make, ids = Counted(), set()
    with no_grad():
        for k in range(1, 50):
            w = weights(4, 3)
            ids.add(id(w))
            assert prepared(w, "packed", make) == [k]
            del w
    assert len(ids) < 49


def test_another_shape_of_the_same_array_object_is_new():
    w, make = weights(6, 4), Counted()
    with no_grad():
        prepared(w, "packed", make)
        w.resize(4, 6, refcheck=False)
        assert prepared(w, "packed", make) == [2]


def test_what_is_kept_does_not_keep_the_weights_alive(made):
    w = weights(4, 3)
    with no_grad():
        prepared(w, "packed", lambda: weights(3, 4))
    gone = []
    weakref.finalize(w, gone.append, True)
    del w
    assert gone and not made


def test_a_thread_that_records_gradients_does_not_get_what_another_remembers():
    w, make, found = weights(4, 3), Counted(), []
    with no_grad():
        prepared(w, "packed", make)
        worker = threading.Thread(target=lambda: found.append(prepared(w, "packed", make)))
        worker.start()
        worker.join()
    assert found == [[2]]


# ----- the ops that use it -------------------------------------------------------------------
OPS = {
    "pointwise": (lambda x, w: ops.pointwise_conv2d(x, w), (5, 16)),
    "conv2d": (lambda x, w: ops.conv2d(x, w, padding="same"), (3, 16, 3, 3)),  # fewer channels than any vector has
    "winograd": (lambda x, w: ops.conv2d(x, w, padding="same"), (32, 16, 3, 3)),
    "upsampled": (lambda x, w: ops.fused_conv2d(x, w, padding="same", upsample=2), (5, 16, 2, 2)),
    "separable": (lambda x, w: ops.separable_conv2d(x, weights(16, 3, 3), w, padding="same"), (5, 16)),
}


@pytest.mark.parametrize(("f", "shape"), OPS.values(), ids=OPS)
def test_weights_changed_in_place_count_at_once(f, shape, made, monkeypatch):
    monkeypatch.setattr("tinyseg.fast.cpu.fused_conv.MIN_PIXELS", 0)
    x, w = weights(2, 16, 29, 31), weights(*shape, seed=1)
    with no_grad():
        first = f(x, w).data.copy()
        assert bool(made) == (f is not OPS["winograd"][0])  # Winograd's method makes its weights anew in cache
        np.testing.assert_array_equal(f(x, w).data, first)
        w *= 2  # a power of two: every result doubles to the last bit
        np.testing.assert_array_equal(f(x, w).data, 2 * first)
        del w
    assert not made


@pytest.mark.parametrize(("f", "shape"), OPS.values(), ids=OPS)
def test_nothing_is_kept_of_a_step_of_training(f, shape, made, monkeypatch):
    monkeypatch.setattr("tinyseg.fast.cpu.fused_conv.MIN_PIXELS", 0)
    x, w = Tensor(weights(2, 16, 29, 31), requires_grad=True), Tensor(weights(*shape, seed=1), requires_grad=True)
    f(x, w).sum().backward()
    assert not made


# ----- fingerprint ------------------------------------------------------------------------------
def test_swapped_elements_have_another_fingerprint():
    for n in (2, 3, 63, 64, 65, 1000, 5000):
        w, rng, marks = weights(n), np.random.default_rng(n), set()
        marks.add(fingerprint(w))
        pairs = {tuple(sorted(rng.choice(n, 2, replace=False))) for _ in range(100)}
        for i, j in pairs:
            other = w.copy()
            other[[i, j]] = other[[j, i]]
            marks.add(fingerprint(other))
        assert len(marks) == len(pairs) + 1


def test_every_bit_of_every_element_counts():
    w = weights(70)
    marks = {fingerprint(w)}
    for i in range(70):
        for bit in range(32):
            other = w.copy()
            other.view(np.uint32)[i] ^= np.uint32(1 << bit)
            marks.add(fingerprint(other))
    assert len(marks) == 70 * 32 + 1


def test_shape_and_zeros_count():
    w = weights(6, 4)
    marks = {fingerprint(w), fingerprint(w.reshape(4, 6)), fingerprint(w.reshape(24)), fingerprint(w.T.copy())}
    marks |= {fingerprint(np.zeros(n, np.float32)) for n in range(1, 20)} | {fingerprint(-np.zeros(3, np.float32))}
    assert len(marks) == 4 + 19 + 1


def test_strides_do_not_count():
    w = weights(6, 4)
    assert fingerprint(w) == fingerprint(np.asfortranarray(w)) == fingerprint(np.repeat(w, 2, axis=1)[:, ::2])


def test_words_that_change_places_are_noticed():
    """Also where each is moved by as much as its place: a sum over words and places would be the same."""
    w = weights(32, 32, 3, 3)
    seen, bits = {fingerprint(w)}, w.reshape(-1).view(np.uint32)
    for i, j in [(0, 1), (5, 4000), (17, 9215)]:
        for shift in (0, j - i):
            bits[i], bits[j] = bits[j] + np.uint32(shift), bits[i] - np.uint32(shift)
            seen.add(fingerprint(w))
    assert len(seen) == 7
