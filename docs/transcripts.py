"""Run the commands of docs/howto/commands.md and write what they print into the page: ``python docs/transcripts.py``.

Each block of the page that is marked ``console`` holds commands, each after ``$``, and below each of them what it
printed. They are run one after the other in one empty folder, by a copy of the package whose kernels nobody has
compiled yet. Of a long output the page shows as many lines before and after a ``…`` as it did before.
`tests/docs/test_transcripts.py` compares the page with what the commands print.
"""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image

import tinyseg
from tinyseg.data import em_sections

PAGE = pathlib.Path(__file__).resolve().parent / "howto" / "commands.md"
BLOCK = re.compile(r"(?<=^```console\n)(.*?)(?=^```$)", re.MULTILINE | re.DOTALL)
HOME = "/home/ada"  # stands for the folder on the page


def prepare(folder):
    """Put the files there that the page begins with: ``images`` and ``masks`` in ``cells``, and in ``tissue``."""
    images, labels = em_sections(num_sections=10, size=128, seed=1)
    for place, pictures, masks in (("cells", images, 255 * labels.astype(np.uint8)), ("tissue", *make_tissue(10, 128))):
        for name, stack in (("images", pictures), ("masks", masks)):
            (folder / place / name).mkdir(parents=True)
            for k, section in enumerate(stack):
                Image.fromarray(section).save(folder / place / name / f"{k}.png")


def make_tissue(n, size):
    """Return images and masks (n, size, size) of cells, 85, with a nucleus, 170."""
    rng, (i, j) = np.random.default_rng(1), np.mgrid[:size, :size]
    numbers = np.zeros((n, size, size), int)
    for k in range(4 * n):
        y, x, radius = rng.uniform(20, size - 20, 2).tolist() + [rng.uniform(14, 20)]
        mask, distance = numbers[k // 4], np.hypot(i - y, j - x)
        mask[distance < radius] = 1
        mask[distance < radius / 2] = 2
    images = np.array((70, 110, 160))[numbers] + 25 * rng.standard_normal(numbers.shape)
    return images.clip(0, 255).astype(np.uint8), np.array((0, 85, 170), np.uint8)[numbers]


def run(line, folder):
    """Return the lines that a command prints on its standard output."""
    words = shlex.split(line)
    program = [sys.executable, "-m", "tinyseg"] if words[0] == "tinyseg" else words[:1]
    env = os.environ | {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / ".cache")}
    out = subprocess.run(
        [*program, *words[1:]], cwd=folder, capture_output=True, text=True, check=True, env=env, timeout=900
    ).stdout
    out = re.sub(r"(Linux-\d+\.\d+)\S*(-x86_64)", r"\1\2", out.replace(str(folder), HOME))
    return re.sub(r" +$", "", out, flags=re.MULTILINE).strip("\n").splitlines()


def commands(block):
    """Yield each command of a block, without the $, and the lines below it."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        line, *below = part.splitlines()
        yield line, below


def shorten(lines, before):
    """Leave those lines out that a page does not show."""
    if "…" not in before:
        return lines
    first = before.index("…")
    return [*lines[:first], "…", *lines[len(lines) - (len(before) - first - 1) :]]


def renew(page):
    """Return the text of a page with what its commands print now."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        prepare(folder)
        libraries = folder / ".venv" / "lib" / "site-packages"
        shutil.copytree(tinyseg.__path__[0], libraries / "tinyseg", ignore=shutil.ignore_patterns("__pycache__"))
        os.environ["PYTHONPATH"] = str(libraries)

        def renewed(block):
            found = ([line, *shorten(run(line, folder), below)] for line, below in commands(block[1]))
            return "".join("$ " + "\n".join(lines) + "\n" for lines in found)

        return BLOCK.sub(renewed, page)


if __name__ == "__main__":
    PAGE.write_text(renew(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
