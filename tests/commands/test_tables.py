"""Tables, intervals and JSON: what the scripts write."""

import json

import numpy as np
import pytest

from tinyseg.commands.tables import mean_rows, table
from tinyseg.data.json_files import write_json
from tinyseg.metrics import mean_interval


def test_columns_are_as_wide_as_they_must_be():
    rows = [("a", ["1", "0.5000"]), ("longer", ["12345", ""])]
    assert table(["n", "Dice"], rows).splitlines() == [
        "            n    Dice",
        "a           1  0.5000",
        "longer  12345        ",
    ]


def test_means_have_their_interval_below():
    assert mean_rows("mean", [{"mean": 0.5}]) == [("mean", ["0.5000"])]
    rows = mean_rows("mean", [{"mean": 0.5, "interval": [0.25, 0.75]}, {"mean": 1.0}])
    assert rows[1:] == [("  95% from", ["0.2500", "nan"]), ("       to", ["0.7500", "nan"])]


def test_the_interval_of_a_mean():
    """Near the normal distribution's for many values, and inside of the values for few."""
    x = np.random.default_rng(0).normal(5, 2, 400)
    low, high = mean_interval([*x, np.nan])
    half = 1.96 * x.std() / 20
    assert (low, high) == pytest.approx((x.mean() - half, x.mean() + half), abs=0.1 * half)
    assert mean_interval(x, 0.5)[0] > low
    assert mean_interval([1.0, 3.0]) == (1, 3)
    assert mean_interval([1.0, np.nan]) is None


def test_json_has_no_nan(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, float("nan")], "b": {"c": (float("inf"), "x")}})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1, None], "b": {"c": [None, "x"]}}
