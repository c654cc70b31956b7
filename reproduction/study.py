"""A study: several networks and several seeds under one protocol, each a run of the training script.

Each run has a folder of its own (`run_folder`) and is a process of its own. Its command, which a user could type, is
kept in ``command.txt`` from before it begins. A finished run is not made again, an interrupted one continues where it
stopped, and one that fails is named and does not end the others. A folder with a training that the study did not begin,
or that somebody went on with under other options, is refused. The figures reported are those of the last epoch, not of
the best one.
"""

import itertools
import os
import shlex
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from reproduction import results
from tinyseg.data.fingerprint import fingerprint
from tinyseg.data.json_files import write_json
from tinyseg.data.locks import locked
from tinyseg.data.writing import write_atomically
from tinyseg.models import checkpoint
from tinyseg.training.interruption import STOPS
from tinyseg.training.run import FILES

# By Ctrl-C, kill, or a closed terminal: the statuses of a command that was interrupted.
ENDED = [status for number in STOPS for status in (-number, 128 + number)]


class RunFailed(RuntimeError):
    """A training or an evaluation ended with an error."""


class Network(NamedTuple):
    """A row of a table; `model` is a name in `tinyseg.models.MODELS`, `ws` the option of the training scripts."""

    title: str
    model: str
    ws: str = "default"


def run_folder(out, kind, name, seed):
    """Return the folder of the run of one network with one seed, on the data called `kind`."""
    return out / "runs" / f"{kind}-{name}-{seed}"


class Run:
    """One network trained with one seed.

    Parameters
    ----------
    folder : Path
        For everything that the run leaves.
    train : list of str
        The training script, and the options that decide what is learned.
    evaluate : list of str
        The evaluation script, and its options except ``--checkpoint`` and ``--out``.
    rest : list of str
        Options of the training that do not change its result, such as the device.
    defaults : dict
        What the training script takes for options that `train` does not give, by their names in config.json.
    shape : type
        What the scores must hold, one of `results.SCORES`.
    """

    def __init__(self, folder, train, evaluate, rest=(), defaults=None, shape=results.Scores):
        self.folder, self.rest = Path(folder), list(map(str, rest))
        self.train, self.evaluate = list(map(str, train)), list(map(str, evaluate))
        self.latest, self.scores = self.folder / "checkpoint.safetensors", self.folder / "scores.json"
        self.kept, self.shape = self.folder / "command.txt", shape
        self.threads = None  # of the kernels; all cores
        given = {a[2:].replace("-", "_"): b for a, b in itertools.pairwise(self.train[1:]) if a.startswith("--")}
        if "data" in given:  # as the training script keeps it
            given["data"] = str(Path(given["data"]).resolve())
        self.settings = (defaults or {}) | given

    @property
    def command(self):
        """The training command that a user would type."""
        return shlex.join(["python", "/".join(Path(self.train[0]).parts[-2:]), *self.train[1:]])

    def carry_out(self):
        """Train and score, unless it has been done already.

        Returns
        -------
        dict
            ``history``: a dict for each epoch, see `tinyseg.training.fit`; ``summary`` and ``scores``: what the
            scripts wrote.

        Raises
        ------
        ValueError
            If the folder holds a run with other options, one that this study did not begin, or a damaged file.
        RunFailed
            If a script ends with an error; the message is the script's.
        KeyboardInterrupt
            If a script was interrupted.
        """
        summary, history = self.train_whole()
        with locked(self.folder, "a study", wait=True):  # nobody goes on with the training while it is scored
            return {"summary": summary, "history": history, "scores": self._score()}

    def train_whole(self):
        """Train, unless it has been done already; return the summary and the log. Raises as `carry_out`."""
        with locked(self.folder, "a study", wait=True):  # a killed study leaves a training that still writes
            pass
        self._refuse_others()
        summary = self.folder / "summary.json"
        if not summary.is_file():
            if self.latest.is_file():
                self._call([self.train[0], "--resume", str(self.folder), *self.rest])
            else:
                self.folder.mkdir(parents=True, exist_ok=True)
                write_atomically(self.kept, self.command + "\n")  # first: by it a study that was killed knows its run
                self._call([*self.train, "--out", str(self.folder), "--overwrite", *self.rest])
        what = "the summary of a finished training"
        return results.read(summary, results.Summary, what, results.TRAIN_AGAIN), self._read_log()

    def _refuse_others(self):
        """Raise a ValueError if the folder holds a training that is not this run."""
        if not self.kept.is_file():
            found = [name for name in FILES if os.path.lexists(self.folder / name)]
            if found:
                raise ValueError(
                    f"{self.folder} holds a training that this study did not begin ({', '.join(found)}, and no "
                    f"{self.kept.name}). Move it elsewhere, delete it, or choose another --out."
                )
            return
        before = self.kept.read_text(encoding="utf-8", errors="surrogateescape").strip()
        if before != self.command:
            self._refuse(f"{before}; now {self.command}")
        config = self.folder / "config.json"
        if config.is_file():
            found = results.read(config, dict, "the options of a training", results.TRAIN_AGAIN)
            # What is None the script decides.
            known = [name for name, value in self.settings.items() if name in found and value is not None]
            other = [name for name in known if not _same(found[name], self.settings[name])]
            if other:
                said = ", ".join(f"--{name.replace('_', '-')} {found[name]}" for name in other)
                self._refuse(f"in {config.name} {said}; now {self.command}")

    def _refuse(self, what):
        raise ValueError(
            f"{self.folder} holds a run made with other options ({what}). Choose another --out, or delete the folder."
        )

    def _read_log(self):
        """Read the log; a ValueError if it does not have the epochs that the run is to have."""
        history = results.read_log(self.folder / "log.csv")
        epochs = self.settings.get("epochs", len(history))
        if len(history) != int(epochs):
            self._refuse(f"log.csv has {len(history)} epochs, and the runs of this study have {epochs}")
        return history

    def _score(self):
        """Return the scores of the latest checkpoint: those that are there, or new ones if they are of another."""
        what, advice = "a file of scores of evaluate.py", " Delete it to score again."
        network = fingerprint_of_weights(self.latest) if self.latest.is_file() else None  # it may be deleted by then
        scores = results.read(self.scores, results.Scores, what, advice) if self.scores.is_file() else None
        if scores is None or network not in (scores.get("weights"), None):
            self._call([*self.evaluate, "--checkpoint", str(self.latest), "--out", str(self.scores)])
            scores = results.read(self.scores, results.Scores, what, advice)
            write_json(self.scores, scores | {"weights": network})
        return results.read(self.scores, self.shape, what, advice)

    def _call(self, arguments):
        """Run a script; what it prints goes to ``output.txt``. Whatever ends this ends the script first."""
        with open(self.folder / "output.txt", "a+", encoding="utf-8", errors="replace") as output:
            start = output.tell()
            environment = ({"NUMBA_NUM_THREADS": str(self.threads)} if self.threads else {}) | os.environ
            command = [sys.executable, *arguments]
            with subprocess.Popen(command, stdout=output, stderr=output, env=environment) as process:
                _scripts[process] = Path(arguments[0]).name
                try:
                    status = process.wait()
                except BaseException:
                    stop_scripts()
                    process.wait()
                    raise
                finally:
                    del _scripts[process]
            output.seek(start)
            said = output.read().replace("\r", "\n").strip().split("\n")
        if status in ENDED:
            raise KeyboardInterrupt
        if status < 0:
            name = signal.Signals(-status).name
            raise RunFailed(f"it was ended by {name}, as when the memory does not suffice or a library crashes")
        if status:
            raise RunFailed(said[-1] or f"it ended with the status {status} and said nothing")


_scripts: dict = {}  # the names of the scripts that are running, by their processes


def stop_scripts():
    """Stop all scripts that are running; a training writes its checkpoint then."""
    for process, name in list(_scripts.items()):
        print(f"Waiting until {name} has stopped, too.", file=sys.stderr, flush=True)
        process.terminate()


def fingerprint_of_weights(path):
    """Return the SHA-1 of the weights in a checkpoint: two trainings of one command differ in the times that it has."""
    arrays = sorted(checkpoint.read(path)[0].items())
    return fingerprint(*(part for name, array in arrays if name.startswith("model.") for part in (name, array)))


def _same(found, expected):
    """Whether an option in config.json is the one that was given, as a text perhaps: 0.0 and "0" are the same."""
    try:
        return float(found) == float(expected)
    except (TypeError, ValueError):
        return str(found) == str(expected)


def spread(values):
    """Return mean and deviation of the figures of several seeds.

    Returns
    -------
    dict
        ``mean``, ``std`` (of the sample, divided by n - 1; None if there is one value only) and ``values``, as given.
        Mean and deviation leave out values that are None; they are None if there are no others.
    """
    known = [v for v in values if v is not None]
    return {
        "mean": statistics.fmean(known) if known else None,
        "std": statistics.stdev(known) if len(known) > 1 else None,
        "values": list(values),
    }
