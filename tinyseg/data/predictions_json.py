"""The record that predict.py keeps beside its files: from what, and how, each was made.

It is the file predictions.json: ``{"classes": [names], "values": [of each class in a mask], "files": {name: inputs},
"settings": {name: {…}}, "checkpoint": path}``; values only if the checkpoint says them. Each file has its own settings,
so that masks and probabilities, or the masks of two networks, can lie in one folder; the checkpoint is that of the
command that wrote last.
"""

import contextlib
import functools
import hashlib

import msgspec

from tinyseg.data.fingerprint import fingerprint_of_file
from tinyseg.data.json_files import read_json, write_json
from tinyseg.data.locks import locked

NAME = "predictions.json"


class Content(msgspec.Struct, omit_defaults=True):
    """What the file must hold."""

    classes: list[str]
    files: dict[str, str]
    settings: dict[str, dict[str, str | int | float | bool | None]]
    checkpoint: str | None = None
    values: list[int] | None = None
    ignore: int | None = None


class Record:
    """The record of a folder.

    Parameters
    ----------
    folder : Path
        Where predictions are written.
    classes : list of str
        Of the network: all predictions in a folder have the same.
    masks : Classes, optional
        Which values the classes have in the masks, if not their numbers.

    Raises
    ------
    ValueError
        The folder has a predictions.json of another program, or predictions with other classes.
    """

    def __init__(self, folder, classes, masks=None):
        values, ignore = (list(masks.values), masks.ignore) if masks else (None, None)
        self.path, self.content = folder / NAME, Content(classes, {}, {}, values=values, ignore=ignore)
        self._known = None  # which file the content is that of
        if self._read():
            if self.content.classes != classes:
                raise ValueError(
                    f"{folder} holds predictions of a network for other classes ({', '.join(self.content.classes)}, "
                    f"and now {', '.join(classes)}): give another --out."
                )
            if self.content.values != values:
                raise ValueError(
                    f"{folder} holds masks in which the classes have the values {self.content.values}, and now they "
                    f"have {values}: give another --out."
                )

    def _read(self):
        """Take over what is in the file; return whether there is one."""
        there = _identity(self.path)
        if there not in (None, self._known):
            self.content = read_json(self.path, Content, "a record of predict.py, so give another --out")
            self._known = there
        return there is not None

    def differences(self, target, settings):
        """Return the names of the settings that were others when a file was made; None if it has no entry."""
        before = self.content.settings.get(target.name)
        if before is None:
            return None
        return [name for name in before | settings if before.get(name) != settings.get(name)]

    @contextlib.contextmanager
    def entering(self, target, files, settings):
        """Write down a file that is made, or not, in the with-block; a signal or a crash at any moment does no harm.

        A new file has its entry before it is there, so that no file is ever without one. While a file is replaced, its
        entry does not say how it was made: should the process be killed, it can be the old one or the new one.
        """
        before, there = self._entry(target), _identity(target)
        self._enter(target, files, settings if there is None else None)
        try:
            yield
        finally:
            if _identity(target) == there:  # it was not made
                self._put_back(target, before)
            elif there is not None:
                self._enter(target, files, settings)

    def _enter(self, target, files, settings):
        with self._changing():
            self.content.files[target.name] = ", ".join(map(str, files))
            self.content.settings.pop(target.name, None)
            if settings is not None:
                self.content.settings[target.name] = settings
                self.content.checkpoint = settings["checkpoint"]

    def _entry(self, target):
        return self.content.files.get(target.name), self.content.settings.get(target.name), self.content.checkpoint

    def _put_back(self, target, before):
        with self._changing():
            *entries, self.content.checkpoint = before
            for part, entry in zip((self.content.files, self.content.settings), entries, strict=True):
                part.pop(target.name, None)
                if entry is not None:
                    part[target.name] = entry

    @contextlib.contextmanager
    def _changing(self):
        """Change the content in the with-block; commands that share the folder (--part) do so one after the other."""
        with locked(self.path.parent, "an entry", file=NAME, wait=True):
            self._read()
            yield
            if self.content.files:
                write_json(self.path, msgspec.to_builtins(self.content))
                self._known = _identity(self.path)
            else:  # nothing could be made
                self.path.unlink(missing_ok=True)


def _identity(path):
    """Return what changes when a file is replaced; None if there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def written_in(folder):
    """Return the names of the files that predict.py wrote into a folder, a set."""
    try:
        return set(read_json(folder / NAME, Content, "a record").files)
    except (ValueError, OSError):  # there is no record, or it is another program's
        return set()


def refuse_predictions(files):
    """Raise a ValueError if predict.py wrote one of these files, which are to be labels."""
    written = functools.cache(written_in)
    found = next((file for file in files if file.name in written(file.parent)), None)
    if found is not None:
        raise ValueError(
            f"{found} is a prediction of predict.py (see {NAME} beside it): expected labels that somebody drew. If it "
            f"has been corrected by hand since, move it to another folder, without {NAME}."
        )


def hash_of(*files):
    """Return the SHA-1 of the content of files."""
    digests = [fingerprint_of_file(path) for path in files]
    return digests[0] if len(digests) == 1 else hashlib.sha1(" ".join(digests).encode()).hexdigest()
