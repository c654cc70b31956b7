"""A batch in parts: what comes of it is that of the whole batch, and the same bits in any number of processes."""

import functools
import math

import numpy as np
import pytest
from fake_mpi import run_processes

from tinyseg import Tensor, models, nn, ops, optim
from tinyseg.data import Loader, SegmentationDataset
from tinyseg.data.loader import samples_of_part
from tinyseg.training import Step, overlap
from tinyseg.training.losses import dice_and_cross_entropy, weighted_cross_entropy
from tinyseg.training.microbatches import MicrobatchStep, add_in_pairs
from tinyseg.training.parallel import ALONE, Group, Mpi, check_same_start

NUMBER = 6  # images of a batch, in eight parts some of which are empty
WHOLE = [1, 2, 4, 8]
LOSSES = {
    "mean": (1, ops.binary_cross_entropy_with_logits),
    "weighted": (1, weighted_cross_entropy(0.7, 2.0)),
    "sum": (1, lambda z, y: ops.binary_cross_entropy_with_logits(z, y, reduction="sum") * 1e-3),
    "Dice of each image": (1, ops.soft_dice_loss),
    "Dice of the images that have some": (1, functools.partial(ops.soft_dice_loss, empty="ignore")),
    "pooled Dice": (1, functools.partial(ops.soft_dice_loss, pooled=True)),
    "pooled Dice, nothing smoothed": (1, functools.partial(ops.soft_dice_loss, pooled=True, smooth=0, empty="ignore")),
    "classes": (3, dice_and_cross_entropy()),
    "weighted classes": (3, dice_and_cross_entropy(class_weights=[0.2, 1.0, 3.0])),
    "classes and pixels left out": (3, dice_and_cross_entropy(0.5, 1.5, ignore_index=0)),
}


def batch(classes=1, number=NUMBER, seed=0):
    """Images of which some show nothing, and one all."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((number, 1, 16, 32)).astype(np.float32)
    y = rng.integers(0, max(classes, 2), (number, 16, 32))
    y[1:3], y[-1] = 0, 1
    return x, y if classes > 1 else y[:, None].astype(np.float32)


def pieces(name="sdunet", classes=1, dropout=0.0, lr=0.05):
    model = models.build(name, 1, classes, width=4, levels=2, seed=1, dropout=dropout)
    return model, optim.SGD(model.parameters(), lr=lr)


def state_of(model):
    return {name: array.copy() for name, array in model.state_dict().items()}


def same(a, b):
    for name, array in a.items():
        np.testing.assert_array_equal(array, b[name], err_msg=name)


# ----- against the whole batch ---------------------------------------------------------
@pytest.mark.parametrize("parts", WHOLE)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_step_is_that_of_the_whole_batch(loss, parts):
    classes, loss = LOSSES[loss]
    x, y = batch(classes)
    model, optimizer = pieces(classes=classes)
    other, other_optimizer = pieces(classes=classes)
    step, whole = MicrobatchStep(model, optimizer, loss, 1.0, parts), Step(other, other_optimizer, loss, 1.0)
    for _ in range(2):  # in the second the step knows what the loss asks for
        found, expected = step(x, y), whole(x, y)
        assert found.loss == pytest.approx(expected.loss, rel=2e-5, abs=1e-6)
        assert found.norm == pytest.approx(expected.norm, rel=1e-4)
        assert (found.area, found.updated) == (expected.area, True)
        assert found.overlap == pytest.approx(expected.overlap, abs=2)  # a logit of 1e-9 can change its sign
    for name, array in model.state_dict().items():
        np.testing.assert_allclose(array, other.state_dict()[name], rtol=2e-4, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("loss", LOSSES)
def test_in_float64_nothing_but_the_last_digits_differs(loss):
    classes, loss = LOSSES[loss]
    _, y = batch(classes)
    x = np.random.default_rng(1).standard_normal((NUMBER, 2, 16, 32))
    model = nn.PointwiseConv2d(2, classes, rng=2).astype("float64")
    optimizer = optim.SGD(model.parameters(), lr=0.0)
    expected = Step(model, optimizer, loss)(x, y)
    gradients = [p.grad.copy() for p in model.parameters()]
    for parts in WHOLE:
        found = MicrobatchStep(model, optimizer, loss, None, parts)(x, y)
        assert found.loss == pytest.approx(expected.loss, rel=1e-12)
        for p, gradient in zip(model.parameters(), gradients, strict=True):
            np.testing.assert_allclose(p.grad, gradient, rtol=1e-9)


def test_batch_norm_sees_a_part_and_remembers_the_mean_of_the_parts():
    x, y = batch(number=8)
    model, optimizer = pieces("sdunet_bn", lr=0.0)
    before = state_of(model)
    MicrobatchStep(model, optimizer, microbatches=4, loss=ops.binary_cross_entropy_with_logits)(x, y)
    found, statistics = state_of(model), []
    for k in range(4):
        part, part_optimizer = pieces("sdunet_bn", lr=0.0)
        part.load_state_dict(before)
        Step(part, part_optimizer)(x[2 * k : 2 * k + 2], y[2 * k : 2 * k + 2])
        statistics.append(state_of(part))
    names = [name for name in found if "running" in name]
    assert names
    for name in names:
        np.testing.assert_allclose(found[name], np.mean([s[name] for s in statistics], axis=0), rtol=1e-6, atol=1e-7)


def test_dropout_draws_a_mask_for_each_part_and_a_new_one_in_each_step():
    model = nn.Sequential(nn.Dropout(0.5, rng=3))
    masks = []

    def loss(logits, y):
        masks.append((logits.data != 0).copy())
        return ops.mean(logits * parameter)

    parameter = nn.Parameter(np.ones(1, np.float32))
    step = MicrobatchStep(model, optim.SGD([parameter], 0.0), loss, None, 4)
    x, y = np.ones((4, 1, 8, 8), np.float32), np.ones((4, 1, 8, 8), np.float32)
    step(x, y)
    asked, masks[:] = masks[:4], masks[4:]
    assert all((a == b).all() for a, b in zip(asked, masks, strict=True))  # both passes of the first step draw the same
    step(x, y)
    assert len(masks) == 8 and len({mask.tobytes() for mask in masks}) == 8
    assert model[0].counter[1] == 2  # steps, not parts: any number of processes goes on from here


# ----- in several processes ----------------------------------------------------------------
@pytest.mark.parametrize("number", [8, 5], ids=["full batches", "a batch of five"])
@pytest.mark.parametrize(("name", "loss"), [("sdunet", "mean"), ("sdunet_bn", "weighted classes"), ("unet", "sum")])
def test_one_two_four_and_eight_processes_end_with_the_same_bits(name, loss, number, monkeypatch):
    monkeypatch.setattr(overlap, "BUCKET", 2000)  # several in these small networks, or none
    classes, loss = LOSSES[loss]

    def train(comm):
        group = Mpi(comm, threads=comm.size < 8) if comm.size > 1 else ALONE
        model, optimizer = pieces(name, classes, dropout=0.5)
        step = MicrobatchStep(model, optimizer, loss, 1.0, 8, group)
        figures = []
        for k in range(3):
            x, y = batch(classes, number, seed=k)
            mine = samples_of_part(number, comm.rank, comm.size)
            figures.append(step(x[mine], y[mine]))
        if group.size > 1:
            group.watch.close()
        return state_of(model), figures

    expected, of_one = run_processes(1, train)[0]
    for processes in (2, 4, 8):
        for state, figures in run_processes(processes, train):
            same(state, expected)
            assert figures == of_one


def test_a_part_that_is_not_finite_stops_all_of_them():
    def train(comm):
        model, optimizer = pieces()
        group = Mpi(comm)
        x, y = batch(number=4)
        x[3] = np.inf
        mine = samples_of_part(4, comm.rank, 2)
        before = state_of(model)
        with np.errstate(invalid="ignore", over="ignore"):
            figures = MicrobatchStep(model, optimizer, ops.binary_cross_entropy_with_logits, 1.0, 4, group)(
                x[mine], y[mine]
            )
        assert not figures.updated and not math.isfinite(figures.loss)
        same({k: v for k, v in state_of(model).items() if "counter" not in k}, before)
        group.watch.close()
        return True

    assert run_processes(2, train) == [True, True]


def test_a_step_that_fails_leaves_dropout_and_statistics_as_they_were():
    model, optimizer = pieces("sdunet_bn", dropout=0.5)
    before = state_of(model)

    def loss(logits, y):
        loss.calls += 1
        if loss.calls == 3:
            raise MemoryError
        return ops.binary_cross_entropy_with_logits(logits, y)

    loss.calls = 0
    with pytest.raises(MemoryError):
        MicrobatchStep(model, optimizer, loss, None, 2)(*batch())
    same(state_of(model), before)


def test_processes_that_begin_with_something_else_are_told_what():
    def start(comm):
        group = Mpi(comm)
        with pytest.raises(ValueError, match=r"process 2 of 2 begins with another step \(step: 4, and of the first"):
            check_same_start(group, step=3 + comm.rank, options={"lr": 0.1})
        with pytest.raises(ValueError, match="another batches, options "):
            check_same_start(group, step=3, batches=comm.rank, options={"lr": 0.1 * comm.rank})
        check_same_start(group, step=3, options={"lr": 0.1})
        group.watch.close()
        return True

    assert run_processes(2, start) == [True, True]


def test_a_parameter_that_the_network_does_not_use_stays_as_it_is():
    for kind, options in ((Step, {}), (MicrobatchStep, {"microbatches": 2})):
        unused, (model, _) = nn.Parameter(np.ones(3, np.float32)), pieces()
        optimizer = optim.SGD([*model.parameters(), unused], lr=0.1, momentum=0.9, weight_decay=0.1)
        kind(model, optimizer, ops.soft_dice_loss, None, **options)(*batch())
        assert unused.grad is None and optimizer.counts[-1] == 0
        np.testing.assert_array_equal(unused.data, 1)


# ----- the parts ---------------------------------------------------------------------------
@pytest.mark.parametrize("number", [0, 1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_the_parts_of_a_part_are_those_of_the_whole(number, processes):
    whole = [list(range(number)[samples_of_part(number, k, 8)]) for k in range(8)]
    assert sum(whole, []) == list(range(number)) and max(map(len, whole)) - min(map(len, whole)) <= 1
    own, found = 8 // processes, []
    for rank in range(processes):
        mine = list(range(number)[samples_of_part(number, rank, processes)])
        found += [mine[samples_of_part(len(mine), k, own)] for k in range(own)]
    assert found == whole


def test_a_loader_yields_its_part_of_each_batch_though_it_may_be_empty():
    images = np.arange(7, dtype=np.float32)[:, None, None] * np.ones((1, 4, 4), np.float32)
    data = SegmentationDataset(images, images > 2)
    whole = list(Loader(data, 3, seed=1).epoch(0))
    parts = [list(Loader(data, 3, seed=1, part=(k, 4), workers=k % 2).epoch(0)) for k in range(4)]
    for k, (x, y) in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([part[k][0] for part in parts]), x)
        np.testing.assert_array_equal(np.concatenate([part[k][1] for part in parts]), y)
    assert parts[0][2][0].shape == (0, 1, 4, 4) and parts[0][2][1].shape == (0, 1, 4, 4)


def test_numbers_are_added_as_a_tree():
    rounding = np.float32([1.0, 1e-8, -1.0, 3e-8, 5.0, 1e-7, 2.0, -7.0])
    a, b, c, d, e, f, g, h = rounding
    (found,) = add_in_pairs([[x.reshape(1).copy()] for x in rounding])
    assert found[0] == ((a + b) + (c + d)) + ((e + f) + (g + h))
    assert add_in_pairs([[rounding.copy()]])[0] is not None


@pytest.mark.parametrize(("parts", "processes", "message"), [
    (3, 1, "must be 1, 2, 4, …, not 3"), (0, 1, "not 0"), (2, 4, "4 processes train together, and a batch of 2"),
])  # fmt: skip
def test_parts_that_cannot_be_are_refused(parts, processes, message):
    def start(comm):
        model, optimizer = pieces()
        group = Mpi(comm) if processes > 1 else ALONE
        with pytest.raises(ValueError, match=message):
            MicrobatchStep(model, optimizer, ops.soft_dice_loss, None, parts, group)
        if processes > 1:
            group.watch.close()
        return True

    assert all(run_processes(processes, start))


def test_a_loss_that_asks_only_sometimes_is_not_taken_for_a_mean():
    model, optimizer = pieces()

    def loss(logits, y):
        loss.calls += 1
        return ops.soft_dice_loss(logits, y, pooled=loss.calls > 4)

    loss.calls = 0
    step = MicrobatchStep(model, optimizer, loss, None, 2)
    step(*batch())
    with pytest.raises(RuntimeError, match="has to ask for the same sums over the batch"):
        step(*batch())


# ----- while the backward pass computes ------------------------------------------------------
class Noting(Group):
    """Notes which sums are asked for, and how many gradients are complete then."""

    size, threads = 2, False

    def __init__(self, parameters):
        self.parameters, self.asked = parameters, []

    def sum(self, arrays):
        self.asked.append((arrays[0].size, sum(p.grad is not None for p in self.parameters)))
        return arrays


def test_the_gradients_of_the_last_layers_are_sent_while_the_first_are_computed(monkeypatch):
    model, _ = pieces("sdunet")
    parameters, (x, y) = model.parameters(), batch()
    size, group = sum(p.size for p in parameters), Noting(parameters)
    monkeypatch.setattr(overlap, "BUCKET", size // 5)
    gradient = overlap.Gradient(parameters, 3, group, [np.full(size, 2, np.float32), np.ones(size, np.float32)])
    ops.binary_cross_entropy_with_logits(model(x), y).backward(done=gradient.note)
    found = gradient.finish()
    assert 3 <= len(group.asked) <= 5 and sum(number for number, _ in group.asked) == size
    assert group.asked[0][1] < len(parameters) / 2 and group.asked[-1][1] == len(parameters)
    np.testing.assert_array_equal(found, 3 * np.concatenate([p.grad.reshape(-1) for p in parameters]) + 2 + 1)


def test_a_parameter_that_is_used_twice_is_complete_when_both_gradients_are_there():
    w, v, seen = Tensor(np.ones(3), requires_grad=True), Tensor(np.ones(3), requires_grad=True), []
    (w * (v * w * w)).sum().backward(done=lambda leaf: seen.append((leaf, leaf.grad.copy())))
    assert [leaf for leaf, _ in seen] == [v, w] or [leaf for leaf, _ in seen] == [w, v]
    assert all((grad == leaf.grad).all() for leaf, grad in seen) and (w.grad == 3).all()


def test_what_fails_in_the_thread_fails_in_the_step():
    sender = overlap.Sender()
    with pytest.raises(ZeroDivisionError):
        sender.submit(lambda a: a // 0, 1).result()
    assert sender.submit(lambda a: a + 1, 1).result() == 2
