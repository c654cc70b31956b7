"""The picture of a comparison: its bars, dots, diamonds and texts are where the numbers say."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread

from tinyseg.report.colours import BLUE, GREEN, ORANGE, PURPLE
from tinyseg.report.profile import picture
from tinyseg.report.profile.picture import comparison

NETWORKS = {
    "unet": {
        "parameters": 31_031_685,
        "multiply_adds": 54_605_774_848,
        "latency": {"median": 0.25, "lower_quartile": 0.24, "upper_quartile": 0.3},
        "dice": [0.95, 0.97],
        "paper": {"parameters": 31e6, "latency": 0.188, "dice": 0.985},
    },
    "sdunet": {
        "parameters": 3_902_593,
        "multiply_adds": 0,
        "latency": {"median": 0.04},
        "dice": [],
        "paper": {"parameters": 5e6},
    },
}


@pytest.fixture
def drawn(monkeypatch):
    """Return the figure of a comparison, without writing a file."""
    figures = []
    monkeypatch.setattr(picture, "save", lambda figure, path: figures.append(figure))

    def draw(networks, **options):
        comparison(networks, "nowhere.png", **options)
        return figures[-1]

    return draw


def texts(axes):
    return [t.get_text() for t in axes.texts]


def widths(axes):
    return [bar.get_width() for bar in axes.patches]


def test_bars_begin_at_0_and_have_their_values_beside_them(drawn):
    parameters, work, latency, _ = drawn(NETWORKS).axes
    assert widths(parameters) == pytest.approx([31.031685, 3.902593]) and texts(parameters) == ["31.0", "3.90"]
    assert widths(work) == pytest.approx([54.605774848, 0]) and texts(work) == ["54.6", "0"]
    assert widths(latency) == pytest.approx([250, 40]) and texts(latency) == ["250", "40.0"]
    for axes in (parameters, work, latency):
        assert all(bar.get_x() == 0 for bar in axes.patches) and axes.get_xlim()[0] == 0
    labels = [axes.get_xlabel().split("\n")[0] for axes in (parameters, work, latency)]
    assert labels == ["parameters (M)", "multiply-adds (G)", "inference (ms)"]
    assert [t.get_text() for t in parameters.get_yticklabels()] == ["unet", "sdunet"]
    assert parameters.get_ylim() == (1.5, -0.5)  # the first on top


def test_quartiles_are_a_line_and_the_papers_values_are_diamonds(drawn):
    figure = drawn(NETWORKS)
    parameters, work, latency, dice = figure.axes

    def diamonds(axes):
        return [line.get_xydata().tolist()[0] for line in axes.lines if line.get_marker() == "D"]

    assert [line.get_xdata().tolist() for line in latency.lines if line.get_marker() != "D"] == [
        pytest.approx([240, 300])
    ]
    assert diamonds(parameters) == [[31, 0], [5, 1]] and diamonds(work) == []
    assert diamonds(latency) == [[pytest.approx(188), 0]] and diamonds(dice) == [[0.985, 0]]
    assert len(figure.legends) == 1
    without = {name: {k: v for k, v in values.items() if k != "paper"} for name, values in NETWORKS.items()}
    assert drawn(without).legends == []


def test_dice_is_a_dot_for_each_seed_with_mean_and_deviation(drawn):
    dice = drawn(NETWORKS).axes[3]
    dots = [line for line in dice.lines if line.get_marker() == "o"]
    assert [line.get_xdata().tolist() for line in dots] == [[0.95, 0.97]]
    assert texts(dice) == [f"0.960 ± {np.std([0.95, 0.97], ddof=1):.3f}"]
    low, high = dice.get_xlim()
    assert low < 0.95 and high > 0.985 and not dice.patches


def test_values_do_not_lie_on_each_other_or_outside(drawn):
    figure = drawn(NETWORKS, title="input 1 x 1 x 256 x 256")
    FigureCanvasAgg(figure).draw()
    renderer = figure.canvas.get_renderer()
    everything = figure.bbox
    for axes in figure.axes:
        boxes = [t.get_window_extent(renderer) for t in axes.texts]
        boxes += [axes.xaxis.label.get_window_extent(renderer)]
        for box in boxes:
            assert everything.x0 <= box.x0 and box.x1 <= everything.x1 and everything.y0 <= box.y0
        for line in axes.lines:
            assert not any(line.get_window_extent(renderer).overlaps(box) for box in boxes)
        if axes.patches:
            assert all(box.x1 <= axes.bbox.x1 for box in boxes)
    labels = [axes.xaxis.label.get_window_extent(renderer) for axes in figure.axes]
    assert all(a.x1 < b.x0 for a, b in zip(labels, labels[1:], strict=False))


def test_only_what_there_is_gets_a_panel(drawn):
    assert len(drawn({"a": {"parameters": 10}, "b": {"parameters": 20_000, "dice": None}}).axes) == 1
    assert drawn({"a": {"latency": {"median": 12.0}}}).axes[0].get_xlabel().startswith("inference (s)")
    with pytest.raises(ValueError, match="at least one network with parameters"):
        comparison({"a": {"dice": []}}, "nowhere.png")


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_file_is_written_in_its_format(tmp_path, ending):
    path = tmp_path / f"models.{ending}"
    comparison(NETWORKS, path)
    if ending == "svg":
        assert b"<svg" in path.read_bytes()[:1000]
        return
    pixels = np.rint(imread(path)[..., :3] * 255).astype(int)
    for color in (BLUE, ORANGE, GREEN):
        assert (pixels == [int(color[i : i + 2], 16) for i in (1, 3, 5)]).all(-1).mean() > 0.01
    assert PURPLE not in (BLUE, ORANGE, GREEN)


def test_a_missing_folder_gets_a_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        comparison(NETWORKS, tmp_path / "no" / "models.png")
