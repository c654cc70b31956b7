"""Matplotlib with settings that it does not take: pictures are drawn all the same, and look alike everywhere."""

import os
import pathlib
import subprocess
import sys

import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
DRAW = """
import sys
from tinyseg.report import plots
assert "matplotlib" not in sys.modules
with plots.drawing("curves.png") as picture:
    plots.curves([{"train_loss": 1.0, "val_dice": 0.5}], picture)
"""


def draw(folder, program=DRAW, **variables):
    """Draw a picture in a process of its own; return what it wrote to its standard error stream."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MPL", "MATPLOTLIB"))}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=100,
        env=environment | {"PYTHONPATH": str(ROOT)} | variables,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ordinary")
    assert draw(folder) == ""
    return (folder / "curves.png").read_bytes()


@pytest.mark.parametrize("backend", ["nonsense", "TkAgg", "module://nothing", "pdf"])
def test_pictures_are_drawn_with_any_MPLBACKEND(backend, tmp_path, ordinary):
    said = draw(tmp_path, MPLBACKEND=backend, DISPLAY=":77")
    assert (tmp_path / "curves.png").read_bytes() == ordinary
    assert ("MPLBACKEND is 'nonsense'" in said) == (backend == "nonsense") and "Traceback" not in said


@pytest.mark.parametrize(
    "content",
    [b"# caf\xe9\n", b"backend: nonsense\nno such thing\n", b"text.usetex: True\n", b"font.family: No Such Font\n",
     b"savefig.bbox: tight\nsavefig.format: pdf\nfigure.dpi: 9\nfont.size: 30\n"],
)  # fmt: skip
@pytest.mark.parametrize("place", ["here", "MPLCONFIGDIR"])
def test_pictures_are_drawn_with_any_matplotlibrc(content, place, tmp_path, ordinary):
    (tmp_path / "matplotlibrc").write_bytes(content)
    (tmp_path / "elsewhere").mkdir()
    if place == "here":
        draw(tmp_path)
        assert (tmp_path / "curves.png").read_bytes() == ordinary
    else:
        draw(tmp_path / "elsewhere", MPLCONFIGDIR=str(tmp_path))
        assert (tmp_path / "elsewhere/curves.png").read_bytes() == ordinary


def test_a_backend_that_there_is_stays_chosen_for_pyplot(tmp_path):
    check = "import os, matplotlib; assert matplotlib.rcParams['backend'] == os.environ['MPLBACKEND'] == 'svg'"
    program = f"{DRAW}\n{check}"
    draw(tmp_path, program, MPLBACKEND="svg")


def test_where_matplotlib_can_write_nowhere_the_picture_is_a_warning_and_the_work_goes_on(tmp_path):
    program = f"""
import tempfile
def refuse(*args, **options): raise OSError("no folder can be written")
tempfile.mkdtemp = refuse
{DRAW}
print("the work went on", file=sys.stderr)
"""
    said = draw(tmp_path, program, MPLCONFIGDIR="/dev/null")
    assert "curves.png could not be drawn" in said and said.endswith("the work went on\n")
    assert not (tmp_path / "curves.png").exists()


def test_a_picture_drawn_without_the_commands_keeps_the_style_of_its_user(tmp_path):
    program = "from tinyseg.report import plots; plots.curves([{'val_dice': 0.5}], 'curves.png')"
    (tmp_path / "matplotlibrc").write_text("figure.facecolor: black\n")
    draw(tmp_path, program)
    assert Image.open(tmp_path / "curves.png").convert("L").getpixel((0, 0)) == 0
