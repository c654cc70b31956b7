"""segment.html: what is in it, what it refuses, and that its scripts, run under Node.js, give what tinyseg gives."""

import base64
import hashlib
import json
import os
import re
import shutil

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.export.page.pages import MIXED, MODALITIES, THREE, flips, make_brain, make_model, make_page, make_stack
from tinyseg.data.scans import find_scans, open_scan
from tinyseg.export.page import run as running
from tinyseg.export.page.html import FOLDER, SCRIPT, WORKER, write_html
from tinyseg.export.page.run import NoBrowserError, find_chromium, run_html, run_in_chromium, run_in_node
from tinyseg.prediction import predict

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js, which runs the scripts, was not found")
UNIT = {"scale": [1, 1], "standardize": "unit"}
STACK = {"scale": [0.7, 0.7], "standardize": "stack"}


@needs_node
@pytest.mark.parametrize(
    ("options", "shape", "dtype"),
    [
        ({}, (2, 36, 52), "uint8"),
        ({"preprocessing": MIXED}, (2, 61, 47), "uint16"),
        ({"preprocessing": MIXED, "classes": THREE}, (1, 40, 33), "float32"),
        ({"preprocessing": {"scale": [2, 1.5], "standardize": "section"}}, (1, 17, 30), "float32"),
        ({"preprocessing": STACK}, (4, 33, 40), "uint8"),
        ({"preprocessing": UNIT, "name": "unet_dw_bn"}, (1, 21, 34), "uint16"),
        ({"preprocessing": UNIT}, (1, 22, 31), "int16"),
        ({"preprocessing": UNIT, "name": "unet", "head": "paper"}, (1, 19, 25), "float32"),
        ({"name": "unet_gn", "levels": 4}, (1, 3, 29), "uint8"),
        ({}, (1, 1, 30), "uint8"),
        ({"width": 24, "levels": 5, "ws": None}, (1, 60, 75), "uint8"),  # with matrices of 8 bits
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_the_page_gives_what_tinyseg_gives(tmp_path, options, shape, dtype):
    predictor = make_page(tmp_path / "page.html", **options)
    stack = make_stack(tmp_path / "stack.tif", shape, dtype)
    predictor.take_statistics(stack[:, None])
    k = len(stack) - 1
    p, expected = run_html(tmp_path / "page.html", tmp_path / "stack.tif", k), predictor(stack[k])
    assert expected.std() > 0.02  # not all alike
    np.testing.assert_allclose(p, expected, rtol=0, atol=1e-4)
    assert flips(p, expected) == 0


@needs_node
@pytest.mark.parametrize("name", ["sdunet", "sdunet_bn"])
@pytest.mark.parametrize("shape", [(70, 150), (131, 90)])
def test_a_large_image_goes_through_in_the_tiles_of_tinyseg(tmp_path, shape, name):
    classes = ["background", "cell"] if name == "sdunet" else ["cell"]
    predictor = make_page(tmp_path / "page.html", classes=classes, name=name, width=4)
    stack = make_stack(tmp_path / "stack.tif", (1, *shape))
    memory = 330_000
    p, about = run_in_node(shutil.which("node"), tmp_path / "page.html", tmp_path / "stack.tif", 0, memory)
    tile = about["tile"]
    assert 64 <= tile < max(shape) and tile % 4 == 0
    x = predictor.preparation.prepare(stack)
    expected = predict(predictor.model, x[None], tile=tile)[0]
    np.testing.assert_allclose(p, expected, rtol=0, atol=1e-4)
    whole = predict(predictor.model, x[None])[0]
    assert name == "sdunet_bn" or abs(p - whole).max() > 1e-3  # GroupNorm takes its statistics in the tile


@needs_node
def test_a_png_of_16_bits_and_a_blank_section(tmp_path):
    predictor = make_page(tmp_path / "page.html")
    image = make_stack(tmp_path / "stack.tif", (1, 24, 37), "uint16")[0]
    Image.fromarray(image).save(tmp_path / "image.png")
    blank = np.full((24, 37), 7, np.uint8)
    for pixels in (image, blank):
        Image.fromarray(pixels).save(tmp_path / "image.png")
        p = run_html(tmp_path / "page.html", tmp_path / "image.png")
        np.testing.assert_allclose(p, predictor(pixels), rtol=0, atol=1e-4)


@needs_node
@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: path.write_bytes(b"hello " * 100), "is of a kind that is not read"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: make_stack(path, (1, 20, 20), "float32") is None or _spoil(path), "NaN"),
    ],
    ids=["text", "empty", "nan"],
)
def test_what_cannot_be_read_is_a_sentence(tmp_path, make, sentence):
    make_page(tmp_path / "page.html")
    make(tmp_path / "image.tif")
    with pytest.raises(RuntimeError, match=rf"page\.html did not give probabilities for .*image\.tif: .*{sentence}"):
        run_html(tmp_path / "page.html", tmp_path / "image.tif")


def _spoil(path):
    x = tifffile.imread(path)
    x.flat[30] = np.nan
    tifffile.imwrite(path, x)


@needs_node
def test_floats_beyond_0_to_1_are_refused_by_a_network_of_units(tmp_path):
    make_page(tmp_path / "page.html", preprocessing=UNIT)
    tifffile.imwrite(tmp_path / "image.tif", np.full((20, 30), 1.5, np.float32))
    with pytest.raises(RuntimeError, match="takes floats from 0 to 1"):
        run_html(tmp_path / "page.html", tmp_path / "image.tif")


@needs_node
def test_damaged_weights_are_found(tmp_path):
    make_page(tmp_path / "page.html")
    make_stack(tmp_path / "stack.tif", (1, 20, 20))
    html = (tmp_path / "page.html").read_text()
    about = json.loads(re.search(r'id="about">(.*?)</script>', html)[1])
    about["parts"][-1][1] += 1
    damaged = re.sub(r'(id="about">).*?(</script>)', lambda m: m[1] + json.dumps(about) + m[2], html)
    (tmp_path / "page.html").write_text(damaged)
    with pytest.raises(RuntimeError, match="The weights in this page are damaged: get the file anew"):
        run_html(tmp_path / "page.html", tmp_path / "stack.tif")


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium or Chrome was found")
@needs_node
def test_chromium_gives_the_same_bits_as_node(tmp_path, monkeypatch):
    make_page(tmp_path / "page.html", preprocessing=STACK)
    make_stack(tmp_path / "stack.tif", (3, 50, 41))
    page, stack = tmp_path / "page.html", tmp_path / "stack.tif"
    p, about = run_in_chromium(find_chromium(), page, stack, 1, 2 << 30)
    assert about["tile"] == 0 and p.dtype == np.float32 and p.shape == (1, 50, 41)
    np.testing.assert_array_equal(p, run_html(page, stack, 1))
    which = shutil.which
    monkeypatch.setattr(running.shutil, "which", lambda name: None if name == "node" else which(name))
    with pytest.raises(RuntimeError, match=r"The page says: Error: .*stack\.tif has sections 0 to 2"):
        run_html(page, stack, 9)


def test_a_page_or_image_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"page\.html does not exist: expected a page of write_html"):
        run_html(tmp_path / "page.html", tmp_path / "stack.tif")
    (tmp_path / "page.html").write_text("<html>")
    with pytest.raises(FileNotFoundError, match=r"stack\.tif does not exist: expected an image"):
        run_html(tmp_path / "page.html", tmp_path / "stack.tif")


def test_without_node_and_browser_it_says_what_to_install(tmp_path, monkeypatch):
    for name in ("page.html", "stack.tif"):
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setattr(running.shutil, "which", lambda name: None)
    monkeypatch.setattr(running.os.path, "exists", lambda path: False)
    with pytest.raises(NoBrowserError, match=r"neither Node\.js 18 nor Chromium .* was found.*apt install nodejs"):
        run_html(tmp_path / "page.html", tmp_path / "stack.tif")


@pytest.mark.parametrize(("version", "fits"), [("v16.20.2", False), ("v18.0.1", True), ("v24.1.0", True), ("", False)])
@pytest.mark.skipif(os.name == "nt", reason="the stand-in for Node.js is a shell script")
def test_a_node_that_is_too_old_is_not_used(tmp_path, monkeypatch, version, fits):
    node = tmp_path / "node"
    node.write_text(f"#!/bin/sh\necho {version}\n")
    node.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert running.find_node() == (str(node) if fits else None)


# ----- volumes of brains ----------------------------------------------------------


@needs_node
@pytest.mark.parametrize("dtype", ["int16", "float32", "int32"])
@pytest.mark.parametrize(
    "preparation",
    [
        {"size": 20, "how": "crop", "standardize": "volume"},
        {"size": 20, "how": "resize", "standardize": "slice"},
        {"size": 40, "how": "crop", "standardize": "slice"},
        {"size": 0, "how": "crop", "standardize": "volume"},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_a_volume_of_a_brain(tmp_path, preparation, dtype):
    preprocessing = {"kind": "brain", "modalities": MODALITIES} | preparation
    predictor = make_page(tmp_path / "page.html", classes=THREE, in_channels=3, preprocessing=preprocessing)
    volume = make_brain(tmp_path / "brain.nii.gz", (3, 29, 34, 5), dtype)
    predictor.take_statistics(np.moveaxis(volume, 3, 0))
    p, expected = run_html(tmp_path / "page.html", tmp_path / "brain.nii.gz", 2), predictor(volume[..., 2])
    np.testing.assert_allclose(p, expected, rtol=0, atol=1e-4)
    assert expected.std() > 0.02 and flips(p, expected) == 0


@pytest.mark.parametrize("axes", ["RAS", "PIR", "LPS", "SAL"])
def test_a_volume_that_is_stored_in_another_order_is_turned(tmp_path, axes):
    preprocessing = {"kind": "brain", "modalities": MODALITIES}
    predictor = make_page(tmp_path / "page.html", classes=THREE, in_channels=3, preprocessing=preprocessing)
    stored = nibabel.Nifti1Image(make_brain(tmp_path / "any.nii", (3, 18, 21, 11)).transpose(1, 2, 3, 0), None)
    turn = nibabel.orientations.inv_ornt_aff(nibabel.orientations.axcodes2ornt(axes), stored.shape[:3])
    nibabel.save(nibabel.Nifti1Image(np.asarray(stored.dataobj), np.diag([2, 2, 2, 1]) @ turn), tmp_path / "turned.nii")
    (scan,) = find_scans(tmp_path / "turned.nii", MODALITIES)
    with open_scan(scan, for_network=True) as image:
        predictor.look_at(image)
        for k in (0, 5):
            p, expected = run_html(tmp_path / "page.html", tmp_path / "turned.nii", k), predictor(image.section(k))
            assert p.shape == expected.shape
            np.testing.assert_allclose(p, expected, rtol=0, atol=1e-4)


@needs_node
def test_a_volume_with_other_channels_is_refused(tmp_path):
    preprocessing = {"kind": "brain", "modalities": MODALITIES}
    make_page(tmp_path / "page.html", classes=THREE, in_channels=3, preprocessing=preprocessing)
    make_brain(tmp_path / "brain.nii", (2, 20, 24, 3))
    sentence = r"brain\.nii has 2 channels, and the network takes 3: give the files of flair, t1, t1ce together"
    with pytest.raises(RuntimeError, match=sentence):
        run_html(tmp_path / "page.html", tmp_path / "brain.nii")


# ----- what is in the page --------------------------------------------------------


def test_the_page_allows_its_own_script_and_no_connection(tmp_path):
    make_page(tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    assert policy.startswith("default-src 'none'; ") and "connect-src" not in policy and "http" not in policy
    for tag in ("script", "style"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.S)
        assert f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy
    assert not re.search(r"\b(XMLHttpRequest|WebSocket|EventSource|sendBeacon|importScripts|RTCPeer)", html)
    assert not re.search(r"\b(src|href)=\"(?!data:)", html)


def test_no_two_scripts_give_one_name_to_two_things():
    for names in (WORKER, SCRIPT):
        text = "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in names)
        found = re.findall(r"^(?:async )?(?:function\*?|class|const|let) (\w+)", text, re.M)
        assert len(found) > 20 and len(found) == len(set(found))


def test_names_from_the_checkpoint_are_text(tmp_path):
    evil = "</script><script>alert(1)</script>"
    make_page(tmp_path / "page.html", classes=["background", evil, "{{wasm}}"])
    html = (tmp_path / "page.html").read_text()
    assert "alert(1)" in html and evil not in html and html.count("<script") == 6
    about = json.loads(re.search(r'id="about">(.*?)</script>', html)[1])
    assert about["classes"] == ["background", evil, "{{wasm}}"]


def test_the_page_says_what_is_known_of_the_training_and_no_path(tmp_path):
    model = make_model(preprocessing=MIXED)
    history = [{"val_dice": 0.1}, {"val_dice": 0.91234, "val_iou": 0.8, "val_accuracy": 0.9, "train_dice": 1}]
    model.meta |= {
        "config": {"data": "/home/somebody/secret/isbi2012", "batch_size": 2, "sections": {"train": ["a", "b", "c"]}},
        "training": {"state": {"step": 40, "history": history}},
    }
    write_html(tmp_path / "page.html", model)
    html = (tmp_path / "page.html").read_text()
    assert "3 sections of isbi2012, 40 steps of 2 images" in html and "somebody" not in html and "secret" not in html
    assert "Scores on held-out images" in html
    assert "Dice 0.912, IoU 0.800, accuracy 0.900" in html
    assert "resized by 0.8 (rows) and 0.6 (columns)" in html
    model.meta["config"]["data"] = None
    write_html(tmp_path / "page.html", model)
    assert "synthetic images, a stand-in for real ones" in (tmp_path / "page.html").read_text()


def test_the_page_says_that_it_shows_the_small_parts_that_predict_takes_back(tmp_path):
    model = make_model(in_channels=3, classes=THREE, preprocessing={"kind": "brain", "modalities": MODALITIES})
    write_html(tmp_path / "page.html", model)
    assert "Small parts" not in (tmp_path / "page.html").read_text()
    model.meta["postprocessing"] = {"min_component": 0.1}
    write_html(tmp_path / "page.html", model)
    assert "parts smaller than 10% of the largest in a scan were taken back" in (tmp_path / "page.html").read_text()


def test_an_example_is_embedded_and_checked(tmp_path):
    Image.new("L", (30, 20)).save(tmp_path / "cells.png")
    Image.new("L", (30, 20)).save(tmp_path / "cells.jpg")
    make_page(tmp_path / "page.html", example=tmp_path / "cells.png")
    html = (tmp_path / "page.html").read_text()
    content = re.search(r'id="example-image">(.*?)</script>', html)[1]
    assert base64.b64decode(content) == (tmp_path / "cells.png").read_bytes() and '"example": "cells.png"' in html
    with pytest.raises(ValueError, match=r"cells\.jpg is no PNG.*save it as PNG"):
        make_page(tmp_path / "page.html", example=tmp_path / "cells.jpg")
    (tmp_path / "large.png").write_bytes((tmp_path / "cells.png").read_bytes() + bytes(5 << 20))
    with pytest.raises(ValueError, match=r"large\.png takes 5 MB.*at most 4 MB.*cut a part"):
        make_page(tmp_path / "page.html", example=tmp_path / "large.png")


def test_networks_of_other_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^The page takes grey sections .*images of 2 channels: .*--format onnx"):
        write_html(tmp_path / "page.html", make_model(in_channels=2))
    of_volumes = make_model(in_channels=3, preprocessing={"kind": "brain", "modalities": MODALITIES})
    with pytest.raises(ValueError, match="An example in the page is a PNG, and this network takes volumes"):
        write_html(tmp_path / "page.html", of_volumes, example=tmp_path / "example.png")
    assert not (tmp_path / "page.html").exists()
