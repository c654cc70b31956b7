"""Kernels and subroutines: what is compiled once, what a file of the cache needs, and what a rehearsal leaves out."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

pytest.importorskip("numba")

from tinyseg.fast.cpu import kernel_cache, kernels  # noqa: E402
from tinyseg.fast.cpu.kernel_cache import FAST, OPTIONS, SUBROUTINE, njit  # noqa: E402
from tinyseg.fast.cpu.parallel import parallel  # noqa: E402

KEPT = {name: value for name, value in OPTIONS.items() if name != "cache"}  # nothing of these goes to the disk


@pytest.fixture(autouse=True)
def disk(tmp_path, monkeypatch):
    monkeypatch.setattr(kernel_cache, "folder", lambda: tmp_path / "kernels of this test")


@njit(**(SUBROUTINE | {"cache": False}))
def add_to(a, i, x):
    a[i] += x


@njit(**KEPT)
def add_one(a, i):
    add_to(a, i, np.float32(1))


@njit(**KEPT)
def add_two(a, i):
    add_to(a, np.uint32(i), np.float32(2))


def test_all_kernels_call_one_version_of_a_subroutine():
    a = np.zeros(4, np.float32)
    add_one(a, 1)
    add_two(a, 2)
    assert a.tolist() == [0, 1, 2, 0]
    assert len(add_to.signatures) == 1  # for every kind of whole number
    ((args, made),) = add_to.overloads.items()
    for kernel in (add_one, add_two):
        code = next(iter(kernel.inspect_llvm().values()))
        assert f"define i32 @{made.fndesc.llvm_func_name}" not in code  # its machine code is not in the kernel
        assert any(line.startswith("declare") and "add_to" in line for line in code.splitlines())


def test_a_mistake_in_a_subroutine_is_an_error():
    @njit(**KEPT)
    def kernel(a):
        add_to(a, "one", np.float32(1))

    with pytest.raises(Exception, match="add_to"):
        kernel(np.zeros(1, np.float32))


def test_every_part_is_computed_once():
    @parallel
    def mark(k, a, step):
        a[k] += step

    a = np.zeros(1000, np.int64)
    mark(len(a), a, 3)
    assert (a == 3).all() and mark.part is not None
    mark(0, a, 3)
    assert (a == 3).all()


@pytest.mark.parametrize("run", ["first", "second"])
def test_a_kernel_that_calls_a_function_of_a_function_is_not_kept(run):
    """It could not be found when the kernel is loaded from the disk, and the linker would end the process."""

    @parallel
    def mark(k, a):
        a[k] = 1

    a = np.zeros(3)
    mark(3, a)
    assert (a == 1).all() and sum(mark.stats.cache_hits.values()) == 0


def test_a_part_may_have_any_name_and_options():
    @parallel(**FAST)
    def total(part, rows, out):
        for x in rows[part]:
            out[part] += x

    out = np.zeros(3, np.float32)
    total(3, np.arange(6, dtype=np.float32).reshape(3, 2), out)
    assert out.tolist() == [1, 5, 9]


def test_a_rehearsal_notes_calls_and_computes_nothing():
    @njit(**KEPT)
    def double(x):
        x *= 2

    x = np.ones(3)
    with kernels.noting() as calls:
        assert kernels.is_noting()
        assert [double(x), double(x), double(x.astype(np.float32))] == [None] * 3
    assert (x == 1).all() and not kernels.is_noting()
    assert [(kernel, len(types)) for kernel, types in calls] == [(double, 1)] * 2  # a call for each kind of arguments
    double(x)
    assert (x == 2).all()


def test_what_is_on_disk_runs_in_a_new_process_that_compiles_nothing(tmp_path):
    """A kernel's file alone is not enough: the subroutines that it calls must be loaded before it."""
    (tmp_path / "module.py").write_text(
        textwrap.dedent(
            """
            import numpy as np
            from tinyseg.fast.cpu import kernel_cache
            import pathlib
            kernel_cache.folder = lambda: pathlib.Path(__file__).parent / "kernels"
            from tinyseg.fast.cpu.kernel_cache import OPTIONS, SUBROUTINE, njit
            from tinyseg.fast.cpu.parallel import parallel

            @njit(**SUBROUTINE)
            def inner(a, i):
                a[i] += 1

            @njit(**SUBROUTINE)
            def outer(a, i):
                inner(a, i)

            @parallel
            def kernel(k, a):
                outer(a, k)

            if __name__ == "__main__":
                import module
                a = np.zeros(8, np.float32)
                module.kernel(8, a)
                module = (module.kernel, module.kernel.part, module.outer, module.inner)
                print(a.tolist() == [1] * 8, [sum(k.stats.cache_misses.values()) for k in module])
            """
        )
    )
    runs = [
        subprocess.run([sys.executable, "module.py"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert runs == ["True [1, 1, 1, 1]\n", "True [0, 0, 0, 0]\n"]


def test_a_subroutine_whose_file_is_lost_is_compiled_again(tmp_path):
    test_what_is_on_disk_runs_in_a_new_process_that_compiles_nothing(tmp_path)
    for file in (tmp_path / "kernels").glob("module.inner-*"):
        file.unlink()
    run = subprocess.run([sys.executable, "module.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout == "True [0, 0, 0, 1]\n"
