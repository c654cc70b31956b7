import json
import os

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


def test_keeping_something_under_a_name_of_the_checkpoints_own_is_refused(tmp_path):
    with pytest.raises(ValueError, match="tinyseg is a name that the checkpoint itself uses"):
        checkpoint.save(tmp_path / "a.safetensors", model(), tinyseg="0.2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "words"),
    [(np.float32(3), "float32 .*item"), ({"dice": [np.arange(3)]}, "ndarray .*tolist"), ({1, 2}, "type set")],
)
def test_keeping_what_json_cannot_hold_is_refused_with_its_name(value, words, tmp_path):
    with pytest.raises(TypeError, match=f"best_score must be what JSON can hold .* but is not: .*{words}"):
        checkpoint.save(tmp_path / "a.safetensors", model(), epoch=3, best_score=value)
    assert list(tmp_path.iterdir()) == []


def test_restoring_into_a_network_that_build_did_not_make_is_refused(tmp_path):
    checkpoint.save(tmp_path / "a.safetensors", model())
    with pytest.raises(ValueError, match="holds the model .* but this run builds None"):
        checkpoint.restore(tmp_path / "a.safetensors", models.UNet(width=4, levels=2))


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
    checkpoint.save(tmp_path / "best.safetensors", model())
    with pytest.raises(FileNotFoundError, match=r" is a folder: give .*best\.safetensors\."):
        checkpoint.load(tmp_path)


GOOD = {"tinyseg": 1, "model": {"name": "sdunet_bn", "width": 4, "levels": 2}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "expected object, found array"), ("null", "found null"), ("x", "JSON"), ("[" * 100_000, "JSON"),
        ({}, "tinyseg"), ({"tinyseg": "1"}, "expected int, found str at tinyseg"), ({"tinyseg": 1}, "model"),
        (GOOD | {"model": []}, "at model"), (GOOD | {"model": {}}, "name"), (GOOD | {"classes": 5}, "at classes"),
        (GOOD | {"tinyseg": -1}, "expected int >= 1"),
        (GOOD | {"model": GOOD["model"] | {"separable": "a"}}, "separable must be one of"),
        (GOOD | {"classes": [1]}, "at classes"), (GOOD | {"preprocessing": [1]}, "at preprocessing"),
        (GOOD | {"config": 3}, "at config"), (GOOD | {"training": "x"}, "at training"),
        (GOOD | {"model": {"name": "net"}}, "no model 'net'"), (GOOD | {"model": GOOD["model"] | {"x": 1}}, "option x"),
        (GOOD | {"model": GOOD["model"] | {"width": "8"}}, "cannot be built"),
        (GOOD | {"model": GOOD["model"] | {"width": 10**9}}, "width=1000000000, and has"),
        (GOOD | {"model": GOOD["model"] | {"levels": 60}}, "levels=60"),
        (GOOD | {"model": GOOD["model"] | {"bottleneck_layers": 10**25}}, "bottleneck_layers=1"),
        (GOOD | {"model": GOOD["model"] | {"width": 500}}, "it would have .* weights, and the file has"),
        (GOOD | {"model": GOOD["model"] | {"levels": float("nan")}}, "levels=nan"),
        (GOOD | {"model": GOOD["model"] | {"width": 8}}, "weights are for another model"),
    ],
)  # fmt: skip
def test_metadata_of_another_shape_gets_a_sentence_with_the_files_name(text, words, tmp_path):
    arrays = {f"model.{name}": array for name, array in model().state_dict().items()}
    text = text if isinstance(text, str) else json.dumps(text)
    save_file(arrays, tmp_path / "a.safetensors", metadata={"tinyseg": text})
    with pytest.raises(ValueError, match=rf"a\.safetensors[\s\S]*{words}"):
        checkpoint.load(tmp_path / "a.safetensors")


def test_weights_of_another_type_are_refused(tmp_path):
    arrays = {f"model.{name}": array for name, array in model().state_dict().items()}
    name = next(name for name in arrays if name.endswith("weight"))
    arrays[name] = arrays[name].view(np.int32)
    save_file(arrays, tmp_path / "a.safetensors", metadata={"tinyseg": json.dumps(GOOD)})
    with pytest.raises(ValueError, match=r"a\.safetensors is damaged: .*weight is int32, and should be float32"):
        checkpoint.load(tmp_path / "a.safetensors")


@pytest.mark.parametrize(("kind", "size"), [("BF16", 2), ("F8_E4M3", 1)])
def test_an_array_of_a_type_that_numpy_does_not_have_is_refused_by_name(tmp_path, kind, size):
    header = {"__metadata__": {"tinyseg": "{}"}, "more": {"dtype": kind, "shape": [4], "data_offsets": [0, 4 * size]}}
    text = json.dumps(header).encode()
    (tmp_path / "c.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4 * size))
    with pytest.raises(ValueError, match=rf"c\.safetensors: more is stored as {kind} .* float32: convert it"):
        checkpoint.load(tmp_path / "c.safetensors")


@pytest.mark.parametrize(("kind", "size"), [("BF16", 2), ("F8_E4M3", 1)])
def test_it_is_refused_too_where_another_package_has_taught_numpy_the_type(tmp_path, kind, size):
    pytest.importorskip("ml_dtypes", reason="ml_dtypes, which comes with onnx, is not installed")
    test_an_array_of_a_type_that_numpy_does_not_have_is_refused_by_name(tmp_path, kind, size)


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


def test_a_network_was_trained_on_a_folder_whose_name_is_no_utf8(tmp_path):
    config = {"data": os.fsdecode(b"/data/caf\xe9")}
    checkpoint.save(tmp_path / "a.safetensors", model(), config=config)
    assert checkpoint.load(tmp_path / "a.safetensors").meta["config"] == config
