"""examples/predict.py as a user meets it: every kind of image in, the same kind out, nothing lost."""

import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image
from safetensors.numpy import save_file
from scripts import REAL, ROOT, run_example

import tinyseg as ts
from tinyseg.prediction.predictor import Predictor

pytestmark = pytest.mark.slow


def save(path, name="sdunet", in_channels=1, num_classes=1, scale=0.5):
    model = ts.models.build(name, in_channels, num_classes, width=4, levels=3)
    ts.checkpoint.save(path, model, preprocessing={"scale": [scale, scale], "standardize": "section"})
    return path


@pytest.fixture
def checkpoint(tmp_path):
    return save(tmp_path / "net.safetensors")


def pixels(*shape, dtype=np.uint8, seed=0):
    return (np.random.default_rng(seed).random(shape) * 250).astype(dtype)


def predict(checkpoint, *arguments, code=0):
    return run_example("predict.py", "--checkpoint", checkpoint, "--device", "cpu", *arguments, code=code)


def expected(checkpoint, sections, **options):
    predictor = Predictor.load(checkpoint, **options)
    return np.stack([predictor(section) for section in sections])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_tiff_gives_a_tiff_with_its_resolution(tmp_path, checkpoint, dtype):
    images = pixels(3, 50, 61, dtype=dtype)
    tifffile.imwrite(
        tmp_path / "cells.tif", images, photometric="minisblack", resolution=(2500, 2500), resolutionunit="CENTIMETER"
    )
    out, _ = predict(checkpoint, tmp_path / "cells.tif", "--out", tmp_path / "out")
    assert "kernels: " in out and "wrote " in out
    with tifffile.TiffFile(tmp_path / "out" / "cells_mask.tif") as tif:
        tags = tif.pages[0].tags
        assert tags["XResolution"].value == (2500, 1) and tags["ResolutionUnit"].value == tifffile.RESUNIT.CENTIMETER
        masks = tif.asarray()
    np.testing.assert_array_equal(masks, np.where(expected(checkpoint, images)[:, 0] > 0.5, 255, 0))
    assert masks.dtype == np.uint8 and len(np.unique(masks)) == 2


def test_probabilities_transforms_and_the_submission(tmp_path, checkpoint):
    images = pixels(2, 40, 48)
    tifffile.imwrite(tmp_path / "a.tif", images, photometric="minisblack")
    predict(checkpoint, tmp_path / "a.tif", "--out", tmp_path / "p", "--probabilities", "--transforms", "all")
    found = tifffile.imread(tmp_path / "p" / "a_probability.tif")
    np.testing.assert_array_equal(found, expected(checkpoint, images, transforms="all")[:, 0])
    predict(checkpoint, tmp_path / "a.tif", "--out", tmp_path / "s", "--isbi-submission")
    with tifffile.TiffFile(tmp_path / "s" / "a_submission.tif") as tif:
        assert len(tif.series) == 1 and tif.series[0].shape == (2, 40, 48)
        assert {(p.dtype, p.compression) for p in tif.pages} == {(np.dtype(np.float32), tifffile.COMPRESSION.NONE)}
        np.testing.assert_array_equal(tif.asarray(), expected(checkpoint, images)[:, 0])


def test_a_png_gives_a_png(tmp_path, checkpoint):
    image = pixels(37, 52)
    Image.fromarray(image).save(tmp_path / "a.png", dpi=(300, 300))
    predict(checkpoint, tmp_path / "a.png", "--out", tmp_path / "out", "--threshold", "0.4")
    with Image.open(tmp_path / "out" / "a_mask.png") as mask:
        assert mask.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        np.testing.assert_array_equal(np.asarray(mask), np.where(expected(checkpoint, [image])[0, 0] > 0.4, 255, 0))


def test_a_volume_gives_a_volume_with_its_affine(tmp_path):
    checkpoint = save(tmp_path / "net.safetensors", "unet_dw_bn", in_channels=2, num_classes=3)
    array = pixels(20, 28, 5, 2, dtype=np.int16)
    affine = np.array([[-1, 0, 0, 90], [0, 0, 2, -8], [0, -1, 0, 7], [0, 0, 0, 1.0]])
    nib.save(nib.Nifti1Image(array, affine), tmp_path / "case.nii.gz")
    predict(checkpoint, tmp_path / "case.nii.gz", "--out", tmp_path / "out")
    mask = nib.load(tmp_path / "out" / "case_mask.nii.gz")
    np.testing.assert_array_equal(mask.affine, affine)
    found = np.asarray(mask.dataobj)
    want = expected(checkpoint, np.moveaxis(array, (2, 3), (0, 1))).argmax(axis=1)
    np.testing.assert_array_equal(found, np.moveaxis(want, 0, 2))
    assert found.dtype == np.uint8 and found.max() > 0


def test_tiles_are_announced_and_change_nothing(tmp_path):
    checkpoint = save(tmp_path / "net.safetensors", "unet", scale=1)
    Image.fromarray(pixels(150, 233)).save(tmp_path / "a.png")
    predict(checkpoint, tmp_path / "a.png", "--out", tmp_path / "whole", "--probabilities")
    little = tmp_path / "a.png", "--memory", "0.002", "--out", tmp_path / "tiled"
    out, _ = predict(checkpoint, *little, "--probabilities")
    assert "in tiles of 112" in out and "GroupNorm" not in out
    whole, tiled = (np.asarray(Image.open(tmp_path / f / "a_probability.png"), np.int64) for f in ("whole", "tiled"))
    assert np.abs(whole - tiled).max() <= 1  # of 65535
    out, _ = predict(save(tmp_path / "gn.safetensors", scale=1), *little, "--force")
    assert "its own GroupNorm statistics" in out


def test_a_folder_goes_on_where_it_stopped(tmp_path, checkpoint):
    folder, out_folder = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for k in (1, 2, 10):
        Image.fromarray(pixels(24, 32, seed=k)).save(folder / f"{k}.png")
    (folder / "5.png").write_bytes(b"")
    _, err = predict(checkpoint, folder, "--out", out_folder, code=1)
    assert "5.png" in err and "empty" in err and "1 of 4 files" in err
    assert {p.name for p in out_folder.iterdir()} == {"1_mask.png", "2_mask.png", "10_mask.png", "predictions.json"}
    (out_folder / "2_mask.png").unlink()
    (folder / "5.png").unlink()
    before = (out_folder / "1_mask.png").stat().st_mtime_ns
    out, _ = predict(checkpoint, folder, "--out", out_folder)
    assert out.count("is there already") == 2 and out.count("wrote ") == 1
    assert (out_folder / "1_mask.png").stat().st_mtime_ns == before and (out_folder / "2_mask.png").exists()
    record = json.loads((out_folder / "predictions.json").read_text())
    assert record["files"].keys() == {"1_mask.png", "2_mask.png", "10_mask.png"} and record["threshold"] == 0.5
    _, err = predict(checkpoint, folder, "--out", out_folder, "--threshold", "0.3", code=1)
    assert "made with another threshold" in err
    out, _ = predict(checkpoint, folder, "--out", out_folder, "--threshold", "0.3", "--force")
    assert out.count("wrote ") == 3


def test_nothing_is_overwritten_without_force(tmp_path, checkpoint):
    image, target = tmp_path / "a.png", tmp_path / "out" / "a_mask.png"
    Image.fromarray(pixels(24, 32)).save(image)
    target.parent.mkdir()
    target.write_bytes(b"precious")
    _, err = predict(checkpoint, image, "--out", target.parent, code=1)
    assert "already exists" in err and target.read_bytes() == b"precious"
    predict(checkpoint, image, "--out", target.parent, "--force")
    assert target.read_bytes() != b"precious"
    _, err = predict(checkpoint, image, "--out", tmp_path, "--suffix", "", "--force", code=1)
    assert "overwritten by its own prediction" in err
    (tmp_path / "b").mkdir()
    Image.fromarray(pixels(24, 32)).save(tmp_path / "b" / "a.png")
    _, err = predict(checkpoint, image, tmp_path / "b" / "a.png", "--out", tmp_path / "c", code=1)
    assert "would both be written" in err


def bad_inputs(folder):
    """Files that cannot be predicted, each with a word of the sentence that says so."""
    tifffile.imwrite(folder / "whole.tif", pixels(4, 60, 60), photometric="minisblack")
    content = (folder / "whole.tif").read_bytes()
    (folder / "cut.tif").write_bytes(content[: len(content) // 2])
    (folder / "empty.tif").write_bytes(b"")
    Image.fromarray(pixels(24, 32, 3)).save(folder / "colour.png")
    nan = pixels(2, 24, 32, dtype=np.float32)
    nan[1, 3, 4] = np.nan
    tifffile.imwrite(folder / "nan.tif", nan, photometric="minisblack")
    nib.save(nib.Nifti1Image(pixels(16, 16, 3, 2, dtype=np.int16), np.eye(4)), folder / "two.nii")
    (folder / "notes.txt").write_text("not an image")
    return {
        "cut.tif": "cut short", "empty.tif": "empty", "colour.png": "colour", "nan.tif": "NaN",
        "two.nii": "2 channels, and the network takes 1", "notes.txt": "", "missing.tif": "does not exist",
    }  # fmt: skip


def test_bad_images_get_a_sentence_and_leave_nothing(tmp_path, checkpoint):
    for name, words in bad_inputs(tmp_path).items():
        _, err = predict(checkpoint, tmp_path / name, "--out", tmp_path / "out", code=1)
        assert words in err and name in err and "Traceback" not in err, err
        assert not list((tmp_path / "out").glob("*")), name


def test_bad_checkpoints_get_a_sentence(tmp_path, checkpoint):
    Image.fromarray(pixels(24, 32)).save(tmp_path / "a.png")
    content = checkpoint.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[: len(content) // 2])
    save_file({"w": np.ones(3, np.float32)}, tmp_path / "elsewhere.safetensors")
    (tmp_path / "notes.safetensors").write_text("hello")
    for name, words in (
        ("cut", "truncated"), ("elsewhere", "not one of tinyseg's"), ("notes", "damaged"), ("none", "is no checkpoint"),
    ):  # fmt: skip
        _, err = predict(tmp_path / f"{name}.safetensors", tmp_path / "a.png", "--out", tmp_path / "out", code=1)
        assert words in err and name in err
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be(tmp_path, checkpoint):
    Image.fromarray(pixels(24, 32)).save(tmp_path / "a.png")
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", "/proc/tinyseg"):
        _, err = predict(checkpoint, tmp_path / "a.png", "--out", out, code=1)
        assert "cannot write to the folder" in err and "--out" in err


LIMITED = """
import resource, runpy, sys

del sys.argv[0]
if {limit}:
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def in_own_process(checkpoint, *arguments, largest_file=0, code=0):
    """Return (stderr, peak memory in bytes); with `largest_file` bytes every larger file fails as on a full disk."""
    command = [sys.executable, "-c", LIMITED.format(limit=largest_file), ROOT / "examples" / "predict.py"]
    command += ["--checkpoint", checkpoint, "--device", "cpu", *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=200)
    assert done.returncode == code, done.stderr
    return done.stderr, int(done.stdout.split()[-1])


def test_a_disk_without_room_leaves_nothing_half_written(tmp_path, checkpoint):
    tifffile.imwrite(tmp_path / "a.tif", pixels(8, 128, 128), photometric="minisblack")
    arguments = checkpoint, tmp_path / "a.tif", "--out", tmp_path / "out", "--probabilities"
    err, _ = in_own_process(*arguments, largest_file=200_000, code=1)
    assert "a_probability.tif could not be written" in err and "Traceback" not in err, err
    assert list((tmp_path / "out").glob("*")) == []


def test_memory_does_not_grow_with_the_stack(tmp_path):
    checkpoint, peaks = save(tmp_path / "net.safetensors", scale=1 / 32), {}
    section = pixels(512, 512, dtype=np.float32)  # 1 MiB
    for sections in (2, 82):
        with tifffile.TiffWriter(tmp_path / f"{sections}.tif") as tif:
            for k in range(sections):
                tif.write(np.roll(section, k), contiguous=True, photometric="minisblack")
        _, peaks[sections] = in_own_process(checkpoint, tmp_path / f"{sections}.tif", "--out", tmp_path / "out")
    assert peaks[82] - peaks[2] < 27 * 2**20  # a third of the stack
    assert tifffile.imread(tmp_path / "out" / "82_mask.tif").shape == (82, 512, 512)


@pytest.mark.skipif(not REAL.exists(), reason="the real data are not here")
def test_the_real_test_stack(tmp_path):
    checkpoint = save(tmp_path / "net.safetensors", scale=1 / 8)
    predict(checkpoint, REAL / "isbi2012" / "test-volume.tif", "--out", tmp_path, "--isbi-submission")
    submission = tifffile.imread(tmp_path / "test-volume_submission.tif")
    assert submission.shape == (30, 512, 512) and submission.dtype == np.float32
    assert 0 <= submission.min() <= submission.max() <= 1
