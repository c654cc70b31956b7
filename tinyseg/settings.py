"""Settings that hold inside a block or a decorated function, such as `no_grad` and `using`."""

import contextlib
import functools
import inspect


class Setting(contextlib.ContextDecorator):
    """Context manager and decorator under which a context variable has the value ``change(old value)``.

    Each thread and asyncio task has its own value. A decorated generator has it only while its own code runs.
    """

    def __init__(self, variable, change):
        self.variable, self.change, self.before = variable, change, []

    def __enter__(self):
        self.before.append(self.variable.get())
        self.variable.set(self.change(self.before[-1]))

    def __exit__(self, *error):
        self.variable.set(self.before.pop())

    def _recreate_cm(self):  # ContextDecorator asks for a new one at each call
        return Setting(self.variable, self.change)

    def __call__(self, function):
        if inspect.isgeneratorfunction(function):
            return functools.wraps(function)(lambda *args, **options: self._run(function(*args, **options)))
        if inspect.iscoroutinefunction(function):
            return functools.wraps(function)(lambda *args, **options: self._wait(function(*args, **options)))
        if inspect.isasyncgenfunction(function):
            raise TypeError("An asynchronous generator cannot be decorated: use the block inside of it.")
        return super().__call__(function)

    async def _wait(self, coroutine):
        with self._recreate_cm():
            return await coroutine

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
