import json

import numpy as np
import pytest
from safetensors.numpy import save_file

import tinyseg as ts
from tinyseg import models, optim
from tinyseg.data import files
from tinyseg.models import checkpoint


def model(**options):
    return models.build("sdunet_bn", **({"width": 4, "levels": 2} | options))


def image():
    return np.random.default_rng(0).standard_normal((2, 1, 6, 8)).astype(np.float32)


def test_a_loaded_model_gives_the_same_bits(tmp_path):
    net = model(seed=3)
    net(image())  # moves the running statistics
    checkpoint.save(tmp_path / "a.safetensors", net, classes=["inside"])
    again = ts.checkpoint.load(tmp_path / "a.safetensors")
    assert not again.training and again.meta["classes"] == ["inside"]
    np.testing.assert_array_equal(net.eval()(image()).data, again(image()).data)


def test_model_and_optimizer_are_restored(tmp_path):
    net = model()
    adam = optim.Adam(net.parameters(), lr=0.25)
    ts.ops.binary_cross_entropy_with_logits(net(image()), image() > 0).backward()
    adam.step()
    checkpoint.save(tmp_path / "a.safetensors", net, adam, epoch=7)
    other = model(seed=0)
    other_adam = optim.Adam(other.parameters())
    meta = checkpoint.restore(tmp_path / "a.safetensors", other, other_adam)
    assert meta["epoch"] == 7 and other_adam.lr == 0.25 and other_adam.steps == 1
    for state, expected in [(other.state_dict(), net.state_dict()), (other_adam.state_dict(), adam.state_dict())]:
        assert state.keys() == expected.keys()
        for name in state:
            np.testing.assert_array_equal(state[name], expected[name])


def test_restoring_into_another_model_is_refused(tmp_path):
    checkpoint.save(tmp_path / "a.safetensors", model(width=4))
    with pytest.raises(ValueError, match="'width': 4.*but this run builds.*'width': 8"):
        checkpoint.restore(tmp_path / "a.safetensors", model(width=8))


def test_bad_files_get_a_sentence(tmp_path):
    good = tmp_path / "good.safetensors"
    checkpoint.save(good, model())
    content = good.read_bytes()
    for name, data in {"empty": b"", "short": content[: len(content) // 2], "text": b"not a checkpoint at all"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=f"{name} .* is not a readable checkpoint.*truncated"):
            checkpoint.load(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="There is no checkpoint .*nowhere"):
        checkpoint.load(tmp_path / "nowhere")
    save_file({"weight": np.zeros(3)}, tmp_path / "foreign")
    with pytest.raises(ValueError, match="not one of tinyseg's"):
        checkpoint.load(tmp_path / "foreign")
    save_file({"weight": np.zeros(3)}, tmp_path / "newer", metadata={"tinyseg": json.dumps({"tinyseg": 99})})
    with pytest.raises(ValueError, match="newer tinyseg"):
        checkpoint.load(tmp_path / "newer")


def test_a_model_without_config_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"models\.build"):
        checkpoint.save(tmp_path / "a", ts.nn.ReLU())


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, model(seed=1))
    before = path.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(path, model(seed=2))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
