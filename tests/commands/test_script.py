"""How commands run and end: errors as one sentence, and memory that does not suffice."""

import types

import pytest

from tinyseg import backend
from tinyseg.commands.script import run_script


def test_the_process_keeps_freed_memory_for_the_next_arrays(monkeypatch):
    asked = []
    arena = types.SimpleNamespace(reuse_memory=lambda: asked.append("memory"))
    monkeypatch.setattr("tinyseg.training.loop.fast", {"cpu.arena": arena}.get)
    run_script(lambda: asked.append("main"), out_of_memory="")
    assert asked == ["memory", "main"]


def test_an_error_is_one_sentence_and_ctrl_c_a_status():
    def raises(error):
        def main():
            raise error

        return main

    with pytest.raises(SystemExit) as stop:
        run_script(raises(ValueError("epochs must be at least 1.")), out_of_memory="")
    assert stop.value.code == "ValueError: epochs must be at least 1."
    with pytest.raises(SystemExit) as stop:
        run_script(raises(KeyboardInterrupt()), out_of_memory="")
    assert stop.value.code == 130
    with pytest.raises(TypeError):  # a fault of the program keeps its traceback
        run_script(raises(TypeError("a bug")), out_of_memory="")


# ----- out of memory ---------------------------------------------------------------
def named(name, base, status=None):
    """An error as CuPy's libraries raise it."""
    error = type(name, (base,), {})(f"{name}: {status}")
    if status is not None:
        error.status = status
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError("could not allocate"), True),
        (named("OutOfMemoryError", MemoryError), True),
        (named("CUDARuntimeError", RuntimeError, 2), True),
        (named("CUDARuntimeError", RuntimeError, 700), False),  # an illegal address
        (named("CUDADriverError", RuntimeError, 2), True),
        (named("CUBLASError", RuntimeError, 3), True),
        (named("CUBLASError", RuntimeError, 2), False),
        (RuntimeError("something else"), False),
    ],
)
def test_what_is_out_of_memory(error, expected):
    assert backend.is_out_of_memory(error) is expected

    def main():
        raise error

    with pytest.raises(SystemExit) as stop:
        run_script(main, out_of_memory="try a smaller --batch-size")
    assert str(stop.value).endswith(": try a smaller --batch-size.") is expected
    assert str(stop.value).startswith("Out of memory (") is expected


def test_with_a_limit_the_limit_is_named():
    def main():  # CuPy's words
        raise MemoryError("Out of memory allocating 1,024 bytes (allocated so far: 5 bytes, limit set to: 9 bytes).")

    with pytest.raises(SystemExit) as stop:
        run_script(main, out_of_memory="try a smaller --batch-size")
    assert str(stop.value) == (
        "Out of memory (allocating 1,024 bytes (allocated so far: 5 bytes, limit set to: 9 bytes)): "
        "try a smaller --batch-size, or a larger --gpu-memory."
    )
