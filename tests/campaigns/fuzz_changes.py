"""Damage that a file can have: changes of JSON, of bytes, and of what the headers of formats say.

Each function takes a random generator first and returns other content: equal seeds give equal damage.
"""

import copy
import gzip
import io
import json
import math
import pathlib
import re
import struct
import tarfile
import tempfile
import zipfile
import zlib

import nibabel as nib
import numpy as np

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
        return pick(rng, (-value, value + 1, value - 1, str(value), [value], float(value), value * 1000, {"0": value}))
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
    """Return bytes with a few of them changed, more often among the first `head`; or cut short, or with others put in."""
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


# ----- NIfTI, TIFF, PNG, NumPy ----------------------------------------------------------
def change_nifti(rng, content, packed=True):
    """Return a NIfTI file with other values in one or two fields of its header; `packed` by gzip or not."""
    data = bytearray(gzip.decompress(content))
    fields = nib.Nifti1Header().template_dtype.fields
    for _ in range(rng.integers(1, 3)):
        name = pick(
            rng, list(fields) + ["dim", "pixdim", "datatype", "bitpix", "srow_x", "scl_slope", "vox_offset"] * 2
        )
        kind, offset = fields[name]
        base, count = kind.base, math.prod(kind.shape)
        offset += base.itemsize * int(rng.integers(count))
        if base.kind == "f":
            value = pick(rng, (0, -1, 1, 1e-30, 1e30, 3e38, math.nan, math.inf, -math.inf, 2, 352, 1e6, 353.5))
        else:
            value = pick(rng, (*NUMBERS, *LARGE, -1, -32768))
        bits = 8 * base.itemsize
        if base.kind == "S":
            data[offset : offset + 1] = rng.bytes(1)
        elif base.kind == "f":
            data[offset : offset + base.itemsize] = np.array(value, base).tobytes()
        else:
            data[offset : offset + base.itemsize] = (int(value) % 2**bits).to_bytes(base.itemsize, "little")
    if rng.random() < 0.15:
        data = data[: int(rng.integers(len(data)))]
    return gzip.compress(bytes(data), 1) if packed else bytes(data)


def change_tiff(rng, content):
    """Return a little-endian TIFF with other numbers in an entry of one of its directories."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 3)):
        entries, at = [], struct.unpack_from("<I", data, 4)[0]
        while at and at + 2 < len(data) and len(entries) < 100:
            (n,) = struct.unpack_from("<H", data, at)
            entries += [at + 2 + 12 * k for k in range(n) if at + 14 + 12 * k <= len(data)]
            end = at + 2 + 12 * n
            at = struct.unpack_from("<I", data, end)[0] if end + 4 <= len(data) else 0
        if not entries:
            return change_bytes(rng, content)
        where, how = pick(rng, entries), rng.integers(5)
        if how == 0:
            struct.pack_into("<H", data, where, pick(rng, (256, 257, 258, 259, 262, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338, 339, 270, 330, 254)))  # fmt: skip
        elif how == 1:
            struct.pack_into("<H", data, where + 2, int(rng.integers(0, 20)))
        elif how == 2:
            struct.pack_into("<I", data, where + 4, pick(rng, (*NUMBERS, *LARGE)))
        else:
            struct.pack_into("<I", data, where + 8, pick(rng, (*NUMBERS, *LARGE, 32773, 50000, 34925, 34712, 8, 32946)))
    return bytes(data) if rng.random() < 0.85 else change_bytes(rng, bytes(data))


def change_png(rng, content):
    """Return a PNG with other chunks, their checksums right."""
    at, chunks = 8, []
    while at + 8 <= len(content):
        (size,) = struct.unpack_from(">I", content, at)
        chunks.append([content[at + 4 : at + 8], bytearray(content[at + 8 : at + 8 + size])])
        at += 12 + size
    for _ in range(rng.integers(1, 3)):
        k, how = int(rng.integers(len(chunks))), rng.integers(6)
        if how <= 2:
            head = chunks[0][1]
            if len(head) >= 13 and rng.random() < 0.5:
                struct.pack_into(">I", head, 4 * int(rng.integers(2)), pick(rng, (*NUMBERS, *LARGE)))
            elif len(head) >= 13:
                head[8 + int(rng.integers(5))] = pick(rng, (0, 1, 2, 3, 4, 6, 8, 16, 17, 255))
        elif how == 3:
            chunks[k][1] = bytearray(change_bytes(rng, bytes(chunks[k][1])))
        elif how == 4:
            chunks.insert(k, copy.deepcopy(pick(rng, chunks)))
        else:
            extra = pick(rng, ((b"PLTE", rng.bytes(9)), (b"tRNS", rng.bytes(3)), (b"pHYs", rng.bytes(9)), (b"eXIf", rng.bytes(40)), (b"acTL", rng.bytes(8)), (b"zTXt", rng.bytes(60)), (b"iCCP", rng.bytes(60)), (b"gAMA", bytes(4))))  # fmt: skip
            chunks.insert(k, [extra[0], bytearray(extra[1])])
    parts = [struct.pack(">I", len(c)) + k + bytes(c) + struct.pack(">I", zlib.crc32(k + bytes(c))) for k, c in chunks]
    return content[:8] + b"".join(parts)


def change_npy(rng, content):
    """Return a .npy file whose header says another shape, type or order; or with its bytes changed."""
    how = rng.integers(4)
    try:
        data = np.load(io.BytesIO(content))
    except Exception:  # changed before
        how = 0
    if how == 0:
        return change_bytes(rng, content, head=128)
    if how == 1:
        other = pick(rng, (data.T, data.astype(pick(rng, ("f4", "u1", "i8", ">f2", "c8", "S3", "?"))), data[:-1], data[..., :-1], data[None], data * 0, data[::-1], data.ravel()))  # fmt: skip
        file = io.BytesIO()
        np.save(file, other)
        return file.getvalue()
    size = 10 + struct.unpack_from("<H", content, 8)[0]
    head = content[10:size].decode()
    old, new = pick(rng, (("'descr': '", "'descr': '>"), ("(", "(2, "), (", ", "0, "), ("False", "True"), ("(", "(-"), ("f2", "O"), ("u1", "O"), ("(", "(99999999999, "), ("{", "{'x': __import__('os'), ")))  # fmt: skip
    head = head.replace(old, new, 1).rstrip()
    head = head.ljust((len(head) + 74) // 64 * 64 - 11) + "\n"
    return content[:8] + struct.pack("<H", len(head)) + head.encode() + content[size:]


# ----- archives and checkpoints --------------------------------------------------------
NAMES = ("../x", ELSEWHERE, "a/../../x", "..", ".", "", "C:\\x", "x/" * 500, "\ud7ff", "dataset.json", "con", "a\0b")


def change_zip(rng, members):
    """Return a ZIP archive of {name: content} with odd names, methods and sizes, or with its bytes changed."""
    file, members = io.BytesIO(), dict(members)
    if rng.random() < 0.3:
        members = {pick(rng, NAMES) + ("/" + name if rng.random() < 0.5 else ""): c for name, c in members.items()}
    with zipfile.ZipFile(file, "w", pick(rng, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2))) as out:  # fmt: skip
        for name, content in members.items():
            out.writestr(name.replace("\0", "0") or "empty", content)
    data = bytearray(file.getvalue())
    for mark, sizes in ((b"PK\1\2", (8, 10, 16, 20, 24, 28, 42)), (b"PK\3\4", (6, 8, 14, 18, 22, 26))):
        places = [found.start() for found in re.finditer(re.escape(mark), data)]
        if places and rng.random() < 0.5:
            at = pick(rng, places) + pick(rng, sizes)
            data[at : at + 2] = struct.pack("<H", pick(rng, NUMBERS))
    return bytes(data) if rng.random() < 0.6 else change_bytes(rng, bytes(data), len(data))


def change_tar(rng, members):
    """Return a TAR archive of {name: content} with odd names, types and sizes, or with its bytes changed."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as out:
        for name, content in members.items():
            about = tarfile.TarInfo(f"Task/{name}")
            about.size = len(content)
            if rng.random() < 0.25:
                about.name = pick(rng, NAMES).replace("\0", "0") or "x"
            if rng.random() < 0.15:
                about.type, about.linkname = pick(rng, tuple(b"123456")).to_bytes(), pick(rng, NAMES).replace("\0", "0")
            out.addfile(about, io.BytesIO(content))
    return file.getvalue() if rng.random() < 0.6 else change_bytes(rng, file.getvalue(), 4096)


def split_checkpoint(content):
    """Return what the header of a safetensors file says, a dict, and the bytes behind it."""
    size = 8 + struct.unpack_from("<Q", content)[0]
    return json.loads(content[8:size]), content[size:]


def join_checkpoint(header, rest):
    """Return a safetensors file; `header` is a dict or a text."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + rest


def change_metadata(rng, content, only=None):
    """Return a checkpoint with other metadata; `only` names a part to change, such as "training"."""
    header, rest = split_checkpoint(content)
    meta = json.loads(header["__metadata__"]["tinyseg"])
    if only in meta and rng.random() < 0.8:
        text = json.dumps(meta | {only: change_content(rng, meta[only])})
    else:
        text = change_json(rng, meta)
    header["__metadata__"]["tinyseg"] = text
    return join_checkpoint(header, rest)


def change_arrays(rng, content):
    """Return a checkpoint with one or two arrays that are missing, of another type or shape, NaN, huge or renamed."""
    from safetensors.numpy import load, save

    header, _ = split_checkpoint(content)
    arrays = load(content)
    for _ in range(rng.integers(1, 3)):
        name = pick(rng, sorted(arrays))
        if rng.random() < 0.25:
            name = next((n for n in ("optimizer.steps", "optimizer.lr") if n in arrays and rng.random() < 0.7), name)
        a = arrays[name]
        how = rng.integers(8)
        if how == 0:
            del arrays[name]
        elif how == 1:
            arrays[name + pick(rng, ("x", ".0", "\0", ""))] = arrays.pop(name)
        elif how == 2:
            arrays[name] = a.astype(pick(rng, (np.float64, np.float16, np.int32, np.uint8, bool, np.int64)))
        elif how == 3:
            arrays[name] = pick(rng, (a[None], a.reshape(-1), a[..., None], a.T, a.reshape(-1)[:0], a.reshape(-1)[:1]))
        else:
            arrays[name] = np.full_like(a, pick(rng, (0, -1, 1e30, 3e38, np.nan, np.inf, 1e-40)) if a.dtype.kind == "f" else pick(rng, (0, -1, 2**62)))  # fmt: skip
    return save({name: np.ascontiguousarray(a) for name, a in arrays.items()}, header["__metadata__"])
