"""The table beside the fastest of everything."""

import pytest

from benchmarks import fastest, models


def found(ours, **others):
    """Times of variants as `benchmarks.worker.measure` returns them, in milliseconds, the same in each round."""
    return {
        name: {"time": {"median": ms / 1e3, "min": ms / 1e3, "rounds": [ms / 1e3] * 3}}
        for name, ms in {models.OURS.name: ours, **others}.items()
    }


def test_a_row_compares_floats_with_floats_and_bytes_with_bytes():
    others = {"NCHW, tuned": 30, "channels-last, tuned": 20, "ONNX Runtime": 16, "OpenVINO": 40}
    bytes_ = {"tinyseg, 8 bits": 6, "ONNX Runtime, 8 bits": 12, "OpenVINO, 8 bits": 8}
    peaks = {"tinyseg": 100, "NCHW, tuned": 250, "channels-last, tuned": 200}
    times = found(8, **others, **bytes_)
    row = fastest.of_floats(times, {name: {"peak": peak} for name, peak in peaks.items()})
    assert row["ratio to the fastest"] == pytest.approx(0.5) and row["PyTorch"] == 20
    assert row["memory, to PyTorch"] == 0.5 and row["to PyTorch in float32"] == pytest.approx(0.4)
    assert row.keys() <= fastest.FLOATS.keys()
    of_bytes = {"tinyseg": 6, "ONNX Runtime": 12, "OpenVINO": 8, "ratio to the fastest": 0.75}
    assert fastest.of_bytes(times) == pytest.approx(of_bytes)


def test_training_is_compared_with_bfloat16_too():
    times = found(9, **{"NCHW, tuned": 30, "channels-last, tuned, bfloat16": 18})
    row = fastest.of_floats(times, {name: {"peak": 1} for name in times})
    assert row["ratio to the fastest"] == pytest.approx(0.5) and row["PyTorch, bfloat16"] == 18
