"""Subroutines of kernels: compiled once, and called by all kernels that need them.

numba copies every compiled function that a kernel calls into the kernel, and optimizes it there again. The inner loops
of a matrix product are in a dozen kernels, and this was half of the time that compiling took. A kernel calls a
subroutine by a symbol instead, a name whose address the linker of LLVM is told. The symbol is the same in every
process, so that kernels on disk find it.
"""

import copy
import hashlib
import importlib
import operator
import re

import llvmlite.binding
from numba.core import types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher
from numba.core.sigutils import normalize_signature

_compiled = {}  # symbol: what `load` needs, its module, its path there and the types of its arguments


class Subroutine(CPUDispatcher):
    """A function at the top of a module of this folder, compiled by numba and called by symbol.

    Every integer that is given to it is an int64, so that whole numbers of several kinds need one version of it only.
    """

    def __init__(self, function, options, attribute=""):
        super().__init__(function, targetoptions={"nopython": True, "boundscheck": None, **options})
        path = f"{function.__qualname__}.{attribute}" if attribute else function.__qualname__
        self.place = function.__module__, path

    def get_call_template(self, args, kws):
        """Return what numba asks for where a kernel calls this: the version for these types of arguments."""
        return super().get_call_template([types.int64 if isinstance(a, types.Integer) else a for a in args], kws)

    @global_compiler_lock
    def compile(self, sig):
        """Compile the version for a signature, or load it; kernels that are compiled from now on call its symbol."""
        entry_point = super().compile(sig)
        args = tuple(normalize_signature(sig)[0])
        symbol = ".".join((*self.place, hashlib.sha256(repr(args).encode()).hexdigest()[:16]))
        if symbol not in _compiled:
            made = self.overloads[args]
            address = made.library.get_pointer_to_function(made.fndesc.llvm_func_name)
            llvmlite.binding.add_symbol(symbol, address)
            by_symbol = copy.copy(made.fndesc)
            by_symbol.mangled_name = symbol
            self.targetctx.remove_user_function(entry_point)  # numba's, which copies the library
            self.targetctx.insert_user_function(entry_point, by_symbol)
            _compiled[symbol] = *self.place, args
        return entry_point


def called_by(library):
    """Return what `load` needs to make the subroutines available that a compiled library calls."""
    declared = re.findall(r"^declare .*@([\w.]+)\(", library.get_llvm_str(), re.MULTILINE)
    return [_compiled[name] for name in declared if name in _compiled]


def load(called):
    """Load subroutines, or compile them. A kernel that is loaded before those that it calls would end the process."""
    for module, path, args in called:
        operator.attrgetter(path)(importlib.import_module(module)).compile(args)
