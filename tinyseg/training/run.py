"""The folder and the progress bar of a training run."""

import contextlib
import csv
import io
import itertools
import pathlib
import shlex
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

from tinyseg.data import os_errors
from tinyseg.data.json_files import read_json, write_json
from tinyseg.data.load_tqdm import tqdm
from tinyseg.data.locks import locked
from tinyseg.data.writing import FilePath, check_writable, write_atomically

FILES = (  # what a run writes into its folder
    "checkpoint.safetensors", "best.safetensors", "config.json", "log.csv", "summary.json", "curves.png",
    "predictions.png",
)  # fmt: skip


def command_line(words):
    """Return words as one types them in a shell; those of Windows know double quotes alone."""
    return subprocess.list2cmdline(words) if os_errors.WINDOWS else shlex.join(words)


class RunDirectory:
    """The folder of one training run, and the names of the files in it.

    Parameters
    ----------
    path : path-like
    overwrite : bool
        Start a new run even if the folder holds one already.
    resume : bool
        Continue the run in the folder.

    The constructor makes and deletes nothing. A with-block makes the folder and keeps other trainings out of it;
    `begin` deletes what an old run left. `fit` does both, and a with-block around it holds the folder longer:

        with RunDirectory("runs/isbi") as run:
            fit(step, loader, validate, run=run, …)
            run.write_json("summary.json", …)

    Raises
    ------
    FileExistsError
        If the folder holds a run, or other files with the names of those of a run, and neither `overwrite` nor `resume`
        is given; or something that is no file has such a name.
    BusyError
        If another training has the folder.
    OSError
        If nothing can be written there.
    """

    _blocks = 0  # with-blocks that this is in

    def __init__(self, path: FilePath, overwrite: bool = False, resume: bool = False) -> None:
        self.path = pathlib.Path(path)
        self.files = [self.path / name for name in FILES]
        self.latest, self.best = self.files[:2]
        self.resume = resume
        self.overwrite = overwrite
        self._check()

    def _check(self):
        """Raise an error if this run may not be written here."""
        is_new = not (self.overwrite or self.resume)
        if is_new and self.latest.exists():
            there = command_line([str(self.path)])
            raise FileExistsError(
                f"{self.path} already holds a training run. Continue it with --resume {there}, "
                "choose another --out, or replace it with --overwrite."
            )
        if is_new and self.best.exists():  # the first checkpoint was not written, or somebody has deleted the last one
            raise FileExistsError(
                f"{self.path} already holds a training run, which has no {self.latest.name} to go on from: choose "
                "another --out, or replace it with --overwrite."
            )
        there = [file.name for file in self.files if file.is_file()]
        if is_new and there and not self._began():
            raise FileExistsError(
                f"{self.path} holds no training run, and files with the names of those that a run writes: "
                f"{', '.join(there)}. Choose another --out, or replace them with --overwrite."
            )
        for file in self.files:
            if file.exists() and not file.is_file():
                raise FileExistsError(
                    f"{file} is a folder or a device, and the run writes a file of that name: move it elsewhere, or "
                    "choose another --out."
                )
        check_writable(self.path)

    def _began(self):
        """Whether a run began here: one that ended before its first checkpoint leaves the file of its options."""
        try:
            options = read_json(self.path / "config.json", dict[str, Any], "the options of a run")
        except (OSError, ValueError):
            return False
        return options.get("written_by") == "tinyseg"

    def __enter__(self) -> Self:
        if self._blocks == 0:
            self._lock = contextlib.ExitStack()
            self._hold()
            try:
                self._check()  # again: another training may have ended here meanwhile
            except BaseException:
                self._lock.close()
                raise
        self._blocks += 1
        return self

    def _hold(self):
        """Make the folder, and lock it."""
        self._lock.enter_context(locked(self.path, "a training"))

    def __exit__(self, *exc: object) -> None:
        self._blocks -= 1
        if self._blocks == 0:
            self._lock.close()

    def make_again(self) -> bool:
        """If somebody has deleted the folder, say so, make it again, and return True."""
        if self.path.is_dir():
            return False
        warnings.warn(f"{self.path} was deleted: it is made again, and the training goes on.", stacklevel=2)
        self._lock.close()
        self._hold()
        return True

    def begin(self, size: int = 0) -> None:
        """For a new run, delete the files of an old one, which could be taken for the new run's.

        If the disk does not have room for `size` bytes, it is an OSError.
        """
        check_writable(self.path, size)
        if not self.resume:
            for file in self.files:
                file.unlink(missing_ok=True)

    def write_config(self, options: dict[str, Any]) -> None:
        """Write config.json, the first file of a run: its options, and who wrote it."""
        self.write_json("config.json", {"written_by": "tinyseg"} | options)

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a dict as JSON. NaN and infinities, which JSON does not have, become null."""
        write_json(self.path / name, content, indent=2)

    def write_log(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write log.csv: one row for each epoch. What a row does not have is an empty cell."""
        text, columns = io.StringIO(), list(dict.fromkeys(itertools.chain(*history)))
        rows = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
        rows.writeheader()
        rows.writerows(history)
        try:
            write_atomically(self.path / "log.csv", text.getvalue())
        except PermissionError as error:  # on Windows: a spreadsheet has it open
            warnings.warn(f"{error} The training goes on, and writes it again after the next epoch.", stacklevel=2)


class FollowedRun(RunDirectory):
    """The folder of a run that another process writes, the first of those that train together: this one reads only."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def _check(self):
        pass

    def make_again(self) -> bool:
        return False

    def begin(self, size: int = 0) -> None:
        pass

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        pass

    def write_log(self, history: Sequence[Mapping[str, Any]]) -> None:
        pass


class Bar(contextlib.AbstractContextManager):
    """The progress bar over all steps of the run, with loss, Dice, seconds per step and the time left."""

    def __init__(self, total, done, disable, first="first step"):
        layout = "{desc} {bar} {n_fmt}/{total_fmt} [{elapsed}, {remaining} left, {rate_inv_fmt}{postfix}]"
        wait = 0.1 if sys.stderr.isatty() else 30  # seconds between updates; in a log file each is a line
        self.bar = tqdm(
            total=total, initial=done, disable=disable, unit="step", bar_format=layout, dynamic_ncols=True,
            smoothing=0.1, mininterval=wait,
        )  # fmt: skip
        self.bar.set_description(first)
        self.shown = {}

    def advance(self, log, epochs, loss):
        """Show one more step."""
        self.bar.set_description(f"epoch {log.epoch + 1}/{epochs}", refresh=False)
        self.shown |= {"loss": f"{loss:.3f}", "dice": f"{log.dice:.3f}"}
        self.bar.set_postfix(self.shown, refresh=False)
        self.bar.update()

    def scores(self, scores):
        """Show the scores of the last validation."""
        self.shown |= {f"val_{k}": f"{v:.3f}" for k, v in scores.items() if k in ("dice", "accuracy")}

    def __exit__(self, *exc):
        self.bar.close()
