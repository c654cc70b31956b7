"""Small files that claim to be huge, and the memory that this process can have."""

import gzip
import resource
import struct
import subprocess
import sys
import tracemalloc
import zlib

import nibabel as nib
import numpy as np
import pytest

from tinyseg.data import image_file, memory
from tinyseg.data.brats import read_label
from tinyseg.data.images import open_image
from tinyseg.data.nifti import open_volume
from tinyseg.data.stacks import load_stack

PACKED = zlib.compress(bytes(10**6), 9)


def tiff(side, rows, packed=PACKED, compression=8, pages=1):
    """A TIFF of one byte a pixel whose pages have one strip, the same for all."""
    tags = {256: side, 257: side, 258: 8, 259: compression, 262: 1, 273: 8, 277: 1, 278: rows, 279: len(packed)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    content = struct.pack("<4sI", b"II*\0", 8 + len(packed)) + packed
    for page in range(pages):
        following = len(content) + 2 + len(entries) + 4 if page < pages - 1 else 0
        content += struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)
    return content


def png(side):
    chunks = (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)), (b"IDAT", PACKED), (b"IEND", b"")
    parts = [struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def nifti(*shape):
    content = bytearray(nib.Nifti1Image(np.zeros((8, 8, 8), np.int16), np.eye(4)).to_bytes())
    struct.pack_into("<8h", content, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    return bytes(content)


CLAIMS = {
    "strips.tif": tiff(100_000, 1),
    "strip.tif": tiff(60_000, 60_000),
    "plain.tif": tiff(60_000, 60_000, compression=1),
    "pages.tif": tiff(1000, 1000, pages=1500),
    "a.png": png(100_000),
    "volume.nii": nifti(20_000, 20_000, 10),
    "packed.nii.gz": gzip.compress(nifti(20_000, 20_000, 10)),
    "four.nii.gz": gzip.compress(nifti(20_000, 20_000, 5, 2)),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_small_file_that_claims_to_be_huge_is_refused_before_anything_is_allocated(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(CLAIMS[name])
    ways = [lambda: open_image(path).section(0)]
    ways.append((lambda: read_label(open_volume(path), [(0, 0)])) if ".nii" in name else lambda: load_stack(path))
    for way in ways:
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match=rf"{name}.*(header asks for|1 of 100000 strips|GiB)"):
                way()
            assert tracemalloc.get_traced_memory()[1] < 2**28
        finally:
            tracemalloc.stop()


def test_a_volume_with_much_more_behind_its_voxels_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(image_file, "LEFTOVER", 2**20)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nifti(8, 8, 8) + bytes(2**22), 1))
    with pytest.raises(ValueError, match=r"a\.nii\.gz .*behind its voxels it holds more than 1 MiB"):
        open_volume(tmp_path / "a.nii.gz").read()
    with open_image(tmp_path / "a.nii.gz") as image, pytest.raises(ValueError, match="behind its voxels"):
        image.section(7)


def test_the_least_of_the_limits_counts(monkeypatch):
    for name, size in (("_of_the_computer", 30), ("_of_cgroups", 20), ("_of_the_process", 25)):
        monkeypatch.setattr(memory, name, lambda size=size: size)
    assert memory.memory_limit() == 20
    memory.refuse_too_large(10, "a")
    with pytest.raises(ValueError, match=r"^a would take 0\.0 GiB of memory to read, and this computer has 0\.0 GiB"):
        memory.refuse_too_large(11, "a")


def test_the_limit_of_a_container_is_found_in_the_groups_above_too(tmp_path, monkeypatch):
    (tmp_path / "cgroup").write_text("0::/jobs/mine\n4:memory:/old\n")
    for place, name, text in (
        ("", "memory.max", "max"), ("jobs", "memory.max", "5000"), ("jobs/mine", "memory.max", "9000"),
        ("memory/old", "memory.limit_in_bytes", "7000"),
    ):  # fmt: skip
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / name).write_text(text)
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "cgroup")
    assert memory._of_cgroups.__wrapped__() == 5000


def test_ulimit_counts_what_is_mapped_already():
    code = "from tinyseg.data.memory import memory_limit; print(memory_limit())"
    size = 8 << 30
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size)),
    )  # fmt: skip
    assert size / 2 < float(done.stdout) < size
