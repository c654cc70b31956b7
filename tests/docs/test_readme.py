"""What the README says can be done is done here."""

import pathlib
import re

import tinyseg as ts

README = (pathlib.Path(__file__).resolve().parents[2] / "README.md").read_text()


def test_the_example_runs_and_learns(tmp_path, monkeypatch, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.S)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(example, names)
    losses = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 20 and losses[-1] < 0.8 * losses[0]
    assert names["mask"].shape == (4, 128, 128)
    assert ts.checkpoint.load("cells.safetensors").config["width"] == 8


def test_the_files_it_names_exist():
    root = pathlib.Path(__file__).resolve().parents[2]
    for target in re.findall(r"\]\(((?!http)[^)]+)\)", README):
        assert (root / target).exists(), target
    for name in re.findall(r"^\| (.*?) \|", README, re.M):
        for file in re.findall(r"`([\w/]+(?:\.py|/))`", name):
            assert (root / file).exists() or (root / "tinyseg" / file).exists(), file
