"""What numba compiles: kernels, and the subroutines that they call, each of which is compiled once.

numba copies every compiled function that a kernel calls into the kernel, and optimizes it there again. The inner loops
of a matrix product are in a dozen kernels, and this was half of the time that compiling took. A kernel calls a
subroutine by a symbol instead, a name whose address the linker of LLVM is told. The symbol is the same in every
process, so that kernels on disk find it.
"""

import contextlib
import copy
import hashlib
import importlib
import operator
import re
import uuid

import llvmlite.binding
from numba.core import types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher
from numba.core.sigutils import normalize_signature

_noted = None  # inside `noting`, the calls: (kernel, types of its arguments)
_has_begun = False  # whether a kernel has been called
_compiled = {}  # symbol: the module of the subroutine, its path there, and the types of its arguments


class Kernel(CPUDispatcher):
    """A function that numba compiles for the types of the arguments that it is called with."""

    def __init__(self, function, options):
        super().__init__(function, targetoptions={"nopython": True, "boundscheck": None, **options})

    def _compile_for_args(self, *args, **kwargs):
        """Return the version for these arguments, which numba then calls."""
        global _has_begun
        if _noted is None:
            _has_begun = True
            return super()._compile_for_args(*args, **kwargs)
        _noted[self, tuple(map(self.typeof_pyval, args))] = None
        return lambda *args, **kwargs: None


class Subroutine(Kernel):
    """A function that is compiled by numba and called by symbol.

    Every integer that is given to it is an int64, so that whole numbers of several kinds need one version of it only.
    It should be at the top of its module: a kernel that calls a function of a function is not kept on disk.
    """

    def __init__(self, function, options, attribute=""):
        super().__init__(function, options)
        path = f"{function.__qualname__}.{attribute}" if attribute else function.__qualname__
        self._place = function.__module__, path
        self._symbol = ".".join(("subroutine", *self._place)) if _is_found(path) else f"subroutine.{uuid.uuid4().hex}"

    def get_call_template(self, args, kws):
        """Return what numba asks for where a kernel calls this: the version for these types of arguments."""
        return super().get_call_template([types.int64 if isinstance(a, types.Integer) else a for a in args], kws)

    @global_compiler_lock
    def compile(self, sig):
        """Compile the version for a signature, or load it; kernels that are compiled from now on call its symbol."""
        entry_point = super().compile(sig)
        args = tuple(normalize_signature(sig)[0])
        symbol = f"{self._symbol}.{hashlib.sha256(repr(args).encode()).hexdigest()[:16]}"
        if symbol not in _compiled:
            made = self.overloads[args]
            address = made.library.get_pointer_to_function(made.fndesc.llvm_func_name)
            llvmlite.binding.add_symbol(symbol, address)
            by_symbol = copy.copy(made.fndesc)
            by_symbol.mangled_name = symbol
            self.targetctx.remove_user_function(entry_point)  # numba's, which copies the library
            self.targetctx.insert_user_function(entry_point, by_symbol)
            _compiled[symbol] = *self._place, args
        return entry_point


@contextlib.contextmanager
def noting():
    """Yield a list; at the end of the block it holds the kernels that were called, with the types of their arguments.

    Nothing is computed: whoever calls a kernel gets None, and arrays in which nothing has been written. This is so for
    kernels that this process has not called before, see `has_begun`.
    """
    global _noted
    _noted, calls = {}, []
    try:
        yield calls
    finally:
        calls += _noted
        _noted = None


def has_begun():
    """Whether this process has called a kernel."""
    return _has_begun


def is_noting():
    """Whether this is inside `noting`."""
    return _noted is not None


def called_by(library):
    """List the subroutines that a compiled library calls, for `load`; None if there is one that could not be found."""
    symbols = re.findall(r"^declare .*@(subroutine\.[\w.]+)\(", library.get_llvm_str(), re.MULTILINE)
    called = [_compiled[symbol] for symbol in symbols]
    return called if all(_is_found(path) for _, path, _ in called) else None


def _is_found(path):
    """Whether a function is found in its module by its path."""
    return "<locals>" not in path


def load(called):
    """Load functions, or compile them: a list of (module, path in it, types of the arguments).

    A kernel that is loaded before the subroutines that it calls would end the process.
    """
    for module, path, args in called:
        operator.attrgetter(path)(importlib.import_module(module)).compile(args)
