"""The folder of a run."""

import errno
import json
import os
import subprocess

import pytest

from tinyseg.data import os_errors
from tinyseg.data.locks import BusyError
from tinyseg.training import RunDirectory
from tinyseg.training.run import command_line


def test_a_run_is_not_overwritten_unless_asked_and_not_before_it_begins(tmp_path):
    for name in ("checkpoint.safetensors", "log.csv", "notes.txt"):
        (tmp_path / name).write_text("old")
    with pytest.raises(FileExistsError, match=r"already holds a training run.*--resume .*--overwrite"):
        RunDirectory(tmp_path)
    RunDirectory(tmp_path, resume=True).begin()
    run = RunDirectory(tmp_path, overwrite=True)
    assert len(list(tmp_path.iterdir())) == 3
    run.begin()
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_with_the_name_of_a_file_of_the_run_is_refused_at_the_start(tmp_path):
    (tmp_path / "summary.json").mkdir()
    for how in ("overwrite", "resume"):
        with pytest.raises(FileExistsError, match=r"summary\.json is a folder or a device.*choose another --out"):
            RunDirectory(tmp_path, **{how: True})


def test_json_has_null_for_what_is_not_a_number(tmp_path):
    with RunDirectory(tmp_path / "deep" / "run") as run:
        run.write_json("a.json", {"a": float("nan"), "b": [float("inf"), 1.5]})
    assert json.loads((run.path / "a.json").read_text()) == {"a": None, "b": [None, 1.5]}


def test_two_trainings_are_started_with_one_out(tmp_path):
    with RunDirectory(tmp_path / "run") as run, run:  # as `fit` does inside the with-block of a command
        with pytest.raises(BusyError, match="run is in use by a training"), RunDirectory(tmp_path / "run"):
            pass
        run.latest.touch()
    with RunDirectory(tmp_path / "run", resume=True):
        pass


def test_another_training_ends_in_the_folder_before_this_one_begins(tmp_path):
    run = RunDirectory(tmp_path / "run")
    with RunDirectory(tmp_path / "run") as other:
        other.latest.touch()
    with pytest.raises(FileExistsError, match="already holds a training run"), run:
        pass
    assert other.latest.exists() and not (tmp_path / "run" / ".lock").exists()


def test_a_command_that_fails_before_it_writes_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="no such data"), RunDirectory(tmp_path / "run"):
        raise ValueError("no such data")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["config.json", "log.csv", "predictions.png"])
def test_files_of_the_users_own_have_the_names_of_a_runs(tmp_path, name):
    (tmp_path / name).write_text('{"mine": 1}')
    with pytest.raises(FileExistsError, match=rf"holds no training run, and files .*: {name}\. Choose another --out"):
        RunDirectory(tmp_path)
    assert (tmp_path / name).read_text() == '{"mine": 1}'
    RunDirectory(tmp_path, overwrite=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_a_pipe_with_the_name_of_the_options_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    (tmp_path / "log.csv").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds no training run, and files .*: log\.csv\."):
        RunDirectory(tmp_path)


def test_a_run_was_killed_before_its_first_checkpoint_and_is_begun_again(tmp_path):
    with RunDirectory(tmp_path) as run:
        run.begin()
        run.write_config({"epochs": 3})
        run.write_log([{"epoch": 1}])
    RunDirectory(tmp_path)


def test_a_run_that_has_only_its_best_weights_cannot_be_gone_on_with(tmp_path):
    (tmp_path / "best.safetensors").touch()
    with pytest.raises(FileExistsError, match=r"has no checkpoint\.safetensors to go on from.*--overwrite") as error:
        RunDirectory(tmp_path)
    assert "--resume" not in str(error.value)


def test_log_csv_is_open_in_a_spreadsheet_on_windows(tmp_path, monkeypatch):
    """The training does not end by it: the log is written again after the next epoch, and the checkpoint has it all."""
    real = os.replace

    def replace(file, path):
        if os.path.basename(path) == "log.csv":
            raise PermissionError(errno.EACCES, "Access is denied")
        real(file, path)

    with RunDirectory(tmp_path) as run:
        run.write_log([{"epoch": 1}])
        with monkeypatch.context() as held:
            held.setattr(os, "replace", replace)
            with pytest.warns(
                UserWarning, match=r"log\.csv could not be written.*writes it again after the next epoch"
            ):
                run.write_log([{"epoch": 1}, {"epoch": 2}])
        assert run.files[3].read_text() == "epoch\n1\n"
        run.write_log([{"epoch": 1}, {"epoch": 2}, {"epoch": 3}])
    assert (tmp_path / "log.csv").read_text() == "epoch\n1\n2\n3\n"


def test_a_command_to_be_copied_is_quoted_as_the_shell_of_the_system_reads_it(monkeypatch):
    words = ["tinyseg", "train", "--resume", r"runs\my cells"]
    assert command_line(words) == r"tinyseg train --resume 'runs\my cells'"
    monkeypatch.setattr(os_errors, "WINDOWS", True)
    assert command_line(words) == r'tinyseg train --resume "runs\my cells"' == subprocess.list2cmdline(words)
    assert command_line([r"runs\isbi"]) == r"runs\isbi"
