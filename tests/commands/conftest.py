"""Data and runs of the commands that several tests look at, made once, and pictures that are not written."""

import contextlib

import pytest
from matplotlib.figure import Figure
from scripts import SMALL_BRATS, SMALL_ISBI, run_example

from tinyseg.data.synthetic_brain import write_brains


@contextlib.contextmanager
def pictures_not_written():
    """Compose every picture, but write an empty file: that takes most of the time of a small run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, file, **options: None)
        yield


@pytest.fixture
def no_pictures():
    with pictures_not_written():
        yield


@pytest.fixture(scope="session")
def isbi_run(tmp_path_factory):
    """A run of train_isbi.py of one epoch. Copy it to change it."""
    path = tmp_path_factory.mktemp("isbi") / "run"
    with pictures_not_written():
        run_example("train_isbi.py", *SMALL_ISBI, "--epochs", 1, "--out", path)
    return path


@pytest.fixture(scope="session")
def brains(tmp_path_factory):
    """A Decathlon folder of four synthetic brains, for training."""
    return write_brains(tmp_path_factory.mktemp("brains"), num_cases=4, shape=(40, 36, 16))


@pytest.fixture(scope="session")
def brats_run(brains, tmp_path_factory):
    """A run of train_brats.py of two epochs, and what it printed; its slices are in ``slices`` beside it."""
    folder = tmp_path_factory.mktemp("brats")
    given = "--data", brains, "--cache", folder / "slices", "--schedule", "constant", "--epochs", 2
    out, _ = run_example("train_brats.py", *SMALL_BRATS, *given, "--out", folder / "run")
    return folder / "run", out
