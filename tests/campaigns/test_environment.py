"""Short versions of the campaign of strange places."""

import json
import subprocess
import sys

import pytest

from tests.campaigns.environment_commands import ROOT


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the places are Linux's")
@pytest.mark.parametrize(("only", "count"), [("names: ", 5), ("output: ", 6), ("pictures: MPL", 3)])
def test_a_command_in_a_strange_place_goes_through_or_says_what_is_wrong(only, count, tmp_path):
    out = tmp_path / "environment.json"
    words = ["-m", "tests.campaigns.environment", "--count", count, "--seed", 1, "--only", only, "--out", out]
    done = subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    result = json.loads(out.read_text())
    assert (result["lost"], result["tried"]) == (0, count)
