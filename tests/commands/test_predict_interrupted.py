"""predict.py that is stopped or killed between a mask and its entry in predictions.json."""

import json

import numpy as np
import pytest
from PIL import Image
from scripts import run_example

import tinyseg as ts
from tinyseg.commands import predict_files


@pytest.fixture
def words(tmp_path):
    """The words of two predictions of one picture, by two networks."""
    Image.fromarray(np.arange(32 * 48, dtype=np.uint8).reshape(32, 48)).save(tmp_path / "a.png")
    for seed in (0, 1):
        how = {"scale": [1, 1], "standardize": "section"}
        model = ts.models.build("sdunet", width=4, levels=2, seed=seed)
        ts.checkpoint.save(tmp_path / f"{seed}.safetensors", model, preprocessing=how, classes=["cell"])
    rest = [tmp_path / "a.png", "--out", tmp_path / "o", "--device", "cpu"]
    return [["--checkpoint", tmp_path / f"{seed}.safetensors", *rest] for seed in (0, 1)]


def settings(tmp_path):
    """What predictions.json says of the mask: None if it is listed without saying how it was made."""
    record = json.loads((tmp_path / "o" / "predictions.json").read_text())
    assert list(record["files"]) == ["a_mask.png"]
    return record["settings"].get("a_mask.png")


def test_a_prediction_is_stopped_when_its_mask_has_just_got_its_name(words, tmp_path, monkeypatch):
    predict_file = predict_files.predict_file

    def stopped(*arguments):
        predict_file(*arguments)
        raise SystemExit(143)

    with monkeypatch.context() as patch:
        patch.setattr(predict_files, "predict_file", stopped)
        run_example("predict.py", *words[0], code=143)
    assert settings(tmp_path)["checkpoint"] == str(tmp_path / "0.safetensors")
    out, _ = run_example("predict.py", *words[0])
    assert "is there already (--force makes it again)" in out
    with monkeypatch.context() as patch:
        patch.setattr(predict_files, "predict_file", stopped)
        run_example("predict.py", *words[1], "--force", code=143)
    assert settings(tmp_path)["checkpoint"] == str(tmp_path / "1.safetensors")


def test_a_prediction_that_replaces_a_mask_is_killed_before_the_new_one_is_there(words, tmp_path, monkeypatch):
    run_example("predict.py", *words[0])
    before, seen = settings(tmp_path), []

    def killed(*arguments):
        seen.append(settings(tmp_path))  # what a SIGKILL at this moment leaves
        raise SystemExit(143)

    with monkeypatch.context() as patch:
        patch.setattr(predict_files, "predict_file", killed)
        run_example("predict.py", *words[1], "--force", code=143)
    assert seen == [None]  # neither the old network nor the new one
    assert settings(tmp_path) == before  # a signal that can be handled puts it back


def test_a_prediction_is_stopped_before_its_mask_is_there(words, tmp_path, monkeypatch):
    def stopped(*arguments):
        raise SystemExit(143)

    with monkeypatch.context() as patch:
        patch.setattr(predict_files, "predict_file", stopped)
        run_example("predict.py", *words[0], code=143)
    assert list((tmp_path / "o").iterdir()) == []
