"""Reading and writing JSON: what is read is checked against a declared shape before anything uses it.

A shape is a type: ``dict[str, int]``, ``list[str]``, or a `msgspec.Struct` whose fields say what a file must have:

    class Record(msgspec.Struct):
        files: dict[str, str]                   # must be there
        classes: list[str] | None = None        # may be left out

    record = read_json("predictions.json", Record, "a record of predict.py")
    record.files                                # a dict of strings, whatever was in the file
"""

import collections
import json
import pathlib
from typing import Any

import msgspec

from tinyseg.data.fingerprint import fingerprint
from tinyseg.data.writing import write_atomically


def read_json(path, shape, what):
    """Read a JSON file that has a declared shape.

    Parameters
    ----------
    path : path-like
        UTF-8, with or without a byte-order mark.
    shape : type
        What the file must hold. Fields that a `msgspec.Struct` does not name are left out.
    what : str
        What the file should be, for messages: "a description of a Decathlon task".

    Returns
    -------
    An object of the type `shape`.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is not JSON, has a key twice, or has another shape; the message names the file and the field.
    """
    path = pathlib.Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not {what}: it is a folder, a device or a pipe.")
    return parse_json(path.read_bytes(), shape, path, what)


def parse_json(content, shape, path, what):
    """Return what a JSON text says, as an object of the type `shape`; raises as `read_json`.

    `content` is a text, or bytes in UTF-8.
    """
    sentence = f"{path} is not {what}"
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        found = json.loads(text, object_pairs_hook=_without_repeats)
        # Perhaps half of a letter, which could be neither printed nor written. A file's name may hold bytes that are no
        # UTF-8, as other halves.
        if "\\ud" in text.lower():
            json.dumps(found, ensure_ascii=False).encode(errors="surrogateescape")
    except _RepeatedError as error:
        raise ValueError(f"{path} has {error} twice in one place: keep one of them.") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{sentence}: it cannot be read as JSON ({error}).") from None
    return check_shape(found, shape, sentence)


class _RepeatedError(Exception):
    """A JSON object has one key twice; the text is the key."""


def _without_repeats(pairs):
    """Return the key and value pairs of a JSON object as a dict; Python would take the last of several."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _RepeatedError(json.dumps(collections.Counter(key for key, _ in pairs).most_common(1)[0][0]))
    return found


def check_shape(content, shape, sentence):
    """Return `content`, made of JSON's dicts and lists, as an object of the type `shape`.

    If it has another shape, a ValueError begins with `sentence` and says what was expected, what was found and where.
    """
    try:
        return msgspec.convert(content, shape)
    except (msgspec.ValidationError, OverflowError) as error:
        raise ValueError(f"{sentence}: {_in_words(str(error))}.") from None


def write_sealed(path, content):
    """Write a dict as JSON with its own hash, as "sha1", atomically: `read_sealed` knows if it was changed since."""
    write_atomically(path, json.dumps({"sha1": fingerprint(json.dumps(content))} | content))


def read_sealed(path, shape, what):
    """Read what `write_sealed` wrote; raises as `read_json`, and a ValueError if it was changed or damaged since."""
    content = read_json(path, dict[str, Any], what)
    if content.pop("sha1", None) != fingerprint(json.dumps(content)):
        raise ValueError(f"{path} is not {what}: it was changed after it was written.")
    return check_shape(content, shape, f"{path} is not {what}")


def write_json(path, content, indent=1):
    """Write dicts and lists as JSON, atomically; NaN and infinities, which JSON does not have, become null."""
    # Python writes NaN and Infinity, and calls parse_constant when it reads them.
    finite = json.loads(json.dumps(content), parse_constant=lambda name: None)
    write_atomically(path, json.dumps(finite, indent=indent) + "\n")


def _in_words(error):
    """Say msgspec's message in this library's words: "expected str, found null at training[0].label"."""
    text = error.replace("`", "").replace("Expected", "expected").replace(", got", ", found").replace(" - at ", " at ")
    text = text.replace("Object missing required field", "the field that is missing is")
    return text.replace("at $.", "at ").replace("at $", "at ").removesuffix(" at ")
