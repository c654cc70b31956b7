"""Fingerprints: anything that changes what is read changes them, and nothing else does."""

import os

import numpy as np
import pytest

from tinyseg.data.fingerprint import fingerprint, fingerprint_of_file, refuse_changed

A = np.arange(12, dtype=np.uint8).reshape(3, 4)


def test_equal_arrays_have_one_fingerprint_however_they_lie_in_memory():
    assert fingerprint(A) == fingerprint(np.asfortranarray(A)) == fingerprint(A.copy())


@pytest.mark.parametrize(
    "other",
    [
        A.reshape(4, 3),
        A.view(np.int8),
        np.where(A == 5, 6, A).astype(np.uint8),
        A[:0],
        np.uint8(3) * np.ones((), np.uint8),
    ],
)
def test_another_shape_type_or_value_gives_another_fingerprint(other):
    assert fingerprint(other) != fingerprint(A)


def test_order_and_borders_between_parts_count():
    assert len({fingerprint("ab", "c"), fingerprint("a", "bc"), fingerprint("c", "ab"), fingerprint("abc")}) == 4


def test_what_differs_is_named():
    before = {"images": "1", "masks": "2", "classes": "3"}
    refuse_changed(before, dict(before), "runs/a")
    with pytest.raises(ValueError, match=r"begun with: masks, modalities differ\."):
        refuse_changed(before, before | {"masks": "x", "modalities": "y"}, "runs/a")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.timeout(60)
def test_a_pipe_and_a_device_are_not_read_without_end(tmp_path):
    os.mkfifo(tmp_path / "slices.npy")
    (tmp_path / "zero.npy").symlink_to("/dev/zero")
    for name in ("slices.npy", "zero.npy"):
        with pytest.raises(OSError, match=rf"{name} is a folder, a device or a pipe: expected a file"):
            fingerprint_of_file(tmp_path / name)
