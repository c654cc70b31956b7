"""Training commands in several processes, as a launcher starts them: `mpiexec -n 4 tinyseg train-isbi …`."""

import csv
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file
from scripts import SMALL_BRATS

from tinyseg.models import checkpoint

MPIEXEC = shutil.which("mpiexec", path=str(pathlib.Path(sys.executable).parent))
pytestmark = pytest.mark.skipif(MPIEXEC is None, reason="mpich is not installed")
ISBI = ["train-isbi", "--width", 4, "--size", 32, "--crop", 32, "--batch-size", 4, "--microbatches", 4]
ISBI += ["--schedule", "constant", "--workers", 1]
BRATS = ["train-brats", *SMALL_BRATS, "--batch-size", 4, "--microbatches", 2, "--epochs", 1]


def start(processes, *arguments, options=(), through=(), **environment):
    """Start `tinyseg arguments` in so many processes; with 0, without a launcher."""
    launcher = [MPIEXEC, *options, "-n", str(processes), *through] if processes else []
    return subprocess.Popen(
        [*launcher, sys.executable, "-m", "tinyseg", *map(str, arguments)], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        env=os.environ | {"NUMBA_NUM_THREADS": "1"} | environment,
    )  # fmt: skip


def run(processes, *arguments, code=0, **options):
    """Run it; return what it printed."""
    process = start(processes, *arguments, **options)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == code, said
    return said


def same_training(a, b):
    """Two runs have learned the same, to the last bit."""
    for name in ("checkpoint.safetensors", "best.safetensors"):
        found, expected = load_file(a / name), load_file(b / name)
        assert found.keys() == expected.keys()
        for key, array in expected.items():
            np.testing.assert_array_equal(found[key], array, err_msg=f"{name} {key}")
    rows = []
    for folder in (a, b):
        with open(folder / "log.csv") as file:
            rows.append([{k: v for k, v in row.items() if k != "seconds_per_step"} for row in csv.DictReader(file)])
    assert rows[0] == rows[1]


def ranks_of(out):
    """Return the ids of the processes that train into a folder, in order of their rank."""
    found = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text().split("\0")
            environment = (folder / "environ").read_text().split("\0")
        except OSError:  # it has ended, or is another user's
            continue
        rank = [text.removeprefix("PMI_RANK=") for text in environment if text.startswith("PMI_RANK=")]
        if rank and words[1:3] == ["-m", "tinyseg"] and str(out) in words:
            found[int(rank[0])] = int(folder.name)
    return [found[rank] for rank in sorted(found)]


def wait_for(path, process):
    """Wait until a run has written a file."""
    end = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None and time.monotonic() < end, process.communicate()[0]
        time.sleep(0.05)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of two epochs of one process, its batches in four parts."""
    folder = tmp_path_factory.mktemp("together") / "one"
    run(0, *ISBI, "--epochs", 2, "--out", folder, NUMBA_NUM_THREADS="3")
    return folder


@pytest.mark.parametrize("processes", [2, 4])
def test_the_same_bits_in_one_two_and_four_processes(whole, tmp_path, processes):
    said = run(processes, *ISBI, "--epochs", 2, "--out", tmp_path / "run")
    assert f"batches of 4 in 4 parts, in {processes} processes" in said
    assert said.count("sections to train on") == said.count("Pictures, log and checkpoints are in") == 1
    assert {file.name for file in (tmp_path / "run").iterdir()} == {file.name for file in whole.iterdir()}
    same_training(tmp_path / "run", whole)


@pytest.mark.slow
def test_a_run_goes_on_in_another_number_of_processes(whole, tmp_path):
    run(4, *ISBI, "--epochs", 1, "--out", tmp_path / "run")
    run(2, "train-isbi", "--resume", tmp_path / "run", "--epochs", 2)
    same_training(tmp_path / "run", whole)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the processes are found in /proc")
@pytest.mark.parametrize("rank", [0, 3])
def test_a_signal_to_any_process_stops_all_of_them_with_one_checkpoint(whole, tmp_path, rank):
    folder = tmp_path / "run"
    process = start(4, *ISBI, "--epochs", 1000, "--out", folder)
    wait_for(folder / "log.csv", process)
    os.kill(ranks_of(folder)[rank], signal.SIGTERM)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + signal.SIGTERM and "BAD TERMINATION" not in said
    assert said.count("Stopped after step") == said.count("--resume") == 1
    assert checkpoint.read(folder / "checkpoint.safetensors")[1]["training"]["state"]["step"] >= 5


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the processes are found in /proc")
@pytest.mark.parametrize("rank", [0, 2])
def test_a_process_that_dies_ends_the_others_with_a_sentence_and_nothing_is_lost(tmp_path, rank):
    """Under a launcher that does not kill the others by itself, as srun. What each process says goes to a file."""
    folder, said = tmp_path / "run", tmp_path / "said"
    to_files = ["sh", "-c", f'exec setsid --wait "$0" "$@" > {said}.$PMI_RANK 2>&1']
    process = start(4, *ISBI, "--epochs", 1000, "--out", folder, options=["-disable-auto-cleanup"], through=to_files)
    wait_for(folder / "log.csv", process)
    time.sleep(1)
    end = time.monotonic() + 30
    os.kill(ranks_of(folder)[rank], signal.SIGKILL)
    process.communicate(timeout=60)
    while ranks_of(folder):
        assert time.monotonic() < end
        time.sleep(0.1)
    for other in {0, 1, 2, 3} - {rank}:  # the first says it for all, as long as it is there
        says = f"process {rank + 1} of 4 has ended" in pathlib.Path(f"{said}.{other}").read_text()
        assert says == (rank == 0 or other == 0)
    state = checkpoint.read(folder / "checkpoint.safetensors")[1]["training"]["state"]
    run(2, "train-isbi", "--resume", folder, "--epochs", state["epoch"] + 1)


@pytest.mark.slow
def test_brain_tumours_in_two_processes(brains, tmp_path):
    """Their loss asks for sums over the batch, and their slices are prepared by the first process alone."""
    for processes, name in ((0, "one"), (2, "two")):
        data = "--data", brains, "--cache", tmp_path / name / "slices"
        run(processes, *BRATS, *data, "--out", tmp_path / name / "run")
    same_training(tmp_path / "two" / "run", tmp_path / "one" / "run")


@pytest.mark.slow
def test_what_cannot_be_is_said_once_and_nothing_is_written(whole, tmp_path):
    out = "--out", tmp_path / "run"
    cases = {
        "4 processes cannot share a batch of 1: each needs an image, so give --batch-size 4, or a": (4, "train-isbi"),
        "2, 4, 8, … processes can train together, and 3 were started: give mpiexec another -n": (3, *ISBI),
        "8 processes train together, and a batch of 4 microbatches has no part for some of them": (8, *ISBI),
        "--amp computes a batch at once: leave out --microbatches, and start one process": (2, *ISBI, "--amp"),
        "no_such_folder": (2, *ISBI, "--data", tmp_path / "no_such_folder"),
    }
    for message, (processes, *arguments) in cases.items():
        process = start(processes, *arguments, *out)
        said = process.communicate(timeout=120)[0]
        assert process.returncode != 0 and said.count(message) == 1, said
        assert not (tmp_path / "run" / "checkpoint.safetensors").exists()
    said = start(2, *ISBI, "--epochs", 2, "--out", whole).communicate(timeout=120)[0]
    assert said.count("already holds a training run") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "option", ["--lr 0.00$((PMI_RANK + 1))", "--val-sections $((PMI_RANK + 4))", "--out OUT$PMI_RANK"]
)
def test_processes_with_other_options_or_data_do_not_train_together(tmp_path, option):
    through = ["sh", "-c", f'exec "$0" "$@" {option.replace("OUT", str(tmp_path / "run"))}']
    process = start(2, *ISBI, *([] if "OUT" in option else ["--out", tmp_path / "run"]), through=through)
    said = process.communicate(timeout=120)[0]
    assert process.returncode != 0 and said.count("process 2 of 2 begins with another") == 1, said


@pytest.mark.slow
def test_a_run_that_began_with_fewer_parts_says_so(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    process = start(8, "train-isbi", "--resume", folder, "--epochs", 3)
    said = process.communicate(timeout=120)[0]
    assert process.returncode != 0 and said.count("the batches of this run have 4 parts (--microbatches)") == 1, said


@pytest.mark.slow
def test_the_demo_in_two_processes(tmp_path):
    out = tmp_path / "demo"
    said = run(2, "demo", "--width", 2, "--size", 32, "--crop", 32, "--epochs", 1, "--out", out)
    assert said.count("Now segment a section that it has not seen") == said.count("Held-out sections") == 1
    assert {"summary.json", "predictions.png", "section.png"} <= {file.name for file in out.iterdir()}
