"""The things to play with, in a browser: what a slider, a key or a finger does, and that the numbers are tinyseg's."""

import pathlib
import re

import numpy as np
import pytest

from tests.export.page.browsers import ChromiumPage
from tests.export.page.looking import says, until
from tests.export.page.test_html_access import CONTRAST
from tinyseg import Tensor, models, ops
from tinyseg.export.page.html import write_html
from tinyseg.models import checkpoint
from tinyseg.models.size import fewest_weights, least_memory
from tinyseg.report.profile import summary

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = sorted(path.stem for path in (ROOT / "docs" / "_static" / "play").glob("*.js") if path.stem != "common")
HTML = """<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{name}</title><body data-theme="{theme}" style="margin: 0; {colours}">{body}"""
COLOURS = {  # of the theme, where the site is dark
    "light": "background: #fff; color: #000",
    "dark": "background: #131416; color: #cfd0d0; --color-foreground-primary: #cfd0d0;"
    "--color-foreground-secondary: #9ca0a5; --color-background-primary: #131416; --color-background-secondary: #1a1c1e;"
    "--color-background-border: #303335; --color-brand-primary: #3d94ff",
}


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    page = ChromiumPage(tmp_path_factory.mktemp("chromium"))
    yield page
    page.close()


@pytest.fixture
def show(chromium, tmp_path):
    """Open a page's thing to play with, as the site has it; return the browser."""

    def open_page(name, theme="light", width=900, mobile=False):
        text = (ROOT / "docs" / "play" / f"{name}.md").read_text(encoding="utf-8")
        body = re.search(r"```\{raw\} html\n(.*?)```", text, re.S)[1]
        body = body.replace("../_static", (ROOT / "docs" / "_static").as_uri())
        html = HTML.format(name=name, theme=theme, colours=COLOURS[theme], body=body)
        (tmp_path / f"{name}.html").write_text(html, encoding="utf-8")
        chromium.resize(width, 1000, mobile)
        chromium.open((tmp_path / f"{name}.html").as_uri())
        return chromium

    return open_page


def value(page, selector):
    """Return the number that is shown somewhere, unrounded."""
    return float(page.evaluate(f"document.querySelector('{selector}').dataset.value"))


def focus(page, selector):
    page.evaluate(f"document.querySelector('{selector}').focus()")


def press(page, *keys):
    for key in keys:
        page.press(key)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_in_both_themes_and_on_a_phone(show, name):
    for theme in COLOURS:
        page = show(name, theme)
        assert page.errors() == []
        ratio, where = page.evaluate(CONTRAST)
        assert ratio >= 4.5, where
        unnamed = "[...document.querySelectorAll('input, select, [tabindex], canvas')]"
        named = ".filter((e) => !e.closest('label') && !e.getAttribute('aria-label')).map((e) => e.outerHTML)"
        assert page.evaluate(unnamed + named) == []
    page = show(name, width=360, mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    small = (
        "[...document.querySelectorAll('button, select, input')].filter((e) => e.getBoundingClientRect().height < 24)"
    )
    assert page.evaluate(f"{small}.map((e) => e.id)") == []


def costs_of(kind, width, levels, size):
    """Return what tinyseg says of a network: parameters, multiply-adds, receptive field, memory."""
    network = models.build(kind, in_channels=1, num_classes=1, width=width, levels=levels)
    total = summary(network, (1, 1, size, size), show=False).multiply_adds
    options = {"stem_layers": 1 if kind == "sdunet" else 2, "bottleneck_layers": 2}
    weights = fewest_weights(1, 1, width, levels, kind in ("sdunet", "unet_dw_gn"), **options)
    return {
        "parameters": network.num_parameters(), "multiply_adds": total,
        "receptive_field": 2 * network.receptive_radius + 1,
        "inference_bytes": least_memory(weights, width, size**2, False),
        "training_bytes": least_memory(weights, width, size**2, True),
    }  # fmt: skip


def test_what_a_network_costs_is_what_tinyseg_says(show):
    page = show("network")
    for kind, width, levels, size in (
        ("sdunet", 8, 5, 64),
        ("sdunet", 4, 2, 64),
        ("unet", 4, 3, 64),
        ("unet_gn", 8, 4, 128),
        ("unet_dw_gn", 16, 4, 64),
    ):
        found = page.evaluate(f"play.costs({{kind: '{kind}', width: {width}, levels: {levels}, size: {size}}})")
        assert {name: found[name] for name in found if name != "levels"} == costs_of(kind, width, levels, size)
    before = costs_of("sdunet", 64, 5, 256)["parameters"]
    assert value(page, "#network-parameters") == before
    focus(page, "#network-width")
    press(page, "ArrowLeft", "ArrowLeft")
    focus(page, "#network-levels")
    press(page, "ArrowRight")
    focus(page, "#network-size")
    press(page, "ArrowLeft", "ArrowLeft")
    expected = costs_of("sdunet", 16, 6, 64)
    for name, number in expected.items():
        assert value(page, f"#network-{name}") == number
    assert page.evaluate("document.querySelector('#network-parameters').textContent") == f"{expected['parameters']:,}"


def test_a_norm_of_the_page_is_tinysegs(show):
    page = show("norms")
    batch = np.array([page.evaluate(f"play.norms.image({seed})") for seed in (11, 1001, 1002)])[:, :, None]
    found = page.evaluate("play.norms.batchNorm([11, 1001, 1002].map(play.norms.image))")
    right = ops.batch_norm(Tensor(batch), None, None, training=True).data
    np.testing.assert_allclose(np.array(found), right[0, :, 0], atol=1e-9)
    for groups in (1, 4):
        found = page.evaluate(f"play.norms.groupNorm(play.norms.image(11), {groups})")
        np.testing.assert_allclose(np.array(found), ops.group_norm(Tensor(batch[:1]), groups).data[0, :, 0], atol=1e-9)


def test_a_larger_batch_lets_batch_norm_depend_on_others(show):
    page = show("norms")
    two = value(page, "#norms-batch-spread")
    assert two > 0.05 and value(page, "#norms-group-spread") == 0
    focus(page, "#norms-batch")
    press(page, "ArrowLeft")
    assert value(page, "#norms-batch-spread") == pytest.approx(0, abs=1e-12)  # alone, it depends on nobody
    press(page, "End")
    assert 0 < value(page, "#norms-batch-spread") < two
    before = page.evaluate("document.querySelector('#norms-picture-1').toDataURL()")
    page.evaluate("document.querySelector('#norms-again').click()")
    assert page.evaluate("document.querySelector('#norms-picture-1').toDataURL()") != before


def test_a_standardized_filter_is_tinysegs(show):
    page = show("standardization")
    filter = page.evaluate("[...document.querySelectorAll('.grid input')].map((e) => Number(e.value))")
    v = np.array(filter).reshape(1, 3, 3)
    page.evaluate("document.querySelector('#ws-per').value = 'filter'")
    page.evaluate("document.querySelector('#ws-per').dispatchEvent(new Event('change'))")
    right = ops.weight_standardization(Tensor(v), per="filter").data
    np.testing.assert_allclose(page.evaluate(f"play.standardize({filter}, 'filter')"), right.ravel(), atol=1e-9)
    assert value(page, "#ws-sum-before") == pytest.approx(1) and value(page, "#ws-sum-after") == pytest.approx(0)
    page.evaluate("document.querySelector('#ws-edge').click()")
    assert value(page, "#ws-sum-before") == pytest.approx(0)
    focus(page, "#ws-cell-4")
    press(page, "ArrowUp")  # 0.05 more
    assert value(page, "#ws-sum-before") == pytest.approx(0.05)


def drag(page, selector, *places, touch=False):
    """Drag over an element, between places that are fractions of its height and width."""
    script = "(({ x, y, width, height }) => [x, y, width, height])"
    x, y, width, height = page.evaluate(f"{script}(document.querySelector('{selector}').getBoundingClientRect())")
    points = [(x + b * width, y + a * height) for a, b in places]
    kinds = ["mousePressed", *["mouseMoved"] * (len(points) - 1)]
    for kind, (u, v) in zip(kinds, points, strict=True):
        if touch:
            name = {"mousePressed": "touchStart", "mouseMoved": "touchMove"}[kind]
            page.call("Input.dispatchTouchEvent", type=name, touchPoints=[{"x": u, "y": v}])
        else:
            page.call("Input.dispatchMouseEvent", type=kind, x=u, y=v, button="left", buttons=1, clickCount=1)
    if touch:
        page.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    else:
        page.call("Input.dispatchMouseEvent", type="mouseReleased", x=u, y=v, button="left", buttons=0, clickCount=1)


def test_a_kernel_is_moved_by_keys_by_the_mouse_and_by_a_finger(show):
    page = show("convolution")
    products = "document.querySelector('#convolution-products').textContent"
    words = "document.querySelector('#convolution-count').textContent"
    assert page.evaluate(products) == "30"
    focus(page, "#convolution-stage")
    press(page, "ArrowRight", "ArrowDown", "ArrowDown")
    assert page.evaluate(products) == "120" and page.evaluate(words).startswith("Row 8, column 7:")
    x = np.array(page.evaluate("play.convolution.image"))[None]
    w = np.array(page.evaluate("play.convolution.kernels['left to right']")).reshape(3, 3)
    d = ops.depthwise_conv2d(Tensor(x), np.stack([w] * 3))
    y = ops.pointwise_conv2d(d, np.array([[0.5, 1, -0.5]])).data[0, 0]
    assert value(page, "#convolution-y-here") == pytest.approx(y[7, 6])
    drag(page, "#convolution-x-1", (0.5, 0.5), (0.5, 0.9))
    assert page.evaluate(words).startswith("Row 9, column 16:")
    assert value(page, "#convolution-y-here") == pytest.approx(y[8, 15])
    page = show("convolution", width=360, mobile=True)
    drag(page, "#convolution-x-0", (0.1, 0.1), (0.3, 0.3), touch=True)
    assert page.evaluate(words).startswith("Row 5, column 5:")


def test_the_count_of_products_follows_the_sliders(show):
    page = show("convolution")
    assert value(page, "#convolution-standard") == 9 * 64 * 64
    focus(page, "#convolution-c")
    press(page, "ArrowRight")
    focus(page, "#convolution-side")
    press(page, "ArrowRight")
    assert value(page, "#convolution-standard") == 25 * 128 * 64
    assert value(page, "#convolution-separable") == 25 * 128 + 128 * 64


def test_a_graph_is_clicked_together_and_its_gradients_are_the_engines(show):
    page = show("graph")

    def node(k, what):
        return float(page.evaluate(f"document.querySelector('#graph-node-{k}').dataset.{what}"))

    page.evaluate("document.querySelector('#graph-node-5').dispatchEvent(new Event('click'))")
    focus(page, "#graph-node-2")
    press(page, "Enter")
    assert page.evaluate("document.activeElement.id") == "graph-node-2"
    for op in ("multiply", "sigmoid"):
        page.evaluate(f"document.querySelector('#graph-{op}').click()")
    focus(page, "#graph-c")
    press(page, *["ArrowRight"] * 9)  # c = -0.1
    a, b, c = (Tensor(np.array([v]), requires_grad=True) for v in (2.0, 3.0, -0.1))
    square = ops.multiply(a, a)
    y = ops.sigmoid(ops.multiply(ops.add(ops.multiply(square, b), square), c))
    y.backward()
    assert node(7, "value") == pytest.approx(y.item())
    steps = 0
    while not page.evaluate("document.querySelector('#graph-step').disabled"):
        page.evaluate("document.querySelector('#graph-step').click()")
        steps += 1
    assert steps == 5
    for k, leaf in enumerate((a, b, c)):
        assert node(k, "gradient") == pytest.approx(leaf.grad[0])
    words = page.evaluate("document.querySelector('#graph-words').textContent")
    gradients, quotients = re.findall(r": (.*?)\.(?: |$)(?=Diff|$)", words)
    assert gradients == quotients
    page.evaluate("document.querySelector('#graph-undo').click()")
    assert page.evaluate("play.graph.nodes.length") == 7 and page.errors() == []


def test_the_page_of_the_trained_network_is_small_and_finds_membranes(chromium, tmp_path):
    network = checkpoint.load(ROOT / "docs" / "play" / "membranes.safetensors")
    page, example = tmp_path / "membranes.html", ROOT / "docs" / "play" / "membranes.png"
    write_html(page, network, example=example)
    assert page.stat().st_size < 2e6
    chromium.resize(900, 1000)
    chromium.open(page.as_uri())
    until(chromium, "!document.querySelector('#example').hidden")
    chromium.evaluate("document.querySelector('#example').click()")
    says(chromium, "segmented in")
    assert chromium.errors() == []
