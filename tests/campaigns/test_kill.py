"""Short versions of the campaign: commands that are killed, and the next ones."""

import json
import subprocess
import sys

import pytest

from tests.campaigns.processes import ROOT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("only", "count", "seed"), [("train_isbi:", 5, 1), ("train_brats:", 3, 2), ("predict, folder:", 5, 3)]
)
def test_a_command_that_is_killed_goes_on_as_if_nothing_was(only, count, seed, tmp_path):
    out = tmp_path / "kill.json"
    words = ["-m", "tests.campaigns.kill", "--count", count, "--seed", seed, "--only", only, "--out", out]
    done = subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    result = json.loads(out.read_text())
    assert result["lost"] == 0
    assert result["tried"] > count  # and at least one end
