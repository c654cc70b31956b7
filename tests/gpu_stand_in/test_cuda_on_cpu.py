"""Kernels that run on the CPU: float16 is NumPy's, and mistakes that a GPU would not report are errors."""

import cuda_on_cpu
import numpy as np
import pytest

from tinyseg.fast.gpu import activation
from tinyseg.fast.gpu import launch as cuda

KERNELS = """
extern "C" __global__ void widen(const half* x, float* y, int size) {
  int t = thread_index();
  if (t < size) y[t] = x[t];
}
extern "C" __global__ void narrow(const float* x, half* y, int size) {
  int t = thread_index();
  if (t < size) y[t] = x[t];
}
"""


def test_float16_in_a_kernel_is_that_of_numpy(stand_in):
    """Every float16 there is; floats of every size, and halfway between two float16."""
    module = stand_in.RawModule(code=cuda.COMMON.read_text() + KERNELS, options=(*cuda.OPTIONS, "-DREAL=half"))
    x = np.arange(65536, dtype=np.uint16).view(np.float16)
    rng = np.random.default_rng(0)
    numbers = (rng.standard_normal(100_000) * 2.0 ** rng.integers(-30, 20, 100_000)).astype(np.float32)
    ordered = np.sort(x[np.isfinite(x)].astype(np.float32))
    middles = ((ordered[1:].astype(float) + ordered[:-1]) / 2).astype(np.float32)
    edges = np.array(
        [0, -0.0, np.inf, -np.inf, np.nan, 65504, 65519.99, 65520, 1e30, 2**-24, 2**-25, 1e-40], np.float32
    )
    for name, given, kind in (
        ("widen", x, np.float32),
        ("narrow", np.concatenate([numbers, middles, edges]), np.float16),
    ):
        found = stand_in.empty(given.shape, kind)
        cuda.launch(module.get_function(name), cuda.blocks_for(given.size), stand_in.asarray(given), found, given.size)
        found = stand_in.asnumpy(found)
        with np.errstate(over="ignore"):
            expected = given.astype(kind)
        np.testing.assert_array_equal(found, expected)
        number = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(found[number]), np.signbit(expected[number]))


@pytest.mark.skipif(cuda_on_cpu.compiler is None, reason="no g++ to compile the kernels for the CPU")
def test_the_stand_in_sees_an_array_of_the_wrong_type(stand_in):
    if stand_in.__name__ != "fake_cupy":
        pytest.skip("CuPy passes addresses on as they are")
    x, y = (stand_in.asarray(np.ones(4, dtype)) for dtype in (np.float16, np.float32))
    for dtype, (a, b) in {"float16": (x, y), "float32": (y, x)}.items():
        with pytest.raises(AssertionError, match="argument 1 is float.., expected"):
            cuda.launch(activation.kernel("relu_forward", dtype), 1, a, b, 4)
