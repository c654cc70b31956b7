"""Work on many items in several processes, of which some are lost."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile
from PIL import Image
from scripts import run_command

from tinyseg.commands import score_volumes
from tinyseg.commands.jobs import WorkerLost, run_jobs
from tinyseg.commands.workers import DaskCluster, Processes, load_once
from tinyseg.data.brats import find_cases
from tinyseg.data.json_files import read_json


def work(item):
    """Do as an item says; a number is squared."""
    if item == "refuse":
        raise ValueError("this one cannot be done")
    if item == "crash":
        os._exit(3)
    if item == "be killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "threads":
        return os.environ["NUMBA_NUM_THREADS"]
    return item * item


@pytest.mark.parametrize("workers", [None, Processes(2)])
def test_each_item_is_done_and_what_fails_is_named(workers):
    found = {item: (result, error) for item, result, error in run_jobs(work, [1, 2, "refuse", 3], workers)}
    assert {item: result for item, (result, error) in found.items() if error is None} == {1: 1, 2: 4, 3: 9}
    assert isinstance(found["refuse"][1], ValueError) and "cannot be done" in str(found["refuse"][1])


def test_a_process_that_is_killed_loses_its_item_and_no_other():
    items = [1, 2, "crash", 3, 4, "be killed", 5, 6]
    found = {item: (result, error) for item, result, error in run_jobs(work, items, Processes(3))}
    assert list(found) != [] and found.keys() == set(items)
    assert [item for item, (_, error) in found.items() if isinstance(error, WorkerLost)] == ["crash", "be killed"]
    assert all(found[item] == (item * item, None) for item in range(1, 7))


def test_items_are_taken_when_a_process_is_free_and_the_cores_are_shared(monkeypatch):
    taken = []

    def items():
        for k in range(6):
            taken.append(k)
            yield k

    jobs = run_jobs(work, items(), Processes(2))
    next(jobs)
    assert len(taken) <= 3
    assert len(list(jobs)) == 5
    monkeypatch.setattr("tinyseg.commands.workers.cores", lambda: 6)
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    assert [result for _, result, _ in run_jobs(work, ["threads"], Processes(2))] == ["3"]
    monkeypatch.setenv("NUMBA_NUM_THREADS", "7")  # the user's
    assert [result for _, result, _ in run_jobs(work, ["threads"], Processes(2))] == ["7"]


@pytest.mark.skipif(sys.platform != "linux", reason="the processes are found in /proc")
def test_the_processes_end_with_the_one_that_has_started_them(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, time\nfrom tinyseg.commands.jobs import run_jobs\nfrom tinyseg.commands.workers import Processes\n"
        "def work(item):\n    print(os.getpid(), flush=True)\n    time.sleep(600)\n"
        "if __name__ == '__main__':\n    list(run_jobs(work, [1, 2], Processes(2)))\n"
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as process:
        workers = [int(process.stdout.readline()) for _ in range(2)]
        process.kill()
    end = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{worker}") for worker in workers):
        assert time.monotonic() < end
        time.sleep(0.05)


# ----- tinyseg predict ---------------------------------------------------------------
@pytest.fixture
def images(tmp_path):
    """A folder of six small images, one of them a stack."""
    folder, rng = tmp_path / "images", np.random.default_rng(0)
    folder.mkdir()
    for k in range(5):
        Image.fromarray(rng.integers(0, 256, (32, 40), np.uint8)).save(folder / f"{k}.png")
    tifffile.imwrite(folder / "stack.tif", rng.integers(0, 256, (4, 32, 40), np.uint8), photometric="minisblack")
    return folder


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix in (".png", ".tif", ".csv")}


def predict(run, images, out, *options, code=0):
    return run_command("predict", "--checkpoint", run / "best.safetensors", images, "--out", out, *options, code=code)


def test_images_are_shared_by_processes_to_the_same_bytes(isbi_run, images, tmp_path):
    predict(isbi_run, images, tmp_path / "one")
    said, _ = predict(isbi_run, images, tmp_path / "two", "--jobs", 2)
    assert contents(tmp_path / "two") == contents(tmp_path / "one") and len(contents(tmp_path / "one")) == 6
    assert said.count("wrote ") == 6
    records = [read_json(tmp_path / name / "predictions.json", dict, "a record") for name in ("one", "two")]
    assert records[0]["settings"] == records[1]["settings"]
    again, _ = predict(isbi_run, images, tmp_path / "two", "--jobs", 2)
    assert again.count("is there already") == 6 and "wrote" not in again


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_done(isbi_run, images, tmp_path):
    (images / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    _, said = predict(isbi_run, images, tmp_path / "out", "--jobs", 2, code=1)
    assert "1 of 6 files could not be predicted: 2.png" in said and said.count("2.png") >= 2
    assert len(contents(tmp_path / "out")) == 5
    assert "2.png" not in str(read_json(tmp_path / "out" / "predictions.json", dict, "a record")["files"])


def test_parts_of_a_job_array_write_into_one_folder(isbi_run, images, tmp_path):
    predict(isbi_run, images, tmp_path / "one")
    first, _ = predict(isbi_run, images, tmp_path / "out", "--part", "1/4")
    assert "part 1 of 4: 2 of 6 images" in first and len(contents(tmp_path / "out")) == 2
    commands = [
        subprocess.Popen(
            [sys.executable, "-m", "tinyseg", "predict", "--checkpoint", isbi_run / "best.safetensors", images, "--out",
             tmp_path / "out", "--part", f"{k}/4"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for k in (2, 3, 4)
    ]  # fmt: skip
    for command in commands:
        said = command.communicate(timeout=120)[0]
        assert command.returncode == 0, said
    assert contents(tmp_path / "out") == contents(tmp_path / "one")
    records = [read_json(tmp_path / name / "predictions.json", dict, "a record") for name in ("one", "out")]
    assert records[0]["settings"] == records[1]["settings"]
    assert {file.name for file in (tmp_path / "out").iterdir()} == {*contents(tmp_path / "one"), "predictions.json"}
    whole, _ = predict(isbi_run, images, tmp_path / "out")
    assert whole.count("is there already") == 6


@pytest.mark.parametrize("part", ["0/4", "5/4", "4", "a/b", "1/0", "-1/4", "1/4/2"])
def test_a_part_that_is_none_is_refused(part, isbi_run, images, tmp_path):
    _, said = predict(isbi_run, images, tmp_path / "out", f"--part={part}", code=2)
    assert f"expected K/N with K from 1 to N, as in 2/8, found '{part}'" in said


def test_jobs_are_for_the_cpu(isbi_run, images, tmp_path):
    _, said = predict(isbi_run, images, tmp_path / "out", "--jobs", 2, "--device", "gpu", code=2)
    assert "--jobs and --dask share the cores of CPUs: leave them out, or --device gpu" in said


# ----- Dask and MPI ------------------------------------------------------------------------
@pytest.fixture(scope="module")
def cluster():
    """The address of a Dask scheduler with two workers; one that is killed is replaced."""
    dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")
    never_again = dask.config.set({"distributed.scheduler.allowed-failures": 0})
    with (
        never_again,
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as local,
    ):
        yield local.scheduler_address


def test_a_dask_cluster_does_each_item_and_loses_the_one_that_kills_its_worker(cluster):
    items = [1, 2, "refuse", 3, "be killed", 4, 5]
    found = {item: (result, error) for item, result, error in run_jobs(work, items, DaskCluster(cluster))}
    assert found.keys() == set(items) and all(found[k] == (k * k, None) for k in range(1, 6))
    assert isinstance(found["refuse"][1], ValueError) and isinstance(found["be killed"][1], WorkerLost)


def test_images_are_shared_by_a_dask_cluster_to_the_same_bytes(cluster, isbi_run, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of files are relative to this folder, of the workers to another
    predict(isbi_run, images, "one")
    said, _ = predict(isbi_run, images.relative_to(tmp_path), "dask", "--dask", cluster)
    assert contents(tmp_path / "dask") == contents(tmp_path / "one") and said.count("wrote ") == 6


def test_a_dask_cluster_that_is_not_there_is_named(isbi_run, images, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("tinyseg.commands.workers.PATIENCE", 1)
    _, said = predict(isbi_run, images, tmp_path / "out", "--dask", "tcp://127.0.0.1:9", code=1)
    assert "no Dask scheduler answers at 'tcp://127.0.0.1:9'" in said and "dask scheduler" in said


def test_what_a_worker_has_loaded_is_for_one_command():
    assert [load_once(command, lambda k=k: k) for k, command in enumerate("aaba")] == [0, 0, 2, 3]


MPIEXEC = shutil.which("mpiexec", path=str(pathlib.Path(sys.executable).parent))


@pytest.mark.skipif(MPIEXEC is None, reason="mpich is not installed")
def test_images_are_shared_by_processes_of_mpi_to_the_same_bytes(isbi_run, images, tmp_path):
    predict(isbi_run, images, tmp_path / "one")
    done = subprocess.run(
        [MPIEXEC, "-n", "3", sys.executable, "-m", "mpi4py.futures", "-m", "tinyseg", "predict", "--checkpoint",
         isbi_run / "best.safetensors", images, "--out", tmp_path / "mpi", "--jobs", "mpi"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.count("wrote ") == 6, done.stdout
    assert contents(tmp_path / "mpi") == contents(tmp_path / "one")
    _, said = predict(isbi_run, images, tmp_path / "out", "--jobs", "mpi", code=1)
    assert "mpiexec -n 5 python -m mpi4py.futures -m tinyseg" in said


# ----- tinyseg evaluate --------------------------------------------------------------------
def test_patients_are_shared_by_processes_to_the_same_scores(brats_run, brains, tmp_path):
    options = ["--checkpoint", brats_run[0] / "best.safetensors", "--images", brains, "--cases", "all", "--worst", 0]
    one, _ = run_command("evaluate", *options, "--out", tmp_path / "one.json")
    two, _ = run_command("evaluate", *options, "--jobs", 2, "--out", tmp_path / "two.json")
    scores = [read_json(tmp_path / f"{name}.json", dict, "scores") for name in ("one", "two")]
    assert all(found.pop("settings") for found in scores) and scores[0] == scores[1]
    assert two.replace("two.json", "one.json") == one


def test_a_patient_whose_process_is_killed_is_named_and_the_others_are_scored(brats_run, brains, tmp_path, monkeypatch):
    real = score_volumes.run_jobs

    def one_is_lost(work, items, workers):
        for k, (item, result, error) in enumerate(real(work, items, workers)):
            yield (item, None, WorkerLost("it was killed")) if k == 1 else (item, result, error)

    monkeypatch.setattr(score_volumes, "run_jobs", one_is_lost)
    options = ["--checkpoint", brats_run[0] / "best.safetensors", "--images", brains, "--cases", "all", "--worst", 0]
    _, said = run_command("evaluate", *options, "--out", tmp_path / "scores.json", code=1)
    lost = [case.name for case in find_cases(brains)][1]
    assert f"patients are not among these scores: {lost}" in said
    assert lost not in [p["name"] for p in read_json(tmp_path / "scores.json", dict, "scores")["patients"]]


def test_jobs_are_for_volumes_and_a_network(isbi_run, images, tmp_path):
    given = "--checkpoint", isbi_run / "best.safetensors", "--images", images, "--jobs", 2
    _, said = run_command("evaluate", *given, code=1)
    assert "--jobs: this is for volumes of brain tumours" in said
