"""Damage that a file can have: changes of JSON and of bytes.

Each function takes a random generator first and returns other content: equal seeds give equal damage.
"""

import copy
import json
import math
import pathlib
import re
import struct
import tempfile

ELSEWHERE = str(pathlib.Path(tempfile.gettempdir(), "tinyseg-elsewhere"))  # where no file may send a command to
ODD = (
    None, True, False, 0, -1, 1, 0.5, 3, 255, 2**31, 2**63, 10**25, 10**400, 1e308, -1e308, 5e-324, math.nan, math.inf,
    -math.inf, "", " ", "x", "1", "1e308", "nan", "../../../x", ELSEWHERE, "\ud800", "\0", "é\u202e", "a" * 5000, [],
    {}, [[]], [{}], [None], {"": None}, {"name": "x"}, [[[[[1]]]]], "NaN", "-1", "white", [1, 2, 3], [1e308, 1e308],
)  # fmt: skip
NUMBERS = (0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 64, 100, 127, 128, 255, 256, 1000, 32767, 32768, 65535)
LARGE = (2**16, 2**17, 10**5, 10**6, 2**24, 2**28, 2**31 - 1, 2**31, 2**32 - 1)


def pick(rng, values):
    """Return one of the values."""
    return values[rng.integers(len(values))]


# ----- JSON --------------------------------------------------------------------------
def _descend(rng, content):
    """Return a container in JSON's content and the key of one of its items; (None, None) if there is none."""
    found = None, None
    while isinstance(content, dict | list) and content:
        keys = list(content) if isinstance(content, dict) else range(len(content))
        key = pick(rng, keys)
        found = content, key
        if rng.random() < 0.3:
            break
        content = content[key]
    return found


def _near(rng, value):
    """Return a value much like another, or of another type."""
    if isinstance(value, bool) or value is None:
        return pick(rng, ODD)
    if isinstance(value, int | float):
        other = value * 1e3 if abs(value) < 1e300 else 7
        return pick(rng, (-value, value + 1, value - 1, str(value), [value], other, value * 1000, {"0": value}))
    if isinstance(value, str):
        return pick(rng, (value[::-1], value.upper(), value + " ", [value], {value: value}, value * 100, value[:-1]))
    if isinstance(value, list):
        items = list(value)
        return pick(rng, (items[:-1], items + items, items[::-1], {str(k): v for k, v in enumerate(items)}, [items]))
    return pick(rng, (list(value), list(value.values()), [value], value | {"more": 1}, {"nested": value}))


def change_content(rng, content):
    """Return JSON's content with one to three changes of its nodes."""
    content = [copy.deepcopy(content)]
    for _ in range(rng.integers(1, 4)):
        place, key = _descend(rng, content)
        if rng.random() < 0.97 and place is content and isinstance(content[0], dict | list) and content[0]:
            place, key = _descend(rng, content[0])  # the whole is seldom replaced
        if place is None:
            continue
        how = rng.random()
        if how < 0.45:
            place[key] = copy.deepcopy(pick(rng, ODD))
        elif how < 0.72:
            place[key] = _near(rng, place[key])
        elif how < 0.86:
            if len(content) > 1 or place is not content:
                del place[key]
        elif how < 0.92 and isinstance(place, dict):
            place[str(pick(rng, ("x", "", key.upper(), key + "_", "__class__", "name")))] = place.pop(key)
        else:
            other, other_key = _descend(rng, content)
            place[key] = copy.deepcopy(other[other_key]) if other is not None else None
    return content[0] if content else None


def change_json(rng, content):
    """Return a JSON text, changed in its nodes or, now and then, as a text."""
    if rng.random() < 0.9:
        return json.dumps(change_content(rng, content))
    text = json.dumps(content)
    keys = list(re.finditer(r'"[^"]*": ', text))
    numbers = list(re.finditer(r"-?\d+(\.\d+)?", text))
    k = int(rng.integers(max(len(text), 1)))
    how = rng.integers(8)
    if how == 0:
        return text[:k]
    if how == 1 and keys:  # a key twice
        found = pick(rng, keys)
        return f"{text[: found.start()]}{found[0]}null, {text[found.start() :]}"
    if how == 2 and numbers:
        found = pick(rng, numbers)
        odd = pick(rng, ("1e999", "9" * 5000, "NaN", "-Infinity", "1e-999", "0x10", "01"))
        return text[: found.start()] + odd + text[found.end() :]
    if how == 3:
        return (
            text[:k] + pick(rng, ("[" * 100_000, '{"a":' * 50_000, "\0", "\ufeff", "\n" * 1000, '\\ud800"')) + text[k:]
        )
    if how == 4:
        return pick(rng, ("", "[]", "null", "{}", "3", '"x"', "[" * 100_000, "\ufeff{}", "true", "-", "{" * 3))
    if how == 5:
        return text + pick(rng, ("x", text, "}", "\0" * 100))
    if how == 6:
        return "\ufeff" + text
    return text[:k] + text[k + 1 :]


# ----- bytes -------------------------------------------------------------------------
def change_bytes(rng, content, head=512):
    """Return bytes with a few of them changed, mostly among the first `head`, or taken out, or with others put in."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        if not data:
            break
        near = min(head, len(data)) if rng.random() < 0.6 else len(data)
        k, n = int(rng.integers(near)), int(2 ** rng.integers(0, 9))
        how = rng.integers(8)
        if how <= 2:
            data[k] ^= 1 << int(rng.integers(8))
        elif how == 3:
            data[k : k + 4] = struct.pack("<I", pick(rng, (*NUMBERS, *LARGE)) % 2**32)[: len(data[k : k + 4])]
        elif how == 4:
            del data[k : len(data) if rng.random() < 0.5 else k + n]
        elif how == 5:
            data[k:k] = rng.bytes(n)
        elif how == 6:
            data[k : k + n] = bytes(len(data[k : k + n])) if rng.random() < 0.5 else b"\xff" * len(data[k : k + n])
        else:
            data[k:k] = data[k : k + n]
    return bytes(data) if rng.random() < 0.98 else b""
