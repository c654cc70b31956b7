"""A stand-in for CuPy 14 on machines without a GPU: arrays that refuse to meet NumPy's.

It computes on the CPU and is strict where CuPy is: no implicit conversion (`np.asarray(a)` raises), no
arithmetic between its arrays and NumPy's (NumPy and Python *scalars* are allowed, as in CuPy), no index or assigned
value from the host, results of reductions are 0-d arrays and not scalars, `full_like(…, shape=())` takes the
prototype's shape. It has the functions listed below and no others; tests/test_fake_cupy.py checks the list against the
real package where that is installed.
"""

import builtins
import operator
import sys
import types

import fake_cuda
import numpy as np
from cuda_on_cpu import RawModule  # noqa: F401 (part of the stand-in)
from fake_cuda import get_default_memory_pool  # noqa: F401

__version__ = "14.0.0"
FUNCTIONS = [
    "absolute", "add", "all", "any", "arange", "argmax", "broadcast_to", "clip", "concatenate", "cumsum", "divide",
    "einsum", "empty", "equal", "exp", "full", "greater", "greater_equal", "isfinite", "isnan", "less", "less_equal",
    "log", "log1p", "logical_and", "logical_or", "matmul", "max", "maximum", "mean", "min", "minimum", "moveaxis",
    "multiply", "negative", "not_equal", "ones", "pad", "power", "repeat", "reshape", "roll", "split", "sqrt", "square",
    "stack", "subtract", "sum", "take_along_axis", "tensordot", "transpose", "where", "zeros",
]  # fmt: skip
SAME = ["finfo", "float32", "float64", "inf", "int32", "int64", "nan", "newaxis", "uint8", "uint32"]
METHODS = ["all", "any", "argmax", "max", "mean", "min", "ravel", "repeat", "reshape", "sum", "transpose"]
OPERATORS = [
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "matmul",
    "and_",
    "or_",
    "xor",
    "lshift",
    "rshift",
]
COMPARISONS = ["eq", "ne", "lt", "le", "gt", "ge"]


class ndarray:
    """An array "on the GPU". `_host` is where it really is; nothing in tinyseg may look."""

    __array_priority__ = 100
    __hash__ = None

    def __init__(self, host):
        self._host = host

    def __array__(self, dtype=None, copy=None):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        if method != "__call__" or ufunc.__name__ not in FUNCTIONS:
            return NotImplemented
        return globals()[ufunc.__name__](*inputs, **options)

    def __array_function__(self, function, types, args, options):
        if function.__name__ not in globals():
            return NotImplemented
        return globals()[function.__name__](*args, **options)

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    strides = property(lambda self: self._host.strides)
    itemsize = property(lambda self: self._host.itemsize)
    flags = property(lambda self: self._host.flags)
    base = property(lambda self: None if self._host.base is None else _device(self._host.base))
    T = property(lambda self: _device(self._host.T))
    data = property(lambda self: types.SimpleNamespace(ptr=self._host.ctypes.data))

    def get(self):
        return self._host.copy()

    def set(self, a, stream=None):
        if not isinstance(a, np.ndarray) or a.shape != self.shape or a.dtype != self.dtype:
            raise TypeError("Only a numpy.ndarray of the same shape and dtype can be set to cupy.ndarray")
        (stream or fake_cuda.NULL).do(lambda: np.copyto(self._host, a))

    def item(self):
        return self._host.item()

    def tolist(self):
        return self._host.tolist()

    def fill(self, value):
        self._host.fill(_host(value))

    def copy(self, order="C"):
        return _device(self._host.copy(order))

    def astype(self, dtype, copy=True):
        host = self._host.astype(dtype, copy=copy)
        return self if host is self._host else _device(host)

    def __getitem__(self, index):
        return _device(self._host[_host(index)])

    def __setitem__(self, index, value):
        self._host[_host(index)] = _host(value)

    def __len__(self):
        return len(self._host)

    def __iter__(self):
        return (_device(row) for row in self._host)

    def __bool__(self):
        return bool(self._host)

    def __float__(self):
        return float(self._host)

    def __int__(self):
        return int(self._host)

    def __neg__(self):
        return _device(-self._host)

    def __abs__(self):
        return _device(operator.abs(self._host))

    def __invert__(self):
        return _device(~self._host)

    def __repr__(self):
        return repr(self._host)


ndarray.__module__ = "cupy"


def _host(x):
    """What stands behind an argument; NumPy's arrays may not be one."""
    if isinstance(x, ndarray):
        return x._host
    if isinstance(x, np.ndarray):
        raise TypeError(f"Unsupported type {type(x)}")
    if isinstance(x, (tuple, list)):
        return type(x)(_host(item) for item in x)
    return x


def _device(y):
    if isinstance(y, (np.ndarray, np.generic)):
        return ndarray(np.asarray(y))
    return type(y)(_device(item) for item in y) if isinstance(y, (tuple, list)) else y


def _wrap(function):
    def wrapped(*args, out=None, **options):
        options = {name: _host(value) for name, value in options.items()}
        if out is None:
            return _device(function(*_host(args), **options))
        function(*_host(args), out=_host(out[0] if isinstance(out, tuple) else out), **options)
        return out

    return wrapped


def _binary(function, swap=False):
    def method(self, other):
        if getattr(other, "__array_ufunc__", 0) is None:  # NEP 13: such a type wants to be asked
            return NotImplemented
        a, b = self._host, _host(other)
        return _device(function(b, a) if swap else function(a, b))

    return method


def _in_place(function):
    def method(self, other):
        function(self._host, _host(other))
        return self

    return method


for _name in OPERATORS:
    _function, _stem = getattr(operator, _name), _name.rstrip("_")
    setattr(ndarray, f"__{_stem}__", _binary(_function))
    setattr(ndarray, f"__r{_stem}__", _binary(_function, swap=True))
    if _name != "matmul":  # CuPy has no __imatmul__
        setattr(ndarray, f"__i{_stem}__", _in_place(getattr(operator, f"i{_name.rstrip('_')}")))
for _name in COMPARISONS:
    setattr(ndarray, f"__{_name}__", _binary(getattr(operator, _name)))
for _name in METHODS:
    setattr(ndarray, _name, lambda self, *a, _name=_name, **o: _wrap(getattr(np.ndarray, _name))(self, *a, **o))
for _name in FUNCTIONS:
    globals()[_name] = _wrap(getattr(np, _name))
for _name in SAME:
    globals()[_name] = getattr(np, _name)


def asarray(a, dtype=None):
    """The one way in: copies from the host."""
    if isinstance(a, ndarray):
        return a if dtype is None else a.astype(dtype, copy=False)
    return ndarray(np.array(a, dtype))


array = asarray


def ascontiguousarray(a, dtype=None):
    host = np.ascontiguousarray(_host(a), dtype)  # of a 0-d array: one axis, in CuPy too
    return a if isinstance(a, ndarray) and host is a._host else _device(host)


def empty(shape, dtype=float):
    """Not zeros, as fresh memory often is by chance, but NaN or -1."""
    host = np.empty(shape, dtype)
    host.reshape(-1).view(np.uint8)[...] = 0xFF
    return _device(host)


def asnumpy(a):
    """The one way out."""
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


def get_array_module(*arrays):
    return sys.modules[__name__] if builtins.any(isinstance(a, ndarray) for a in arrays) else np


def copyto(dst, src, casting="same_kind", where=None):
    np.copyto(_host(dst), _host(src), casting=casting, where=True if where is None else _host(where))


def _as_prototype(function):
    def like(a, *args, dtype=None, shape=None):
        return _device(function(_host(a), *_host(args), dtype=dtype, shape=shape or a.shape))  # () is falsy in CuPy too

    return like


zeros_like, ones_like, full_like, empty_like = map(
    _as_prototype, (np.zeros_like, np.ones_like, np.full_like, np.empty_like)
)

cuda = types.SimpleNamespace(
    runtime=types.SimpleNamespace(
        getDeviceCount=lambda: 1,
        getDeviceProperties=lambda k: {"name": b"Stand-in", "major": 9, "minor": 0, "totalGlobalMem": 2**30},
        driverGetVersion=lambda: 12080,
        runtimeGetVersion=lambda: 12080,
        CUDARuntimeError=RuntimeError,
    ),
    Device=lambda: types.SimpleNamespace(id=0, synchronize=lambda: None),
    Stream=fake_cuda.Stream,
    Event=fake_cuda.Event,
    get_elapsed_time=fake_cuda.get_elapsed_time,
    get_current_stream=lambda: fake_cuda.NULL,
    alloc_pinned_memory=bytearray,
)
