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
from tinyseg.data import files, os_errors
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


def test_a_png_is_no_submission(tmp_path, checkpoint):
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "a.png")
    _, err = predict(checkpoint, tmp_path / "a.png", "--out", tmp_path / "s", "--isbi-submission", code=1)
    assert "--isbi-submission writes TIFF stacks, and a.png is none" in err and not (tmp_path / "s").exists()
    predict(checkpoint, tmp_path / "a.png", "--out", tmp_path / "s", "--probabilities")


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
    assert record["files"].keys() == record["settings"].keys() == {"1_mask.png", "2_mask.png", "10_mask.png"}
    assert record["settings"]["2_mask.png"]["threshold"] == 0.5 and record["files"]["1_mask.png"] == str(
        folder / "1.png"
    )
    _, err = predict(checkpoint, folder, "--out", out_folder, "--threshold", "0.3", code=1)
    assert err.count("was made with another threshold") == 3 and "3 of 3 files" in err
    out, _ = predict(checkpoint, folder, "--out", out_folder, "--threshold", "0.3", "--force")
    assert out.count("wrote ") == 3


def test_nothing_is_overwritten_without_force(tmp_path, checkpoint):
    image, target = tmp_path / "a.png", tmp_path / "out" / "a_mask.png"
    Image.fromarray(pixels(24, 32)).save(image)
    target.parent.mkdir()
    target.write_bytes(b"precious")
    out, err = predict(checkpoint, image, "--out", target.parent)
    assert "is there already, and predictions.json does not say how it was made" in out and "could not" not in err
    assert "if it is not a prediction, give another --out or --suffix" in out
    assert target.read_bytes() == b"precious"
    predict(checkpoint, image, "--out", target.parent, "--force")
    assert target.read_bytes() != b"precious"
    _, err = predict(checkpoint, image, "--out", tmp_path, "--suffix", "", "--force", code=1)
    assert "is an input and would be overwritten by a prediction" in err
    (tmp_path / "b").mkdir()
    Image.fromarray(pixels(24, 32)).save(tmp_path / "b" / "a.png")
    _, err = predict(checkpoint, image, tmp_path / "b" / "a.png", "--out", tmp_path / "c", code=1)
    assert "would both be written" in err


# ----- the record ------------------------------------------------------------------
def png(path, *shape, seed=0):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels(*(shape or (24, 32)), seed=seed)).save(path)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_it_wrote_into_the_folder_of_the_images_is_never_an_input(tmp_path, checkpoint):
    folder = png(tmp_path / "in" / "a.png").parent
    predict(checkpoint, folder, "--out", folder)
    out, _ = predict(checkpoint, folder, "--out", folder)
    assert "left out 1 files that predict.py wrote" in out and "is there already (--force" in out
    for more in (["--probabilities"], ["--suffix", "_b"], ["--suffix", "_c", "--threshold", "0.3"]):
        predict(checkpoint, folder, "--out", folder, *more)
    assert names(folder) == ["a.png", "a_b.png", "a_c.png", "a_mask.png", "a_probability.png", "predictions.json"]
    _, err = predict(checkpoint, folder / "a_mask.png", "--out", tmp_path / "o", code=1)
    assert "holds nothing but what predict.py wrote" in err


def test_two_networks_share_a_folder_but_not_a_file(tmp_path, checkpoint):
    image, other = png(tmp_path / "in" / "a.png"), save(tmp_path / "other.safetensors", scale=1)
    predict(checkpoint, image, "--out", tmp_path / "o")
    _, err = predict(other, image, "--out", tmp_path / "o", code=1)
    assert "a_mask.png was made with another checkpoint (see predictions.json): give another --out or --suffix" in err
    predict(other, image, "--out", tmp_path / "o", "--suffix", "_other")
    assert names(tmp_path / "o") == ["a_mask.png", "a_other.png", "predictions.json"]
    _, err = predict(save(tmp_path / "three.safetensors", num_classes=3), image, "--out", tmp_path / "o", code=1)
    assert "predictions of a network for other classes (class 0, and now class 0, class 1, class 2)" in err


def test_an_image_that_was_replaced_is_not_taken_for_the_one_that_was_predicted(tmp_path, checkpoint):
    image = png(tmp_path / "in" / "a.png")
    predict(checkpoint, image, "--out", tmp_path / "o")
    png(image, seed=1)
    _, err = predict(checkpoint, image, "--out", tmp_path / "o", code=1)
    assert "a_mask.png was made with another input" in err


def test_an_image_given_twice_is_predicted_once(tmp_path, checkpoint):
    image = png(tmp_path / "in" / "a.png")
    out, _ = predict(checkpoint, image, image.parent, image, "--out", tmp_path / "o")
    assert out.count("wrote ") == 1


@pytest.mark.parametrize(
    "content", ['[{"image_id": 1}]', "null", "3", "{", '{"files": {}}', '{"files": [], "classes": 1}']
)
def test_a_record_of_another_program_is_left_alone(content, tmp_path, checkpoint):
    image = png(tmp_path / "in" / "a.png")
    (tmp_path / "predictions.json").write_text(content)
    (image.parent / "predictions.json").write_text(content)
    _, err = predict(checkpoint, image, "--out", tmp_path, code=1)
    assert "predictions.json is not a record of predict.py, so give another --out" in err and "Traceback" not in err
    predict(checkpoint, image.parent, "--out", tmp_path / "o")
    assert (tmp_path / "predictions.json").read_text() == content


def test_a_record_that_is_a_folder_is_found_before_anything_is_predicted(tmp_path, checkpoint):
    (tmp_path / "predictions.json").mkdir()
    _, err = predict(checkpoint, png(tmp_path / "in" / "a.png"), "--out", tmp_path, code=1)
    assert "predictions.json is not a record of predict.py, so give another --out: it is a folder" in err
    assert err.count("predictions.json") == 1


def test_a_file_that_cannot_be_made_is_not_in_the_record(tmp_path, checkpoint):
    bad = tmp_path / "in" / "b.png"
    png(tmp_path / "in" / "a.png")
    bad.write_bytes(b"no")
    predict(checkpoint, bad.parent, "--out", tmp_path / "o", code=1)
    assert json.loads((tmp_path / "o" / "predictions.json").read_text())["files"].keys() == {"a_mask.png"}


def test_names_of_250_bytes(tmp_path, checkpoint):
    image = png(tmp_path / "in" / ("x" * 241 + ".png"))
    predict(checkpoint, image, "--out", tmp_path / "o")
    assert names(tmp_path / "o") == ["predictions.json", "x" * 241 + "_mask.png"]


# ----- stacks ----------------------------------------------------------------------
def test_sections_have_the_same_probabilities_in_one_stack_and_in_files(tmp_path):
    model = ts.models.build("sdunet", width=4, levels=3)
    net = tmp_path / "net.safetensors"
    ts.checkpoint.save(net, model, preprocessing={"scale": [0.5, 0.5], "standardize": "stack"})
    stack = (pixels(4, 24, 32) // 2 + 30 * np.arange(4)[:, None, None]).astype(np.uint8)
    tifffile.imwrite(tmp_path / "all.tif", stack, photometric="minisblack")
    for ending in ("png", "tif"):
        (tmp_path / ending).mkdir()
        for k, section in enumerate(stack):
            path = tmp_path / ending / f"{k}.{ending}"
            Image.fromarray(section).save(path) if ending == "png" else tifffile.imwrite(path, section)
    (tmp_path / "png" / "9.png").write_bytes(b"broken")  # it is left out
    predict(net, tmp_path / "all.tif", "--out", tmp_path / "o", "--probabilities")
    whole = tifffile.imread(tmp_path / "o" / "all_probability.tif")
    out, _ = predict(net, tmp_path / "png", "--out", tmp_path / "p", "--probabilities", code=1)
    assert "png: standardized over the 4 sections of 5 files together" in out
    files = sorted((tmp_path / "tif").iterdir())
    predict(net, *files, "--out", tmp_path / "t", "--probabilities")
    for k in range(4):
        found = np.asarray(Image.open(tmp_path / "p" / f"{k}_probability.png")) / 65535
        np.testing.assert_allclose(found, whole[k], atol=1e-5)
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "t" / f"{k}_probability.tif"), whole[k])
    out, _ = predict(net, files[0], "--out", tmp_path / "one")
    assert "0.tif: standardized by itself" in out
    _, err = predict(net, *files[:2], "--out", tmp_path / "t", "--probabilities", code=1)
    assert "was made with another stack" in err


# ----- what cannot be --------------------------------------------------------------
def test_the_labels_in_the_folder_of_the_training_are_not_predicted(tmp_path):
    net, stack = tmp_path / "net.safetensors", pixels(4, 24, 32)
    ts.checkpoint.save(
        net, ts.models.build("sdunet", width=4, levels=3),
        preprocessing={"scale": [0.5, 0.5], "standardize": "stack"},
    )  # fmt: skip
    (tmp_path / "isbi").mkdir()
    tifffile.imwrite(tmp_path / "isbi" / "train-volume.tif", stack, photometric="minisblack")
    labels = 255 * (stack > 100).astype(np.uint8)
    tifffile.imwrite(tmp_path / "isbi" / "train-labels.tif", labels, photometric="minisblack")
    out, _ = predict(net, tmp_path / "isbi", "--out", tmp_path / "folder", "--probabilities")
    assert "left out train-labels.tif" in out and len(list((tmp_path / "folder").glob("*.tif"))) == 1
    predict(net, tmp_path / "isbi" / "train-volume.tif", "--out", tmp_path / "file", "--probabilities")
    one, other = (tifffile.imread(tmp_path / d / "train-volume_probability.tif") for d in ("folder", "file"))
    np.testing.assert_array_equal(one, other)


def test_the_folder_above_the_images_and_labels_can_be_given(tmp_path, checkpoint):
    for name in ("images", "labels"):
        (tmp_path / "cells" / name).mkdir(parents=True)
        png(tmp_path / "cells" / name / "a.png", 24, 32)
    predict(checkpoint, tmp_path / "cells", "--out", tmp_path / "o")
    assert names(tmp_path / "o") == ["a_mask.png", "predictions.json"]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_a_network_of_nan_is_refused(value, tmp_path, checkpoint):
    model = ts.checkpoint.load(checkpoint)
    for parameter in model.parameters():
        parameter.data[...] = value
    ts.checkpoint.save(checkpoint, model, preprocessing=model.meta["preprocessing"])
    with np.errstate(all="ignore"):
        _, err = predict(checkpoint, png(tmp_path / "in" / "a.png"), "--out", tmp_path / "o", code=1)
    words = (
        "the network's output is NaN or infinite" if value == 1e30 else "weight of the network holds NaN or infinity"
    )
    assert words in err and not list(tmp_path.glob("o/*mask*"))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("memory", "inf"), ("memory", "0"), ("memory", "-1"), ("memory", "1e308"), ("scale", "nan"), ("scale", "1e308"),
        ("scale", "0"), ("threshold", "nan"), ("threshold", "1.1"), ("suffix", "a/b"), ("out", ""),
    ],
)  # fmt: skip
def test_options_out_of_their_range(option, value, tmp_path):
    _, err = predict(tmp_path / "none", tmp_path / "a.png", f"--{option}={value}", code=2)
    assert f"argument --{option}: expected" in err


def test_a_colon_in_a_name_on_windows_where_it_would_hide_the_mask(tmp_path, monkeypatch):
    monkeypatch.setattr(os_errors, "WINDOWS", True)
    _, err = predict(tmp_path / "none", tmp_path / "a.png", "--suffix=_12:30", code=2)
    assert "argument --suffix: expected a part of a file's name, without slashes and <>:" in err


def test_the_shell_leaves_the_pattern_to_the_command(tmp_path, checkpoint):
    for name in ("a.png", "b.png"):
        png(tmp_path / "in" / name)
    predict(checkpoint, tmp_path / "in" / "*.png", "--out", tmp_path / "o")
    assert names(tmp_path / "o") == ["a_mask.png", "b_mask.png", "predictions.json"]


def test_names_that_differ_in_capitals_alone_where_they_are_one_file(tmp_path, checkpoint, monkeypatch):
    inputs = png(tmp_path / "1" / "Cell.png"), png(tmp_path / "2" / "cell.png", seed=1)
    predict(checkpoint, *inputs, "--out", tmp_path / "o")
    assert names(tmp_path / "o") == ["Cell_mask.png", "cell_mask.png", "predictions.json"]
    monkeypatch.setattr(files, "FOLDS_NAMES", True)  # as on macOS
    _, err = predict(checkpoint, *inputs, "--out", tmp_path / "p", code=1)
    assert "would both be written to" in err and not (tmp_path / "p").exists()


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
        assert f"{out} could not be written" in err


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
