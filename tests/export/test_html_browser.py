"""segment.html in Chromium and Firefox, from a file and from a server: what people see, press and save."""

import contextlib
import functools
import http.server
import io
import re
import threading
import time

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.export.browsers import BROWSERS, ChromiumPage
from tests.export.pages import MIXED, MODALITIES, flips, make_brain, make_page, make_stack
from tests.scripts import REAL
from tinyseg.prediction.predictor import labels

pytestmark = pytest.mark.slow
THREE = ["background", "cell", "membrane"]


@pytest.fixture(scope="module", params=BROWSERS)
def browser(request, tmp_path_factory):
    page = BROWSERS[request.param](tmp_path_factory.mktemp(request.param))
    yield page
    page.close()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    page = ChromiumPage(tmp_path_factory.mktemp("chromium"))
    yield page
    page.close()


@contextlib.contextmanager
def serving(folder):
    """Serve a folder on this computer; give (address, list of what was asked for)."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def until(browser, condition, seconds=60):
    """Wait until a condition in JavaScript holds."""
    end = time.monotonic() + seconds
    while not browser.evaluate(condition):
        assert time.monotonic() < end, f"{condition} did not come true: {browser.evaluate('document.body.innerText')}"
        time.sleep(0.05)


def text(browser, selector):
    return browser.evaluate(f"document.querySelector({selector!r}).textContent")


def click(browser, selector):
    browser.evaluate(f"document.querySelector({selector!r}).click()")


def says(browser, pattern, selector="#status"):
    until(browser, f"/{pattern}/.test(document.querySelector({selector!r}).textContent)")


def show(browser, address):
    browser.open(address)
    says(browser, "The network is ready")


def move(browser, selector, value):
    """Set a slider or a field, as a person does: with the events of both."""
    browser.evaluate(
        f"((e) => {{ e.value = {value}; for (const kind of ['input', 'change']) e.dispatchEvent(new Event(kind, "
        f"{{ bubbles: true }})); }})(document.querySelector({selector!r}))"
    )


def saved(browser, selector, name):
    """Click on a button, and return the path of the file that it saves."""
    click(browser, selector)
    says(browser, f"Saved {re.escape(name)}")
    path = browser.downloads / name
    for _ in range(100):
        if path.exists() and path.stat().st_size:
            return path
        time.sleep(0.05)
    raise AssertionError(f"{name} was not saved, but {[file.name for file in browser.downloads.iterdir()]}")


def share(mask):
    return f"{100 * mask.mean():.2f} %"


def shares(browser):
    """What the table says: a list of columns for each class."""
    columns = "[...row.querySelectorAll('td')].map((cell) => cell.textContent)"
    return browser.evaluate(f"[...document.querySelectorAll('#shares tr')].map((row) => {columns})")


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


def canvas(browser):
    """The pixels on the screen, uint8 (H, W, 3)."""
    script = (
        "(() => { const c = document.querySelector('#canvas'), { width: w, height: h } = c;"
        "return [h, w, ...c.getContext('2d').getImageData(0, 0, w, h).data]; })()"
    )
    height, width, *values = browser.evaluate(script)
    return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]


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


def test_several_workers_share_a_stack(chromium, tmp_path):
    preprocessing = {"scale": [0.8, 0.8], "standardize": "stack"}
    predictor = make_page(tmp_path / "page.html", preprocessing=preprocessing)
    stack = make_stack(tmp_path / "shared.tif", (9, 61, 40))
    predictor.take_statistics(stack[:, None])
    show(chromium, (tmp_path / "page.html").as_uri())
    chromium.evaluate("Object.defineProperty(navigator, 'hardwareConcurrency', { value: 8 }); started = 0")
    chromium.evaluate("Worker = class extends Worker { constructor(address) { super(address); started++; } }; 0")
    chromium.choose("#file", tmp_path / "shared.tif")
    says(chromium, "Section 1: segmented in")
    click(chromium, "#run-all")
    says(chromium, "8 sections: segmented in")
    assert chromium.evaluate("started") == 3  # beside the one that was there
    p = tifffile.imread(saved(chromium, "#save-probabilities", "shared_probability.tif"))
    np.testing.assert_allclose(p, np.concatenate([predictor(section) for section in stack]), rtol=0, atol=1e-4)


def test_the_example_and_a_dropped_picture(browser, tmp_path):
    image = make_stack(tmp_path / "stack.tif", (1, 33, 47))[0]
    Image.fromarray(image).save(tmp_path / "try me.png")
    predictor = make_page(tmp_path / "page.html", example=tmp_path / "try me.png")
    show(browser, (tmp_path / "page.html").as_uri())
    click(browser, "#example")
    says(browser, r"try me\.png: segmented in \d")
    assert shares(browser) == [[share(predictor(image) > 0.5)]]
    content = io.BytesIO()
    Image.fromarray(np.repeat(image[..., None], 3, 2)).save(content, "JPEG", quality=95)
    decoded = np.asarray(Image.open(content).convert("L"))
    (tmp_path / "photo.jpg").write_bytes(content.getvalue())
    drop_files(browser, [tmp_path / "photo.jpg"])
    says(browser, r"photo\.jpg: segmented in \d")
    p = tifffile.imread(saved(browser, "#save-probability", "photo_probability.tif"))
    assert abs(p - predictor(decoded)[0]).max() < 0.05  # decoders of JPEG may differ by a grey level
    assert browser.errors() == []


def test_a_large_image_goes_through_in_tiles_and_the_page_says_so(chromium, tmp_path):
    make_page(tmp_path / "page.html", width=16)
    make_stack(tmp_path / "large.tif", (1, 900, 1000))
    show(chromium, (tmp_path / "page.html").as_uri())
    move(chromium, "#memory", 0.125)
    chromium.choose("#file", tmp_path / "large.tif")
    says(chromium, "went through the network in tiles of [0-9]+ × [0-9]+ pixels, each normalized by itself")
    move(chromium, "#memory", 2)
    says(chromium, r"large\.tif: segmented in [0-9.]+ s\.$")


def test_four_scans_of_a_brain_give_a_volume_of_labels(browser, tmp_path):
    preprocessing = {"kind": "brain", "modalities": MODALITIES, "size": 24, "how": "crop", "standardize": "volume"}
    predictor = make_page(tmp_path / "page.html", classes=THREE, in_channels=3, preprocessing=preprocessing)
    volume = make_brain(tmp_path / "all.nii.gz", (3, 30, 37, 4))
    for channel, name in zip(volume, MODALITIES, strict=True):
        nibabel.save(nibabel.Nifti1Image(channel, np.diag([1.5, 2, 3, 1])), tmp_path / f"case_{name}.nii.gz")
    predictor.take_statistics(np.moveaxis(volume, 3, 0))
    expected = np.stack([predictor(volume[..., k]) for k in range(4)], axis=3)
    show(browser, (tmp_path / "page.html").as_uri())
    browser.choose("#file", tmp_path / "case_t1.nii.gz")
    says(browser, "has 1 channel, and the network takes 3: give the files of flair, t1, t1ce together", "#error")
    for stem in ("case", "all"):
        if stem == "case":
            drop_files(browser, [tmp_path / f"case_{name}.nii.gz" for name in reversed(MODALITIES)])
        else:
            browser.choose("#file", tmp_path / "all.nii.gz")
        says(browser, "Section 1: segmented in")
        until(browser, "document.querySelector('#canvas').height === 37")  # upright
        click(browser, "#run-all")
        says(browser, "3 sections: segmented in")
        labels = nibabel.load(saved(browser, "#save-masks", f"{stem}_mask.nii.gz"))
        assert labels.get_data_dtype() == np.uint8 and labels.shape == (30, 37, 4)
        np.testing.assert_array_equal(labels.affine, np.diag([1.5, 2, 3, 1]))
        assert flips_of_labels(np.asarray(labels.dataobj), expected) == 0
        p = nibabel.load(saved(browser, "#save-probabilities", f"{stem}_probability.nii.gz"))
        np.testing.assert_allclose(np.moveaxis(p.get_fdata(), 3, 0), expected, rtol=0, atol=1e-4)
    assert browser.errors() == []


def flips_of_labels(labels, p):
    """Voxels of another class than the most probable one (classes, …), if that is no tie."""
    top = np.sort(p, axis=0)
    return ((labels != p.argmax(axis=0)) & (top[-1] - top[-2] > 1e-4)).sum()


def drop_files(browser, paths):
    """Drop files onto the page."""
    files = ", ".join(f"new File([new Uint8Array({list(path.read_bytes())})], '{path.name}')" for path in paths)
    browser.evaluate(
        f"(() => {{ const data = new DataTransfer(); for (const file of [{files}]) data.items.add(file); "
        "window.dispatchEvent(new DragEvent('drop', { dataTransfer: data })); })()"
    )


@pytest.mark.skipif(not (REAL / "isbi2012").is_dir(), reason="the sections of ISBI 2012 are not there")
def test_real_sections(browser, tmp_path):
    predictor = make_page(
        tmp_path / "page.html", width=16, levels=5, preprocessing={"scale": [0.5, 0.5], "standardize": "section"}
    )
    file = REAL / "isbi2012" / "train-volume.tif"
    show(browser, (tmp_path / "page.html").as_uri())
    browser.choose("#file", file)
    says(browser, r"Section 1: segmented in \d")
    browser.press("End")
    last = len(tifffile.imread(file))
    says(browser, rf"Section {last}: segmented in \d")
    p = tifffile.imread(saved(browser, "#save-probability", f"train-volume_section{last:03}_probability.tif"))
    expected = predictor(tifffile.imread(file, key=last - 1))
    np.testing.assert_allclose(p, expected[0], rtol=0, atol=1e-4)
    assert flips(p[None], expected) == 0
