"""Writing files as a whole or not at all, and knowing at the start whether that will be possible."""

import errno
import os
import signal
import subprocess
import sys
import types

import pytest

from tinyseg.data import locks, os_errors, writing
from tinyseg.data.writing import check_writable, replacing, write_atomically


@pytest.mark.parametrize("name", ["x" * 255, "ä" * 127, ".hidden", "a b"])
def test_names_as_long_as_the_system_takes_them(name, tmp_path):
    write_atomically(tmp_path / name, "text")
    assert [p.name for p in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "text"


def test_a_new_file_has_the_permissions_of_any_other(tmp_path):
    write_atomically(tmp_path / "a", b"")
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(OSError, match=f"{path} could not be written: it is a folder, a device or a pipe"):
            write_atomically(path, "text")
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(OSError, match="The folder .*none does not exist: make it first"):
        write_atomically(tmp_path / "none" / "a", "text")


def test_a_folder_that_can_be_made_is_not_made(tmp_path):
    check_writable(tmp_path / "a" / "b", size=1000)
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_nothing_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "a"):
        with pytest.raises(
            OSError, match=f"{path} could not be written: .*file is not a folder. Choose another folder"
        ):
            check_writable(path)
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=2**20))
    check_writable(tmp_path, 2**20)
    with pytest.raises(OSError, match="No space left on device. Up to 2.0 MiB are needed. Make room or") as caught:
        check_writable(tmp_path, 2**21)
    assert caught.value.errno == errno.ENOSPC


def test_an_error_while_a_file_is_written_leaves_the_old_one_and_nothing_else(tmp_path):
    write_atomically(tmp_path / "a", "old")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a") as file:
        file.write(b"half of the n")
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "old"


WRITE = """
import sys, time
from tinyseg.data.writing import replacing
with replacing(sys.argv[1]) as file:
    file.write(b"half")
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    """A process that is in the middle of writing the file "a"."""
    with subprocess.Popen([sys.executable, "-c", WRITE, tmp_path / "a"], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process
        process.kill()


def test_what_a_killed_process_was_writing_is_deleted_by_the_next_command(tmp_path, writer):
    (tmp_path / ".notes.tmp").touch()  # the user's
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    left = [p.name for p in tmp_path.iterdir() if writing.TEMPORARY.fullmatch(p.name)]
    check_writable(tmp_path)
    assert len(left) == 1 and [p.name for p in tmp_path.iterdir()] == [".notes.tmp"]


def test_what_another_process_is_writing_stays(tmp_path, writer):
    before = list(tmp_path.iterdir())
    check_writable(tmp_path)
    assert len(before) == 1 and list(tmp_path.iterdir()) == before


def test_the_lock_of_a_file_that_a_killed_process_left_is_deleted_and_others_are_kept(tmp_path):
    code = "import os, sys; from tinyseg.data.locks import locked\nwith locked(sys.argv[1], 'a', 'x'): os._exit(1)"
    subprocess.run([sys.executable, "-c", code, tmp_path])
    (left,) = tmp_path.iterdir()
    mine = tmp_path / ".0123456789abcdef.lock"
    mine.write_text("my own")
    with locks.locked(tmp_path, "b", "y"):
        held = set(tmp_path.iterdir()) - {left, mine}
        check_writable(tmp_path)
        assert set(tmp_path.iterdir()) == held | {mine}


def test_a_disk_without_locks_is_written_to_and_its_temporary_files_are_left_alone(tmp_path, monkeypatch):
    def flock(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    (tmp_path / ".0123456789abcdef.tmp").touch()
    check_writable(tmp_path)
    write_atomically(tmp_path / "a", "text")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".0123456789abcdef.tmp", "a"]


@pytest.fixture
def windows(monkeypatch):
    """A Windows on which the first `held` renamings find a file open in another program; what was renamed."""
    real, calls = os.replace, []

    def replace(file, path):
        calls.append(os.fspath(path))
        if len(calls) <= windows.held:
            raise PermissionError(errno.EACCES, "Access is denied", os.fspath(file))
        real(file, path)

    windows = types.SimpleNamespace(held=0, calls=calls)
    monkeypatch.setattr(os_errors, "WINDOWS", True)
    monkeypatch.setattr(writing.os, "replace", replace)
    monkeypatch.setattr(writing, "BETWEEN_TRIES", 0.001)
    return windows


def test_on_windows_a_file_is_closed_before_it_gets_its_name(tmp_path, windows):
    with replacing(tmp_path / "a") as file:
        file.write(b"text")
    assert file.closed and (tmp_path / "a").read_bytes() == b"text"


def test_on_windows_a_virus_scanner_has_the_file_open_for_a_moment(tmp_path, windows):
    windows.held = 3
    write_atomically(tmp_path / "a", "text")
    assert len(windows.calls) == 4 and (tmp_path / "a").read_text() == "text"


def test_on_windows_the_file_stays_open_in_another_program(tmp_path, windows, monkeypatch):
    monkeypatch.setattr(writing, "PATIENCE", 0.05)
    (tmp_path / "a").write_text("old")
    windows.held = 10**6
    with pytest.raises(PermissionError, match=r"a could not be written: Access is denied\. Close the program that has"):
        write_atomically(tmp_path / "a", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "old"
    assert len(windows.calls) > 1


def test_elsewhere_a_file_that_may_not_be_replaced_is_not_waited_for(tmp_path, windows, monkeypatch):
    monkeypatch.setattr(os_errors, "WINDOWS", False)
    windows.held = 1
    with pytest.raises(PermissionError, match=r"Access is denied\. Choose another folder"):
        write_atomically(tmp_path / "a", "text")


def test_out_is_on_a_drive_that_is_not_there(tmp_path, monkeypatch):
    """Z:\\runs, and there is no Z: nothing above it exists, up to the root of the drive."""
    monkeypatch.setattr(writing.os.path, "lexists", lambda path: False)
    monkeypatch.setattr(type(tmp_path), "is_dir", lambda path: False)
    with pytest.raises(OSError, match="could not be written: / is not a folder. Choose another folder"):
        check_writable("/runs/first")
