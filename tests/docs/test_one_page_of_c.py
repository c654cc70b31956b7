"""The page that walks through network.c quotes what is there, and its program compiles."""

import pathlib
import re
import shutil
import subprocess

import pytest

from tinyseg.export.c import program as c_program

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = ROOT / "tinyseg" / "export" / "c"
*QUOTES, PROGRAM = re.findall(r"^```c\n(.*?)^```", (ROOT / "docs" / "one_page_of_c.md").read_text(), re.S | re.M)


@pytest.mark.parametrize("quote", QUOTES, ids=lambda quote: quote.strip().splitlines()[0][:40])
def test_the_page_quotes_the_program(quote):
    assert quote in (SOURCES / "network.c").read_text()


def test_the_page_names_every_file_that_is_written():
    named = re.search(r"^```\n(.*?)^```", (ROOT / "docs" / "one_page_of_c.md").read_text(), re.S | re.M)[1]
    assert {line.split()[0] for line in named.splitlines()} == {*c_program.SOURCES, "weights.bin"}


def test_the_program_of_ones_own_compiles(tmp_path):
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("there is neither gcc nor clang here")
    arguments = "const void *file, size_t bytes, int H, int W, const float *image, float *logits"
    before = f'#include "network.h"\n#include <stdlib.h>\nvoid run({arguments}) {{\n'
    (tmp_path / "own.c").write_text(f"{before}{PROGRAM}\nif (wrong) free(memory);\n}}\n")
    words = [compiler, "-std=c99", "-Wall", "-Wextra", "-Werror", f"-I{SOURCES}", "-c", tmp_path / "own.c"]
    subprocess.run([*words, "-o", tmp_path / "own.o"], check=True)
