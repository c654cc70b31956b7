"""The CUDA kernel of class numbers against the maths, and constants that are made once."""

import numpy as np
import pytest
from arrays import rand
from stand_in import both, layouts, or_maths, planes

from tinyseg import ops
from tinyseg.fast.gpu.graphs.recording import Recording

maths, fast = both("targets")


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "int8"])
@pytest.mark.parametrize("ignore_index", [None, 0, 2, -1, 255, -100, 2**40, np.int64(1)], ids=str)
@layouts
def test_class_numbers(dtype, ignore_index, layout, stand_in):
    k = or_maths("targets") if ignore_index == 2**40 else fast  # an int of 32 bits does not hold it
    t = np.random.default_rng(0).integers(0, 4, (3, 17, 9)).astype(dtype)
    for bad in (None, -1, 4, 100):
        if bad is not None:
            t[1, 2, 3] = bad if bad >= 0 or dtype[0] == "i" else 255
        there = layout(stand_in, t)
        numbers, valid = k.class_numbers(there, 4, ignore_index)
        expected, expected_valid = maths.class_numbers(t, 4, ignore_index)
        assert valid is bool(valid) and valid == expected_valid and numbers.dtype == np.int64
        np.testing.assert_array_equal(stand_in.asnumpy(numbers), expected)
        np.testing.assert_array_equal(stand_in.asnumpy(there), t)


def test_a_wrong_class_number_is_named(stand_in):
    z, k = rand(2, 4, 5, 3).astype(np.float32), np.random.default_rng(0).integers(-1, 4, (2, 5, 3))
    k[0, 0, 0], k[0, 0, 1] = 4, -1
    with pytest.raises(ValueError, match="class numbers must be 0 … 3, but range from -1 to 4"):
        ops.cross_entropy(planes(stand_in, z), planes(stand_in, k), ignore_index=-1)


def test_while_a_step_is_recorded_a_wrong_number_is_noted_and_left_out(stand_in):
    """The loss is computed before anybody looks: weight[k] must exist."""
    t = planes(stand_in, np.array([[[0, 2, 1], [3, -1, 255]]]))
    with Recording().record(capturing=False) as record:
        numbers, valid = fast.class_numbers(t, 3, 255)
        assert valid is True and record.checks_classes
    assert record.wrong.item() == 1
    assert stand_in.asnumpy(numbers).tolist() == [[[0, 2, 1], [-1, -1, -1]]]
    with record.record(capturing=False):
        fast.class_numbers(t[:, :1], 3, None)
    assert record.wrong.item() == 0


@pytest.mark.parametrize("given", [1.5, (0.25, 0.5, 2.0), (3,)], ids=str)
def test_constants(given, stand_in):
    z = planes(stand_in, np.zeros((1, 3, 2, 4), np.float32))
    once, again = fast.constant(z, given), fast.constant(z, given)
    assert once is again
    with Recording().record(capturing=False) as record:
        recorded = fast.constant(z, given)
    low, high = record.memory.data.ptr, record.memory.data.ptr + record.memory.nbytes
    assert recorded is not once and low <= recorded.data.ptr < high
    for a in (once, recorded):
        assert a.dtype == np.float32 and a.shape == np.shape(given)
        np.testing.assert_array_equal(stand_in.asnumpy(a), np.float32(given))
