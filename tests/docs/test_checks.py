"""What docs/howto/checks.md quotes is what the code says."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "howto" / "checks.md").read_text(encoding="utf-8")
SENTENCES = [" ".join(block.split()) for block in re.findall(r"^```text\n(.*?)^```", PAGE, re.S | re.M)]


@pytest.fixture(scope="module")
def code():
    """All strings of the package as one text: parts of a message that stand on several lines joined."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "tinyseg").rglob("*.py")))
    return re.sub(r"[\"']\s*\n\s*f?[\"']", "", text)


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: sentence[:30])
def test_a_sentence_that_the_page_quotes_is_in_the_code(sentence, code):
    parts = [part.strip(" .") for part in sentence.split("…")]
    assert [part for part in parts if part not in code] == []
    assert sum(map(len, parts)) > 15, "too little of it to be found"
