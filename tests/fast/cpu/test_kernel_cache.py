"""Compiled kernels on disk: never of other sources, never damaged, and no reason to stop."""

import logging
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("numba")

from tinyseg.fast.cpu import kernel_cache  # noqa: E402
from tinyseg.fast.cpu.kernel_cache import njit  # noqa: E402


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Return a function that makes a small kernel as a new process would, with the cache in `tmp_path`."""
    monkeypatch.setattr(kernel_cache, "folder", lambda: tmp_path)
    kernel_cache._drop_other_sources.cache_clear()
    kernel_cache._warn.cache_clear()

    def make():
        def double(x):
            return 2 * x

        return njit(cache=True)(double)

    yield make
    kernel_cache._drop_other_sources.cache_clear()


def hits(kernel):
    assert kernel(np.float32(3)) == 6
    return sum(kernel.stats.cache_hits.values())


def test_a_kernel_is_compiled_once(cached, tmp_path):
    assert [hits(cached()) for _ in range(3)] == [0, 1, 1]
    assert len(list(tmp_path.iterdir())) == 1


def test_kernels_of_other_sources_are_neither_used_nor_kept(cached, tmp_path, monkeypatch):
    hits(cached())
    monkeypatch.setattr(kernel_cache, "sources", lambda: "another digest of the sources")
    kernel_cache._drop_other_sources.cache_clear()
    assert [hits(cached()) for _ in range(2)] == [0, 1]
    assert len(list(tmp_path.iterdir())) == 1


def test_the_digest_is_of_all_sources_of_the_folder(monkeypatch, tmp_path):
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("x = 1\n")
    monkeypatch.setattr(kernel_cache, "HERE", tmp_path)
    digests = {kernel_cache.sources.__wrapped__()}
    (tmp_path / "b.py").write_text("x = 2\n")
    digests.add(kernel_cache.sources.__wrapped__())
    assert len(digests) == 2


DAMAGES = {
    "cut short": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "a bit": lambda content: content[:5000] + bytes([content[5000] ^ 4]) + content[5001:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_kernel_is_compiled_anew(damage, cached, tmp_path):
    hits(cached())
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert [hits(cached()) for _ in range(2)] == [0, 1]


def test_where_nothing_can_be_written_kernels_run_and_a_line_says_so_once(cached, monkeypatch, tmp_path, caplog):
    file = tmp_path / "a file, in which not even root can make a folder"
    file.write_text("")
    monkeypatch.setattr(kernel_cache, "folder", lambda: file)
    with caplog.at_level(logging.WARNING):
        assert [hits(cached()) for _ in range(2)] == [0, 0]
    assert len(caplog.records) == 1 and "NUMBA_CACHE_DIR" in caplog.text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_that_was_forked_after_the_kernels_ran_gets_a_sentence_and_can_use_the_reference():
    code = """
import os, sys, warnings, numba, numpy as np, tinyseg as ts
warnings.simplefilter("ignore")
x = np.ones((1, 8, 64, 64), np.float32)
ts.ops.relu(x)
ts.ops.avg_pool2d(x.astype(float).repeat(20, axis=1), 2)  # the threads of by_channels
lost = numba.threading_layer() == "omp"
pid = os.fork()
if pid == 0:
    try:
        ts.ops.relu(x)
        said = not lost
    except RuntimeError as error:
        said = lost and "get_context('spawn')" in str(error)
    with ts.using(kernels="reference"):
        right = ts.ops.relu(x).data.sum() == x.size
    right &= ts.ops.avg_pool2d(x.astype(float).repeat(20, axis=1), 2).data.sum() == 20 * x.size / 4
    os._exit(0 if said and right else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    root = pathlib.Path(kernel_cache.__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": str(root), "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=200, env=environment)
    assert done.returncode == 0, done.stderr.decode()


def test_kernels_beside_the_package_are_read_where_new_ones_go_elsewhere(cached, monkeypatch, tmp_path):
    """An administrator has installed and used the package; a user cannot write there, but has a folder of their own."""
    hits(cached())
    monkeypatch.setattr(kernel_cache, "BESIDE", tmp_path)
    monkeypatch.setattr(kernel_cache, "folder", lambda: tmp_path / "of the user")
    assert hits(cached()) == 1


def test_what_a_killed_process_began_to_write_is_deleted_after_an_hour(cached, tmp_path):
    hits(cached())
    (path,) = tmp_path.iterdir()
    old, new = (path.with_suffix(f".nbc.{name}") for name in ("old", "new"))
    for unfinished in (old, new):
        unfinished.write_bytes(b"half of a kernel")
    os.utime(old, (0, 0))
    path.unlink()
    kernel_cache._drop_other_sources.cache_clear()
    hits(cached())
    assert {p.name for p in tmp_path.iterdir()} == {path.name, new.name}
