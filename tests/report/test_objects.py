"""Pictures of objects: colours, outlines and grey where nothing is."""

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from tinyseg.report import objects
from tinyseg.report.objects import draw_objects, paint_objects


def two_cells():
    labels = np.zeros((30, 41), np.int32)
    labels[4:20, 5:18], labels[4:20, 18:33] = 1, 2
    return np.random.default_rng(0).integers(0, 256, labels.shape).astype(np.uint8), labels


def test_objects_have_colours_outlines_and_grey_around_them():
    image, labels = two_cells()
    painted = paint_objects(image, labels).astype(int)
    np.testing.assert_array_equal(painted[labels == 0], np.repeat(image[labels == 0][:, None], 3, axis=1))
    inner, edge = painted[6:18, 7:16], painted[4, 5:18]
    assert (edge == edge[0]).all() and np.ptp(edge[0]) > 150  # an outline has one colour, whatever lies below
    below = image[6:18, 7:16, None]
    np.testing.assert_allclose(inner, (1 - objects.OPACITY) * below + objects.OPACITY * edge[0], atol=1)
    assert np.abs(painted[10, 17] - painted[10, 18]).max() > 100  # two that touch have an outline each
    thick = paint_objects(image, labels, thickness=3)
    assert (thick[5, 6:16] == edge[0]).all() and (thick[labels == 0] == painted[labels == 0]).all()


def test_shapes_that_differ():
    with pytest.raises(ValueError, match=r"found \(30, 41\) and \(41, 30\)"):
        paint_objects(two_cells()[0], two_cells()[1].T)


@pytest.mark.parametrize(("count", "grid"), [(1, (1, 1)), (2, (1, 2)), (3, (2, 2)), (4, (2, 2))])
def test_sections_lie_side_by_side_with_their_counts(tmp_path, monkeypatch, count, grid):
    drawn = []
    monkeypatch.setattr(objects, "save", lambda figure, path: drawn.append(figure))
    image, labels = two_cells()
    draw_objects([image] * count, [labels] * count, [f"s{k}" for k in range(count)], tmp_path / "a.png")
    texts = [text.get_text() for text in drawn[0].findobj(Text)]
    assert [f"s{k}: 2 objects" for k in range(count)] == [text for text in texts if "objects" in text]
    assert drawn[0].axes[0].get_gridspec().get_geometry() == grid


def test_a_large_section_becomes_a_smaller_picture_with_outlines(tmp_path):
    labels = np.zeros((1500, 3000), np.uint16)
    labels[300:900, 300:2700] = 7
    draw_objects([np.zeros(labels.shape, np.uint8)], [labels], ["a.tif"], tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert 1000 < picture.width < 1100 and 500 < picture.height < 650
        line = np.asarray(picture.convert("RGB")).astype(int)[:, picture.width // 2]
    assert np.ptp(line, axis=1).max() > 140  # the outline: inside it is 76, and one pixel would nearly vanish
