"""examples/train_isbi.py as a user meets it: real files, and where it is killed, real processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image
from scripts import REAL, ROOT, SMALL_ISBI, run_example

import tinyseg as ts
from tinyseg.commands.options import exit_if_interrupted
from tinyseg.data import em_sections
from tinyseg.training import RunDirectory

SMALL = [*SMALL_ISBI, "--epochs", 8]
pytestmark = pytest.mark.slow


def start(*arguments):
    command = [sys.executable, str(ROOT / "examples" / "train_isbi.py"), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*arguments, code=0):
    return run_example("train_isbi.py", *arguments, code=code)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never interrupted."""
    path = tmp_path_factory.mktemp("whole") / "run"
    process = start(*SMALL, "--out", path)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, f"exit {process.returncode}\n{out}\n{err}"
    return path, out


def test_a_run_says_what_it_does_and_leaves_its_files(whole):
    path, out = whole
    assert "SYNTHETIC" in out.splitlines()[0]
    assert "kernels: " in out and "20 sections to train on, 4 held out" in out
    assert {p.name for p in path.iterdir()} == {
        "config.json", "log.csv", "checkpoint.safetensors", "best.safetensors", "summary.json", "curves.png",
        "predictions.png",
    }  # fmt: skip
    summary = json.loads((path / "summary.json").read_text())
    assert summary["model"] == "sdunet" and summary["data"] == "synthetic" and summary["steps"] == 80
    assert summary["parameters"] == ts.models.build("sdunet", width=4).num_parameters()
    assert {"accuracy", "dice", "iou", "mean_iou", "membrane_iou"} <= summary["val"].keys()
    assert summary["seconds_per_step"] > 0 and "cpu" in summary["device"] and summary["kernels"]
    assert len((path / "log.csv").read_text().splitlines()) == 1 + 8
    arrays = ts.checkpoint.read(path / "checkpoint.safetensors")[0]
    assert any((a != arrays[f"training.{n[6:]}"]).any() for n, a in arrays.items() if n.startswith("model."))  # --ema
    meta = ts.checkpoint.load(path / "best.safetensors").meta
    assert meta["preprocessing"] == {"scale": [1, 1], "standardize": "section", "foreground": "white"}
    # The membranes, the rarer class, weigh more, so that a border has a lower probability than 0.45.
    assert set(meta["postprocessing"]) == {"border"} and 0.25 < meta["postprocessing"]["border"] < 0.35


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_killed_run_resumes_to_the_same_bits(whole, tmp_path, no_pictures, number):
    path = tmp_path / "run"
    process = start(*SMALL, "--out", path)
    deadline = time.monotonic() + 200
    while not (path / "checkpoint.safetensors").exists():  # the first epoch is done
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.005)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number
        assert f"Go on with: python {ROOT}/examples/train_isbi.py --resume {path}" in out
    assert not (path / "summary.json").exists()
    assert 10 <= ts.checkpoint.read(path / "checkpoint.safetensors")[1]["training"]["state"]["step"] < 80

    run("--resume", path)
    (a, _), (b, _) = (ts.checkpoint.read(p / "checkpoint.safetensors") for p in (whole[0], path))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    a, b = ((p / "log.csv").read_text().splitlines() for p in (whole[0], path))
    assert [line.rsplit(",", 1)[0] for line in a] == [line.rsplit(",", 1)[0] for line in b]  # the last is the time


def test_a_finished_run_can_be_taken_further_but_not_changed(isbi_run, tmp_path, no_pictures):
    path = shutil.copytree(isbi_run, tmp_path / "run")
    _, err = run("--resume", path, "--lr", 0.5, "--protocol", "paper", code=2)
    assert f"goes on with the options of {path}: leave out lr, protocol" in err
    out, _ = run("--resume", path / "checkpoint.safetensors", "--epochs", 2)
    assert "stretches the schedule" in out
    assert json.loads((path / "summary.json").read_text())["steps"] == 20
    _, err = run(*SMALL, "--out", path, code=1)
    assert "already holds a training run" in err and "--resume" in err
    run(*SMALL, "--epochs", 1, "--out", path, "--overwrite")
    assert json.loads((path / "summary.json").read_text())["steps"] == 10


def test_resuming_asks_for_the_same_data_and_for_a_run(isbi_run, tmp_path):
    rng = np.random.default_rng(0)
    tifffile.imwrite(tmp_path / "train-volume.tif", rng.integers(0, 255, (24, 32, 32)).astype(np.uint8))
    tifffile.imwrite(tmp_path / "train-labels.tif", np.uint8(255) * (rng.random((24, 32, 32)) > 0.2))
    _, err = run("--resume", isbi_run, "--epochs", 2, "--data", tmp_path, code=1)
    assert "this is not the data that" in err and "training images, training masks, held-out" in err
    _, err = run("--resume", tmp_path / "nowhere", code=1)
    assert "There is no checkpoint" in err
    ts.checkpoint.save(tmp_path / "checkpoint.safetensors", ts.models.build("sdunet", width=4))
    _, err = run("--resume", tmp_path, code=2)
    assert "no run to go on with" in err


def sections_in_folders(folder, names):
    """Write sections and masks as PNG."""
    images, labels = em_sections(num_sections=len(names), size=32)
    for part, stack in (("images", images), ("labels", np.where(labels, 255, 0).astype(np.uint8))):
        (folder / part).mkdir(parents=True)
        for name, section in zip(names, stack, strict=True):
            Image.fromarray(section).save(folder / part / name)
    return folder


def test_a_resumed_run_asks_for_all_that_it_read(tmp_path, no_pictures):
    data = sections_in_folders(tmp_path / "data", [f"{k}.png" for k in range(4)])
    path = tmp_path / "run"
    run(*SMALL_ISBI, "--data", data, "--epochs", 1, "--val-sections", 1, "--out", path)
    moved = shutil.copytree(data, tmp_path / "elsewhere")
    run("--resume", path, "--epochs", 2, "--data", moved)
    for part, number, words in (
        ("labels", 3, "held-out masks differ"), ("images", 3, "held-out images"), ("labels", 0, "training masks d"),
        ("images", 0, "training images differ"),
    ):  # fmt: skip
        file, content = moved / part / f"{number}.png", (moved / part / f"{number}.png").read_bytes()
        shutil.copy(moved / part / f"{1}.png", file)
        _, err = run("--resume", path, "--epochs", 3, "--data", moved, code=1)
        assert words in err
        file.write_bytes(content)


def test_synthetic_sections_of_another_generator_are_refused(isbi_run, monkeypatch):
    monkeypatch.setattr(
        "tinyseg.commands.train_isbi.em_sections", lambda **options: em_sections(**options | {"seed": 9})
    )
    _, err = run("--resume", isbi_run, "--epochs", 2, code=1)
    assert "this is not the data that" in err


def test_names_that_look_like_tex_or_are_long_or_foreign(tmp_path):
    names = ["a$_$x_{1.png", "b\n\n$.png", "c" * 240 + ".png", "d切片\\alpha^.png"]
    data = sections_in_folders(tmp_path / "data", names)
    run(*SMALL_ISBI, "--data", data, "--epochs", 1, "--val-sections", "0:3", "--out", tmp_path / "run")
    assert {"summary.json", "predictions.png", "curves.png"} <= {p.name for p in (tmp_path / "run").iterdir()}


def test_the_summary_is_there_though_nothing_can_be_drawn(tmp_path, monkeypatch):
    def fails(*args, **options):
        raise RuntimeError("no fonts")

    monkeypatch.setattr("tinyseg.report.plots.predictions", fails)
    monkeypatch.setattr("tinyseg.report.plots.curves", fails)
    with pytest.warns(UserWarning, match="could not be drawn .RuntimeError: no fonts"):
        run(*SMALL_ISBI, "--epochs", 1, "--out", tmp_path / "run")
    assert (tmp_path / "run" / "summary.json").is_file()


def test_a_place_where_nothing_can_be_written_is_refused_before_the_data_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("tinyseg.commands.train_isbi.load_sections", None)  # it is not reached
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "run", "/proc/run"):
        _, err = run(*SMALL_ISBI, "--out", out, code=1)
        assert f"{out} could not be written" in err


def test_the_advice_has_the_options_that_a_run_does_not_keep_and_its_folder_may_have_blanks(tmp_path, capsys):
    folder = tmp_path / "my run"
    with pytest.raises(SystemExit):
        args = SimpleNamespace(given={"width", "workers", "cuda_graph"}, width=4, workers=3, cuda_graph=True)
        exit_if_interrupted({"interrupted": 2, "steps": 5}, RunDirectory(folder), args)
    assert capsys.readouterr().out.endswith(f"--resume '{folder}' --cuda-graph --workers 3\n")
    folder.mkdir()
    (folder / "checkpoint.safetensors").touch()
    with pytest.raises(FileExistsError, match=f"--resume '{folder}'"):
        RunDirectory(folder)


def test_a_mistake_with_overwrite_costs_nothing(isbi_run, tmp_path):
    before = {p.name: p.stat().st_mtime_ns for p in isbi_run.iterdir()}
    for mistake, code in ((["--data", tmp_path / "nowhere"], 1), (["--crop", 33], 1), (["--epochs", 0], 2)):
        run(*SMALL, "--out", isbi_run, "--overwrite", *mistake, code=code)
    assert {p.name: p.stat().st_mtime_ns for p in isbi_run.iterdir()} == before


def test_the_papers_protocol_is_one_flag(tmp_path, no_pictures):
    run(*SMALL, "--epochs", 1, "--protocol", "paper", "--size", 48, "--schedule", "step", "--out", tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["lr"] == 1e-4 and config["augment"] == "paper" and config["clip"] == 0
    assert config["size"] == 48 and config["schedule"] == "step"  # what is asked for by name goes before the protocol


def test_bad_input_is_one_sentence_and_nothing_is_written(tmp_path):
    def fails(*arguments, says, code=1):
        _, err = run(*SMALL, "--out", tmp_path / "out", *arguments, code=code)
        assert says in err.replace("\n", " ") and "Traceback" not in err, err
        assert not (tmp_path / "out").exists()

    fails("--data", tmp_path / "nowhere", says="nowhere")
    fails("--val-sections", "24", says="validation sections")
    fails("--augment", "hflop", says="hflop", code=2)
    fails("--ws", "layer", "--model", "unet", says="ws standardizes depthwise kernels")
    fails("--crop", "33", says="multiples of 16")
    fails("--download", says="--download needs --data", code=2)
    for out in (tmp_path, tmp_path / "images", tmp_path / "MASKS"):
        _, err = run(*SMALL, "--data", tmp_path, "--out", out, code=2)
        assert "is a folder of the data: give the run a folder of its own" in err.replace("\n", " ")
    tifffile.imwrite(tmp_path / "train-volume.tif", np.zeros((3, 32, 40), np.uint8), photometric="minisblack")
    tifffile.imwrite(tmp_path / "train-labels.tif", np.zeros((2, 32, 40), np.uint8), photometric="minisblack")
    fails("--data", tmp_path, says="train-labels.tif has")
    if ts.backend.devices.cp is None:
        fails("--device", "gpu", says="CuPy is not installed")


@pytest.mark.skipif(not REAL.exists(), reason="the real data are not here")
def test_real_sections_go_through(tmp_path, no_pictures):
    out, _ = run(*SMALL, "--size", 64, "--epochs", 1, "--data", REAL / "isbi2012", "--out", tmp_path / "run")
    assert "24 sections of 512 x 512" in out and "SYNTHETIC" not in out
    assert "train-volume.tif" not in os.listdir(tmp_path / "run")


def test_the_command_reads_on_a_few_screens_and_its_door_on_one():
    assert len((ROOT / "tinyseg" / "commands" / "train_isbi.py").read_text().splitlines()) < 200
    assert len((ROOT / "examples" / "train_isbi.py").read_text().splitlines()) < 20
