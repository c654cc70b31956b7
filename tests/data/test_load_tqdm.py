"""Settings of tqdm for something else."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = "from tinyseg.data.load_tqdm import tqdm\nfor _ in tqdm(range(3)): pass"


@pytest.mark.parametrize(
    ("name", "value", "left_out"),
    [
        ("MININTERVAL", "abc", True), ("MININTERVAL", "nan", True), ("NCOLS", "-4", True), ("FILE", "x", True),
        ("BAR_FORMAT", "{x}", True), ("POSITION", "x", True), ("DISABLE", "1", False), ("NCOLS", "40", False),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_left_out_with_a_line(name, value, left_out):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=100,
        env=os.environ | {"PYTHONPATH": str(ROOT), f"TQDM_{name}": value},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (f"TQDM_{name} is {value!r}, which is of no use here: it is left out." in done.stderr) == left_out
    assert ("3/3" in done.stderr) == (name != "DISABLE")
