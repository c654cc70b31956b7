"""The table, row by row: names, shapes, parameters, what is held; sums; its text."""

import json

import numpy as np

import tinyseg as ts
from tinyseg import nn, ops
from tinyseg.report import profile


def quiet(model, shape, **options):
    return profile.summary(model, shape, show=False, **options)


def test_rows_name_the_layers_with_shapes_and_parameters(capsys):
    found = quiet(ts.models.build("sdunet", width=4), (2, 1, 32, 48))
    rows = {row.name: row for row in found.rows if not row.is_op}
    assert rows["encoder.2.convs.1"].output == (2, 16, 8, 12)
    assert rows["encoder.2.convs.1"].kind == "SeparableConv2d" and rows["encoder.2.convs.1"].depth == 2
    assert rows["encoder.2.convs.1"].parameters == 9 * 16 + 16 * 16 + 16
    assert rows["encoder.2.convs.1"].multiply_adds == (9 * 16 + 16 * 16) * 2 * 8 * 12
    assert rows["decoder.3.conv"].output == rows["decoder.3"].output == (2, 4, 32, 48)
    assert rows["encoder.4.norm"].parameters == 2 * 64 and rows["encoder.4"].parameters == 0
    assert [row.output for row in found.rows if row.is_op] == [
        (2, 4, 16, 24), (2, 8, 8, 12), (2, 16, 4, 6), (2, 32, 2, 3)
    ]  # fmt: skip
    assert found.rows[-1].name == "head" and found.rows[-1].output == (2, 1, 32, 48)
    assert capsys.readouterr().out == ""


def test_rows_add_up_to_the_same_totals_at_every_depth():
    model = ts.models.build("unet_dw_bn", width=4, head="paper")
    full, *folded = (quiet(model, (1, 1, 32, 48), depth=depth) for depth in (None, 0, 1, 2, 3))
    for found in (full, *folded):
        assert sum(row.parameters for row in found.rows) == found.parameters == model.num_parameters()
        assert sum(row.multiply_adds for row in found.rows) == full.multiply_adds > 1e6
        assert sum(row.activations for row in found.rows) == full.activations > 1e5
        assert found.weights == 4 * model.num_parameters()
    assert [max(row.depth for row in found.rows) for found in (full, *folded)] == [3, 0, 1, 2, 3]
    assert [row.kind for row in folded[0].rows] == ["UNet"]


class Shared(nn.Module):
    """One layer called twice, one never; a parameter of its own."""

    def __init__(self):
        self.scale = nn.Parameter(np.ones(1, np.float32))
        self.conv, self.unused = nn.Conv2d(2, 2, 3, padding=1), nn.PointwiseConv2d(7, 3)

    def forward(self, x):
        return self.conv(self.conv(x)) * self.scale


def test_shared_and_unused_parameters_are_counted_once():
    model = Shared()
    model.conv.bias.requires_grad = False
    found = quiet(model, (1, 2, 5, 4))
    assert [(row.name, row.parameters) for row in found.rows] == [("", 1 + 24), ("conv", 38), ("conv", 0), ("", 0)]
    assert found.parameters == model.num_parameters() == 63
    assert found.trainable == 61 and "63, 61 of them trainable" in str(found)
    assert [row.multiply_adds for row in found.rows] == [0, 36 * 20, 36 * 20, 0]


def test_activations_are_the_arrays_that_the_graph_holds_each_once():
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1, activation="relu"),  # keeps the input (not counted here) and its output
        nn.Conv2d(3, 5, 3, padding=1, activation="relu"),  # its input is counted already: its output
        nn.MaxPool2d(2),  # a byte an output
        nn.PointwiseConv2d(5, 2),  # its input
        nn.Dropout(0.5),  # a mask
    )
    found = quiet(model, (2, 1, 6, 8))
    pixels = 2 * 6 * 8
    expected = [0, 4 * 3 * pixels, 4 * 5 * pixels, 5 * pixels // 4, 4 * 5 * pixels // 4, 4 * 2 * pixels // 4]
    assert [row.activations for row in found.rows] == expected
    assert found.input == 4 * pixels


def test_views_are_not_held_twice_and_what_nobody_needs_is_not_held():
    class Turns(nn.Module):
        def __init__(self):
            self.first = nn.Conv2d(1, 3, 1, activation="relu")
            self.second, self.last = nn.PointwiseConv2d(3, 2), nn.Sequential(nn.PointwiseConv2d(3, 4), nn.Dropout(0.5))

        def forward(self, x):
            x = self.first(x)
            self.last(x)  # and then forgotten
            return self.second(ops.transpose(x, (0, 1, 3, 2)))

    with ts.using(kernels="reference"):
        found = quiet(Turns(), (2, 1, 6, 8))
    assert isinstance(ops.transpose(np.ones((1, 1, 6, 8)), (0, 1, 3, 2)).data.base, np.ndarray)
    assert found.activations == 4 * 3 * 2 * 6 * 8


def test_what_is_held_does_not_depend_on_what_ran_before():
    """The arena hands out memory that is up to half as large again."""
    first = [quiet(ts.models.build("sdunet", width=16), (1, 1, size, 64)).activations for size in (64, 80, 64)]
    assert first[0] == first[2] < first[1]


def test_several_outputs_and_modules_without_parameters():
    class Two(nn.Module):
        def forward(self, x):
            return ops.relu(x), ops.max_pool2d(x, 2)

    found = quiet(Two(), (1, 2, 4, 6))
    assert found.rows[0].output == ((1, 2, 4, 6), (1, 2, 2, 3)) and found.parameters == found.activations == 0
    assert "1 x 2 x 4 x 6, 1 x 2 x 2 x 3" in str(found)


# ----- as text -----------------------------------------------------------------------------
def test_the_table_is_printed_unless_told_not_to(capsys):
    found = profile.summary(ts.models.build("sdunet", width=4), (1, 1, 32, 32))
    text = capsys.readouterr().out
    assert text == f"{found}\n"
    lines = text.splitlines()
    assert lines[0] == "SDUNet, input 1 x 1 x 32 x 32"
    assert lines[2].split() == ["layer", "kind", "output", "parameters", "multiply-adds", "kept", "MB"]
    conv = next(line for line in lines if line.startswith("  convs.0"))
    assert conv.split()[:9] == ["convs.0", "Conv2d", "1", "x", "4", "x", "32", "x", "32"]
    assert conv.split()[9:] == ["40", "36.86", "k", "0.0"]
    found = quiet(ts.models.build("unet", width=8), (1, 1, 32, 32))
    text, weights = str(found), found.weights / 1e6
    assert weights > 1
    assert f"{weights:.1f} MB; with Adam's moments {3 * weights:.1f}, with gradients too {4 * weights:.1f}" in text


def test_as_dict_goes_through_json():
    found = quiet(ts.models.build("sdunet", width=4), (1, 1, 32, 32))
    again = json.loads(json.dumps(found.as_dict()))
    assert again["multiply_adds"] == found.multiply_adds == sum(row["multiply_adds"] for row in again["rows"])
    assert again["rows"][2]["name"] == "encoder.0.convs.0" and again["weights"] == found.weights
