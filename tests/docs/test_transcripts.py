"""The page of commands shows what they print: the same lines, but for numbers and what differs between computers."""

import pathlib
import re
import runpy
import shutil

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
page = runpy.run_path(str(ROOT / "docs" / "transcripts.py"))
TEXT = page["PAGE"].read_text(encoding="utf-8")
COMMANDS = [found for block in page["BLOCK"].findall(TEXT) for found in page["commands"](block)]


def without_numbers(lines):
    lines = [re.sub(r"on cpu: .*, kernels: .*", "on …", line) for line in lines]
    return [re.sub(r"[ -]+", " ", re.sub(r"-?\d[\d,.:]*", "#", line)).strip() for line in lines]


def test_there_is_every_command():
    from tinyseg.commands.main import COMMANDS as names

    assert set(names) <= set(re.findall(r"tinyseg ([a-z-]+)", TEXT))


def test_the_page_speaks_of_no_folder_of_its_author():
    assert set(re.findall(r"(?<![\w.])/(?:home|root|work|tmp|Users)/?\w*", TEXT)) <= {page["HOME"]}


@pytest.mark.slow
def test_commands_print_what_the_page_shows(tmp_path):
    page["prepare"](tmp_path)
    for line, below in COMMANDS:
        if line.startswith("tinyseg export") and not (shutil.which("node") and shutil.which("cc")):
            continue  # it says what is missing to run what it writes
        now = page["shorten"](page["run"](line, tmp_path), below)
        if line.startswith("tinyseg warm"):  # whether there is something to compile depends on what ran before
            assert "They are kept in" in now[-1] and "They are kept in" in below[-1]
        elif line == "tinyseg info":
            facts, shown = ([text.split("  ")[0] for text in lines] for lines in (now, below))
            assert [name for name in facts if name in shown] == shown
        else:
            assert without_numbers(now) == without_numbers(below), line


def test_a_long_output_is_cut_where_the_page_cuts_it():
    assert page["shorten"](list("abcdef"), ["x", "…", "y", "z"]) == ["a", "…", "e", "f"]
    assert page["shorten"](list("abc"), ["x"]) == ["a", "b", "c"]
