"""tinyseg predict --instances as a user meets it: numbers of cells, a table and a picture, or a sentence."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image
from scripts import run_example

import tinyseg as ts
from tinyseg.commands import predict_instances
from tinyseg.metrics.instances import average_precision
from tinyseg.prediction.instances import find_instances
from tinyseg.prediction.predictor import Predictor

pytestmark = pytest.mark.slow
OPTIONS = {"threshold": 0.5, "seed_threshold": 0.6, "neck": 0.5, "min_size": 12}
NETWORK = Predictor.__call__  # which `bright` replaces
GIVEN = [word for name, value in OPTIONS.items() for word in (f"--{name.replace('_', '-')}", value)]


@pytest.fixture
def checkpoint(tmp_path):
    """A network, whatever it finds: see `bright`."""
    model = ts.models.build("sdunet", width=4, levels=2)
    ts.checkpoint.save(tmp_path / "net.safetensors", model, preprocessing={"scale": [1, 1], "standardize": "section"})
    return tmp_path / "net.safetensors"


@pytest.fixture(autouse=True)
def bright(monkeypatch):
    """Let every network find what is bright: the probability of a pixel is its grey value over 255."""
    monkeypatch.setattr(Predictor, "__call__", lambda self, section: section.astype(np.float32) / 255)


def cells(*shape, seed=0):
    """Sections with bright spots on dark ground."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[-2], : shape[-1]]
    stack = np.zeros((shape[0] if len(shape) > 2 else 1, *shape[-2:]))
    for section in stack:
        for _ in range(6):
            y, x, r = rng.uniform(0, shape[-2]), rng.uniform(0, shape[-1]), rng.uniform(3, 9)
            section[np.hypot(rows - y, columns - x) < r] = rng.uniform(0.5, 1)
    return np.rint(255 * stack).astype(np.uint8).reshape(shape)


def run(checkpoint, *arguments, code=0):
    given = "--checkpoint", checkpoint, "--device", "cpu", "--instances", *arguments
    return run_example("predict.py", *given, code=code)


def read_table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def expected(images, **options):
    return np.stack([find_instances(image / np.float32(255), **(OPTIONS | options)) for image in images])


@pytest.mark.parametrize("imagej", [False, True])
def test_a_stack_gives_numbers_a_table_and_a_picture(tmp_path, checkpoint, imagej):
    images = cells(3, 50, 61)
    how = {"imagej": True, "metadata": {"unit": "um", "axes": "ZYX"}} if imagej else {"resolutionunit": "CENTIMETER"}
    size = 2 if imagej else 20000  # pixels in a unit
    tifffile.imwrite(tmp_path / "a.tif", images, photometric="minisblack", resolution=(size, size), **how)
    out, _ = run(checkpoint, tmp_path / "a.tif", "--out", tmp_path / "o", *GIVEN)
    with tifffile.TiffFile(tmp_path / "o" / "a_instances.tif") as tif:
        labels = tif.asarray()
        assert len(tif.pages) == 3 and labels.dtype == np.uint16
        assert tif.pages[0].tags["XResolution"].value == (size, 1)
        assert not imagej or tif.imagej_metadata["unit"] == "um" and tif.imagej_metadata["slices"] == 3
    want = expected(images)
    np.testing.assert_array_equal(labels, want)
    assert labels.max() > 2
    rows = read_table(tmp_path / "o" / "a_instances.csv")
    assert len(rows) == sum(section.max() for section in want) and f"({len(rows)} objects)" in out
    for row in rows:
        k, number = int(row["section"]), int(row["label"])
        i, j = np.nonzero(want[k] == number)
        assert row["image"] == "a.tif" and int(row["area"]) == len(i)
        place = [float(row[name]) for name in ("centroid_row", "centroid_column")]
        assert place == pytest.approx([i.mean(), j.mean()], rel=1e-6)
        assert [int(row[n]) for n in ("top", "left", "bottom", "right")] == [i.min(), j.min(), i.max() + 1, j.max() + 1]
        assert float(row["area_um2"]) == pytest.approx(len(i) / 4)  # half a micrometre wide
        assert float(row["equivalent_diameter_um"]) == pytest.approx((len(i) / np.pi) ** 0.5, rel=1e-6)
    with Image.open(tmp_path / "o" / "a_instances_overlay.png") as picture:
        drawn = np.asarray(picture.convert("RGB")).astype(int)
    assert (np.ptp(drawn, axis=2) > 100).mean() > 0.02  # there is colour on it


def test_a_network_says_how_sure_a_border_is_unless_the_user_does(tmp_path, checkpoint):
    image = np.full((30, 41), 240, np.uint8)
    image[:, 20] = 128
    Image.fromarray(image).save(tmp_path / "a.png")
    model = ts.checkpoint.load(checkpoint)
    for border, given, number in ((0.6, (), 2), (0.4, (), 1), (0.4, ("--border", 0.6), 2), (None, (), 1)):
        after = {} if border is None else {"postprocessing": {"border": border}}
        ts.checkpoint.save(checkpoint, model, preprocessing=model.meta["preprocessing"], **after)
        out, _ = run(checkpoint, tmp_path / "a.png", "--out", tmp_path / "o", "--force", *given)
        assert f"({number} objects)" in out
        labels = tifffile.imread(tmp_path / "o" / "a_instances.tif")
        assert labels.max() == number and labels.all()
        settings = json.loads((tmp_path / "o" / "predictions.json").read_text())["settings"]["a_instances.tif"]
        assert settings["border"] == (given[1] if given else border or 0.45)


def test_a_picture_gives_a_tiff_with_its_dots_per_inch_and_no_sizes(tmp_path, checkpoint):
    image = cells(37, 52)
    Image.fromarray(image).save(tmp_path / "a.png", dpi=(300, 300))
    run(checkpoint, tmp_path / "a.png", "--out", tmp_path / "o", *GIVEN, "--grow")
    with tifffile.TiffFile(tmp_path / "o" / "a_instances.tif") as tif:
        np.testing.assert_array_equal(tif.asarray(), expected(image[None], grow=True)[0])
        x = tif.pages[0].tags["XResolution"].value
        assert x[0] / x[1] == pytest.approx(300, abs=0.1) and tif.pages[0].tags["ResolutionUnit"].value == 2
    assert "area_um2" not in read_table(tmp_path / "o" / "a_instances.csv")[0]


def test_no_object_ends_where_a_tile_does(tmp_path, checkpoint, monkeypatch):
    monkeypatch.setattr(Predictor, "__call__", NETWORK)
    model = ts.models.build("unet", width=4, levels=3)
    ts.checkpoint.save(checkpoint, model, preprocessing={"scale": [1, 1], "standardize": "section"})
    image = cells(150, 233)
    Image.fromarray(image).save(tmp_path / "a.png")
    p = Predictor.load(checkpoint)(image)[0]
    options = {"threshold": float(np.quantile(p, 0.3)), "seed_threshold": float(np.quantile(p, 0.6)), "neck": 0}
    given = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    out, _ = run(checkpoint, tmp_path / "a.png", "--memory", 0.002, "--out", tmp_path / "o", *given)
    assert "go through the network in tiles of 112" in out
    tiled, whole = tifffile.imread(tmp_path / "o" / "a_instances.tif"), find_instances(p, **options)
    assert average_precision(whole, tiled, (0.9,)) > 0.95  # a pixel at a threshold may fall on the other side
    wide = [np.ptp(np.nonzero(whole == k)[1]) for k in range(1, whole.max() + 1)]
    assert max(wide) > 112  # an object that a tile could not hold


def test_an_empty_section_has_a_table_without_lines(tmp_path, checkpoint):
    Image.fromarray(np.zeros((20, 31), np.uint8)).save(tmp_path / "a.png")
    out, _ = run(checkpoint, tmp_path / "a.png", "--out", tmp_path / "o")
    assert "(0 objects)" in out and read_table(tmp_path / "o" / "a_instances.csv") == []
    assert (tmp_path / "o" / "a_instances.csv").read_text().startswith("image,section,label,area,centroid_row")
    assert tifffile.imread(tmp_path / "o" / "a_instances.tif").shape == (20, 31)


def test_more_objects_than_16_bits_have_numbers_for(tmp_path, checkpoint, monkeypatch):
    image = cells(40, 52)

    def far_apart(p, **options):
        return 70000 * (find_instances(p, **options) > 0)

    monkeypatch.setattr(predict_instances, "find_instances", far_apart)
    Image.fromarray(image).save(tmp_path / "a.png")
    run(checkpoint, tmp_path / "a.png", "--out", tmp_path / "o")
    labels = tifffile.imread(tmp_path / "o" / "a_instances.tif")
    assert labels.dtype == np.uint32 and set(np.unique(labels)) == {0, 70000}
    assert sorted(file.name for file in (tmp_path / "o").iterdir() if not file.name.startswith(".")) == [
        "a_instances.csv", "a_instances.tif", "a_instances_overlay.png", "predictions.json",
    ]  # fmt: skip


# ----- again, interrupted, in the way ----------------------------------------------
@pytest.fixture
def again(tmp_path, checkpoint):
    """A run of one picture, and the function that runs it again with more options."""
    Image.fromarray(cells(37, 52)).save(tmp_path / "a.png")

    def run_again(*more, code=0):
        return run(checkpoint, tmp_path / "a.png", "--out", tmp_path / "o", *GIVEN, *more, code=code)

    run_again()
    return run_again


def test_a_second_run_finds_its_work_done_and_makes_what_is_missing(tmp_path, again):
    files = [tmp_path / "o" / name for name in ("a_instances.tif", "a_instances.csv", "a_instances_overlay.png")]
    before = [file.read_bytes() for file in files]
    assert f"{files[0]} is there already (--force makes it again)" in again()[0]
    for file, content in zip(files, before, strict=True):
        file.unlink()
        assert "wrote" in again()[0]
        assert file.read_bytes() == content
    assert "wrote" in again("--force")[0]


def test_another_way_to_find_objects_is_refused(again):
    for option, value in (
        ("neck", 0.2),
        ("border", 0.1),
        ("min-size", 40),
        ("seed-threshold", 0.9),
        ("threshold", 0.4),
    ):
        assert f"was made with another {option.replace('-', '_')}" in again(f"--{option}", value, code=1)[1]
    assert "was made with another grow" in again("--grow", code=1)[1]
    again("--grow", "--force")


def test_a_table_of_somebody_else_is_left_alone(tmp_path, checkpoint):
    Image.fromarray(cells(37, 52)).save(tmp_path / "a.png")
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "a_instances.csv").write_text("mine")
    _, err = run(checkpoint, tmp_path / "a.png", "--out", tmp_path / "o", code=1)
    assert "a_instances.csv is there already, and predictions.json does not say how it was made" in err
    assert [file.name for file in (tmp_path / "o").iterdir()] == ["a_instances.csv"]
    assert (tmp_path / "o" / "a_instances.csv").read_text() == "mine"


def test_a_run_is_stopped_between_the_table_and_the_labels(tmp_path, checkpoint, monkeypatch):
    Image.fromarray(cells(37, 52)).save(tmp_path / "a.png")

    def stopped(*arguments):
        raise SystemExit(143)

    given = tmp_path / "a.png", "--out", tmp_path / "o", *GIVEN
    with monkeypatch.context() as patch:
        patch.setattr(predict_instances, "draw_objects", stopped)
        run(checkpoint, *given, code=143)
    record = json.loads((tmp_path / "o" / "predictions.json").read_text())
    assert list(record["files"]) == ["a_instances.csv"] and not (tmp_path / "o" / "a_instances.tif").exists()
    assert "wrote" in run(checkpoint, *given)[0] and (tmp_path / "o" / "a_instances.tif").exists()


def test_what_it_wrote_is_not_predicted(tmp_path, checkpoint):
    Image.fromarray(cells(37, 52)).save(tmp_path / "a.png")
    run(checkpoint, tmp_path / "a.png", "--out", tmp_path, *GIVEN)
    out, _ = run(checkpoint, tmp_path, "--out", tmp_path, *GIVEN)
    assert "left out 2 files that predict.py wrote" in out and "a_instances.tif is there already" in out


def test_names_that_meet(tmp_path, checkpoint):
    for name in ("a.png", "a.tif"):
        Image.fromarray(cells(37, 52)).save(tmp_path / name)
    _, err = run(checkpoint, tmp_path / "a.png", tmp_path / "a.tif", "--out", tmp_path / "o", code=1)
    assert "would both be written to" in err
    Image.fromarray(cells(37, 52)).save(tmp_path / "a_instances_overlay.png")
    both = tmp_path / "a.png", tmp_path / "a_instances_overlay.png"
    _, err = run(checkpoint, *both, "--out", tmp_path, code=1)
    assert "a_instances_overlay.png is an input and would be overwritten" in err


# ----- what has no instances --------------------------------------------------------
def test_volumes_and_several_classes_get_a_sentence(tmp_path, checkpoint):
    nib.save(nib.Nifti1Image(np.zeros((20, 24, 3), np.uint8), np.eye(4)), tmp_path / "case.nii.gz")
    _, err = run(checkpoint, tmp_path / "case.nii.gz", "--out", tmp_path / "o", code=1)
    assert "those of a volume such as case.nii.gz go through several" in err
    model = ts.models.build("sdunet", num_classes=3, width=4, levels=2)
    ts.checkpoint.save(checkpoint, model, preprocessing={"scale": [1, 1], "standardize": "section"})
    _, err = run(checkpoint, tmp_path / "case.nii.gz", "--out", tmp_path / "o", code=1)
    assert "--instances is for a network of one class, and this one has 3" in err
    assert not (tmp_path / "o").exists()


def test_options_that_would_change_nothing(tmp_path, checkpoint):
    Image.fromarray(cells(37, 52)).save(tmp_path / "a.png")
    _, err = run(checkpoint, tmp_path / "a.png", "--probabilities", code=2)
    assert "--instances writes numbers of objects, not probabilities" in err
    given = "--checkpoint", checkpoint, tmp_path / "a.png", "--neck", 0.5, "--grow"
    _, err = run_example("predict.py", *given, code=1)
    assert "--neck and --grow: this is for --instances" in err


def test_masks_that_were_made_before_are_known_again(tmp_path, checkpoint):
    Image.fromarray(cells(37, 52)).save(tmp_path / "a.png")
    given = "--checkpoint", checkpoint, "--device", "cpu", tmp_path / "a.png", "--out", tmp_path / "o"
    run_example("predict.py", *given)
    run(checkpoint, tmp_path / "a.png", "--out", tmp_path / "o")
    out, _ = run_example("predict.py", *given)
    assert "a_mask.png is there already" in out
    settings = json.loads((tmp_path / "o" / "predictions.json").read_text())["settings"]
    assert "neck" not in settings["a_mask.png"] and settings["a_instances.csv"]["neck"] == 0.6
