"""What people install: the wheel and the source archive, built from this clone, in an environment of its own."""

import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile

import numpy as np
import pytest
from PIL import Image

import tinyseg
from tinyseg.data import em_sections

ROOT = pathlib.Path(__file__).resolve().parents[1]


def run(*words, cwd, **environment):
    """Return what a command prints. It does not see this clone."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(words, cwd=cwd, env=inherited | environment, capture_output=True, text=True)
    if "No matching distribution found" in done.stderr or "Could not fetch" in done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_conda_recipe_asks_for_what_the_package_needs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    recipe = (ROOT / "packaging" / "conda" / "meta.yaml").read_text()
    assert f'version = "{tinyseg.__version__}"' in recipe
    run = re.findall(r"^    - (\S+) >=(\S+)$", recipe.partition("  run:")[2].partition("test:")[0], re.M)
    names = {"matplotlib-base": "matplotlib", "msgspec-python": "msgspec"}  # conda's own names of packages
    found = {names.get(name, name): version for name, version in run}
    needed = [*project["dependencies"], *project["optional-dependencies"]["fast"]]
    needed.append(f"python{project['requires-python']}")
    assert found == dict(each.split(">=") for each in needed)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the archives that ``python -m build`` makes."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.mark.slow
def test_the_archives_hold_the_package_and_nothing_else(built):
    (wheel,), (source,) = built.glob("*.whl"), built.glob("*.tar.gz")
    assert wheel.name == f"tinyseg-{tinyseg.__version__}-py3-none-any.whl"
    files = run("git", "ls-files", "tinyseg", cwd=ROOT).splitlines()
    tracked = [name for name in files if not name.endswith("ruff.toml")]  # how code is formatted
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == set(tracked) and any(name.endswith(".cu") for name in names)
    with tarfile.open(source) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {*tracked, "README.md", "LICENSE", "pyproject.toml"} <= inside


@pytest.mark.slow
def test_somebody_installs_the_wheel_and_segments_a_picture(built, tmp_path):
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    (wheel,) = built.glob("*.whl")
    run(python, "-m", "pip", "install", "--quiet", f"{wheel}[fast]", cwd=tmp_path)
    command = python.with_name("tinyseg")
    where = run(command, "info", cwd=tmp_path)
    assert re.search(r"^kernels +NumPy \+ numba$", where, re.M) and str(tmp_path / "env") in where

    small = ["--width", "4", "--size", "64", "--epochs", "1", "--device", "cpu"]
    said = run(command, "demo", *small, cwd=tmp_path)
    assert "tinyseg predict --checkpoint runs/demo/best.safetensors runs/demo/section.png" in said
    Image.fromarray(em_sections(num_sections=1, size=96, seed=5)[0][0]).save(tmp_path / "cells.png")
    run(command, "predict", "--checkpoint", "runs/demo/best.safetensors", "cells.png", cwd=tmp_path)
    with Image.open(tmp_path / "predictions" / "cells_mask.png") as mask:
        pixels = np.array(mask)
    assert pixels.shape == (96, 96) and set(np.unique(pixels)) <= {0, 255}

    run(command, "export", "runs/demo/best.safetensors", "--out", "exported", "--format", "html,c", cwd=tmp_path)
    assert {path.name for path in (tmp_path / "exported").iterdir()} == {"segment.html", "c"}

    run(command, "course", "mine", "--lessons", "3", cwd=tmp_path)
    check = subprocess.run([command, "course", "check", "3"], cwd=tmp_path / "mine", capture_output=True, text=True)
    assert "the checks need pytest, which is not installed: pip install 'tinyseg[course]'" in check.stderr
