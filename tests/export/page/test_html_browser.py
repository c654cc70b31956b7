"""segment.html in Chromium and Firefox, from a file and from a server: what people see, press and save."""

import time

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.export.page.browsers import ChromiumPage
from tests.export.page.looking import canvas, click, move, saved, says, serving, share, shares, show, text, until
from tests.export.page.pages import MIXED, THREE, flips, make_page, make_stack
from tinyseg.prediction.predictor import labels

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("place", ["file", "server"])
def test_a_stack_from_choosing_it_to_saving_its_masks(browser, tmp_path, place):
    predictor = make_page(tmp_path / "page.html", preprocessing=MIXED)
    stack = make_stack(tmp_path / f"{place}.tif", (4, 41, 52), "uint16")
    expected = np.stack([predictor(section) for section in stack])
    with serving(tmp_path) as (address, asked):
        show(browser, f"{address}/page.html" if place == "server" else (tmp_path / "page.html").as_uri())
        browser.choose("#file", tmp_path / f"{place}.tif")
        says(browser, r"Section 1: segmented in \d")
        assert shares(browser) == [[share(expected[0] > 0.5)] * 2]
        browser.press("ArrowRight")
        says(browser, r"Section 2: segmented in \d")
        assert text(browser, "#where") == "2 of 4"
        assert shares(browser) == [[share(expected[1] > 0.5), share(expected[:2] > 0.5)]]
        click(browser, "#run-all")
        says(browser, r"2 sections: segmented in \d")
        assert shares(browser) == [[share(expected[1] > 0.5), share(expected > 0.5)]]
        move(browser, "#threshold", 0.3)
        assert shares(browser) == [[share(expected[1] > 0.3), share(expected > 0.3)]]

        masks = tifffile.imread(saved(browser, "#save-masks", f"{place}_mask.tif"))
        assert masks.dtype == np.uint8 and masks.shape == stack.shape and set(np.unique(masks)) == {0, 255}
        assert sum(flips(m[None] / 255.0, e, 0.3) for m, e in zip(masks, expected, strict=True)) == 0
        p = tifffile.imread(saved(browser, "#save-probabilities", f"{place}_probability.tif"))
        assert p.dtype == np.float32
        np.testing.assert_allclose(p, expected[:, 0], rtol=0, atol=1e-4)
        np.testing.assert_array_equal(masks, 255 * (p > np.float32(0.3)))
        with Image.open(saved(browser, "#save-mask", f"{place}_section002_mask.png")) as mask:
            np.testing.assert_array_equal(np.asarray(mask), masks[1])
        one = tifffile.imread(saved(browser, "#save-probability", f"{place}_section002_probability.tif"))
        np.testing.assert_array_equal(one, p[1])
        table = saved(browser, "#save-table", f"{place}_shares.csv").read_text().splitlines()
        assert table[0] == 'section,"cell, pixels","cell, share"'
        counts = (masks > 0).sum(axis=(1, 2))
        assert table[1:] == [f"{k + 1},{n},{float(n / masks[0].size)}" for k, n in enumerate(counts)]
        assert browser.errors() == []
        assert asked == (["/page.html"] if place == "server" else [])


def test_the_page_cannot_connect_to_anything(browser, tmp_path):
    make_page(tmp_path / "page.html")
    (tmp_path / "image.png").write_bytes(b"")
    with serving(tmp_path) as (address, asked):
        show(browser, f"{address}/page.html")
        wait = "new Promise((ask) => { i.onload = i.onerror = () => ask(1); })"
        browser.evaluate(f"(() => {{ const i = new Image(); i.src = '{address}/image.png'; return {wait}; }})()")
        with pytest.raises(RuntimeError, match="The page says"):
            browser.evaluate(f"fetch('{address}/image.png').then((r) => r.status)")
        browser.evaluate(f"navigator.sendBeacon('{address}/image.png', 'secret')")
        inside = f"fetch('{address}/image.png').then(() => postMessage('sent'), () => postMessage('refused'))"
        worker = f"new Worker(URL.createObjectURL(new Blob([`{inside}`])))"
        assert browser.evaluate(f"new Promise((r) => {{ {worker}.onmessage = (e) => r(e.data); }})") == "refused"
        time.sleep(0.3)
        assert asked == ["/page.html"]


def test_several_classes(browser, tmp_path):
    predictor = make_page(tmp_path / "page.html", classes=THREE)
    image = make_stack(tmp_path / "three.tif", (1, 40, 57))[0]
    expected = predictor(image)
    mask = labels(expected)
    show(browser, (tmp_path / "page.html").as_uri())
    browser.choose("#file", tmp_path / "three.tif")
    says(browser, r"three\.tif: segmented in \d")
    assert shares(browser) == [[share(mask == k)] for k in range(3)]
    assert browser.evaluate("document.querySelector('#threshold-label').hidden")
    found = tifffile.imread(saved(browser, "#save-mask-tiff", "three_mask.tif"))
    assert found.dtype == np.uint8 and (found != mask).sum() == 0
    p = tifffile.imread(saved(browser, "#save-probability", "three_probability.tif"))
    np.testing.assert_allclose(p, expected, rtol=0, atol=1e-4)
    assert browser.errors() == []


def test_the_views_show_image_mask_probability_and_overlay(browser, tmp_path):
    predictor = make_page(tmp_path / "page.html")
    image = make_stack(tmp_path / "views.tif", (1, 38, 45))[0]
    p = predictor(image)[0]
    show(browser, (tmp_path / "page.html").as_uri())
    browser.choose("#file", tmp_path / "views.tif")
    says(browser, "segmented in")
    views = {}
    for name in ("image", "mask", "probability", "overlay", "outline"):
        click(browser, f'input[value="{name}"]')
        views[name] = canvas(browser).astype(int)
    np.testing.assert_array_equal(views["image"], np.repeat(image[..., None], 3, 2))
    np.testing.assert_array_equal(views["mask"], np.repeat(255 * (p > 0.5)[..., None], 3, 2))
    assert abs(views["probability"] - 255 * p[..., None]).max() <= 1
    tinted = (views["overlay"] != views["image"]).any(axis=2)
    assert (tinted & (p <= 0.5)).sum() == 0 and tinted[p > 0.5].mean() > 0.98  # a grey value may be the tint's
    outlined = (views["outline"] != views["image"]).any(axis=2)
    assert 0 < outlined.sum() < tinted.sum() and (outlined & (p <= 0.5)).sum() == 0
    move(browser, "#opacity", 0)
    click(browser, 'input[value="overlay"]')
    np.testing.assert_array_equal(canvas(browser), views["image"])


def test_another_scale_is_computed_anew(browser, tmp_path):
    predictor = make_page(tmp_path / "page.html")
    stack = make_stack(tmp_path / "scaled.tif", (2, 44, 58))
    show(browser, (tmp_path / "page.html").as_uri())
    browser.choose("#file", tmp_path / "scaled.tif")
    says(browser, "Section 1: segmented in")
    click(browser, "#run-all")
    until(browser, "document.querySelector('#run-all').hidden")
    says(browser, "segmented in")
    move(browser, "#scale", 0.5)
    # At once, nothing of the old scale is left: no share, no file to save.
    assert shares(browser) == [["–", "–"]] and browser.evaluate("document.querySelector('#save-masks').disabled")
    says(browser, "Section 1: segmented in")
    predictor.preparation.scale = np.array([0.5, 0.5])
    expected = predictor(stack[0])
    assert shares(browser)[0][0] == share(expected > 0.5)
    p = tifffile.imread(saved(browser, "#save-probability", "scaled_section001_probability.tif"))
    np.testing.assert_allclose(p, expected[0], rtol=0, atol=1e-4)
    move(browser, "#scale", 0)
    assert "The scale must be from 0.001 to 1000" in text(browser, "#error")
    browser.choose("#file", tmp_path / "scaled.tif")
    says(browser, "Section 1: segmented in")
    assert shares(browser)[0][0] == share(expected > 0.5)


def test_what_cannot_be_read_is_said_and_the_image_before_it_stays(browser, tmp_path):
    make_page(tmp_path / "page.html")
    make_stack(tmp_path / "good.tif", (1, 30, 41))
    (tmp_path / "notes.tif").write_bytes(b"no image " * 50)
    show(browser, (tmp_path / "page.html").as_uri())
    browser.choose("#file", tmp_path / "good.tif")
    says(browser, "segmented in")
    browser.choose("#file", tmp_path / "notes.tif")
    says(browser, "notes.tif", "#error")
    assert browser.evaluate("document.querySelector('#error').getAttribute('role')") == "alert"
    assert text(browser, "#status") == "good.tif is still open."
    move(browser, "#threshold", 0.4)
    saved(browser, "#save-mask", "good_mask.png")
    browser.choose("#file", tmp_path / "good.tif")
    says(browser, "segmented in")
    assert browser.evaluate("document.querySelector('#error').hidden")


def test_what_runs_can_be_cancelled_and_begun_again(browser, tmp_path):
    make_page(tmp_path / "page.html", width=24, levels=4)
    make_stack(tmp_path / "many.tif", (40, 200, 210))
    show(browser, (tmp_path / "page.html").as_uri())
    browser.choose("#file", tmp_path / "many.tif")
    says(browser, "Section 1: segmented in")
    click(browser, "#run-all")
    until(browser, "document.querySelector('#progress').value > 0.05")
    before = time.monotonic()
    assert browser.evaluate("document.querySelector('#progress').value") < 0.9
    click(browser, "#cancel")
    assert time.monotonic() - before < 5  # the page answers while it computes
    says(browser, r"Cancelled after \d+ of 39 sections")
    assert browser.evaluate("document.querySelector('#work').hidden")
    if isinstance(browser, ChromiumPage):
        assert browser.evaluate("crew.length") == 0  # the workers are ended
    time.sleep(0.6)
    says(browser, "Cancelled")  # nothing begins by itself
    browser.press("End")
    says(browser, r"Section 40: segmented in \d")
    assert browser.evaluate("document.querySelector('#stack-note').textContent").startswith("Stack: ")
