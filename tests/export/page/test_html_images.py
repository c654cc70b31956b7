"""segment.html in Chromium and Firefox with images of several kinds: stacks, dropped ones, large ones, volumes."""

import io

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.export.page.looking import click, drop_files, move, saved, says, share, shares, show, until
from tests.export.page.pages import MODALITIES, THREE, flips, make_brain, make_page, make_stack
from tests.scripts import REAL

pytestmark = pytest.mark.slow


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


def test_workers_that_cannot_read_blobs_are_given_bytes(chromium, tmp_path):
    """As in WebKit, when the page is opened from a file."""
    predictor = make_page(tmp_path / "page.html")
    stack = make_stack(tmp_path / "bytes.tif", (3, 40, 51))
    expected = np.concatenate([predictor(section) for section in stack])
    show(chromium, (tmp_path / "page.html").as_uri())
    chromium.evaluate("Helper.standIn = true; crew[0].stop(); reader.stop(); 0")
    chromium.choose("#file", tmp_path / "bytes.tif")
    says(chromium, "Section 1: segmented in")
    click(chromium, "#run-all")
    says(chromium, "2 sections: segmented in")
    p = tifffile.imread(saved(chromium, "#save-probabilities", "bytes_probability.tif"))
    np.testing.assert_allclose(p, expected, rtol=0, atol=1e-4)
    with Image.open(saved(chromium, "#save-mask", "bytes_section001_mask.png")) as mask:
        np.testing.assert_array_equal(np.asarray(mask), 255 * (p[0] > 0.5))
    Image.fromarray(stack[0]).save(tmp_path / "picture.jpg", quality=95)
    chromium.choose("#file", tmp_path / "picture.jpg")
    says(chromium, r"picture\.jpg: segmented in")
    (tmp_path / "broken.jpg").write_bytes((tmp_path / "picture.jpg").read_bytes()[:300])
    chromium.choose("#file", tmp_path / "broken.jpg")
    says(chromium, r"broken\.jpg", "#error")
    assert chromium.errors() == []


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
    to_the_right = np.diag([1.5, 2, 3, 1])  # and to the front
    nibabel.save(nibabel.Nifti1Image(np.moveaxis(volume, 0, 3), to_the_right), tmp_path / "all.nii.gz")
    for channel, name in zip(volume, MODALITIES, strict=True):
        nibabel.save(nibabel.Nifti1Image(channel, to_the_right), tmp_path / f"case_{name}.nii.gz")
    predictor.take_statistics(np.moveaxis(volume, 3, 0))
    seen = volume[:, ::-1, ::-1]  # networks are trained on volumes whose axes run to the left and to the back
    expected = np.stack([predictor(seen[..., k]) for k in range(4)], axis=3)[:, ::-1, ::-1]
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
        np.testing.assert_array_equal(labels.affine, to_the_right)
        assert flips_of_labels(np.asarray(labels.dataobj), expected) == 0
        p = nibabel.load(saved(browser, "#save-probabilities", f"{stem}_probability.nii.gz"))
        np.testing.assert_allclose(np.moveaxis(p.get_fdata(), 3, 0), expected, rtol=0, atol=1e-4)
    assert browser.errors() == []


def flips_of_labels(labels, p):
    """Voxels of another class than the most probable one (classes, …), if that is no tie."""
    top = np.sort(p, axis=0)
    return ((labels != p.argmax(axis=0)) & (top[-1] - top[-2] > 1e-4)).sum()


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
