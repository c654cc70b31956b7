"""The scenarios of `tests.campaigns.neighbours`: who meets whom, and what is right then."""

import json
import re
import signal
import time
from pathlib import Path

from safetensors import safe_open

from tests.campaigns import works
from tests.campaigns.meeting import WHO, Wrong, wait_for
from tests.campaigns.processes import at
from tests.campaigns.whole import broken, differences

CONTAINER = ["unshare", "--pid", "--fork", "--kill-child"]
NO_LOCKS = ["-o", "/dev/null", "-e", "trace=flock", "-e", "inject=flock:error=ENOLCK"]
READ_ONLY = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o ro none "$0" && exec "$@"']
SCENARIOS = {}


def scenario(name, weight=1):
    """Enter a function of a `Meeting` under a name. It returns whether a command was refused."""

    def enter(function):
        SCENARIOS[name] = function, weight
        return function

    return enter


# ----- trainings ---------------------------------------------------------------------
ISBI = ["train_isbi.py", *works.ISBI, "--out", "run"]
RESUME = ["train_isbi.py", "--workers", 1, "--resume", "run", "--epochs", 5]
BRATS = ["train_brats.py", *works.BRATS, "--epochs", 1, "--cache", "slices"]


def one_of(meeting, commands, begin=None, **options):
    """Several commands, one folder: exactly one succeeds, and leaves what it leaves alone."""
    processes = meeting.at_once(*commands, **options)
    refused = meeting.refusals(processes)
    if refused != len(commands) - 1:
        raise Wrong(f"{len(commands) - refused} of {len(commands)} succeeded in one folder")
    winner = next(words for words, process in zip(commands, processes, strict=True) if not process.process.returncode)
    meeting.compare(meeting.leaves(winner, begin=begin), aside=works.TIMED)
    return refused


@scenario("trainings with other options, one --out", 3)
def trainings(meeting):
    seeds = meeting.rng.sample(range(3), meeting.rng.choice((2, 2, 3)))
    return one_of(meeting, [[*ISBI, "--epochs", 2, "--seed", seed] for seed in seeds])


@scenario("trainings in containers with equal process numbers, one --out")
def trainings_in_containers(meeting):
    return one_of(meeting, [[*ISBI, "--epochs", 2, "--seed", seed] for seed in (0, 1)], prefix=CONTAINER)


@scenario("one run resumed twice", 2)
def resumed_twice(meeting):
    meeting.put("resumable")
    processes = meeting.at_once(RESUME, RESUME)
    refused = meeting.refusals(processes)  # 0 if one began when the other had ended
    meeting.compare(meeting.leaves(RESUME, begin="resumable"))
    return refused


@scenario("--overwrite, and --resume, while a training writes", 2)
def overwritten(meeting):
    words = [*ISBI, "--epochs", 6]
    training = meeting.start(words)
    wait_for((meeting.folder / "run" / "checkpoint.safetensors").exists, training)
    others = [meeting.start(ISBI + ["--epochs", 2, "--overwrite"]), meeting.start(RESUME)]
    for process in others:
        if meeting.ended(process) == 0 or not re.search(WHO, process.said):
            raise Wrong(f"while a training writes: status {process.process.returncode}, {process.said.strip()[-300:]}")
    meeting.ended(training, 0)
    meeting.compare(meeting.leaves(words))
    return len(others)


@scenario("a reader of the checkpoints, and evaluate.py, while a training writes", 2)
def reader(meeting):
    words, run, reads, last = [*ISBI, "--epochs", 6], meeting.folder / "run", 0, 0
    training = meeting.start(words)
    wait_for((run / "best.safetensors").exists, training)
    scores = ["evaluate.py", "--checkpoint", "run/best.safetensors", *works.SECTIONS, "--out", "scores.json"]
    scored = meeting.start(scores)
    while training.process.poll() is None:
        for name in ("checkpoint.safetensors", "best.safetensors"):
            try:
                with safe_open(run / name, "numpy") as file:
                    state = json.loads(file.metadata()["tinyseg"])["training"]["state"]
                    [file.get_tensor(key) for key in file.keys()]  # noqa: SIM118
            except FileNotFoundError:
                continue
            if name == "checkpoint.safetensors" and state["step"] < last:
                raise Wrong(f"the checkpoint went back from step {last} to {state['step']}")
            last, reads = max(last, state["step"] if name == "checkpoint.safetensors" else 0), reads + 1
        damaged = broken(run)
        if damaged:
            raise Wrong("; ".join(damaged))
    meeting.ended(training, 0)
    meeting.ended(scored, 0)
    for path in meeting.folder.glob("scores.*"):
        path.unlink()
    meeting.compare(meeting.leaves(words))
    return 0 * reads


@scenario("a killed training, and the next one at once", 2)
def killed(meeting):
    words = [*ISBI, "--epochs", 3]
    training = meeting.start(words)
    wait_for((meeting.folder / "run").exists, training)
    time.sleep(meeting.rng.uniform(0, 3))
    training.send(signal.SIGKILL)
    meeting.ended(meeting.start([*words, "--overwrite"]), 0)
    meeting.compare(meeting.leaves([*words, "--overwrite"]))
    return 0


@scenario("trainings on a disk without locks")
def without_locks(meeting):
    words = [*ISBI, "--epochs", 2]
    meeting.ended(meeting.start(words, strace=NO_LOCKS), 0)
    meeting.compare(meeting.leaves(words))
    return 0


@scenario("a folder where nothing can be written")
def read_only(meeting):
    (meeting.folder / "run").mkdir()
    commands = [
        [*ISBI, "--epochs", 1], ["predict.py", *works.NET, "{folder}/pictures", "--out", "run"],
        ["evaluate.py", *works.NET, *works.SECTIONS, "--out", "run/scores.json"],
        ["train_brats.py", "--data", "{folder}/brains", *works.BRATS, "--out", "other", "--cache", "run"],
        ["reproduce_tables.py", "--quick", "--tables", 2, "--data", "isbi", "--out", "run"],
    ]  # fmt: skip
    words = meeting.rng.choice(commands)
    process = meeting.start(words, prefix=[*READ_ONLY, meeting.folder / "run"])
    if meeting.ended(process) == 0 or not re.search("run.*(Read-only|permission|not be written)", process.said):
        raise Wrong(f"{words[0]}: status {process.process.returncode}, {process.said.strip()[-300:]}")
    return 1


# ----- one cache, one folder of data -------------------------------------------------
@scenario("trainings with one cache", 3)
def one_cache(meeting):
    sizes = meeting.rng.choice(((32, 32), (32, 16), (32, 32, 16)))
    data = ["--data", "{folder}/brains"]
    commands = [[*BRATS, *data, "--size", size, "--out", f"run{k}"] for k, size in enumerate(sizes)]
    processes = meeting.at_once(*commands, prefix=meeting.rng.choice(((), CONTAINER)))
    if any(process.process.returncode for process in processes):
        raise Wrong(" | ".join(process.said.strip()[-200:] for process in processes))
    meeting.compare(meeting.leaves(*commands))
    return 0


@scenario("synthetic brains written twice into one folder", 2)
def synthetic(meeting):
    code = (
        "from tinyseg.data.synthetic_brain import write_brains\nfrom tinyseg.data.brats import find_cases\n"
        "write_brains('brains', 6, (40, 36, 16))\nassert len(find_cases('brains')) == 6"
    )
    for process in meeting.at_once(["-c", code], ["-c", code], most=0.5):
        meeting.ended(process, 0)
    meeting.compare(meeting.leaves(["-c", code]))
    return 0


@scenario("one download twice", 2)
def downloads(meeting):
    name = meeting.rng.choice(("download, sections", DOWNLOAD))
    work = next(each for each in works.WORKS if each.name == name)
    processes = meeting.at_once(work.first, work.first, most=1)
    refused = meeting.refusals(processes)
    meeting.compare(meeting.leaves(work.first))
    return refused


DOWNLOAD = "download, brains"


# ----- predictions, scores, studies ---------------------------------------------------
def masks(network, *inputs):
    """Return the words of a prediction into one folder."""
    return ["predict.py", "--checkpoint", f"{{folder}}/{network}.safetensors", *inputs, "--out", "masks"]


@scenario("predictions of two networks, one --out", 3)
def predictions(meeting):
    commands = [masks(network, "{folder}/pictures", "{folder}/other.tif") for network in ("net", "another")]
    processes = meeting.at_once(*commands, prefix=meeting.rng.choice(((), CONTAINER)))
    refused = meeting.refusals(processes)
    if refused != 1:
        raise Wrong("both succeeded in one folder")
    meeting.compare(
        meeting.leaves(next(c for c, p in zip(commands, processes, strict=True) if not p.process.returncode))
    )
    return refused


@scenario("predictions of two images, one --out", 2)
def two_images(meeting):
    commands = [masks("net", "{folder}/stack.tif"), masks("net", "{folder}/pictures")]
    refused = meeting.refusals(meeting.at_once(*commands))
    meeting.compare(meeting.leaves(*commands), *(meeting.leaves(c) for c in commands if refused))
    return refused


@scenario("one prediction twice", 2)
def prediction_twice(meeting):
    words = masks("net", "{folder}/pictures", "{folder}/other.tif")
    refused = meeting.refusals(meeting.at_once(words, words, most=1))
    meeting.compare(meeting.leaves(words))
    return refused


@scenario("a killed prediction with --force")
def forced(meeting):
    begin = masks("another", "{folder}/pictures")
    words = [*masks("net", "{folder}/pictures"), "--force"]
    meeting.put("predicted")
    place = "rename", meeting.rng.randint(1, 18)
    meeting.ended(meeting.start(words, strace=at(place, signal.SIGKILL, "/dev/null")), -signal.SIGKILL)
    record = json.loads((meeting.folder / "masks" / "predictions.json").read_text())
    folders = {"another": meeting.leaves(begin), "net": meeting.leaves(masks("net", "{folder}/pictures"))}
    for name, how in record["settings"].items():
        network = Path(how["checkpoint"]).stem
        if (meeting.folder / "masks" / name).read_bytes() != (folders[network] / "masks" / name).read_bytes():
            raise Wrong(f"predictions.json calls {name} a mask of {network}, which it is not")
    meeting.ended(meeting.start(words), 0)
    return 0


@scenario("scores of two networks, one --out", 2)
def scores(meeting):
    commands = [
        ["evaluate.py", "--checkpoint", f"{{folder}}/{network}.safetensors", *works.SECTIONS, "--out", "scores.json"]
        for network in ("net", "another")
    ]  # fmt: skip
    processes = meeting.at_once(*commands, most=1)
    refused = meeting.refusals(processes)
    meeting.compare(*(meeting.leaves(c) for c, p in zip(commands, processes, strict=True) if not p.process.returncode))
    return refused


@scenario("studies, one --out", 2)
def studies(meeting):
    study = [*works.STUDY, "--networks", "sdunet", "--out", "study"]
    commands = [[*study, "--epochs", 1], [*study, "--epochs", meeting.rng.choice((1, 2))]]
    processes = meeting.at_once(*commands)
    who = WHO + "|made with other options"
    refused = meeting.refusals(processes, who)
    alone = [meeting.leaves(c) for c, p in zip(commands, processes, strict=True) if not p.process.returncode]
    found = [differences(folder, meeting.folder, works.TIMED) for folder in alone]
    found = [[each for each in sentences if str(meeting.folder) not in each] for sentences in found]
    if all(found):
        raise Wrong("; ".join(found[0]))
    return refused


# ----- in one process -----------------------------------------------------------------
FORK = """
import os, pathlib, sys
import numpy as np
from tinyseg.data.locks import BusyError, locked
from tinyseg.prediction.predictor import Predictor

predictor = Predictor.load("{folder}/net.safetensors")
image = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
before = predictor(image)
pathlib.Path("run").mkdir()
with locked("run", "a training"):
    child = os.fork()
    if child == 0:
        sys.exit()
    assert os.waitpid(child, 0)[1] == 0
    try:
        with locked("run", "another"):
            sys.exit("the fork has ended the lock")
    except BusyError:
        pass
assert (predictor(image) == before).all()
"""


@scenario("a fork while a folder is locked")
def forked(meeting):
    meeting.ended(meeting.start(["-c", FORK]), 0)
    (meeting.folder / "run").rmdir()
    return 0
