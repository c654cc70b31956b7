"""The command tinyseg: its commands, their help, and what stands beside training, prediction and scores."""

import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scripts import SMALL_ISBI, run_command

import tinyseg as ts
from tinyseg.commands.main import COMMANDS
from tinyseg.data import em_sections


def python(*words):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True).stdout


def test_help_and_version_load_nothing():
    for option in ("--help", "--version"):
        code = f"import sys; sys.argv[1:] = ['{option}']; from tinyseg.commands.main import main; main()"
        loaded = python("-c", f"{code}; print(sorted(sys.modules))").splitlines()[-1]
        assert "'tinyseg'" in loaded and not {"'numpy'", "'numba'", "'scipy'"} & set(re.findall(r"'\w+'", loaded))


def test_the_package_is_the_command():
    assert python("-m", "tinyseg", "--version") == f"tinyseg {ts.__version__}\n"


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_without_a_command_all_are_listed(words):
    out, _ = run_command(*words)
    assert re.findall(r"^  ([a-z-]+) +\w", out.partition("commands:")[2].partition("options:")[0], re.M) == [*COMMANDS]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_begins_with_three_examples(name):
    usage, first, *rest = run_command(name, "--help")[0].split("\n\n")
    assert usage.startswith(f"usage: tinyseg {name} [") and len(first.splitlines()) == 1
    examples = rest[0].splitlines()
    assert len(examples) >= 3 and all(re.match("    (tinyseg|python -m tinyseg) ", line) for line in examples)


def test_a_command_that_is_misspelt():
    _, err = run_command("prdict", code=2)
    assert err.startswith("tinyseg has no command 'prdict': expected one of demo, ")
    assert err.endswith("Did you mean predict?\n")


def test_info_names_what_a_report_needs():
    out, _ = run_command("info")
    facts = dict(re.split("  +", line, maxsplit=1) for line in out.splitlines())
    assert {"tinyseg", "python", "system", "processor", "kernels", "threads", "gpu", "numpy"} <= facts.keys()
    assert facts["tinyseg"] == ts.__version__ and facts["numpy"] == np.__version__


def test_profile_of_a_network_and_of_several(tmp_path):
    out, _ = run_command("profile", "--width", 4, "--size", 32)
    model = ts.models.build("sdunet", width=4)
    assert f"{model.num_parameters():,}" in out and "Memory of inference" in out and "median" in out
    ts.checkpoint.save(tmp_path / "a.safetensors", model)
    assert (
        f"{model.num_parameters():,}"
        in run_command("profile", "--checkpoint", tmp_path / "a.safetensors", "--size", 32)[0]
    )
    picture = tmp_path / "models.png"
    out, _ = run_command("profile", "--compare", "unet", "sdunet", "--width", 4, "--size", 32, "--out", picture)
    assert f"wrote {picture}" in out and picture.stat().st_size > 1000
    assert (
        "the network is that of --checkpoint"
        in run_command("profile", "--checkpoint", picture, "--width", 4, code=1)[1]
    )
    assert "give --compare too" in run_command("profile", "--out", picture, code=1)[1]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_the_options(shell):
    out, _ = run_command("completion", shell)
    assert "checkpoint" in out and "train-isbi" in out


def test_demo_leaves_a_section_to_segment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out, _ = run_command("demo", *SMALL_ISBI, "--epochs", 1, "--out", "run")
    predict, export = (line.split() for line in out.splitlines() if line.startswith("  tinyseg "))
    assert (predict[1], export[1]) == ("predict", "export")
    out, _ = run_command(*predict[1:], "--device", "cpu")
    assert "wrote predictions/section_mask.png" in out
    with Image.open("predictions/section_mask.png") as mask, Image.open("run/section.png") as section:
        assert mask.size == section.size == (512, 512)
    run_command(*export[1:])
    assert "</html>" in pathlib.Path("run/export/segment.html").read_text(encoding="utf-8")


def test_a_command_that_was_stopped_says_how_the_same_command_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("tinyseg.commands.train_isbi.fit", lambda *_, **__: {"interrupted": 2, "steps": 3})
    out, _ = run_command("train-isbi", *SMALL_ISBI, "--out", tmp_path / "run", code=130)
    assert f"Go on with: tinyseg train-isbi --resume {tmp_path / 'run'} --device cpu --workers 1" in out


def test_a_run_takes_the_options_of_another(tmp_path, no_pictures):
    run_command("train-isbi", *SMALL_ISBI, "--epochs", 1, "--seed", 3, "--amp", "--out", tmp_path / "a")
    config = tmp_path / "a" / "config.json"
    run_command("train-isbi", "--config", config, "--lr", "1e-3", "--device", "cpu", "--out", tmp_path / "b")
    one, other = (json.loads((tmp_path / name / "config.json").read_text()) for name in "ab")
    assert one.pop("lr") == 2e-3 and other.pop("lr") == 1e-3 and one == other and one["seed"] == 3 and one["amp"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"epochs": 1, "epoch": 2}', "no option of this command: epoch. Take it out"), ("[1]", "expected object"),
        ('{"epochs": "many"}', r"--epochs: expected a whole number"), ('{"epochs": [1]}', "--epochs: expected"),
        ('{"amp": 1}', "--amp: expected bool"), ("{", "cannot be read as JSON"),
    ],
)  # fmt: skip
def test_options_in_a_file_that_do_not_fit(content, words, tmp_path):
    (tmp_path / "c.json").write_text(content)
    _, err = run_command("train-isbi", "--config", tmp_path / "c.json", "--out", tmp_path / "run", code=1)
    assert re.search(words, err) and "c.json" in err and "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_options_of_a_file_and_of_a_run_that_is_resumed(tmp_path):
    _, err = run_command("train-isbi", "--config", "c.json", "--resume", tmp_path, code=2)
    assert "--config and --resume both say what the options are" in err


# ----- train -----------------------------------------------------------------------
@pytest.fixture
def cells(tmp_path, monkeypatch):
    """A folder with ``pictures/`` and ``truth/``, whose names no layout knows; the command runs in it."""
    images, labels = em_sections(num_sections=4, size=48, seed=1)
    for name, stack in (("pictures", images), ("truth", np.where(labels, 255, 0).astype(np.uint8))):
        (tmp_path / name).mkdir()
        for k, section in enumerate(stack):
            Image.fromarray(section).save(tmp_path / name / f"{k}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


TRAIN = ["train", *SMALL_ISBI, "--val-sections", 1]


def test_train_on_two_folders_and_predict_and_score(cells):
    out, _ = run_command(*TRAIN, "pictures", "truth", "--epochs", 1)
    assert "3 sections to train on, 1 held out" in out and (cells / "runs/train/predictions.png").is_file()
    meta = ts.checkpoint.load("runs/train/best.safetensors").meta
    assert meta["classes"] == ["foreground"]
    assert {name: meta["config"][name] for name in ("data", "labels")} == {
        "data": str(cells / "pictures"), "labels": str(cells / "truth")
    }  # fmt: skip
    run_command("train", "--resume", "runs/train", "--epochs", 2, "--device", "cpu")
    weights = "runs/train/best.safetensors"
    out, _ = run_command("predict", "--checkpoint", weights, "pictures/3.png", "--device", "cpu")
    assert "for foreground" in out and "wrote predictions/3_mask.png" in out
    given = "--images", "pictures", "--labels", "truth", "--out", "s.json", "--device", "cpu", "--worst", 0
    run_command("evaluate", "--checkpoint", weights, *given)
    assert len(json.loads((cells / "s.json").read_text())["sections"]) == 1  # the one that was held out


def test_train_on_one_folder_with_a_name_for_what_is_found(cells, no_pictures):
    (cells / "pictures").rename(cells / "images")
    (cells / "truth").rename(cells / "masks")
    run_command(*TRAIN, ".", "--epochs", 1, "--target", "nucleus", "--out", "run")
    assert ts.checkpoint.load("run/best.safetensors").meta["classes"] == ["nucleus"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "give the images to train on"), (["pictures", "--data", "pictures"], "images are given twice"),
        (["pictures", "truth", "--out", "truth"], "--out truth is a folder of the data"),
        (["pictures", "truth", "--target", " "], "--target: expected a few words"), (["pictures"], "no images in"),
        (["pictures", "pictures"], "are the same pictures"),
    ],
)  # fmt: skip
def test_train_with_what_does_not_go_together(words, says, cells):
    _, err = run_command(*TRAIN, *words, code=1 if "images in" in says or "same pictures" in says else 2)
    assert says in err.replace("\n", " ") and not (cells / "runs" / "train").exists()
