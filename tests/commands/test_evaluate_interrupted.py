"""evaluate.py that is stopped between its two files."""

import json

import numpy as np
import tifffile
from scripts import run_example

from tinyseg.commands import evaluate
from tinyseg.data import em_sections


def test_scores_are_replaced_and_the_command_is_stopped_before_their_picture_is_drawn(tmp_path, monkeypatch):
    images, labels = em_sections(num_sections=2, size=48, seed=1)
    tifffile.imwrite(tmp_path / "images.tif", images)
    tifffile.imwrite(tmp_path / "labels.tif", np.where(labels, np.uint8(255), np.uint8(0)))
    tifffile.imwrite(tmp_path / "masks.tif", np.where(labels, np.uint8(255), np.uint8(0)))
    words = ["evaluate.py", "--predictions", tmp_path / "masks.tif", "--labels", tmp_path / "labels.tif"]
    words += ["--images", tmp_path / "images.tif", "--out", tmp_path / "scores.json"]
    run_example(*words)
    assert (tmp_path / "scores.worst.png").is_file()

    def stopped(*arguments):
        raise SystemExit(143)

    tifffile.imwrite(tmp_path / "masks.tif", np.where(labels[::-1], np.uint8(255), np.uint8(0)))
    monkeypatch.setattr(evaluate, "draw_worst", stopped)
    run_example(*words, code=143)
    assert json.loads((tmp_path / "scores.json").read_text())["metrics"]["dice"] < 1
    assert not (tmp_path / "scores.worst.png").exists()  # the old one would be taken for these scores'
