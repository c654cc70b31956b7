"""How commands run and end: errors as one sentence, and memory that does not suffice."""

import os
import shlex
import subprocess
import sys
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


@pytest.mark.parametrize("error", [TypeError("a bug"), KeyError("a bug"), ZeroDivisionError("a bug")])
def test_a_fault_of_the_program_keeps_its_traceback_and_says_where_to_report_it(error, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as stop:
        run_script(main, out_of_memory="")
    assert "Traceback" in capsys.readouterr().err
    for word in (
        "This is a bug in tinyseg: please report it",
        "tinyseg 0",
        "python 3",
        "numpy 2",
        sys.platform.title(),
    ):
        assert word in stop.value.code


# ----- printing --------------------------------------------------------------------
def in_a_process(code, tmp_path, **options):
    """Run a command that prints and then leaves a file."""
    program = f"from tinyseg.commands.script import run_script\ndef main():\n {code}\nrun_script(main, '')"
    done = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, cwd=tmp_path, timeout=100, **options)
    return done.returncode, done.stderr.decode(), (tmp_path / "made").exists()


@pytest.mark.parametrize("encoding", ["ascii", "cp932", "cp1251"])
def test_a_letter_that_the_terminal_does_not_have_ends_nothing(encoding, tmp_path):
    env = os.environ | {"PYTHONIOENCODING": encoding}
    code = "print('mm³ \\ud800 ±'); open('made', 'w').close()"
    assert in_a_process(code, tmp_path, env=env, stdout=subprocess.PIPE) == (0, "", True)


def test_a_reader_that_goes_away_ends_nothing(tmp_path):
    read, write = os.pipe()
    os.close(read)
    code = "print('x' * 10**6); print('y', flush=True); open('made', 'w').close()"
    assert in_a_process(code, tmp_path, stdout=write) == (0, "", True)
    os.close(write)


def test_a_terminal_that_was_closed_from_the_start_ends_nothing(tmp_path):
    code = "import sys, tqdm; sum(tqdm.tqdm([1])); print(1, file=sys.stderr); open('made', 'w').close()"
    program = f"from tinyseg.commands.script import run_script\ndef main():\n {code}\nrun_script(main, '')"
    command = shlex.join([sys.executable, "-c", program]) + " >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], cwd=tmp_path, timeout=100).returncode == 0
    assert (tmp_path / "made").exists()


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
