"""Drawn graphs and recorded visits are compared with what the engine does; boxes and words do not overlap."""

import io

import matplotlib
import numpy as np
import pytest
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from PIL import Image

from tinyseg import Tensor, autograd, ops
from tinyseg.learn.graph_picture import GraphPicture, draw_graph, trace_backward
from tinyseg.learn.teaching import BLUE, GREY, ORANGE, style


def leaf(value):
    return Tensor(np.asarray(value, float), requires_grad=True)


def example():
    """(w x - 4)² + w² at w = 3, x = 2: w is used twice."""
    w, x = leaf(3), leaf(2)
    u = w * x
    e = u - 4.0
    return e**2 + w**2, {"w": w, "x": x, "u": u, "e": e}


def texts(picture):
    return [text.get_text() for text in picture.axes.texts]


def boxes(picture):
    return [patch for patch in picture.axes.patches if isinstance(patch, FancyBboxPatch)]


def colours(picture):
    arrows = [patch for patch in picture.axes.patches if isinstance(patch, FancyArrowPatch)]
    return [matplotlib.colors.to_hex(arrow.get_edgecolor()).upper() for arrow in arrows]


# ----- trace_backward ----------------------------------------------------------
def test_a_trace_holds_what_the_engine_did():
    L, names = example()
    nodes = {name: t.creator for name, t in names.items()}
    visits = trace_backward(L)
    w, x = names["w"], names["x"]
    assert (w.grad, x.grad) == (14, 12)
    by_node = {visit.node: visit for visit in visits}
    assert len(by_node) == len(visits) == 5
    assert visits[0].gy == 1
    assert by_node[nodes["e"]].gy == by_node[nodes["u"]].gy == 4
    assert by_node[nodes["u"]].gxs == (8, 12)
    assert by_node[nodes["e"]].gxs == (4, None)  # a constant is subtracted
    assert visits.index(by_node[nodes["e"]]) < visits.index(by_node[nodes["u"]])


def test_a_trace_takes_a_cotangent_and_changes_no_gradient():
    gy = np.array([1.0, 10, 100])
    grads = []
    for run in (Tensor.backward, trace_backward):
        x = leaf([1, 2, 3])
        s = x * x
        run(s * s + s, gy)
        grads.append(x.grad)
    assert (grads[0] == grads[1]).all()


def test_noted_gradients_are_copies():
    class Twice(autograd.Function):
        def forward(self, x):
            return 2 * x

        def backward(self, gy):
            gy *= 2  # a mistake that the trace must show as it is, not share
            return gy

    x = leaf([1, 2])
    first, last = trace_backward(Twice()(x * 3.0), np.ones(2))
    x.grad[:] = 7
    assert (first.gy == 1).all() and (first.gxs[0] == 2).all()
    assert (last.gy == 2).all() and (last.gxs[0] == 6).all()


def test_nodes_are_themselves_again_when_backward_fails():
    class Wrong(autograd.Function):
        def forward(self, x):
            return x

        def backward(self, gy):
            return None

    y = Wrong()(leaf(1))
    with pytest.raises(RuntimeError, match=r"Wrong.backward: expected a float64 gradient of shape \(\), found none"):
        trace_backward(y)
    assert "backward" not in vars(y.creator)


# ----- draw_graph --------------------------------------------------------------
def test_the_picture_shows_nodes_leaves_values_and_no_constant():
    L, names = example()
    words = texts(draw_graph(L, names))
    assert sorted(words) == sorted(
        ["w = 3", "x = 2", "Multiply", "u = 6", "Subtract", "e = 2", "Power", "Power", "Add", "13"]
    )


def test_the_picture_shows_arrows_for_every_use_and_does_not_touch_the_graph():
    x = leaf(2)
    s = x * x
    y = s * s
    picture = draw_graph(y, {"x": x})
    assert colours(picture) == [GREY] * 4
    assert len(boxes(picture)) == 3
    y.backward()
    assert x.grad == 32


def test_gradients_appear_visit_by_visit_and_add_up():
    L, names = example()
    picture = draw_graph(L, names)
    before = len(texts(picture))
    visits = trace_backward(L)
    picture.draw([])
    assert len(texts(picture)) == before
    picture.draw(visits[:1])
    assert texts(picture).count("grad = 1") == 3  # Add, and what it sent to both Powers
    assert colours(picture).count(BLUE) == 2
    picture.draw(visits)
    for words in ("grad = 14", "8", "6", "12"):
        assert words in texts(picture)
    assert set(colours(picture)) == {BLUE}
    assert "grad = 8" not in texts(picture) and "grad = 6" not in texts(picture)
    picture.draw(visits[:-1])
    assert ("grad = 8" in texts(picture)) != ("grad = 6" in texts(picture))  # whichever came first, alone


def test_only_the_last_visited_node_is_marked():
    L, names = example()
    picture = draw_graph(L, names)
    visits = trace_backward(L)
    for k in range(len(visits) + 1):
        picture.draw(visits[:k])
        orange = [b for b in boxes(picture) if matplotlib.colors.to_hex(b.get_edgecolor()).upper() == ORANGE]
        assert len(orange) == (k > 0)
        if k:
            assert orange[0].get_x() < picture.x[visits[k - 1].node] < orange[0].get_x() + orange[0].get_width()


def test_without_visits_the_gradients_are_those_of_the_tensors():
    L, names = example()
    names["u"].retain_grad()
    picture = draw_graph(L, names)
    L.backward()
    picture.draw()
    shown = {words for words in texts(picture) if words.startswith("grad")}
    assert shown == {"grad = 4", "grad = 14", "grad = 12"}  # u, w, x: the others keep none


def residual(depth):
    h = leaf(0.5)
    for _ in range(depth):
        h = h + ops.sigmoid(h * h)
    return h


def convolutions():
    x, w = leaf(np.ones((1, 2, 6, 5))), leaf(np.ones((2, 3, 3)))
    h = ops.depthwise_conv2d(x, w, padding=1)
    return (ops.concat([ops.relu(h), h]) * 2.0).mean()


@pytest.mark.parametrize("make", [lambda: example()[0], lambda: residual(3), convolutions, lambda: leaf(1) * 2.0])
def test_boxes_do_not_overlap_words_stay_inside_and_arrows_go_right(make):
    y = make()
    picture = draw_graph(y)
    picture.draw(trace_backward(y))
    picture.figure.canvas.draw()
    (left, right), (bottom, top) = picture.axes.get_xlim(), picture.axes.get_ylim()
    rectangles = [(b.get_x(), b.get_y(), b.get_x() + b.get_width(), b.get_y() + b.get_height()) for b in boxes(picture)]
    for k, a in enumerate(rectangles):
        assert left <= a[0] and a[2] <= right and bottom <= a[1] and a[3] <= top
        for b in rectangles[:k]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    to_inches = picture.axes.transData.inverted()
    for text in picture.axes.texts:
        assert text.get_fontsize() >= 9
        (x0, y0), (x1, y1) = to_inches.transform(text.get_window_extent().get_points())
        inside = [a[0] < x0 and x1 < a[2] and a[1] < y0 and y1 < a[3] for a in rectangles]
        outside = [x1 < a[0] or a[2] < x0 or y1 < a[1] or a[3] < y0 for a in rectangles]
        assert any(inside) or all(outside), text.get_text()
    for parent, node, _ in picture.edges:
        assert picture.x[parent] < picture.x[node]


def test_large_arrays_are_shown_by_shape_and_their_gradients_by_norm():
    x = leaf(np.zeros((3, 4)))
    y = (x * 2.0).sum()
    picture = draw_graph(y, {"x": x})
    assert "x = (3, 4)" in texts(picture)
    picture.draw(trace_backward(y))
    assert "|grad| = 6.93" in texts(picture)  # 2 √12
    v = leaf([1, 2.5])
    y = v.sum()
    picture = draw_graph(y, {"v": v})
    assert "v = [1 2.5]" in texts(picture)
    picture.draw(trace_backward(y))
    assert "grad = [1 1]" in texts(picture)


def test_a_leaf_alone_is_a_graph_of_one():
    x = leaf(2)
    assert texts(draw_graph(x, {"x": x})) == ["x = 2"]
    assert trace_backward(x) == [] and x.grad == 1


def test_a_graph_that_is_not_there_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="no graph behind this tensor"):
        draw_graph(Tensor(np.ones(2)) * 2.0)
    L, _ = example()
    L.backward()
    for use in (draw_graph, trace_backward, lambda t: GraphPicture(t, {})):
        with pytest.raises(ValueError, match="before backward"):
            use(L)


def test_a_picture_can_be_saved_again_under_the_style_of_the_notebooks():
    style()
    L, names = example()
    picture = draw_graph(L, names)
    sizes = []
    for _ in range(2):  # warnings are errors
        buffer = io.BytesIO()
        picture.figure.savefig(buffer, format="png")
        sizes.append(Image.open(buffer).size)
    assert sizes[0] == sizes[1]
