"""A short run of the campaign of damaged files: nothing is lost."""

import os
import subprocess
import sys

import pytest

from tests.campaigns import fuzz_formats
from tests.campaigns.frame import Campaign
from tests.campaigns.fuzz_base import WEIGHTS
from tests.campaigns.fuzz_worker import play
from tests.campaigns.processes import ROOT


@pytest.mark.slow
def test_a_few_damaged_files_of_every_kind_are_read_or_refused_in_a_sentence():
    done = subprocess.run(
        [sys.executable, "-m", "tests.campaigns.fuzz", "--count", "230", "--seed", "5"], cwd=ROOT, capture_output=True,
        text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"| {kind} |" in done.stdout for kind in WEIGHTS)


def told(tmp_path, command, names=("a.txt",)):
    """What the campaign says of a command."""
    place = tmp_path / "case" / "files"
    place.parent.mkdir(exist_ok=True)
    return play(lambda rng, base, place: (lambda: command(place), names), None, None, place)


def test_what_a_command_must_not_do_counts_as_lost(tmp_path):
    def refusing_after_writing(place):
        (place / "result.txt").write_text("x")
        sys.exit("a.txt is damaged")

    assert told(tmp_path, lambda place: sys.exit("a.txt is damaged")) == ("refused", "")
    assert told(tmp_path, lambda place: None) == ("went through", "")
    for command, why in (
        (lambda place: 1 / 0, "Traceback"), (lambda place: sys.exit(1), "without a word"),
        (lambda place: sys.exit("it is damaged"), "names none"), (refusing_after_writing, "refused, and written"),
        (lambda place: (place.parent.parent / "case" / "other.txt").write_text("x"), "elsewhere"),
        (lambda place: (place / "x.tmp").write_text("x"), "left behind"),
    ):  # fmt: skip
        outcome, said = told(tmp_path, command)
        assert outcome == "lost" and why in said
        for left in (tmp_path / "case").glob("*.txt"):
            left.unlink()


def test_a_checkpoint_is_taken_apart_and_put_together():
    header, rest = {"__metadata__": {"tinyseg": "{}"}}, b"1234"
    assert fuzz_formats.split_checkpoint(fuzz_formats.join_checkpoint(header, rest)) == (header, rest)


def test_losses_are_counted_by_kind(capsys):
    campaign = Campaign("fuzz", 1)
    campaign.add("a", "a #1", "lost", "a hang")
    campaign.add("a", "a #2", "refused")
    assert "| a | 2 | 0 | 1 | 1 |" in campaign.table() and "a hang" in capsys.readouterr().out
