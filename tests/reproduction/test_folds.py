"""reproduction/folds.py: the folds, the scores of all of them together, and the program as a user runs it."""

import json
import subprocess
import sys

import numpy as np
import pytest

from reproduction.folds import build_parser, cut, join, make_run
from tinyseg.data import Sections
from tinyseg.data.masks import inside_of_objects
from tinyseg.data.synthetic import em_sections, write_sections
from tinyseg.metrics.isbi import isbi_scores
from tinyseg.prediction.instances import find_instances


@pytest.mark.parametrize(("count", "folds"), [(24, 4), (30, 4), (7, 7), (5, 2)])
def test_folds_are_neighbours_and_cover_the_stack(count, folds):
    found = cut(count, folds)
    assert [k for a, b in found for k in range(a, b)] == list(range(count)) and len(found) == folds
    sizes = [b - a for a, b in found]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("folds", [1, 6])
def test_folds_that_cannot_be(folds):
    with pytest.raises(ValueError, match=rf"--folds {folds} of 5 sections: give a number from 2 to 5"):
        cut(5, folds)


def test_scores_are_of_all_sections_together_and_chosen_thresholds_are_kept():
    images, labels = em_sections(num_sections=5, size=48, seed=3)
    rng = np.random.default_rng(0)
    p = np.clip(0.7 * labels + 0.15 + 0.3 * rng.standard_normal(labels.shape), 0, 1)
    folds = [
        {
            "sections": np.arange(a, b),
            "probabilities": p[a:b],
            "border": t - 0.2,
            "thresholds": (t, 0.6),
            "seen": (t, 1),
        }
        for (a, b), t in zip(cut(5, 2), (0.5, 0.95), strict=True)
    ]
    found = join(folds, Sections(images, labels, list("abcde")))
    whole = isbi_scores(p, labels)
    assert found["isbi"]["v_rand"] == whole.v_rand and found["isbi"]["v_info"] == whole.v_info
    assert found["pixels"]["accuracy"] == pytest.approx(((p > 0.5) == labels).mean())
    borders = [0.3] * 2 + [0.75] * 3
    cells = [find_instances(q, border=b, grow=True) for q, b in zip(p, borders, strict=True)]
    masks = inside_of_objects(np.stack(cells))
    assert found["objects"]["v_rand"] == isbi_scores(masks, labels).v_rand
    low, high = found["v_rand_interval"]
    assert low < whole.v_rand < high
    assert found["v_rand_folds"] == [isbi_scores(p[:2], labels[:2]).v_rand, isbi_scores(p[2:], labels[2:]).v_rand]
    assert found["v_rand_seen"] == [0.5, 0.95] and found["v_info_seen"] == [1, 1]
    by_hand = [isbi_scores(p[k], labels[k], [t]).v_rand for k, t in enumerate([0.5] * 2 + [0.95] * 3)]
    assert found["v_rand_chosen"]["sections"] == pytest.approx(by_hand)
    assert found["v_rand_chosen"]["mean"] == pytest.approx(np.mean(by_hand))
    assert found["v_info_chosen"]["mean"] == pytest.approx(isbi_scores(p, labels, [0.6]).v_info)


def test_a_cross_validation_with_the_defaults_trains_with_them(tmp_path):
    run = make_run(build_parser().parse_args(["--data", str(tmp_path)]), 0, (0, 6))
    assert run.train[-2:] == ["--val-sections", "0:6"]


@pytest.mark.slow
def test_each_section_is_scored_once_and_what_is_done_is_not_done_again(tmp_path):
    write_sections(tmp_path / "data", num_sections=4, size=32)
    words = [sys.executable, "-m", "reproduction.folds", "--data", tmp_path / "data", "--folds", 2]
    words += ["--out", tmp_path / "out", "--", "--width", 2, "--epochs", 1, "--warmup", 0]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "sections that they were trained on the networks reach 0." in done.stdout
    assert "one view" in done.stdout and "mean of eight views" in done.stdout
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert len(scores["one view"]["v_rand_chosen"]["sections"]) == 4 and len(scores["minutes"]) == 2
    held_out = [
        json.loads((tmp_path / "out" / f"fold-{k}" / "config.json").read_text())["val_sections"] for k in range(2)
    ]
    assert held_out == ["0:2", "2:4"]
    before = [file.stat().st_mtime_ns for file in sorted(tmp_path.glob("out/fold-*/*.safetensors"))]
    again = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    assert again.returncode == 0 and len(before) == 4
    assert [file.stat().st_mtime_ns for file in sorted(tmp_path.glob("out/fold-*/*.safetensors"))] == before
