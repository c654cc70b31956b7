"""The guides can be followed: their Python runs from top to bottom, and their commands have the options they name."""

import pathlib
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import tinyseg as ts

ROOT = pathlib.Path(__file__).resolve().parents[2]
GUIDES = sorted((ROOT / "docs" / "howto").glob("*.md"))
PAGES = [ROOT / "README.md", *GUIDES, *sorted((ROOT / "docs").glob("*.md"))]
# a command, in a block or alone
WRITTEN = r"^(?:`+|\|\s+`|\$ )?tinyseg ([a-z][\w-]*)([^#`\n]*)|examples/(\w+\.py)([^#`\n]*)"
COMMANDS = sorted(
    {
        (found[0] or found[2], found[1] or found[3])
        for page in PAGES
        for found in re.findall(WRITTEN, page.read_text(), re.M)
    }
)


@pytest.fixture
def followed(tmp_path, monkeypatch):
    """What a guide's Python leaves behind, run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ts.models, "MODELS", dict(ts.models.MODELS))

    def follow(name):
        blocks = re.findall(r"^ *```python\n(.*?)^ *```", (ROOT / "docs/howto" / name).read_text(), re.S | re.M)
        names = {}
        exec("\n".join(map(textwrap.dedent, blocks)), names)
        return names

    return follow


@pytest.mark.slow
def test_own_data_learns_three_classes(followed):
    names = followed("own_data.md")
    assert names["result"]["best"]["val_dice"] > 0.5  # all background would have 0
    assert names["predicted"].shape == (6, 64, 64) and set(np.unique(names["predicted"])) == {0, 1, 2}


def test_own_network_is_built_checked_and_stored(followed):
    names = followed("own_network.md")
    assert names["again"].config == {
        "name": "dilated",
        "in_channels": 1,
        "num_classes": 1,
        "width": 8,
        "depth": 3,
        "seed": 0,
    }
    x = np.random.default_rng(0).standard_normal((1, 60, 70)).astype(np.float32)
    whole, tiled = (ts.prediction.predict(names["again"], x, tile=tile).shape for tile in (None, 48))
    assert whole == tiled == (1, 1, 60, 70)
    unet = names["model"]
    assert unet.config["width"] == 16 and unet.config["norm"] == "group" and unet.config["prior"] == 0.9
    assert np.allclose(unet.head.bias.data, np.log(9))


def test_a_function_follows_a_training(followed):
    assert len(followed("callback.md")["seen"]) == 3


def test_two_objects_that_touch_are_numbered_and_measured(followed):
    names = followed("instances.md")
    assert names["labels"].max() == 2 and set(np.unique(names["labels"][:, 15:30])) == {0, 1}
    assert names["table"][0]["area_um2"] == pytest.approx(names["table"][0]["area"] / 25)


def test_onnx_files_give_what_the_guide_says(followed):
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    names = followed("onnx.md")  # which asserts it
    assert names["probabilities"].shape == (1, 50, 61) and 0 < names["changed"] < 0.05


def test_the_networks_reach_is_what_the_guide_says(followed):
    model = followed("own_network.md")["DilatedNet"](width=4, depth=3).eval()
    reach = model.receptive_radius
    model.layers = [layer.depthwise for layer in model.layers]  # without norms, which reach everywhere
    x = ts.Tensor(np.random.default_rng(0).standard_normal((1, 1, 41, 41)).astype(np.float32), requires_grad=True)
    one = np.zeros((1, 1, 41, 41), np.float32)
    one[0, 0, 20, 20] = 1
    model(x).backward(one)
    rows = np.flatnonzero(np.abs(x.grad[0, 0]).sum(axis=1))
    assert (rows[0], rows[-1]) == (20 - reach, 20 + reach)


@pytest.mark.parametrize("script", sorted({script for script, _ in COMMANDS}))
def test_commands_name_options_that_exist(script):
    words = [ROOT / "examples" / script] if script.endswith(".py") else ["-m", "tinyseg", script]
    says = subprocess.run([sys.executable, *words, "--help"], capture_output=True, text=True, check=True)
    for options in (options for name, options in COMMANDS if name == script):
        for option in re.findall(r"--[\w-]+", options):
            assert re.search(rf"{option}\b", says.stdout), f"{script} has no {option}"


def test_a_batch_in_parts_has_the_gradient_of_the_batch(followed):
    names = followed("low_memory.md")
    for part, whole in zip(names["in_parts"], names["at_once"], strict=True):
        assert np.allclose(part, whole, rtol=1e-3, atol=1e-5 * np.abs(whole).max())
