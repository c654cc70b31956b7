"""Runs of scripts: once, again, interrupted, failed."""

import json
import math
import os
import pathlib
import signal
import threading
import time
from functools import partial

import pytest

from reproduction import results
from reproduction.side_by_side import SideBySide, carry_out
from reproduction.study import Run, RunFailed, fingerprint_of_weights, spread
from tinyseg import models
from tinyseg.commands.jobs import run_jobs
from tinyseg.commands.workers import DaskCluster
from tinyseg.data import locks
from tinyseg.data.classes import REGIONS
from tinyseg.data.fingerprint import fingerprint_of_file
from tinyseg.data.locks import locked
from tinyseg.models import checkpoint

TRAIN = """
import json, os, pathlib, shutil, signal, sys
out = pathlib.Path(sys.argv[sys.argv.index("--resume" if "--resume" in sys.argv else "--out") + 1])
with open(out / "calls.txt", "a") as file:
    print(" ".join(sys.argv[1:]).encode("ascii", "replace").decode(), file=file)
shutil.copy(pathlib.Path(__file__).with_name("network.safetensors"), out / "checkpoint.safetensors")
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
epochs = int(sys.argv[sys.argv.index("--epochs") + 1]) if "--epochs" in sys.argv else 2
(out / "config.json").write_text(json.dumps({"epochs": epochs, "lr": 0.001, "amp": False}))
rows = [f"{k},{10 * k},1.0,{1 / k},{0.25 + k / 4},nan,0.1" for k in range(1, epochs + 1)]
names = "epoch,step,train_loss,val_loss,val_dice,val_small,seconds_per_step"
(out / "log.csv").write_text("\\n".join([names, *rows, ""]))
(out / "summary.json").write_text(json.dumps({"steps": 20, "best_epoch": 2}))
"""
EVALUATE = """
import hashlib, json, pathlib, sys
network = hashlib.sha1(pathlib.Path(sys.argv[sys.argv.index("--checkpoint") + 1]).read_bytes()).hexdigest()
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
out.write_text(json.dumps({"metrics": {"dice": 0.7}, "of": network, "said": sys.argv[1:3]}))
"""
LOG = "epoch,step,train_loss,val_loss,val_dice,seconds_per_step\n1,10,1,0.5,0.5,0.1\n2,20,1,0.5,0.75,0.25\n"
DONE = {"steps": 20, "best_epoch": 2}


def save_network(path, seed=0):
    """Write a checkpoint of the smallest network."""
    checkpoint.save(path, models.build("sdunet", width=2, seed=seed))


@pytest.fixture
def run(tmp_path):
    """A function that makes the run with other training options, and one that says how the training will go."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "train.py").write_text(TRAIN)
    (folder / "evaluate.py").write_text(EVALUATE)
    save_network(folder / "network.safetensors")

    def make(*options, how="good", **more):
        (folder / "how.txt").write_text(how)
        train = [folder / "train.py", *options]
        return Run(tmp_path / "run", train, [folder / "evaluate.py", "--sections", 4], ["--device", "cpu"], **more)

    return make


def calls(run):
    return (run.folder / "calls.txt").read_text().splitlines()


def test_trains_scores_and_reads_what_was_left(run):
    found = run("--width", 8).carry_out()
    assert found["summary"] == DONE
    said = {"of": fingerprint_of_file(run().latest), "said": ["--sections", "4"]}
    assert found["scores"] == {"metrics": {"dice": 0.7}, "weights": fingerprint_of_weights(run().latest)} | said
    same = {"train_loss": 1, "val_small": None, "seconds_per_step": 0.1}
    assert found["history"] == [
        {"epoch": 1, "step": 10, "val_loss": 1, "val_dice": 0.5} | same,
        {"epoch": 2, "step": 20, "val_loss": 0.5, "val_dice": 0.75} | same,
    ]
    assert (run().folder / "command.txt").read_text() == "python scripts/train.py --width 8\n"


def test_a_finished_run_is_not_made_again(run):
    run("--width", 8).carry_out()
    assert run("--width", 8).carry_out()["summary"] == DONE
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
    assert run().carry_out()["summary"] == DONE


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
        ("summary.json", "null", "not the summary"), ("summary.json", '{"x": 1}', "steps.* Delete its folder"),
        ("config.json", "{", "not the options"), ("log.csv", "epoch,val_dice\n", "no epochs"),
        ("log.csv", "epoch,val_dice\n1,much\n", "not the log"),
        ("log.csv", LOG.replace("1,10", "1,much"), "not the log"),
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
    assert json.loads((run().folder / "summary.json").read_text()) == DONE


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


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "best.safetensors", "summary.json", "log.csv"])
def test_a_user_keeps_a_training_of_their_own_where_the_study_wants_to_train(name, run):
    run().folder.mkdir()
    (run().folder / name).write_text("hours of work")
    with pytest.raises(ValueError, match=rf"run holds a training that this study did not begin \({name}, and no comm"):
        run().carry_out()
    assert [file.name for file in run().folder.iterdir()] == [name]
    assert (run().folder / name).read_text() == "hours of work"


def test_a_study_is_killed_before_its_training_has_written_anything(run, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "_call", killed)
        run("--width", 8).carry_out()
    assert [file.name for file in run().folder.iterdir()] == ["command.txt"]
    (run().folder / "best.safetensors").touch()  # and again, before the first checkpoint
    assert run("--width", 8).carry_out()["summary"] == DONE


@pytest.mark.parametrize("before", ["as it was", "of an older study"])
def test_somebody_changes_the_network_after_it_was_scored(before, run):
    run().carry_out()
    if before == "of an older study":
        scores = json.loads(run().scores.read_text())
        run().scores.write_text(json.dumps({"metrics": scores["metrics"]}))
    else:
        save_network(run().latest, seed=1)
    found = run().carry_out()["scores"]
    assert found["of"] == fingerprint_of_file(run().latest)
    assert found["weights"] == fingerprint_of_weights(run().latest)
    before = run().scores.stat().st_mtime_ns
    run().carry_out()
    assert run().scores.stat().st_mtime_ns == before


def test_somebody_deletes_the_checkpoint_once_it_is_scored(run):
    scores = run().carry_out()["scores"]
    run().latest.unlink()
    assert run().carry_out()["scores"] == scores


@pytest.mark.parametrize("options", [{"defaults": {"epochs": 2, "amp": False}}, {}])
def test_somebody_goes_on_with_a_training_of_the_study(options, run):
    given = () if options else ("--epochs", 2, "--lr", "1e-3")
    run(*given, **options).carry_out()
    config = run().folder / "config.json"
    config.write_text(json.dumps({"epochs": 4, "lr": 0.001, "amp": False}))
    with pytest.raises(ValueError, match=r"other options \(in config.json --epochs 4; now .*Choose another --out"):
        run(*given, **options).carry_out()
    config.unlink()
    log = run().folder / "log.csv"
    log.write_text(log.read_text() + "3,30,1,1,1,1,1\n")
    with pytest.raises(ValueError, match=r"other options \(log.csv has 3 epochs, and the runs of this study have 2\)"):
        run(*given, **options).carry_out()


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (LOG[:-2], "its last line was cut"), (LOG[:-12] + "\n", "fewer cells"),
        ("epoch,step,train_loss\n1,10,1\n", "it has no column val_loss, val_dice, seconds_per_step"),
        (LOG.replace("2,20", "3,30"), "the epochs 1 to 2"), (LOG.replace("2,20", "2,"), "the epochs 1 to 2"),
        (LOG.replace(",", ";"), "it has no column"), (LOG.replace("0.75,", "0.75,1,"), "more or fewer"),
        (LOG.encode("utf-16"), "not the log"), (None, "is not there"),
    ],
)  # fmt: skip
def test_somebody_cuts_or_edits_the_log(log, words, tmp_path):
    file = tmp_path / "log.csv"
    if log is not None:
        file.write_bytes(log if isinstance(log, bytes) else log.encode())
    with pytest.raises(ValueError, match=rf"log.csv.*{words}.*Delete its folder to train again\.$"):
        results.read_log(file)


@pytest.mark.parametrize("change", [("\n", "\r\n"), ("epoch", "\ufeffepoch")])
def test_somebody_saves_the_log_in_a_spreadsheet(change, tmp_path):
    (tmp_path / "log.csv").write_text(LOG.replace(*change), encoding="utf-8", newline="")
    assert results.read_log(tmp_path / "log.csv")[1]["val_dice"] == 0.75


@pytest.mark.parametrize(("kind", "words"), [("isbi", "accuracy at metrics"), ("brats", "accuracy at metrics")])
def test_somebody_edits_the_scores_so_that_metrics_are_missing(kind, words, run):
    with pytest.raises(ValueError, match=rf"scores.json is not .* missing is {words}\. Delete it to score again\.$"):
        run(shape=results.SCORES[kind]).carry_out()


def test_the_scores_of_a_tumour_study_have_no_patients(tmp_path):
    metrics = dict.fromkeys(results.metrics_of("brats"), 0.5)
    (tmp_path / "scores.json").write_text(json.dumps({"metrics": metrics}))
    with pytest.raises(ValueError, match="missing is patients"):
        results.read(tmp_path / "scores.json", results.SCORES["brats"], "scores")
    assert results.metrics_of("brats") == ["accuracy", "dice", *REGIONS]


# ----- several at a time ---------------------------------------------------------------------
TOGETHER = """
import os, pathlib, signal, sys, time
here = pathlib.Path(__file__).parent
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
signal.signal(signal.SIGTERM, lambda *_: ((out / "stopped").touch(), sys.exit(143)))
(here / f"{out.name}.began").write_text(os.environ.get("NUMBA_NUM_THREADS", "all"))
while len(list(here.glob("*.began"))) < 2 or (here / "wait").exists():
    time.sleep(0.01)
"""


@pytest.fixture
def both(run, tmp_path):
    """Two runs, of which neither ends before the other has begun."""
    script = tmp_path / "scripts" / "train.py"
    run()
    script.write_text(TOGETHER + TRAIN)
    return [((f"run{k}", k), Run(tmp_path / f"run{k}", [script], [script.with_name("evaluate.py")])) for k in (1, 2)]


def carry_out_both(both, workers, threads=1):
    return {key: found for (key, _), found, _ in run_jobs(partial(carry_out, threads), both, workers)}


def test_two_runs_at_a_time_share_the_cores(both, tmp_path, monkeypatch):
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    found = carry_out_both(both, SideBySide(2), threads=3)
    assert found.keys() == {("run1", 1), ("run2", 2)}
    assert all(each["summary"] == DONE and each["scores"]["metrics"] == {"dice": 0.7} for each in found.values())
    assert [(tmp_path / "scripts" / f"run{k}.began").read_text() for k in (1, 2)] == ["3", "3"]


def test_two_runs_at_a_time_are_both_stopped(both, tmp_path, capfd):
    (tmp_path / "scripts" / "wait").touch()
    jobs = run_jobs(partial(carry_out, 1), both, SideBySide(2))

    def stop():
        while len(list((tmp_path / "scripts").glob("*.began"))) < 2:
            time.sleep(0.01)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        threading.Thread(target=stop).start()
        with pytest.raises(KeyboardInterrupt):
            list(jobs)
    finally:
        signal.signal(signal.SIGINT, before)
    assert all((tmp_path / f"run{k}" / "stopped").exists() for k in (1, 2))
    assert capfd.readouterr().err.count("Waiting until train.py has stopped, too.") == 2


def test_runs_are_carried_out_by_a_dask_cluster(both, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("PYTHONPATH", str(pathlib.Path(__file__).parents[2]))  # the workers find this study
    with distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster:
        found = carry_out_both(both, DaskCluster(cluster.scheduler_address), None)
    assert len(found) == 2 and all(each["summary"] == DONE for each in found.values())
