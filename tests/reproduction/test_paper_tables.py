"""Tables of the reproduction, and the paper's figures in them."""

import pytest

from reproduction import paper, tables
from reproduction.study import spread
from tinyseg import models

COSTS = {name: {"parameters": 1_000_000, "multiply_adds": 2e9} for name in paper.ROWS}


def cells(markdown, start):
    """The cells of the table's line that begins with a text."""
    line = next(line for line in markdown.splitlines() if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_papers_rows_are_models_of_ours():
    assert paper.ROWS.keys() == models.MODELS.keys() == paper.TABLE_1.keys() == paper.TABLE_2.keys()
    assert paper.TABLE_3.keys() <= paper.ROWS.keys()


@pytest.mark.parametrize("name", ["unet", "unet_dw_bn", "unet_dw_gn"])
def test_the_papers_flops_and_sizes_are_what_the_notes_say(name):
    parameters = models.build(name, head="paper").num_parameters()
    published = paper.TABLE_1[name]
    assert published["flops"] == pytest.approx(2e-6 * parameters, rel=0.02)
    assert published["megabytes"] == pytest.approx(12e-6 * parameters, rel=0.01)


def test_the_papers_size_of_sd_unet_is_its_weights_alone():
    parameters = models.build("sdunet", head="paper").num_parameters()
    assert paper.TABLE_1["sdunet"]["megabytes"] == pytest.approx(4e-6 * parameters, rel=0.02)


def test_table_1():
    costs = COSTS | {"unet": COSTS["unet"] | {"milliseconds": 12.345, "pytorch_milliseconds": 24.69, "ratio": 0.5}}
    text = tables.table_1(costs)
    columns = list(zip(*(line.strip("| ").split(" | ") for line in text.splitlines()[2:]), strict=True))
    assert columns[1] == (
        "1,000,000", "*31 M*", "2.00 M", "*62.04 M*", "2.00 G", "4.0 MB", "12.0 MB", "*372.5 MB*",
        "12.3 ms", "24.7 ms", "0.50", "*188 ms*",
    )  # fmt: skip
    assert columns[0][:2] == ("parameters", "*paper*") and columns[6][8:11] == ("–", "–", "–")
    assert text.splitlines()[0].split(" | ")[1:3] == ["U-Net", "U-Net (GN=32)"]


def test_results_stand_beside_the_papers():
    rows = {
        "sdunet": {"title": "SD-UNet", "failed": [], "figures": {"dice": spread([0.5, 0.75]), "v_rand": spread([0.9])}},
        "sdunet_filter": {"title": "per filter", "failed": [{"seed": 1}], "figures": {}},
    }
    text = tables.scores(rows, {"dice": "Dice", "v_rand": "V^Rand", "loss": "loss"}, paper.TABLE_2)
    assert cells(text, "SD-UNet") == ["SD-UNet", "0.625 ± 0.177", "0.900", "–"]
    assert cells(text, "*SD-UNet, paper*") == ["*SD-UNet, paper*", "*0.9784*", "*0.9142*", "*0.0775*"]
    assert cells(text, "per filter (1 runs failed)") == ["per filter (1 runs failed)", "–", "–", "–"]
    assert "per filter, paper" not in text


def test_all_tables_are_those_that_there_are_results_for():
    study = {"rows": {}, "command": "python examples/train_isbi.py --data DIR", "seeds": 3}
    parts = tables.all_tables({"costs": {"networks": COSTS}, "isbi": study})
    assert list(parts) == ["table 1", "table 2"]
    assert all(note in parts["table 1"] for note in paper.TABLE_1_NOTES)
    assert parts["table 2"].startswith("`python examples/train_isbi.py --data DIR` and so on: 3 seeds each")
    assert all(note in parts["table 2"] for note in paper.TABLE_2_NOTES)


def test_other_studies_beside_the_first_have_tables_of_their_own():
    study = {"rows": {}, "command": "python examples/train_isbi.py --data DIR --width 32", "seeds": 3}
    found = tables.figures({"costs": {"networks": COSTS}, "narrow": {"isbi": study}})
    assert "table 2" not in found and found["narrow"]["isbi"] is study
    assert "DIR --width 32` and so on: 3 seeds each" in found["narrow"]["table 2"]
