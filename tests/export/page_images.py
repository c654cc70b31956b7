"""The page's readers and writers of images, run under node."""

import json
import pathlib
import shutil
import subprocess

import numpy as np
import pytest

DRIVER = pathlib.Path(__file__).with_name("page_images.js")
# What the page names as a type, and how tinyseg's arrays have it.
TYPES = {"bool": np.bool_} | {
    name: np.dtype(name) for name in ("float32", *(f"{u}int{8 << k}" for u in ("", "u") for k in range(4)))
}


def run(jobs, *options, timeout=120):
    """Run jobs, see page_images.js, and return its answers."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: the page's readers of images are not tested")
    text = json.dumps(jobs)
    done = subprocess.run(
        [node, str(DRIVER), *options], input=text, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return json.loads(done.stdout)


def read(path, *options, **job):
    """Return what the page says of an image, and its sections (S, channels, H, W) in the type that it names."""
    out = path.with_name(path.name + ".raw")
    (answer,) = run([{"read": str(path), "out": str(out), **job}], *options)
    assert "error" not in answer, answer["error"]
    shape = (-1, answer["channels"], answer["height"], answer["width"])
    values = np.fromfile(out).reshape(shape)
    pixels = values.astype(TYPES[answer["dtype"]])
    np.testing.assert_array_equal(pixels.astype(float), values)  # nothing was lost
    return answer, pixels


def refusal(path, *options, **job):
    """Return the sentence with which the page refuses an image."""
    (answer,) = run([{"read": str(path), **job}], *options)
    assert "error" in answer, f"{path} is read"
    assert answer["kind"] == "Error"
    return answer["error"]
