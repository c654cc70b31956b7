"""Weights in panels: every element where it belongs, from every layout in memory, around every remainder."""

import numpy as np
import pytest
from arrays import single, strided

pytest.importorskip("numba")

from tinyseg.fast.cpu import packing  # noqa: E402
from tinyseg.fast.cpu.packing import as_read, pack, pack_weights  # noqa: E402
from tinyseg.fast.cpu.simd import LANES, WIDTH  # noqa: E402

EVERY_N = [1, 2, LANES - 1, LANES, LANES + 1, WIDTH - 1, WIDTH, WIDTH + 1, 2 * WIDTH, 3 * WIDTH - 5]
MATRICES = {
    "rows": lambda b: b,
    "columns": lambda b: np.asfortranarray(b),
    "a part": lambda b: np.full((2 * b.shape[0], 3 * b.shape[1]), np.nan, np.float32)[::2, 1::3],
    "a part of columns": lambda b: np.full((3 * b.shape[1], 2 * b.shape[0]), np.nan, np.float32)[1::3, ::2].T,
    "upside down": lambda b: np.empty_like(b)[::-1],
    "backwards": lambda b: np.empty_like(b)[:, ::-1],
    "both": lambda b: np.empty_like(b.T)[::-1, ::-1].T,
}


def turned(w):
    """Weights in the memory that they have in a layer when its gradient of the input is computed."""
    layer = np.ascontiguousarray(w.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1])
    return layer.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]


WEIGHTS = {
    "a layer's own": np.asarray,
    "turned": turned,
    "turned, of some channels": lambda w: turned(np.concatenate([w, w]))[: len(w)],
    "of some channels": lambda w: np.concatenate([w, w], axis=1)[:, w.shape[1] :],
    "input channels first": lambda w: np.ascontiguousarray(w.transpose(1, 0, 2, 3)).transpose(1, 0, 2, 3),
    "rows in reverse": lambda w: np.ascontiguousarray(w[:, :, ::-1])[:, :, ::-1],
    "columns in reverse": lambda w: np.ascontiguousarray(w[..., ::-1])[..., ::-1],
    "a part": strided,
    "a field of records": lambda w: in_records(w),
}
IN_PLACE = ["a layer's own", "turned", "turned, of some channels", "of some channels", "input channels first"]


def in_records(w):
    """The same weights, each output channel's before a byte of something else."""
    records = np.zeros(len(w), [("weights", np.float32, w.shape[1:]), ("used", np.uint8)])
    records["weights"] = w
    return records["weights"]


@pytest.mark.parametrize("layout", MATRICES.values(), ids=MATRICES)
def test_pack(layout):
    for K in (1, 15, 16, 17, 255, 257, 530):
        for N in EVERY_N:
            b = single(K, N)
            view = layout(b)
            view[...] = b
            panels = pack(view).reshape(-1, K, WIDTH)
            side_by_side = panels.transpose(1, 0, 2).reshape(K, -1)
            np.testing.assert_array_equal(side_by_side[:, :N], b)
            assert side_by_side.shape[1] - N < WIDTH and not side_by_side[:, N:].any()
            np.testing.assert_array_equal(view, b)


@pytest.mark.parametrize("layout", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("kernel", [(3, 3), (2, 2), (1, 2), (3, 1), (5, 4), (1, 1)], ids=str)
def test_pack_weights(layout, kernel, monkeypatch):
    monkeypatch.setattr(packing, "empty", lambda n: np.full(n, np.float32(np.nan)))  # nothing may be left as it was
    for K, C, pitch in ((1, 1, 1), (WIDTH, LANES, LANES), (WIDTH + 3, 37, 40), (2 * WIDTH - 1, 300, 300), (7, 2, 5)):
        w = single(K, C, *kernel)
        found = layout(w)
        np.testing.assert_array_equal(found, w)
        panels = pack_weights(found, pitch).reshape(-1, *kernel, pitch, WIDTH)
        of_k = np.moveaxis(panels, -1, 1).reshape(-1, *kernel, pitch)  # (k, u, v, c)
        np.testing.assert_array_equal(of_k[:K, ..., :C].transpose(0, 3, 1, 2), w)
        assert not of_k[K:].any() and not of_k[..., C:].any()


@pytest.mark.parametrize("layout", IN_PLACE)
def test_weights_of_a_layer_and_of_some_of_its_channels_are_read_where_they_are(layout):
    for w in (single(20, 9, 3, 3), single(1, 9, 3, 3), single(20, 1, 2, 2)):
        part = WEIGHTS[layout](w)
        assert np.shares_memory(as_read(part)[0], part)
