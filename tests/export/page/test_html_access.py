"""segment.html for everybody: by keyboard alone, on a phone, in the dark, read aloud."""

import pytest

from tests.export.page.looking import click, says, show, text, until
from tests.export.page.pages import THREE, make_page, make_stack

pytestmark = pytest.mark.slow
# The smallest ratio of luminances of a text and of what is behind it, over all visible texts, and that text.
CONTRAST = """
(() => {
  const luminance = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  let worst = [99, ""];
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.closest(":disabled, script, noscript")) continue;
    let behind = element;
    while (behind && numbers(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
    const pair = [getComputedStyle(element).color, getComputedStyle(behind || document.body).backgroundColor];
    const [a, b] = pair.map((colour) => luminance(numbers(colour)) + 0.05);
    const ratio = Math.max(a, b) / Math.min(a, b);
    if (ratio < worst[0]) worst = [ratio, element.outerHTML.slice(0, 200) + pair];
  }
  return worst;
})()
"""
# What can have the focus, as texts; of radio buttons the one that is chosen.
REACHABLE = """
[...document.querySelectorAll('button, input, select, summary, [tabindex="0"]')]
  .filter((e) => !e.disabled && (e.closest("label") || e).checkVisibility() && (e.type !== "radio" || e.checked))
  .map((e) => e.id || e.value || e.textContent)
"""
FOCUSED = "(({ activeElement: e }) => e.id || e.value || e.textContent)(document)"
RING = (
    "[document.activeElement, document.activeElement.closest('label')].filter(Boolean).map((e) => getComputedStyle(e))"
    ".some((style) => style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2)"
)


@pytest.fixture
def page(chromium, tmp_path):
    """A page with a stack of three sections, all of which are segmented."""
    make_page(tmp_path / "page.html", classes=THREE)
    make_stack(tmp_path / "stack.tif", (3, 60, 71))
    chromium.resize(1280, 900)
    chromium.set_media()
    show(chromium, (tmp_path / "page.html").as_uri())
    chromium.choose("#file", tmp_path / "stack.tif")
    says(chromium, "Section 1: segmented in")
    return chromium


def test_all_can_be_reached_and_used_by_keyboard(page, tmp_path):
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    expected, reached = set(page.evaluate(REACHABLE)), []
    for _ in range(2 * len(expected)):
        page.press("Tab")
        where = page.evaluate(FOCUSED)
        if where in expected:
            assert page.evaluate(RING), f"{where} has the focus, and it is not seen"
        reached.append(where)
    assert expected <= set(reached) and len(expected) > 15, expected - set(reached)

    while page.evaluate(FOCUSED) != "stage":
        page.press("Tab")
    page.press("ArrowRight")
    says(page, "Section 2: segmented in")
    page.press("End")
    says(page, "Section 3: segmented in")
    page.press("ArrowRight")
    assert text(page, "#where") == "3 of 3"
    page.press("Home")
    until(page, "document.querySelector('#where').textContent === '1 of 3'")
    while page.evaluate(FOCUSED) != "opacity":
        page.press("Tab")
    page.press("ArrowRight")  # moves the slider, not the stack
    assert text(page, "#opacity-value") == "0.45" and text(page, "#where") == "1 of 3"
    while page.evaluate(FOCUSED) != "save-mask":
        page.press("Tab")
    page.press("Enter")
    says(page, "Saved stack_section001_mask.png")
    while page.evaluate(FOCUSED) != "overlay":
        page.press("Tab", shift=True)
    page.press("ArrowRight")
    assert page.evaluate("document.querySelector('input[name=view]:checked').value") == "outline"


def test_all_that_can_be_used_has_a_name(page):
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = "button", "slider", "radio", "spinbutton", "combobox", "progressbar", "image", "DisclosureTriangle"
    named = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n.get("ignored")]
    used = [(role, name) for role, name in named if role in roles]
    assert len(used) > 20 and [role for role, name in used if not any(map(str.isalnum, name))] == []
    assert ("slider", "Section") in used and ("image", "stack.tif, section 1 of 3: overlay") in used
    assert page.evaluate("document.querySelector('#status').getAttribute('aria-live')") == "polite"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_what_is_behind_them(page, scheme):
    page.set_media(prefers_color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (min(map(int, background[4:-1].split(","))) > 200) == (scheme == "light")
    ratio, where = page.evaluate(CONTRAST)
    assert ratio >= 4.5, where


@pytest.mark.parametrize("width", [320, 360, 768])
def test_nothing_is_wider_than_a_phone(chromium, tmp_path, width):
    make_page(tmp_path / "page.html", classes=["background", "mitochondria and vesicles of any kind"])
    make_stack(tmp_path / "a-long-name-without-any-place-where-it-could-be-broken-in-two.tif", (2, 60, 400))
    chromium.resize(width, 740, mobile=True)
    show(chromium, (tmp_path / "page.html").as_uri())
    assert chromium.evaluate("getComputedStyle(document.querySelector('#camera-label')).display !== 'none'")
    fits = "document.documentElement.scrollWidth <= innerWidth && innerWidth"
    assert chromium.evaluate(fits) == width
    chromium.choose("#file", next(tmp_path.glob("*.tif")))
    says(chromium, "Section 1: segmented in")
    chromium.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert chromium.evaluate(fits) == width
    used = "[...document.querySelectorAll('button, .button, select')].filter((e) => e.checkVisibility())"
    small = f"{used}.filter((e) => e.offsetHeight < 40).length"
    assert chromium.evaluate(small) == 0  # for fingers
    click(chromium, "#one")
    assert chromium.evaluate(fits) == width  # the picture scrolls in its frame
    assert chromium.evaluate("document.querySelector('#stage').scrollWidth") == max(400, width - 32)
