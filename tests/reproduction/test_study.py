"""Runs of scripts: once, again, interrupted, failed."""

import json
import math
import os
import threading

import pytest

from reproduction.study import Run, RunFailed, spread
from tinyseg.data import locks
from tinyseg.data.locks import locked

TRAIN = """
import json, os, pathlib, signal, sys
out = pathlib.Path(sys.argv[sys.argv.index("--resume" if "--resume" in sys.argv else "--out") + 1])
with open(out / "calls.txt", "a") as file:
    print(" ".join(sys.argv[1:]).encode("ascii", "replace").decode(), file=file)
(out / "checkpoint.safetensors").write_text("weights")
how = pathlib.Path(__file__).with_name("how.txt").read_text()
if how == "interrupted":
    sys.exit(143)
if how == "closed":
    sys.exit(129)
if how == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if how == "silent":
    sys.exit(3)
if how == "bad":
    print("12 mm\\u00b3")
    print("half a bar\\rLoss: nan")
    sys.exit("TrainingDiverged: the loss is nan.")
(out / "log.csv").write_text("epoch,val_dice,val_small\\n1,0.5,nan\\n2,0.75,\\n")
(out / "summary.json").write_text(json.dumps({"steps": 20}))
"""
EVALUATE = """
import json, pathlib, sys
assert pathlib.Path(sys.argv[sys.argv.index("--checkpoint") + 1]).is_file()
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
out.write_text(json.dumps({"metrics": {"dice": 0.7}, "said": sys.argv[1:3]}))
"""


@pytest.fixture
def run(tmp_path):
    """A function that makes the run with other training options, and one that says how the training will go."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "train.py").write_text(TRAIN)
    (folder / "evaluate.py").write_text(EVALUATE)

    def make(*options, how="good"):
        (folder / "how.txt").write_text(how)
        train = [folder / "train.py", *options]
        return Run(tmp_path / "run", train, [folder / "evaluate.py", "--sections", 4], ["--device", "cpu"])

    return make


def calls(run):
    return (run.folder / "calls.txt").read_text().splitlines()


def test_trains_scores_and_reads_what_was_left(run):
    found = run("--width", 8).carry_out()
    assert found["summary"] == {"steps": 20}
    assert found["scores"] == {"metrics": {"dice": 0.7}, "said": ["--sections", "4"]}
    assert found["history"] == [
        {"epoch": 1, "val_dice": 0.5, "val_small": None},
        {"epoch": 2, "val_dice": 0.75, "val_small": None},
    ]
    assert (run().folder / "command.txt").read_text() == "python scripts/train.py --width 8\n"


def test_a_finished_run_is_not_made_again(run):
    run("--width", 8).carry_out()
    assert run("--width", 8).carry_out()["summary"] == {"steps": 20}
    assert len(calls(run())) == 1


def test_an_interrupted_run_goes_on(run):
    with pytest.raises(KeyboardInterrupt):
        run("--width", 8, how="interrupted").carry_out()
    run("--width", 8).carry_out()
    first, second = calls(run())
    assert first == f"--width 8 --out {run().folder} --overwrite --device cpu"
    assert second == f"--resume {run().folder} --device cpu"


def test_only_the_scoring_is_missing(run):
    run().carry_out()
    run().scores.unlink()
    assert run().carry_out()["scores"]["metrics"] == {"dice": 0.7}
    assert len(calls(run())) == 1


def test_a_failed_run_ends_with_the_scripts_own_sentence(run):
    with pytest.raises(RunFailed, match=r"^TrainingDiverged: the loss is nan\.$"):
        run(how="bad").carry_out()


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "ascii:replace"])
def test_scripts_may_print_in_any_encoding(encoding, run, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    with pytest.raises(RunFailed):
        run(how="bad").carry_out()
    assert run().carry_out()["summary"] == {"steps": 20}


def test_the_name_of_the_data_may_be_no_utf_8(run):
    name = os.fsdecode(b"caf\xe9")
    assert run("--data", name).carry_out() == run("--data", name).carry_out()
    assert b"caf\xe9" in (run().folder / "command.txt").read_bytes()


def test_a_run_that_fails_without_a_word_has_its_status(run):
    with pytest.raises(RunFailed, match="status 3"):
        run(how="silent").carry_out()


def test_a_training_that_was_killed_is_named_and_is_no_interruption(run):
    with pytest.raises(RunFailed, match="ended by SIGKILL"):
        run(how="killed").carry_out()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("scores.json", "[]", "not a file of scores"), ("scores.json", "{}", "metrics"), ("scores.json", "", "JSON"),
        ("summary.json", "null", "not the summary"), ("log.csv", "epoch,val_dice\n", "no epochs"),
        ("log.csv", "epoch,val_dice\n1,much\n", "not the log"),
    ],
)  # fmt: skip
def test_a_file_of_a_run_that_was_damaged_is_named(name, content, words, run):
    run().carry_out()
    (run().folder / name).write_text(content)
    with pytest.raises(ValueError, match=f"{name} .*{words}"):
        run().carry_out()


def test_other_options_are_refused_and_nothing_is_lost(run):
    run("--width", 8).carry_out()
    with pytest.raises(ValueError, match=r"--width 8; now .*--width 16.*Choose another --out"):
        run("--width", 16).carry_out()
    assert json.loads((run().folder / "summary.json").read_text()) == {"steps": 20}


def test_spread():
    found = spread([1.0, None, 4.0])
    assert found["mean"] == 2.5 and math.isclose(found["std"], math.sqrt(4.5)) and found["values"] == [1.0, None, 4.0]
    assert spread([3.0]) == {"mean": 3.0, "std": None, "values": [3.0]}
    assert spread([None]) == {"mean": None, "std": None, "values": [None]}


def test_a_study_was_killed_and_its_training_still_writes(run, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0)
    with locked(tmp_path / "run", "a training"):
        again = threading.Thread(target=run("--width", 8).carry_out)
        again.start()
        again.join(0.3)
        assert again.is_alive()
        assert not (tmp_path / "run" / "calls.txt").exists()
    again.join()
    assert len(calls(run())) == 1
    assert f"{tmp_path / 'run'} is in use by a training (process {os.getpid()} " in capfd.readouterr().err


def test_only_the_training_was_ended_by_a_closed_terminal(run):
    with pytest.raises(KeyboardInterrupt):
        run(how="closed").carry_out()
