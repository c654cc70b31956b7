"""The page's readers and writers of images, run under node, and compared with tinyseg.data."""

import atexit
import functools
import json
import pathlib
import shutil
import subprocess
import tempfile
import warnings

import numpy as np
import pytest

from tinyseg.data.images import open_image
from tinyseg.export.page.html import FOLDER, READERS

DRIVER = pathlib.Path(__file__).with_name("page_images.js")
SIGNED = ("int8", "int16", "int32", "int64")
TYPES = {"bool": np.bool_} | {name: np.dtype(name) for name in (*SIGNED, *(f"u{name}" for name in SIGNED), "float32")}


@functools.cache
def start(*options):
    """Start node with the page's scripts; it waits for jobs until the tests end."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: the page's readers of images are not tested")
    words = [node, DRIVER, *options, *(FOLDER / name for name in READERS)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    @atexit.register
    def stop():
        process.stdin.close()
        process.stdout.close()
        process.wait()

    return process


def run(job, *options):
    """Run a job, see page_images.js, and return its answer."""
    process = start(*options)
    process.stdin.write(json.dumps(job) + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def read(path, *options, **job):
    """Return what the page says of an image, and its sections (S, channels, H, W) in the type that it names."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "pixels.raw"
        answer = run({"read": str(path), "out": str(out), **job}, *options)
        assert "error" not in answer, answer["error"]
        values = np.fromfile(out).reshape(-1, answer["channels"], answer["height"], answer["width"])
    found = values.astype(TYPES[answer["dtype"]])
    np.testing.assert_array_equal(found.astype(float), values)  # nothing was lost
    return answer, found


def refusal(path, *options, **job):
    """Return the sentence with which the page refuses an image."""
    answer = run({"read": str(path), **job}, *options)
    assert "error" in answer, f"{path} is read"
    assert answer["kind"] == "Error" and answer.get("cause") != "TypeError"
    return answer["error"]


def pixels(*shape, dtype=np.uint8, seed=0):
    """Smooth parts and noise, over the whole range of the type."""
    rng = np.random.default_rng(seed)
    x = np.add.outer(np.arange(shape[-2]), np.arange(shape[-1])) / sum(shape[-2:]) + rng.random(shape) * 0.3
    x = np.floor(x * 8) / 8 * (rng.random(shape) > 0.2)
    if np.dtype(dtype).kind == "b":
        return x > 0.4
    if np.dtype(dtype).kind == "f":
        return ((x - 0.5) * 1000.1).astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(limits.min + x * (float(limits.max) - limits.min), limits.min, limits.max).astype(dtype)


def check(path, *options, colour=False):
    """Compare what the page reads with what tinyseg reads; return what the page says."""
    said, found = read(path, *options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with open_image(path) as image:
            expected = np.stack(list(image))
            assert (said["count"], said["height"], said["width"]) == (len(image), *image.shape)
            assert said["dtype"] == str(image.dtype)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    assert said["colour"] == colour
    return said
