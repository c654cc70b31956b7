"""The record that predict.py keeps beside its files: from what, and how, each was made.

It is the file predictions.json: ``{"classes": [names], "files": {name: inputs}, "settings": {name: {…}}, "checkpoint":
path}``. Each file has its own settings, so that masks and probabilities, or the masks of two networks, can lie in one
folder; the checkpoint is that of the command that wrote last.
"""

import hashlib

import msgspec

from tinyseg.data.fingerprint import fingerprint_of_file
from tinyseg.data.json_files import read_json, write_json

NAME = "predictions.json"


class Content(msgspec.Struct):
    """What the file must hold."""

    classes: list[str]
    files: dict[str, str]
    settings: dict[str, dict[str, str | int | float | bool | None]]
    checkpoint: str | None = None


class Record:
    """The record of a folder.

    Parameters
    ----------
    folder : Path
        Where predictions are written.
    classes : list of str
        Of the network: all predictions in a folder have the same.

    Raises
    ------
    ValueError
        The folder has a predictions.json of another program, or predictions with other classes.
    """

    def __init__(self, folder, classes):
        self.path, self.content = folder / NAME, Content(classes, {}, {})
        if self.path.is_file():
            self.content = read_json(self.path, Content, "a record of predict.py, so give another --out")
            if self.content.classes != classes:
                raise ValueError(
                    f"{folder} holds predictions of a network for other classes ({', '.join(self.content.classes)}, "
                    f"and now {', '.join(classes)}): give another --out."
                )

    def differences(self, target, settings):
        """Return the names of the settings that were others when a file was made; None if it has no entry."""
        before = self.content.settings.get(target.name)
        if before is None:
            return None
        return [name for name in before | settings if before.get(name) != settings.get(name)]

    def enter(self, target, files, settings):
        """Write down a file that is about to be made, so that no file is ever without its entry."""
        self.content.files[target.name] = ", ".join(map(str, files))
        self.content.settings[target.name] = settings
        self.content.checkpoint = settings["checkpoint"]
        self._write()

    def put_back(self, target, before):
        """Write down again what a file was, or that there was none: it could not be made. `before` is from `entry`."""
        for part, entry in zip((self.content.files, self.content.settings), before, strict=True):
            part.pop(target.name, None)
            if entry is not None:
                part[target.name] = entry
        self._write()

    def entry(self, target):
        """Return what the record has of a file, for `put_back`."""
        return self.content.files.get(target.name), self.content.settings.get(target.name)

    def _write(self):
        if not self.content.files:  # nothing could be made
            self.path.unlink(missing_ok=True)
            return
        write_json(self.path, msgspec.to_builtins(self.content))


def written_in(folder):
    """Return the names of the files that predict.py wrote into a folder, a set."""
    try:
        return set(read_json(folder / NAME, Content, "a record").files)
    except (ValueError, OSError):  # there is no record, or it is another program's
        return set()


def hash_of(*files):
    """Return the SHA-1 of the content of files."""
    digests = [fingerprint_of_file(path) for path in files]
    return digests[0] if len(digests) == 1 else hashlib.sha1(" ".join(digests).encode()).hexdigest()
