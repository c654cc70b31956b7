"""Two commands that want one folder."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tinyseg.data import locks
from tinyseg.data.locks import BusyError, locked

HOLD = """
import sys, time
from tinyseg.data.locks import locked
with locked(sys.argv[1], "a training"):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """A process that has locked the folder."""
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process
        process.kill()


def test_the_second_command_is_refused_and_learns_who_is_in_the_way(tmp_path, other):
    sentence = (
        rf"{tmp_path} is in use by a training \(process {other.pid} on .*, since 2.*\)\. Wait until it has ended, or"
    )
    with pytest.raises(BusyError, match=sentence), locked(tmp_path, "a training"):
        pass
    with locked(tmp_path, "an evaluation", "a file in it"):  # which is another thing
        pass


def test_a_command_that_is_killed_does_not_leave_the_folder_locked(tmp_path, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / ".lock").exists()
    with locked(tmp_path, "a training"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_threads_wait_for_each_other_and_one_is_in_at_a_time(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0)
    inside, most = [], []

    def work():
        for _ in range(20):
            with locked(tmp_path, "preparing", "slices", wait=True):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.005)  # so that others have to wait
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1} and len(most) == 80 and list(tmp_path.iterdir()) == []
    assert "slices is in use by" in capfd.readouterr().err


def test_the_folder_is_deleted_and_made_again_by_another_command_meanwhile(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with locked(folder, "one"):
        (folder / ".lock").unlink()
        folder.rmdir()
        folder.mkdir()
        (folder / ".lock").touch()  # the other's
    assert (folder / ".lock").exists()


def test_a_lock_that_somebody_wrote_nonsense_into(tmp_path):
    with locked(tmp_path, "one"):
        for nonsense in ("[1]", "", '{"what": "\\u001b[2J", "process": 1, "machine": 2, "since": 3}'):
            (tmp_path / ".lock").write_text(nonsense)
            with pytest.raises(BusyError, match="is in use by another command"), locked(tmp_path, "two"):
                pass


def test_a_file_of_the_users_own_has_the_name_of_a_lock(tmp_path):
    (tmp_path / ".lock").write_text("{mine}")
    with pytest.raises(ValueError, match=r"\.lock is no lock of tinyseg.*move it elsewhere"), locked(tmp_path, "one"):
        pass
    assert (tmp_path / ".lock").read_text() == "{mine}"
    (tmp_path / ".lock").write_text('{"wha')  # of a process that was killed while it wrote it
    with locked(tmp_path, "one"):
        pass


def test_a_lock_that_is_a_link_to_another_file_is_not_written_to(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"), locked(tmp_path / "out", "one"):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_disk_that_knows_no_locks(tmp_path, monkeypatch):
    def flock(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    with locked(tmp_path, "one"), locked(tmp_path, "two"):
        pass
    assert (len(os.listdir("/proc/self/fd")) if before else 0) == before and list(tmp_path.iterdir()) == []


def test_a_folder_that_is_made_for_the_lock_goes_with_it_if_nothing_was_written(tmp_path):
    with locked(tmp_path / "a" / "b", "one"):
        pass
    assert not (tmp_path / "a" / "b").exists()
    with locked(tmp_path / "a" / "b", "one"):
        (tmp_path / "a" / "b" / "c").touch()
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["c"]


FORK = """
import os, sys, time
from tinyseg.data.locks import locked
with locked(sys.argv[1], "a training"):
    if os.fork() == 0:
        print("forked", flush=True)  # by the new process: it has let go of the lock by now
    time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_forks_while_it_has_a_lock_and_the_new_one_leaves_the_block_first(tmp_path):
    with contextlib.ExitStack() as block:
        block.enter_context(locked(tmp_path, "a training"))
        child = os.fork()
        if child == 0:
            block.close()
            os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(BusyError), locked(tmp_path, "another"):
            pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_is_killed_and_one_that_it_had_forked_lives_on(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", FORK, tmp_path], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        process.stdout.readline()
        with pytest.raises(BusyError), locked(tmp_path, "another"):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        try:
            with locked(tmp_path, "another"):
                pass
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_a_short_wait_is_not_worth_a_line(tmp_path, capfd):
    with locked(tmp_path, "one", wait=True):
        second = threading.Thread(target=lambda: locked(tmp_path, "another", wait=True).__enter__())
        second.start()
        time.sleep(0.2)
    second.join()
    assert capfd.readouterr().err == ""


def test_a_lock_on_a_full_disk_is_explained(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / ".lock"))

    monkeypatch.setattr(locks.os, "open", full)
    sentence = r"could not be written: No space left on device\. Make room"
    with pytest.raises(OSError, match=sentence) as error, locked(tmp_path, "a training"):
        pass
    assert error.value.errno == errno.ENOSPC and str(tmp_path) in str(error.value)


def test_on_a_system_without_flock_nothing_is_locked_and_no_lock_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    opened = []
    monkeypatch.setattr(locks.os, "open", lambda *arguments: opened.append(arguments))
    with locked(tmp_path / "run", "a training"), locked(tmp_path / "run", "another"):
        assert list((tmp_path / "run").iterdir()) == []
    assert list(tmp_path.iterdir()) == [] and opened == []


# ----- shared locks ----------------------------------------------------------------------
@pytest.mark.skipif(locks.fcntl is None, reason="no locks here")
def test_those_who_share_a_folder_keep_out_who_wants_it_alone(tmp_path):
    first, second = contextlib.ExitStack(), contextlib.ExitStack()
    first.enter_context(locked(tmp_path, "a part", shared=True))
    second.enter_context(locked(tmp_path, "another part", shared=True))
    with pytest.raises(BusyError, match="in use by another part"), locked(tmp_path, "predict.py"):
        pass
    first.close()  # in another order than they began
    with pytest.raises(BusyError, match="in use by another part"), locked(tmp_path, "predict.py"):
        pass
    second.close()
    assert not list(tmp_path.iterdir())
    with (
        locked(tmp_path, "predict.py"),
        pytest.raises(BusyError, match=r"in use by predict\.py"),
        locked(tmp_path, "a part", shared=True),
    ):
        pass
