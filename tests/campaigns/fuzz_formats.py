"""Damage to what the headers of formats say: volumes, pictures, arrays, archives and checkpoints.

Each function takes a random generator first and returns other content: equal seeds give equal damage.
"""

import copy
import gzip
import io
import json
import math
import re
import struct
import tarfile
import zipfile
import zlib

import nibabel as nib
import numpy as np

from tests.campaigns.fuzz_changes import ELSEWHERE, LARGE, NUMBERS, change_bytes, change_content, change_json, pick

TAGS = (254, 256, 257, 258, 259, 262, 270, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 330, 338, 339)
CHUNKS = (
    (b"PLTE", 9), (b"tRNS", 3), (b"pHYs", 9), (b"eXIf", 40), (b"acTL", 8), (b"zTXt", 60), (b"iCCP", 60), (b"gAMA", 4),
)  # fmt: skip
HEADERS = (  # what is replaced in the header of a .npy file, and by what
    ("'descr': '", "'descr': '>"), ("(", "(2, "), (", ", "0, "), ("False", "True"), ("(", "(-"), ("f2", "O"),
    ("u1", "O"), ("(", "(99999999999, "), ("{", "{'x': __import__('os'), "),
)  # fmt: skip


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
            struct.pack_into("<H", data, where, pick(rng, TAGS))
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
            extra = pick(rng, CHUNKS)
            chunks.insert(k, [extra[0], bytearray(rng.bytes(extra[1]))])
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
        typed = data.astype(pick(rng, ("f4", "u1", "i8", ">f2", "c8", "S3", "?")))
        shaped = data.T, data[:-1], data[..., :-1], data[None], data * 0, data[::-1], data.ravel()
        other = pick(rng, (typed, *shaped))
        file = io.BytesIO()
        np.save(file, other)
        return file.getvalue()
    size = 10 + struct.unpack_from("<H", content, 8)[0]
    head = content[10:size].decode()
    old, new = pick(rng, HEADERS)
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
    packings = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2
    with zipfile.ZipFile(file, "w", pick(rng, packings)) as out:
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
            odd = (0, -1, 1e30, 3e38, np.nan, np.inf, 1e-40) if a.dtype.kind == "f" else (0, -1, 2**62)
            arrays[name] = np.full_like(a, pick(rng, odd))
    arrays = {name: np.ascontiguousarray(a).reshape(a.shape) for name, a in arrays.items()}  # 0-d stays 0-d
    return save(arrays, header["__metadata__"])
