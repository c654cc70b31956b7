"""A stand-in for CuPy 14 on machines without a GPU: arrays that refuse to meet NumPy's.

It computes on the CPU and is strict where CuPy is: no implicit conversion (`np.asarray(a)` raises), no
arithmetic between its arrays and NumPy's (NumPy and Python *scalars* are allowed, as in CuPy), no index or assigned
value from the host, results of reductions are 0-d arrays and not scalars, `full_like(…, shape=())` takes the
prototype's shape. During the capture of a stream (fake_graphs.py) nothing is computed. It has the functions
listed below and no others; test_fake_cupy.py checks the list against the real package if that is installed.
"""

import builtins
import operator
import sys
import types

import fake_cublas
import fake_cuda
import fake_graphs
import numpy as np
from cuda_on_cpu import RawModule  # noqa: F401 (part of the stand-in)
from fake_cuda import get_default_memory_pool  # noqa: F401
from fake_graphs import change, compute, forbid

__version__ = "14.0.0"
FUNCTIONS = [
    "absolute", "add", "all", "any", "arange", "argmax", "broadcast_to", "clip", "concatenate", "cumsum", "divide",
    "einsum", "empty", "equal", "exp", "full", "greater", "greater_equal", "isfinite", "isnan", "less", "less_equal",
    "log", "log1p", "logical_and", "logical_or", "matmul", "max", "maximum", "mean", "min", "minimum", "moveaxis",
    "multiply", "negative", "not_equal", "ones", "pad", "power", "repeat", "reshape", "roll", "split", "sqrt", "square",
    "stack", "subtract", "sum", "take_along_axis", "tensordot", "transpose", "where", "zeros",
]  # fmt: skip
SAME = ["finfo", "float16", "float32", "float64", "inf", "int32", "int64", "nan", "newaxis", "uint8", "uint32"]
METHODS = ["all", "any", "argmax", "max", "mean", "min", "ravel", "repeat", "reshape", "squeeze", "sum", "transpose"]
LIMITED = ["concatenate", "einsum", "matmul", "stack", "tensordot"]  # not everything during a capture
OPERATORS = [
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "lshift", "rshift",
]  # fmt: skip
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
    base = property(lambda self: _device(self._host.base) if isinstance(self._host.base, np.ndarray) else None)
    T = property(lambda self: _device(self._host.T))
    data = property(lambda self: types.SimpleNamespace(ptr=self._host.ctypes.data))

    def get(self):
        forbid("reading a result")
        return self._host.copy()

    def set(self, a, stream=None):
        if not isinstance(a, np.ndarray) or a.shape != self.shape or a.dtype != self.dtype:
            raise TypeError("Only a numpy.ndarray of the same shape and dtype can be set to cupy.ndarray")
        (stream or fake_cuda.current_stream()).do(lambda: np.copyto(self._host, a))

    def item(self):
        return self.get().item()

    def tolist(self):
        return self.get().tolist()

    def fill(self, value):
        change(np.ndarray.fill, self._host, _host(value))

    def copy(self, order="C"):
        return _device(compute(np.ndarray.copy, self._host, order))

    def view(self, dtype):
        return _device(self._host.view(dtype))

    def astype(self, dtype, copy=True):
        host = compute(np.ndarray.astype, self._host, dtype, copy=copy)
        return self if host is self._host else _device(host)

    def __getitem__(self, index):
        index = index if isinstance(index, tuple) else (index,)
        whole = builtins.any(i is Ellipsis for i in index)
        return _device(compute(operator.getitem, self._host, _host(index if whole else (*index, ...))))  # 0-d: a view

    def __setitem__(self, index, value):
        change(operator.setitem, self._host, _host(index), _host(value))

    def __len__(self):
        return len(self._host)

    def __iter__(self):
        return (self[k] for k in range(len(self)))

    def __bool__(self):
        return bool(self.get())

    def __float__(self):
        return float(self.get())

    def __int__(self):
        return int(self.get())

    def __neg__(self):
        return _device(compute(operator.neg, self._host))

    def __abs__(self):
        return _device(compute(operator.abs, self._host))

    def __invert__(self):
        return _device(compute(operator.invert, self._host))

    def __repr__(self):
        return repr(self.get())


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
            return _device(compute(function, *_host(args), **options))
        change(function, *_host(args), out=_host(out[0] if isinstance(out, tuple) else out), **options)
        return out

    return wrapped


def _wrap_with_limits(function):
    """What CuPy refuses during a capture, or does by a copy from the host (of many arrays' addresses)."""
    wrapped = _wrap(function)

    def limited(*args, **options):
        if fake_graphs.capture is not None:
            if function.__name__ in ("concatenate", "stack") and len(args[0]) > 8:
                forbid("copying addresses from the host")
            a, *b = (x.shape for x in args if hasattr(x, "shape"))
            if b and not (len(a) == len(b[0]) == 2 and a[0] == b[0][1] == 1):
                raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
        return wrapped(*args, **options)

    return limited


def _binary(function, swap=False):
    def method(self, other):
        if getattr(other, "__array_ufunc__", 0) is None:  # NEP 13: such a type wants to be asked
            return NotImplemented
        a, b = self._host, _host(other)
        return _device(compute(function, *((b, a) if swap else (a, b))))

    return method


def _in_place(function):
    def method(self, other):
        change(function, self._host, _host(other))
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
    globals()[_name] = (_wrap_with_limits if _name in LIMITED else _wrap)(getattr(np, _name))
ndarray.__matmul__ = lambda a, b: globals()["matmul"](a, b)
for _name in SAME:
    globals()[_name] = getattr(np, _name)


def asarray(a, dtype=None):
    """The one way in: copies from the host."""
    if isinstance(a, ndarray):
        return a if dtype is None else a.astype(dtype, copy=False)
    if np.ndim(a):
        forbid("copying from the host")
    return ndarray(compute(lambda: np.array(a, dtype)))  # a single number is an argument of a kernel that fills


def array(a, dtype=None):
    return a.astype(dtype or a.dtype) if isinstance(a, ndarray) else asarray(a, dtype)


def ascontiguousarray(a, dtype=None):
    host = compute(np.ascontiguousarray, _host(a), dtype)  # of a 0-d array: one axis, in CuPy too
    return a if isinstance(a, ndarray) and host is a._host else _device(host)


def empty(shape, dtype=float):
    """Not zeros, as fresh memory often is by chance, but NaN or -1."""
    return _device(fake_graphs.empty(shape, dtype))


def asnumpy(a):
    """The one way out."""
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


def get_array_module(*arrays):
    return sys.modules[__name__] if builtins.any(isinstance(a, ndarray) for a in arrays) else np


def copyto(dst, src, casting="same_kind", where=None):
    change(np.copyto, _host(dst), _host(src), casting=casting, where=True if where is None else _host(where))


def _as_prototype(function):
    def like(a, *args, dtype=None, shape=None):
        shape = shape or a.shape  # () is falsy in CuPy too
        return _device(compute(function, _host(a), *_host(args), dtype=dtype, shape=shape))

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
        memGetInfo=fake_graphs.mem_get_info,
        CUDARuntimeError=fake_graphs.CUDARuntimeError,
        CUDA_R_32F=0,
        CUDA_R_16F=2,
    ),
    cublas=fake_cublas,
    get_cublas_handle=lambda: fake_cublas.HANDLE,
    Device=lambda: types.SimpleNamespace(
        id=0, synchronize=lambda: forbid("waiting"), compute_capability="90", cublas_handle=fake_cublas.HANDLE
    ),
    Graph=fake_graphs.Graph,
    Memory=fake_graphs.Memory,
    MemoryPointer=fake_graphs.MemoryPointer,
    MemoryPool=fake_graphs.MemoryPool,
    using_allocator=fake_graphs.using_allocator,
    Stream=fake_cuda.Stream,
    Event=fake_cuda.Event,
    get_elapsed_time=fake_cuda.get_elapsed_time,
    get_current_stream=fake_cuda.current_stream,
    alloc_pinned_memory=bytearray,
)
