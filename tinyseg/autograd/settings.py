"""Settings that hold inside a block or a decorated function, such as `no_grad` and `using`."""

import contextlib
import contextvars
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_blocks: contextvars.ContextVar[tuple] = contextvars.ContextVar(
    "blocks", default=()
)  # the settings whose blocks this thread or task is in


class Setting(contextlib.ContextDecorator):
    """Context manager and decorator under which a context variable has the value ``change(old value)``.

    Each thread and asyncio task has its own value. A decorated generator has it only while its own code runs. Blocks
    may end in any order, as those of two generators do: at its end, each takes back its own change and no other.
    """

    def __init__(self, variable: contextvars.ContextVar[Any], change: Callable[[Any], Any]) -> None:
        self.variable, self.change = variable, change

    def __enter__(self) -> None:
        _blocks.set((*_blocks.get(), self))
        self.variable.set(self.change(self.variable.get()))

    def __exit__(self, *error: object) -> None:
        blocks = list(_blocks.get())
        if self not in blocks:  # the garbage collector ends a generator in another thread or task
            return
        del blocks[-1 - blocks[::-1].index(self)]
        _blocks.set(tuple(blocks))
        value = contextvars.Context().run(self.variable.get)  # the default
        for block in blocks:
            value = block.change(value) if block.variable is self.variable else value
        self.variable.set(value)

    def _recreate_cm(self):  # ContextDecorator asks for a new one at each call
        return Setting(self.variable, self.change)

    def __call__(self, function: Decorated) -> Decorated:
        return self._decorated(function)

    def _decorated(self, function):
        if inspect.isgeneratorfunction(function):
            # Generator functions and coroutine functions remain what they are, so that they can be decorated again.
            @functools.wraps(function)
            def generator(*args, **options):
                return (yield from self._run(function(*args, **options)))

            return generator
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def coroutine(*args, **options):
                with self._recreate_cm():
                    return await function(*args, **options)

            return coroutine
        if inspect.isasyncgenfunction(function):
            raise TypeError("An asynchronous generator cannot be decorated: use the block inside of it.")
        return super().__call__(function)

    def _run(self, generator):
        step, value = generator.send, None
        while True:
            try:
                with self._recreate_cm():
                    y = step(value)
            except StopIteration as end:
                return end.value
            try:
                step, value = generator.send, (yield y)
            except BaseException as error:  # also GeneratorExit, when the caller closes this generator
                step, value = generator.throw, error
