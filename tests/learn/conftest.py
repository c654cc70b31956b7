"""Figures are drawn without a display, and no test changes those of another."""

import matplotlib
import pytest

matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402


@pytest.fixture(autouse=True)
def own_look():
    """Let no test change how the figures of another look, or leave one open."""
    with matplotlib.rc_context():
        yield
    plt.close("all")
