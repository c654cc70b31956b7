"""Kernels are compiled ahead by several processes; whatever happens to these, all kernels are there at the end."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("numba")

from tinyseg.fast.cpu import ahead, kernel_cache, kernels  # noqa: E402

MODULE = """
import pathlib
from tinyseg.fast.cpu import kernel_cache
kernel_cache.folder = lambda: pathlib.Path(__file__).parent / "kernels"
from tinyseg.fast.cpu.parallel import parallel

@parallel
def one(k, a):
    a[k] += 1

@parallel
def two(k, a):
    a[k] += 2

@parallel
def three(k, a):
    a[k] += 3
"""


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Three calls of kernels that nobody has compiled, kept in a folder of their own."""
    name = f"kernels_of_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(kernel_cache, "folder", kernel_cache.folder)
    module = __import__(name)
    monkeypatch.setattr(ahead, "folder", kernel_cache.folder)
    a = np.zeros(3, np.float32)
    with kernels.noting() as noted:
        for kernel in (module.one, module.two, module.three):
            kernel(3, a)
    return noted


@pytest.fixture
def started(monkeypatch):
    """The processes that are started to help."""
    found, start = [], subprocess.Popen

    def note(*args, **options):
        found.append(start(*args, **options))
        return found[-1]

    monkeypatch.setattr(subprocess, "Popen", note)
    return found


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_all_kernels_are_there_at_the_end(processes, calls, started):
    assert ahead.missing(calls) == calls
    assert [kernel.__name__ for kernel in ahead.compile_calls(calls, processes)] == ["one", "two", "three"]
    assert ahead.missing(calls) == []
    assert [helper.returncode for helper in started] == [0] * min(processes - 1, 2)
    a = np.zeros(3, np.float32)
    for kernel, _ in calls:
        kernel(3, a)
    assert a.tolist() == [6, 6, 6]
    assert not list(kernel_cache.folder().glob("compiling-*"))


def test_the_others_begin_at_the_end(calls, started):
    walk = ahead.compile_calls(calls, 2)
    next(walk)  # this process has not compiled anything yet
    deadline = time.monotonic() + 120
    while calls[2] in ahead.missing(calls) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert calls[2] not in ahead.missing(calls)
    list(walk)
    assert sum(calls[2][0].stats.cache_hits.values()) == 1  # it was found on disk


def test_helpers_end_when_the_command_is_stopped(calls, started):
    walk = ahead.compile_calls(calls, 3)
    next(walk)
    walk.close()  # as by Ctrl-C
    assert [helper.returncode for helper in started] == [0, 0]
    assert not list(kernel_cache.folder().glob("compiling-*"))


@pytest.mark.parametrize("why", ["they end at once", "they cannot be started", "Python is inside another program"])
def test_without_help_it_takes_longer(why, calls, monkeypatch):
    if why == "they end at once":
        monkeypatch.setattr(ahead, "__name__", "no module of this name")
    elif why == "they cannot be started":
        monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: (_ for _ in ()).throw(OSError("no memory")))
    else:
        monkeypatch.setattr(sys, "executable", "/usr/bin/blender")
        monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("blender was started"))
    assert len(list(ahead.compile_calls(calls, 3))) == 3
    assert ahead.missing(calls) == []


def test_one_command_at_a_time_starts_others(calls, started):
    claim = kernel_cache.folder() / f"compiling-{kernel_cache.sources()[:12]}"
    claim.parent.mkdir()
    claim.touch()
    assert len(list(ahead.compile_calls(calls[:2], 2))) == 2 and not started
    os.utime(claim, (0, 0))  # its process was killed long ago
    list(ahead.compile_calls(calls, 2))
    assert len(started) == 1 and not claim.exists()


def test_where_nothing_can_be_written_one_process_compiles(calls, started, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").touch()
    for module in (ahead, kernel_cache):
        monkeypatch.setattr(module, "folder", lambda: tmp_path / "file" / "below")
    kernel_cache._warn.cache_clear()
    list(ahead.compile_calls(calls, 3))
    assert not started and "cannot be kept" in caplog.text
    kernel_cache._warn.cache_clear()
    a = np.zeros(3, np.float32)
    calls[0][0](3, a)
    assert a.tolist() == [1, 1, 1]
