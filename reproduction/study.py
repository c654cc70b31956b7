"""A study: several networks and several seeds under one protocol, each a run of the training script.

Each run has a folder of its own (`run_folder`) and is a process of its own. Its command, which a user could type, is
kept in ``command.txt``. A finished run is not made again, an interrupted one continues where it stopped, and one that
fails is named and does not end the others. The figures reported are those of the last epoch, not of the best one.
"""

import shlex
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from reproduction import results
from tinyseg.data.locks import locked
from tinyseg.data.writing import write_atomically
from tinyseg.training.interruption import STOPS

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
    """

    def __init__(self, folder, train, evaluate, rest=()):
        self.folder, self.rest = Path(folder), list(map(str, rest))
        self.train, self.evaluate = list(map(str, train)), list(map(str, evaluate))
        self.latest, self.scores = self.folder / "checkpoint.safetensors", self.folder / "scores.json"

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
            If the folder holds a run with other options.
        RunFailed
            If a script ends with an error; the message is the script's.
        KeyboardInterrupt
            If a script was interrupted.
        """
        with locked(self.folder, "a study", wait=True):  # a killed study leaves a training that still writes
            pass
        kept = self.folder / "command.txt"
        before = kept.read_text(encoding="utf-8", errors="surrogateescape").strip() if kept.is_file() else self.command
        if before != self.command:
            raise ValueError(
                f"{self.folder} holds a run made with other options ({before}; now {self.command}). "
                "Choose another --out, or delete the folder."
            )
        if not (self.folder / "summary.json").is_file():
            if self.latest.is_file() and kept.is_file():
                self._call([self.train[0], "--resume", str(self.folder), *self.rest])
            else:
                self.folder.mkdir(parents=True, exist_ok=True)
                write_atomically(kept, self.command + "\n")
                self._call([*self.train, "--out", str(self.folder), "--overwrite", *self.rest])
        if not self.scores.is_file():
            self._call([*self.evaluate, "--checkpoint", str(self.latest), "--out", str(self.scores)])
        return {
            "history": results.read_log(self.folder / "log.csv"),
            "summary": results.read(self.folder / "summary.json", dict, "the summary of a training"),
            "scores": results.read(self.scores, results.Scores, "a file of scores of evaluate.py"),
        }

    def _call(self, arguments):
        """Run a script; what it prints goes to ``output.txt``. Whatever ends this ends the script first."""
        with open(self.folder / "output.txt", "a+", encoding="utf-8", errors="replace") as output:
            start = output.tell()
            with subprocess.Popen([sys.executable, *arguments], stdout=output, stderr=output) as process:
                try:
                    status = process.wait()
                except BaseException:
                    print(f"Waiting until {Path(arguments[0]).name} has stopped, too.", file=sys.stderr, flush=True)
                    process.terminate()  # a training writes its checkpoint then
                    process.wait()
                    raise
            output.seek(start)
            said = output.read().replace("\r", "\n").strip().split("\n")
        if status in ENDED:
            raise KeyboardInterrupt
        if status < 0:
            name = signal.Signals(-status).name
            raise RunFailed(f"it was ended by {name}, as when the memory does not suffice or a library crashes")
        if status:
            raise RunFailed(said[-1] or f"it ended with the status {status} and said nothing")


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
