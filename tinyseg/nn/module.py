"""Module: a tree of layers. Parameters are found among the attributes; nothing has to be registered."""

import contextlib
import contextvars
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from tinyseg.autograd import Array, Setting, Tensor, as_array
from tinyseg.backend import compare_states, device_of, to_device, to_numpy

_evaluating = contextvars.ContextVar("evaluating", default=False)


def evaluation() -> Setting:
    """Context manager or decorator under which every module is in evaluation mode, in this thread or asyncio task.

    The modes that `Module.train` and `Module.eval` have set stay as they are, for other threads and for afterwards.
    """
    return Setting(_evaluating, lambda _: True)


class Parameter(Tensor):
    """A Tensor that training changes: a leaf with ``requires_grad=True``."""

    def __init__(self, data: ArrayLike) -> None:
        super().__init__(data, requires_grad=True)


class Module:
    """A layer or a network: attributes that are Parameters, Modules or lists of Modules make up its tree.

    A subclass writes ``forward``; the user calls the module, ``model(x)``. `buffers` names the attributes that are
    arrays which are saved with the weights but not trained.
    """

    buffers: tuple[str, ...] = ()
    _training = True  # the mode that `train` or `eval` has set

    def __call__(self, *inputs: Any) -> Any:
        for _, before in _watchers:
            before(self)
        y = self.forward(*inputs)
        for watcher, _ in _watchers:
            watcher(self, y)
        return y

    def forward(self, *inputs: Any, **options: Any) -> Any:  # a subclass may have any arguments
        raise NotImplementedError(f"{type(self).__name__} has no forward.")

    # ----- the tree ------------------------------------------------------------
    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """Yield (name, module) for every module among the attributes, in order of definition."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, (list, tuple)):
                for i, item in enumerate(value):
                    if isinstance(item, Module):
                        yield f"{name}.{i}", item

    def named_modules(self, prefix: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, "Module"]]:
        """Yield (dotted name, module) for this module and all modules below it; a shared module once."""
        seen = set() if seen is None else seen
        if id(self) in seen:
            return
        seen.add(id(self))
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name, seen)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield (dotted name, Parameter) for every parameter, in order of definition; a shared one once."""
        seen: set[int] = set()
        for module_name, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter) and id(value) not in seen:
                    seen.add(id(value))
                    yield f"{module_name}.{name}" if module_name else name, value

    def parameters(self) -> list[Parameter]:
        """Return the list of all parameters."""
        return [p for _, p in self.named_parameters()]

    def num_parameters(self) -> int:
        """Return the number of trained values."""
        return sum(p.size for p in self.parameters())

    # ----- state ---------------------------------------------------------------
    def state_dict(self) -> dict[str, np.ndarray]:
        """Return {dotted name: NumPy array} of parameters and buffers. On the CPU these are the model's own arrays."""
        return {name: to_numpy(getattr(*where)) for name, where in self.slots().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy a `state_dict` into this module.

        Raises
        ------
        ValueError
            If names, shapes or kinds of numbers differ; the message lists them, and nothing is changed. The precision
            may differ: numbers are rounded to that of this module.
        """
        slots = self.slots()
        problems = compare_states({name: getattr(*where) for name, where in slots.items()}, state)
        if problems:
            mend = "These weights are for another model; build it with the same name and options"
            raise ValueError(f"{mend}. {problems}")
        for name, where in slots.items():
            array = getattr(*where)
            array[...] = to_device(np.asarray(to_numpy(as_array(state[name])), array.dtype), device_of(array))
            setattr(*where, array)  # graphs that saved the old numbers hear of it

    def slots(self) -> dict[str, tuple[Any, str]]:
        """Return {dotted name: (holder, attribute)} of the arrays that belong to the state."""
        slots: dict[str, tuple[Any, str]] = {name: (p, "data") for name, p in self.named_parameters()}
        for module_name, module in self.named_modules():
            for buffer in module.buffers:
                slots[f"{module_name}.{buffer}" if module_name else buffer] = (module, buffer)
        return slots

    # ----- switches --------------------------------------------------------------
    @property
    def training(self) -> bool:
        """Whether dropout and batch statistics are on; never inside `evaluation`."""
        return self._training and not _evaluating.get()

    @training.setter
    def training(self, mode: bool) -> None:
        self._training = mode

    def train(self, mode: bool = True) -> Self:
        """Switch dropout and batch statistics on (`mode` False: off) in all modules of the tree; return self."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Switch to evaluation: no dropout, running statistics; return self."""
        return self.train(False)

    def to(self, device: str) -> Self:
        """Move parameters and floating-point buffers to "cpu" or "gpu"; return self. Counters stay on the CPU."""
        return self._convert(lambda array: to_device(array, device))

    def astype(self, dtype: str | type | np.dtype) -> Self:
        """Convert all parameters and floating-point buffers to float32 or float64; return self."""
        return self._convert(lambda array: array.astype(dtype))

    def _convert(self, function):
        """Apply `function` to all parameters and floating-point buffers, and forget the gradients."""
        self.zero_grad()
        for holder, name in self.slots().values():
            array = getattr(holder, name)
            if isinstance(holder, Parameter) or array.dtype.kind == "f":
                converted = function(array)
                if converted is not array:
                    setattr(holder, name, converted)
        return self

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for p in self.parameters():
            p.grad = None

    # ----- text -----------------------------------------------------------------
    def extra_repr(self) -> str:
        """Return the text between the brackets of repr."""
        return ""

    def __repr__(self) -> str:
        children = list(self.named_children())
        if not children:
            return f"{type(self).__name__}({self.extra_repr()})"
        lines = "\n".join(f"({name}): {child!r}" for name, child in children)
        return f"{type(self).__name__}({self.extra_repr()}\n{textwrap.indent(lines, '  ')}\n)"


class Layer(Module):
    """A module whose output is one Tensor."""

    def __call__(self, *inputs: Tensor | Array) -> Tensor:
        return super().__call__(*inputs)


class Sequential(Module):
    """Apply modules one after the other."""

    def __init__(self, *layers: Module) -> None:
        self.layers = list(layers)

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x

    def __getitem__(self, index: int) -> Module:
        return self.layers[index]

    def __len__(self) -> int:
        return len(self.layers)


_watchers: list[tuple] = []  # pairs (watcher, before), see `watch`


@contextlib.contextmanager
def watch(
    watcher: Callable[[Module, Any], object], before: Callable[[Module], object] = lambda module: None
) -> Iterator[None]:
    """Call ``before(module)`` and ``watcher(module, output)`` before and after every forward (debugging, profiling)."""
    _watchers.append((watcher, before))
    try:
        yield
    finally:
        _watchers.remove((watcher, before))
