"""The loader: the same batches whatever the threads, from any batch on, and no thread left behind."""

import threading
import time
import traceback

import numpy as np
import pytest

from tinyseg.data.augment import Augment
from tinyseg.data.loader import Loader, SegmentationDataset


def arrays(sections=7, channels=None, height=10, width=13):
    rng = np.random.default_rng(0)
    shape = (sections, height, width) if channels is None else (sections, channels, height, width)
    return rng.standard_normal(shape).astype(np.float32), rng.random((sections, height, width)) < 0.7


def dataset(augment=None, seed=0, **shape):
    return SegmentationDataset(*arrays(**shape), augment=augment, seed=seed)


def assert_same_batches(a, b):
    a, b = list(a), list(b)
    assert len(a) == len(b) > 0
    for (xa, ya), (xb, yb) in zip(a, b, strict=True):
        np.testing.assert_array_equal(xa, xb)
        np.testing.assert_array_equal(ya, yb)


def loader_threads():
    return [t for t in threading.enumerate() if t.name.startswith("tinyseg-loader")]


class Numbers:
    """A data set whose sample is its index; it counts how often it was asked, and can fail or dawdle."""

    def __init__(self, size=40, fails_at=None, seconds=0.0):
        self.size, self.fails_at, self.seconds = size, fails_at, seconds
        self.asked, self.threads = 0, set()

    def __len__(self):
        return self.size

    def sample(self, index, epoch):
        self.asked += 1
        self.threads.add(threading.current_thread())
        time.sleep(self.seconds)
        if index == self.fails_at:
            raise OSError("the disk is gone")
        return np.full((1, 2, 3), index, np.float32), np.full((2, 3), epoch, np.int64)


def indices(batches):
    return [x[:, 0, 0, 0].astype(int).tolist() for x, _ in batches]


# ---- the data set


def test_binary_samples():
    images, labels = arrays()
    data = SegmentationDataset(images, labels)
    x, y = data.sample(3, epoch=0)
    assert len(data) == 7
    assert (x.dtype, y.dtype) == (np.float32, np.float32)
    np.testing.assert_array_equal(x, images[3][None])
    np.testing.assert_array_equal(y, labels[3][None])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_class_samples(dtype):
    images, labels = arrays(channels=4)
    classes = (labels * 3).astype(dtype)
    x, y = SegmentationDataset(images, classes).sample(2, epoch=5)
    assert (x.shape, y.shape, y.dtype) == ((4, 10, 13), (10, 13), np.int64)
    np.testing.assert_array_equal(x, images[2])
    np.testing.assert_array_equal(y, classes[2])


def test_augmentation_depends_on_seed_epoch_and_index_only():
    augment = Augment.parse("default,elastic=2")
    x, y = dataset(augment).sample(2, epoch=3)
    again_x, again_y = dataset(augment).sample(2, epoch=3)
    np.testing.assert_array_equal(x, again_x)
    np.testing.assert_array_equal(y, again_y)
    same = np.repeat(arrays(1)[0], 7, axis=0), np.repeat(arrays(1)[1], 7, axis=0)
    seen = [
        SegmentationDataset(*same, augment=augment, seed=seed).sample(index, epoch)[0].tobytes()
        for seed, epoch, index in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    ]
    assert len(set(seen)) == 4


def test_augmented_shapes():
    x, y = dataset(Augment.default(), channels=2).sample(0, 0)
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((2, 10, 13), np.float32, (1, 10, 13), np.float32)
    assert set(np.unique(y)) <= {0, 1}


def test_an_epoch_has_as_many_windows_of_each_section_as_cover_it():
    images, labels = arrays()  # seven of 10 x 13
    data = SegmentationDataset(images, labels, crop=(4, 5))
    assert len(data) == 7 * 3 * 3 and data.crop == (4, 5)
    seen = {(k % 7, data.sample(k, 0)[0].tobytes()) for k in range(len(data))}
    assert len(seen) > 45  # of 63: windows at random places
    for k in (0, 8, 62):
        x, y = data.sample(k, epoch=1)
        views = np.lib.stride_tricks.sliding_window_view(images[k % 7], (4, 5))
        ((i, j),) = np.argwhere((views == x[0]).all(axis=(2, 3)))
        np.testing.assert_array_equal(y[0], labels[k % 7, i : i + 4, j : j + 5])


def test_where_a_section_is_smaller_than_the_window_it_is_the_section():
    images, labels = arrays()
    data = SegmentationDataset(images, labels, crop=11)
    assert data.crop == (10, 11) and len(data) == 14
    whole = SegmentationDataset(images, labels, crop=256)
    assert len(whole) == 7
    np.testing.assert_array_equal(whole.sample(3, 0)[0], images[3][None])
    with pytest.raises(ValueError, match="crop must be at least 1, found 0"):
        SegmentationDataset(images, labels, crop=0)


def test_data_sets_that_do_not_fit():
    images, labels = arrays()
    with pytest.raises(ValueError, match=r"images must be float32 .*found uint8 .*standardize"):
        SegmentationDataset(images.astype(np.uint8), labels)
    with pytest.raises(ValueError, match=r"at least one section: found float32 \(0, 10, 13\)"):
        SegmentationDataset(images[:0], labels[:0])
    with pytest.raises(ValueError, match=r"found float32 \(10, 13\)"):
        SegmentationDataset(images[0], labels[0])
    with pytest.raises(ValueError, match=r"labels must be bool .*found float32"):
        SegmentationDataset(images, labels.astype(np.float32))
    with pytest.raises(ValueError, match=r"labels \(6, 10, 13\) must be"):
        SegmentationDataset(images, labels[:6])
    with pytest.raises(ValueError, match="seed must be at least 0, found -1"):
        SegmentationDataset(images, labels, seed=-1)


# ---- batches


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_an_epoch_holds_every_sample_once(workers):
    loader = Loader(Numbers(11), 4, workers=workers)
    batches = list(loader.epoch(6))
    assert len(loader) == 3
    assert [x.shape for x, _ in batches] == [(4, 1, 2, 3), (4, 1, 2, 3), (3, 1, 2, 3)]
    assert all((y == 6).all() for _, y in batches)
    assert sorted(sum(indices(batches), [])) == list(range(11))


def test_drop_last_and_no_shuffle():
    loader = Loader(Numbers(11), 4, shuffle=False, drop_last=True)
    assert len(loader) == 2
    assert indices(loader.epoch(0)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert len(Loader(Numbers(12), 4, drop_last=True)) == len(Loader(Numbers(12), 4)) == 3


def test_order_follows_seed_and_epoch():
    orders = [indices(Loader(Numbers(), 5, seed=s).epoch(e)) for s, e in [(0, 0), (0, 1), (1, 0), (0, 0)]]
    assert orders[0] == orders[3]
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]
    assert orders[1] != orders[2]


def test_order_and_augmentation_draw_from_different_streams():
    order = sum(indices(Loader(Numbers(), 5, seed=3).epoch(2)), [])
    of_sample_0 = np.arange(40)
    np.random.default_rng(np.random.SeedSequence((3, 2, 0))).shuffle(of_sample_0)
    assert order != of_sample_0.tolist()


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_threads_make_no_difference(workers):
    data = dataset(Augment.parse("default,elastic=2"), sections=11, channels=2)
    reference = Loader(data, 3, workers=0)
    for epoch in (0, 7):
        assert_same_batches(Loader(data, 3, workers=workers).epoch(epoch), reference.epoch(epoch))


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("start", [1, 2, 3])
def test_starting_in_mid_epoch_gives_the_tail(workers, start):
    loader = Loader(dataset(Augment.default(), sections=11), 3, workers=workers)
    assert_same_batches(loader.epoch(4, start=start), list(loader.epoch(4))[start:])


@pytest.mark.parametrize("workers", [0, 2])
def test_start_at_the_end_and_beyond(workers):
    loader = Loader(Numbers(11), 4, workers=workers)
    assert list(loader.epoch(0, start=3)) == []
    for start in (-1, 4):
        with pytest.raises(ValueError, match=f"from 0 to 3, .*found {start}"):
            loader.epoch(0, start=start)


def test_batches_are_prepared_ahead_but_no_further_than_prefetch():
    data = Numbers(40)
    batches = Loader(data, 2, workers=2, prefetch=3).epoch(0)
    assert data.asked == 0
    next(batches)
    deadline = time.monotonic() + 10
    while data.asked < 8 and time.monotonic() < deadline:  # the batch in hand and three more
        time.sleep(0.005)
    time.sleep(0.05)
    assert data.asked == 8
    assert threading.current_thread() not in data.threads
    batches.close()


def test_without_workers_nothing_is_prepared_ahead():
    data = Numbers(40)
    batches = Loader(data, 2, workers=0).epoch(0)
    next(batches)
    assert data.asked == 2
    assert data.threads == {threading.current_thread()}


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_exception_comes_back_with_its_traceback(workers):
    loader = Loader(Numbers(20, fails_at=9), 2, shuffle=False, workers=workers)
    got = []
    with pytest.raises(OSError, match="the disk is gone") as caught:
        got.extend(loader.epoch(5))
    assert indices(got) == [[0, 1], [2, 3], [4, 5], [6, 7]]  # what came before it
    assert caught.value.__notes__ == ["while preparing sample 9 of epoch 5"]
    assert 'raise OSError("the disk is gone")' in "".join(traceback.format_exception(caught.value))
    assert loader_threads() == []


@pytest.mark.timeout(20)
def test_leaving_early_stops_the_threads():
    data = Numbers(1000, seconds=0.01)
    began = time.monotonic()
    batches = Loader(data, 5, workers=3, prefetch=50).epoch(0)
    for _ in batches:
        assert len(loader_threads()) == 3
        break
    batches.close()
    assert loader_threads() == []
    assert data.asked < 150  # not all of the 255 that were prefetched
    assert time.monotonic() - began < 3
    asked = data.asked
    time.sleep(0.05)
    assert data.asked == asked


def test_an_epoch_leaves_no_thread():
    list(Loader(Numbers(), 3, workers=3).epoch(0))
    assert loader_threads() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, found 0"),
        ({"batch_size": 2.5}, "batch_size must be at least 1, found 2.5: give a whole number"),
        ({"batch_size": "2"}, "found '2': give a whole number"),
        ({"workers": -1}, "workers must be at least 0, found -1"),
        ({"prefetch": 0}, "prefetch must be at least 1"),
        ({"seed": -2}, "seed must be at least 0"),
        ({"batch_size": 12, "drop_last": True}, "11 samples make no batch of 12"),
    ],
)
def test_numbers_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        Loader(Numbers(11), **{"batch_size": 2, **options})


def test_no_samples():
    with pytest.raises(ValueError, match="0 samples make no batch"):
        Loader(Numbers(0), 2)
