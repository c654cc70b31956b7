"""Signals that come between the making of a file and the note that it is to be deleted."""

import os
import signal
import threading

import pytest

from tinyseg.data import locks, writing
from tinyseg.data.locks import locked
from tinyseg.data.undisturbed import undisturbed
from tinyseg.data.writing import replacing
from tinyseg.training.interruption import handle, restore


@pytest.fixture(autouse=True)
def signals_that_raise():
    def stop(number, frame):
        raise SystemExit(128 + number)

    before = handle(stop)
    yield
    restore(before)


def test_a_signal_waits_for_the_end_of_the_block_and_comes_once():
    done = []
    with pytest.raises(SystemExit) as stop, undisturbed():
        with undisturbed():
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        done.append("all of the block")
    assert stop.value.code == 143 and done == ["all of the block"]
    with undisturbed():  # nothing is left of it
        pass


def test_the_block_of_another_thread_holds_nothing_up():
    inside, end = threading.Event(), threading.Event()

    def work():
        with undisturbed():
            inside.set()
            end.wait()

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait()
    with pytest.raises(SystemExit):
        signal.raise_signal(signal.SIGTERM)
    end.set()
    thread.join()


@pytest.mark.parametrize("call", ["open", "flock", "replace"])
def test_a_signal_at_any_call_of_writing_leaves_the_old_file_or_the_new_one(call, tmp_path, monkeypatch):
    (tmp_path / "a").write_text("old")
    place = {"open": (writing, open), "flock": (locks.fcntl, locks.fcntl.flock), "replace": (os, os.replace)}[call]

    def with_a_signal(*args):
        result = place[1](*args)
        signal.raise_signal(signal.SIGTERM)
        return result

    monkeypatch.setattr(place[0], call, with_a_signal, raising=False)
    with pytest.raises(SystemExit), replacing(tmp_path / "a") as file:
        file.write(b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == ("new" if call == "replace" else "old")


@pytest.mark.parametrize("call", ["open", "flock"])
def test_a_signal_while_a_lock_is_taken_leaves_no_lock(call, tmp_path, monkeypatch):
    place = {"open": (os, os.open), "flock": (locks.fcntl, locks.fcntl.flock)}[call]

    def with_a_signal(*args):
        result = place[1](*args)
        signal.raise_signal(signal.SIGTERM)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(place[0], call, with_a_signal)
        with pytest.raises(SystemExit), locked(tmp_path, "a training"):
            pass
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path, "a training"):
        pass
