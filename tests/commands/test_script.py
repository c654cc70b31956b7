"""How commands run and end: errors as one sentence, and memory that does not suffice."""

import os
import shlex
import signal
import subprocess
import sys
import types

import pytest
from scripts import ROOT

from tinyseg import backend
from tinyseg.commands.script import run_script
from tinyseg.training.interruption import STOPS


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
    with pytest.raises(SystemExit) as stop:
        run_script(raises(ValueError(f"a.json names {'x' * 100_000}\x1b[2J: choose another name.")), out_of_memory="")
    assert len(stop.value.code) < 2100 and stop.value.code.isprintable()
    assert stop.value.code.startswith("ValueError: a.json names xx") and stop.value.code.endswith("another name.")


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


# ----- signals ---------------------------------------------------------------------
WRITING = """
import time
from tinyseg.commands.script import run_script
from tinyseg.data.writing import replacing

def main():
    with replacing("out"):
        print("ready", flush=True)
        time.sleep({seconds})

run_script(main, "")
"""


def send_while_writing(tmp_path, *numbers, seconds=60):
    """Send signals to a command that is writing a file; return its status and what it said."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    program = WRITING.format(seconds=seconds)
    with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, **pipes) as process:
        process.stdout.readline()
        for number in numbers:
            process.send_signal(number)
        said = process.communicate(timeout=100)[1]
    return process.returncode, said


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_ends_a_command_through_its_clean_up_and_with_a_line(number, tmp_path):
    status, said = send_while_writing(tmp_path, number)
    assert status == 128 + number and list(tmp_path.iterdir()) == []
    name = signal.Signals(number).name
    assert said.split("\n")[1:2] == [f"Stopped by {name}. What was written is whole: run the command again."]
    assert "Traceback" not in said


def test_sigterm_comes_twice_as_from_timeout(tmp_path):
    status, said = send_while_writing(tmp_path, signal.SIGTERM, signal.SIGTERM)
    assert status == 143 and list(tmp_path.iterdir()) == [] and said.count("Stopped") == 1


ENDING = """
import atexit, signal
from tinyseg.commands.script import run_script

atexit.register(signal.raise_signal, signal.SIGTERM)
run_script(lambda: signal.raise_signal(signal.SIGTERM), "")
"""


def test_the_second_sigterm_comes_while_the_process_ends():
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, timeout=50)
    assert done.returncode == 143 and done.stderr.count("Stopped") == 1


def test_under_nohup_a_command_outlives_its_terminal(tmp_path, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a process that is started from here ignores it too
    try:
        status, said = send_while_writing(tmp_path, signal.SIGHUP, seconds=0.5)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert status == 0 and [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["train_isbi", "train_brats", "predict", "evaluate", "reproduce_tables"])
def test_ctrl_c_while_modules_are_imported(name):
    command = [sys.executable, "-X", "importtime", ROOT / "examples" / f"{name}.py", "--help"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        for line in process.stderr:
            if "numpy" in line:
                break
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=100)[1]
    assert process.returncode == 130 and "Traceback" not in said and "KeyboardInterrupt" not in said


LOSING = """
import signal, time
from tinyseg.commands.script import run_script

class Thing:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)

def main():
    Thing()
    time.sleep(60)

run_script(main, "")
"""


def test_a_signal_that_comes_while_an_object_is_deleted_is_not_lost():
    done = subprocess.run([sys.executable, "-c", LOSING], capture_output=True, text=True, timeout=50)
    assert done.returncode == 143 and done.stderr.count("Stopped by SIGTERM") == 1
    assert "Exception ignored" not in done.stderr


HALF_CLOSED = """
import signal
from tinyseg.commands.script import run_script

class Thing:  # closes itself as the modules of llvmlite do
    handle = None

    def __init__(self):
        self.handle = 1

    def close(self):
        del self.handle
        signal.raise_signal(signal.SIGHUP)  # the note that it is closed would come next

    def __del__(self):
        self.close()

things = []

def main():
    things.append(Thing())
    things[0].close()

run_script(main, "")
"""


def test_a_signal_that_leaves_an_object_half_closed_shows_nothing_of_it():
    done = subprocess.run([sys.executable, "-c", HALF_CLOSED], capture_output=True, text=True, timeout=50)
    assert done.returncode == 129 and done.stderr.strip().splitlines() == [
        "Stopped by SIGHUP. What was written is whole: run the command again."
    ]


# ----- sentences -------------------------------------------------------------------
@pytest.mark.skipif(os.name == "nt", reason="Windows does not delete a folder that a process is in")
@pytest.mark.parametrize("given", [["--out", "run"], ["--data", "sections", "--out", "run"]])
def test_a_command_in_a_folder_that_was_deleted_says_so(given, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    words = [sys.executable, str(ROOT / "examples" / "train_isbi.py"), *given]
    code = f"import os; os.rmdir({str(gone)!r}); os.execv({sys.executable!r}, {words!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=gone, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, timeout=50,
    )  # fmt: skip
    assert done.returncode == 1
    assert "the current folder was deleted: change to one that is there" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("No threading layer.\nHINT:\nTBB is required"), "ValueError: No threading layer. HINT: TBB"),
        (RuntimeError("can't start new thread"), "(ulimit -u, ulimit -v)"),
        (DeprecationWarning("this will go"), "PYTHONWARNINGS"),  # raised under -W error
        (UserWarning("a note"), "PYTHONWARNINGS"),
    ],
)
def test_errors_of_other_libraries_and_of_the_system_are_one_sentence_too(error, words, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as stop:
        run_script(main, out_of_memory="")
    assert words in stop.value.code and "\n" not in stop.value.code
    assert "Traceback" not in capsys.readouterr().err
