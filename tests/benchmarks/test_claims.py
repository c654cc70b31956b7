"""What README and docs quote of the benchmarks: names and tables made of cpu.json, and the measurements beyond it."""

import pytest

from benchmarks import claims, kernels, models, summary, tables
from tinyseg import nn

TORCH = [variant.name for variant in models.TORCH]


def record(network, mode, ours, theirs, mebibytes):
    """A network's record: `ours` and `theirs` in seconds, of every variant of PyTorch; memory of ours in MiB."""
    seconds = dict.fromkeys(TORCH, theirs) | {models.OURS.name: ours}
    times = {name: {"time": {"median": s, "min": s, "rounds": [s, s]}} for name, s in seconds.items()}
    memory = {name: {"peak": mebibytes if name == models.OURS.name else 400} for name in seconds}
    return {"network": network, "mode": mode, "shape": [1, 1, 256, 256], "times": times, "memory": memory}


def op(name, size, forward, backward):
    """An op's record with PyTorch's time at 1."""
    ours, theirs = (
        {d: {"median": s, "min": s, "rounds": [s]} for d, s in zip(kernels.DIRECTIONS, times, strict=True)}
        for times in ((forward, backward), (1, 1))
    )
    return {"op": name, "shape": [1, 8, size, size], "times": {kernels.OURS: ours, "torch nchw": theirs}, "failed": {}}


def test_networks_have_ratios_ranges_and_a_table():
    records = [record("unet", mode, ours, 2.0, 100) for mode, ours in (("inference", 1.0), ("training", 1.5))]
    found = summary._networks(records)
    assert (
        found["unet"]["training"]["batch 1"]["ratio"] == 0.75
        and found["unet"]["inference"]["batch 1"]["memory"] == 0.25
    )
    assert (found["least"]["ratio"], found["most"]["ratio"]) == (0.5, 0.75)
    assert "without numba" not in found["unet"]["training"]["batch 1"]  # it was not measured
    assert found["table"].splitlines()[2] == "| U-Net | 1×1×256×256 | 0.50 | 0.75 | 0.25 | 0.25 |"


def test_ops_above_the_limit_are_counted_and_named():
    found = summary._ops([op("relu", 16, 3.0, 0.5), op("relu", 32, 1.1, 1.3), op("concat", 16, 0.5, 0.5)])
    assert [found[key] for key in ("cases", "at least as fast", "above", "ops above")] == [6, 3, 2, 1]
    assert found["table"].splitlines()[2:] == ["| relu | 1 of 2: 3.0 at 8 × 16² | 1 of 2: 1.3 at 8 × 32² |"]


def test_convolutions_are_told_by_their_kernel():
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.PointwiseConv2d(3, 1))
    assert [claims._kernel(network, path) for path in ("layers.0", "layers.1", "")] == [(3, 3), None, None]


def test_a_part_is_kept_beside_the_others_with_commit_machine_date_and_command(tmp_path, monkeypatch):
    monkeypatch.setitem(claims.PARTS, "start", lambda data: {"first": 1.0})
    monkeypatch.setitem(claims.PARTS, "memory", lambda data: {"python alone": 0.1})
    for part in ("start", "memory"):
        claims.main(["--parts", part, "--out", str(tmp_path / "claims.json")])
    found = claims.json.loads((tmp_path / "claims.json").read_text())
    assert found["start"]["first"] == 1.0 and list(found) == ["start", "memory"]
    assert found["memory"]["measured"].keys() == {"commit", "machine", "date", "command"}
    assert found["memory"]["measured"]["command"] == "python -m benchmarks.claims --parts memory"


def test_a_part_that_needs_data_says_so(capsys):
    with pytest.raises(SystemExit):
        claims.main(["--parts", "isbi_score"])
    assert "give their folder to --data" in capsys.readouterr().err


def test_the_peak_of_a_process_does_not_contain_its_parents():
    held = bytearray(2**30)  # 1 GiB here, which Python alone does not need there
    assert 0.02 < claims._peak() < 0.5 and len(held) == 2**30


def test_the_score_beside_scikit_images():
    score_tables = pytest.importorskip("benchmarks.score_tables")
    row = score_tables.small()["T 1122/1122, S 1111/1111"]
    assert row["V^Rand"] == pytest.approx(2 / 3) and row["1 − error"] == pytest.approx(0.6)
    assert tables.table(["", *row], [["a", *row.values()]])
