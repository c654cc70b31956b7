"""Fixtures of the whole suite."""

import signal

import pytest
from stand_in import stand_in  # noqa: F401 (a fixture)

import tinyseg

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so shells start what runs in the background; tests send Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["reference", "fast"])
def kernels(request):
    """Run the test on the maths files and again on their fast namesakes, if there are any."""
    with tinyseg.using(kernels=request.param):
        yield request.param


@pytest.fixture
def blank_curves(monkeypatch):
    """Leave an empty file for the learning curves of a run: drawing them takes longer than a few steps of training."""
    monkeypatch.setattr("tinyseg.report.plots.curves", lambda history, path, best: path.write_bytes(b""))
