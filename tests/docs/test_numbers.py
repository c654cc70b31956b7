"""The numbers of README and docs are those of the JSON files, and none of them is written by hand.

A number by hand is one with a unit of what is measured here, a decimal, or "two minutes" in words, outside of markers,
code and equations. `GIVEN` lists those that nobody measures here: settings, definitions, other people's figures.
"""

import importlib
import json
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
UNITS = (
    r"(?:ms|µs|s|seconds?|minutes?|min|hours?|days?|[KMGT]i?B|kB|[GT]FLOP(?:/s)?|GB/s|%|per ?cent|times|tenths?|points)"
)
WORDS = r"(?:half an?|a quarter of an?|one|two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|thirty|sixty)"
BY_HAND = re.compile(
    rf"(?<![\w.,/^×])(?:\d[\d,]*(?:\.\d+)?\s*{UNITS}(?![\w/])|\d[\d.]*×(?!\s?\d)|\d+\.\d+(?!\w|\.\d))"
    rf"|\b{WORDS}[ -]{UNITS}\b"
)
VERSIONS = r"\b(?:Python|NumPy|numba|PyTorch|CuPy|scikit-image|CUDA|CC BY-NC-SA) \d+(?:\.\d+)*"
NOT_PROSE = (
    r"^( *)(`{3,}).*?^\1\2", r"<!-- n: .*?<!-- /n -->", r"<!--.*?-->", r"\$\$.*?\$\$", r"\$[^$]+\$", r"`[^`]*`",
    r"\*\*Time:\*\*.*?^\s*$",  # how long a lesson is, which is an estimate
    r"\]\([^)]*\)", r"https?://\S+", r"^\| \*paper.*?$", VERSIONS,
)  # fmt: skip
GIVEN = {
    "everywhere": ("threshold 0.5", "7.6 GB", "pages of 4 KiB"),  # 7.6 GB: the Decathlon's archive
    "gpu.md": (
        "tiles of 256 MiB", "if nine minutes", "workspace of 32 MiB",
        "SD-UNet ≤ 0.8 of PyTorch eager and ≤ 1.0 of torch.compile, U-Net ≤ 1.3",
    ),
    "low_memory.md": ("float32, 0.25 MiB for one of 256 × 256", "keeps to 4 GiB"),
    "isbi_score.md": (
        "0, 0.1, … 1,", "0.30000000000000004", "0.9999999999999999", "0.5 is membrane", "0.30000001192…",
        "float32 0.3", "float64 0.3",
    ),
    "object_scores.md": ("*AP 0.5-0.95* is the mean", "at an IoU of 0.5"),
    "conv2d.md": ("Winograd's four times fewer",),  # 36 products for 144
    "winograd.md": (
        "at six points", "at the six points", "four times as large",
        "smaller than that of nine tenths of the pixels", "more than 1000 times as large",  # what counts as uneven
    ),
    "performance.md": ("four times as large",),
    "security.md": ("at most 1032 times as many", "more than 20 seconds of computing, more than 4 GiB"),
    "reproduction.md": (  # what the paper says
        "8 times fewer parameters, 8 times fewer operations", "23 times smaller", "Faster: 188 → 107 ms",
        "Mean Dice on brain tumours 82.75, U-Net 80.30", "0.94 to 0.98 on ISBI",
    ),
    "brain_tumours.md": (
        "reached 0.90 for the whole tumour", "mean of 0.88, which was aimed at",
    ),
    "promises.md": ("every five minutes",),  # a setting
    "results.md": (
        "jitter of ±0.3", "budget of 2 GiB",
        "accuracy 96.73 and Dice 97.84 for SD-UNet, 97.67 and 98.51",  # the paper
        "SD-UNet has V^Rand 0.914 and V^Info 0.968", "U-Nets have 0.957 and 0.982 there",
        "twelve (0.1 to 0.9, 0.95, 0.97 and 0.99)",
        "0.955 and 0.978 from one view and 0.97 and 0.985 over several",
    ),
    # Of notebooks, whose cells compute what they show: bounds, exercises, bytes of arrays, the paper's figures.
    "01_autograd.py": ("an array of 1 MiB",),
    "02_convolution_cost.py": ("nine times cheaper", "more than four times", "four times the weights"),
    "03_depthwise_by_hand.py": ("padded four times",),
    "04_making_it_fast.py": (
        "written five times", "nine times, and 12 more", "arrays of 32 MiB", "768 KiB", "2.25 operations", "3.75 reads",
        "64 times as many",
    ),
    "05_normalization.py": ("should be 2 %", "momentum 0.1"),
    "07_unet.py": ("0.5 is chance",),
    "08_membranes.py": ("98 % of the pixels", "V^Rand below 0.3", "15 % of them", "V^Rand above 0.95"),
    "09_brain_tumours.py": ("Trained three times", "2 % of a slice"),
    "10_reading_a_paper.py": (
        "23 times smaller", "8 times fewer", "same 3.9 million", "47.1 and 15.8 MB", "factor 23.6", "31.0 million",
        "5 % level", "80 %?", "19× bigger",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def fill():
    sys.path.insert(0, str(ROOT / "docs"))
    yield importlib.import_module("fill")
    sys.path.remove(str(ROOT / "docs"))


def prose(page, text):
    """What a page says in sentences and tables; of a notebook its Markdown cells."""
    if page.suffix == ".py":
        cells = re.split(r"^# %%(.*)\n", text, flags=re.M)
        cells = [cell for header, cell in zip(cells[1::2], cells[2::2], strict=True) if "markdown" in header]
        text = "\n".join(line[2:] for cell in cells for line in cell.splitlines())
    for pattern in NOT_PROSE:
        text = re.sub(pattern, " … ", text, flags=re.S | re.M)
    return re.sub(r"\s+", " ", text)


def by_hand(page, text):
    """Numbers of a page that look measured and are neither marked nor given, each with the words around it."""
    text = prose(page, text)
    notebook = f"{page.stem}.py" if page.parent.name == "slides" else page.name  # a deck says what its notebook says
    for given in GIVEN["everywhere"] + GIVEN.get(notebook, ()):
        text = text.replace(given, "…")
    return [text[max(0, found.start() - 40) : found.end() + 20] for found in BY_HAND.finditer(text)]


def test_every_number_is_what_the_json_says(fill):
    done = subprocess.run([sys.executable, ROOT / "docs" / "fill.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_measured_number_is_written_by_hand(fill):
    pages = [page for page in fill.pages() if page.stem != "references"]
    found = {page.name: by_hand(page, page.read_text(encoding="utf-8")) for page in pages}
    assert {page: numbers for page, numbers in found.items() if numbers} == {}


def test_what_is_given_is_still_on_its_page(fill):
    said = {page.name: prose(page, page.read_text(encoding="utf-8")) for page in fill.pages()}
    said["everywhere"] = " ".join(said.values())
    assert [phrase for page, phrases in GIVEN.items() for phrase in phrases if phrase not in said[page]] == []


@pytest.mark.parametrize(
    "sentence",
    [
        "It takes 5.5 ms.", "It takes 0.75 of PyTorch's time.", "Dice is 0.949.", "It reaches 400 GFLOP/s.",
        "It is 3 times as fast.", "It needs 2 GiB.", "The demo takes two minutes.", "It spends nine tenths there.",
        "| SD-UNet | 0.81 |", "It is right in 92 % of the pixels.", "8.1 ms → 5.0 ms", "It starts in 55 to 60 s.",
    ],
)  # fmt: skip
def test_a_number_by_hand_is_seen(sentence):
    assert by_hand(pathlib.Path("page.md"), f"# Title\n\n{sentence}\n")


@pytest.mark.parametrize(
    "sentence",
    [
        "Needs Python 3.11 or newer.", "Images of 256 × 256, F(4×4, 3×3).", "`loss = 0.5 ms`", "Table 2 has 4 rows.",
        "<!-- n: cpu/ops/mean:.2f -->0.95<!-- /n --> of the time", "```\ntook 5 s\n```", "$p = 0.5$", "twelve pages",
        "| *paper, U-Net* | *0.803* |",
    ],
)  # fmt: skip
def test_what_is_no_measured_number_is_let_be(sentence):
    assert by_hand(pathlib.Path("page.md"), f"# Title\n\n{sentence}\n") == []


def test_a_stale_number_is_filled_in_and_the_rest_stays(fill):
    before = "It takes <!-- n: cpu/ops/limit:.1f -->9.9<!-- /n --> of the time.\n"
    assert fill.fill(before) == before.replace("9.9", "1.2")
    assert fill.fill(fill.fill(before)) == fill.fill(before)


def test_a_table_stands_between_lines_of_its_own(fill):
    assert fill.fill("<!-- n: cpu/networks/table --><!-- /n -->").startswith(
        "<!-- n: cpu/networks/table -->\n| network |"
    )


@pytest.mark.parametrize("name", ["gpu/speed", "cpu/ops/meen", "cpu/ops/mean/worst", "results/folds/rows/one view"])
def test_a_marker_that_names_no_number_is_refused_with_what_there_is(fill, name):
    with pytest.raises(ValueError, match=f"^{name} names (nothing|no number)"):
        fill.fill(f"<!-- n: {name}:.2f -->1<!-- /n -->")


def test_a_marker_in_a_line_of_text_does_not_begin_it(fill):
    for page in fill.pages():  # Markdown takes such a line for HTML and no more for a part of its paragraph
        text = page.read_text(encoding="utf-8")
        assert re.findall(r"^(?:# )? *<!-- n: [^>]*-->(?!\n).*", text, flags=re.M) == [], page.name
        assert len(fill.MARKED.findall(text)) == text.count("<!-- n:") == text.count("<!-- /n -->"), page.name


def test_every_part_says_commit_machine_date_and_how(fill):
    for name in ("docs/results.json", "docs/reproduction.json", "benchmarks/results/claims.json"):
        for part, content in json.loads((ROOT / name).read_text(encoding="utf-8")).items():
            studies = [content] if "measured" in content else list(content.values())  # of the same tables, by its name
            assert studies, part
            for measured in (study["measured"] for study in studies):
                assert re.search(r"\b[0-9a-f]{7,}\b", measured["commit"]), part
                assert measured["machine"] and measured["date"] and (measured.get("command") or measured["how"]), part


def test_the_table_of_all_figures_is_that_of_the_json():
    run = importlib.import_module("benchmarks.run")
    results = ROOT / "benchmarks" / "results"
    assert run.markdown(json.loads((results / "cpu.json").read_text())) == (results / "cpu.md").read_text()
