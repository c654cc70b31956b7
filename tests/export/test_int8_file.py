"""The integers of a network on disk."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.export.networks import CASES, trained_like
from tests.export.test_int8 import SDUNET, sections
from tinyseg.export.calibration import quantize
from tinyseg.export.describing import describe
from tinyseg.export.int8_file import load_int8, save_int8

ABOUT = {"tinyseg_int8": "1", "weights": "of these"}


def written(folder, options=SDUNET, **how):
    network = describe(trained_like(**options))
    images = sections() if network.in_channels == 1 else [np.ones((network.in_channels, 16, 16), np.float32)]
    quantized = quantize(network, images, **how)
    save_int8(folder / "a.safetensors", quantized, "of these")
    return folder / "a.safetensors", network, quantized


@pytest.mark.parametrize("options", CASES[-4:], ids=lambda o: "-".join(map(str, o.values())))
@pytest.mark.parametrize("per_channel", [True, False])
def test_what_is_read_is_what_was_written(options, per_channel, tmp_path):
    path, network, quantized = written(tmp_path, options, per_channel=per_channel)
    found = load_int8(path, network, "of these")
    assert found.convolutions.keys() == quantized.convolutions.keys()
    for name, each in found.convolutions.items():
        expected = quantized.convolutions[name]
        assert (each.x, each.y, each.depthwise) == (expected.x, expected.y, expected.depthwise)
        for key in ("kernel", "scale", "bias"):
            np.testing.assert_array_equal(getattr(each, key), getattr(expected, key), strict=True)
    x = np.random.default_rng(0).normal(size=(2, network.in_channels, 16, 16)).astype(np.float32)
    np.testing.assert_array_equal(found(x), quantized(x))


def test_a_file_of_other_weights_is_refused(tmp_path):
    path, network, _ = written(tmp_path)
    with pytest.raises(ValueError, match="was not exported from these weights"):
        load_int8(path, network, "of others")


def test_a_file_of_a_newer_version_is_refused(tmp_path):
    path, network, _ = written(tmp_path)
    save_file(load_file(path), path, ABOUT | {"tinyseg_int8": "2"})
    with pytest.raises(ValueError, match="written by a newer tinyseg"):
        load_int8(path, network, "of these")


def test_a_checkpoint_is_no_such_file(tmp_path):
    _, network, _ = written(tmp_path)
    save_file({"model.weight": np.zeros(3, np.float32)}, tmp_path / "best.safetensors", {"tinyseg": "{}"})
    with pytest.raises(ValueError, match="holds no integers of a network: give what tinyseg export --int8"):
        load_int8(tmp_path / "best.safetensors", network, "of these")


def test_a_file_that_is_not_there_or_cut_off(tmp_path):
    path, network, _ = written(tmp_path)
    with pytest.raises(FileNotFoundError, match="expected integers of a network"):
        load_int8(tmp_path / "b.safetensors", network, "of these")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"a\.safetensors cannot be read as integers of a network.*Export it again"):
        load_int8(path, network, "of these")


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("encoder.0.convs.0.kernel", lambda a: a[1:], "expected the shape"),
        ("encoder.0.convs.0.kernel", lambda a: a.astype(np.int32), "is of another type"),
        ("encoder.0.convs.0.scale", lambda a: a * np.nan, "holds NaN"),
        ("encoder.0.convs.0.bias", lambda a: a.astype(np.float32), "expected"),
        ("encoder.0.convs.0.x", lambda a: None, "missing: encoder.0.convs.0.x"),
    ],
)
def test_a_damaged_file_is_refused(name, change, words, tmp_path):
    path, network, _ = written(tmp_path)
    arrays = load_file(path)
    changed = change(arrays.pop(name))
    save_file(arrays | ({} if changed is None else {name: changed}), path, ABOUT)
    with pytest.raises(ValueError, match=f"a.safetensors is damaged: .*{words}"):
        load_int8(path, network, "of these")
