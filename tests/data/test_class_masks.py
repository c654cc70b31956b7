"""Masks of several classes, as people save them and name them."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from tinyseg.data import isbi
from tinyseg.data.class_masks import Classes, find_class_names, find_classes, looks_void, parse_class_names

COLOURS = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0), (224, 224, 192)], np.uint8)  # as Pascal VOC has them


def cells(count=3, shape=(44, 57)):
    """Numbers of classes: 1 in discs, 2 in their rims, 3 in a corner of the last picture."""
    i, j = np.mgrid[: shape[0], : shape[1]]
    numbers = np.zeros((count, *shape), int)
    for k, mask in enumerate(numbers):
        for y, x in ((12, 14), (30, 24 + 3 * k), (15, 42)):
            distance = np.hypot(i - y, j - x)
            mask[distance < 9] = 2
            mask[distance < 6] = 1
    numbers[-1, 35:40, 50:55] = 3
    return numbers


def write(folder, masks, ending="png", place="masks"):
    """Write masks, and grey images beside them."""
    rng = np.random.default_rng(0)
    for part in ("images", place):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for k, mask in enumerate(masks):
        picture = Image.fromarray(rng.integers(0, 255, mask.shape[:2]).astype(np.uint8))
        picture.save(folder / "images" / f"{k}.png")
        if isinstance(mask, Image.Image):
            mask.save(folder / place / f"{k}.{ending}")
        elif ending == "tif":
            tifffile.imwrite(folder / place / f"{k}.tif", mask, photometric="minisblack")
        else:
            Image.fromarray(mask).save(folder / place / f"{k}.{ending}")
    return folder


def load(folder, classes="auto"):
    return isbi.load(folder, "required", classes=classes)


# ----- what the values are ---------------------------------------------------------
@pytest.mark.parametrize(
    ("values", "dtype", "ending"),
    [
        ((0, 1, 2, 3), np.uint8, "png"), ((0, 85, 170, 255), np.uint8, "png"), ((7, 9, 20, 12), np.uint16, "png"),
        ((0, 1, 2, 255), np.uint8, "tif"), ((0, 1, 2, 3), np.float32, "tif"), ((0, 900, 2000, 300), np.uint16, "tif"),
    ],
)  # fmt: skip
def test_a_few_values_are_classes(tmp_path, values, dtype, ending):
    numbers = cells()
    sections = load(write(tmp_path, np.array(values, dtype)[numbers], ending))
    order = np.argsort(values)
    assert sections.classes.values == tuple(sorted(values)) and sections.labels.dtype == np.int16
    np.testing.assert_array_equal(np.array(values)[order][sections.labels], np.array(values)[numbers])
    assert sections.classes.names[0] == "background" and sections.classes.names[3] == f"class {sorted(values)[3]}"


@pytest.mark.filterwarnings("ignore:only .* is foreground")
def test_masks_of_two_values_and_numbers_of_objects_stay_what_they_are(tmp_path):
    numbers = cells()
    two = load(write(tmp_path / "two", np.where(numbers == 0, 0, 255).astype(np.uint8)))
    assert two.classes is None and two.labels.dtype == bool
    np.testing.assert_array_equal(two.labels, numbers > 0)
    mixed = [np.where(mask == 0, 0, white).astype(np.uint8) for mask, white in zip(numbers, (1, 255, 1), strict=True)]
    assert load(write(tmp_path / "mixed", mixed)).classes is None
    objects = np.zeros((2, 44, 57), np.uint16)
    for k in range(30):
        objects[:, 7 * (k // 6) + 2 : 7 * (k // 6) + 7, 9 * (k % 6) + 2 : 9 * (k % 6) + 8] = k + 1
    with pytest.warns(UserWarning, match="labels of 60 objects"):
        assert load(write(tmp_path / "objects", objects, "tif")).classes is None


def test_a_few_objects_become_classes_when_they_are_named(tmp_path):
    layers = np.zeros((1, 30, 20), np.uint8)
    layers[0, 3:9, 3:9], layers[0, 15:25, 3:9] = 1, 2
    write(tmp_path, layers)
    with pytest.warns(UserWarning, match="labels of 2 objects.*If they are classes, name them .--class-names"):
        assert load(tmp_path).classes is None
    named = load(tmp_path, parse_class_names("ground,root,leaf"))
    assert named.classes.names == ("ground", "root", "leaf")
    np.testing.assert_array_equal(named.labels, layers)


@pytest.mark.parametrize("how", ["enlarged", "blurred", "jpeg", "close", "halves", "negative", "many"])
def test_what_interpolation_or_jpeg_leaves_is_no_class(tmp_path, how):
    mask = np.where(cells(1)[0] == 1, 255, 0).astype(np.uint8)
    picture, ending = Image.fromarray(mask), "jpg" if how == "jpeg" else "tif"
    content = {
        "enlarged": lambda: np.asarray(picture.resize((114, 88), Image.Resampling.BILINEAR)),  # 0, 16, 64 … 255
        "blurred": lambda: (2 * (mask.astype(int) > 0) + np.roll(mask > 0, 1, 1) + np.roll(mask > 0, 1, 0)) * 60,
        "jpeg": lambda: mask,
        "close": lambda: np.abs(mask - 2 * (np.arange(57) % 9 > 4)),  # 0, 2, 253, 255: flat parts that differ a little
        "halves": lambda: cells(1)[0] / 2,
        "negative": lambda: cells(1)[0] - 1,
        "many": lambda: np.arange(44)[:, None] // 2 * 10 * np.ones((1, 57), int),
    }[how]()
    content = content.astype({"halves": np.float32, "negative": np.int16}.get(how, np.uint8))
    with pytest.raises(ValueError, match=r"exactly two values.*Or are these classes\? Name them: --class-names"):
        load(write(tmp_path, [content], ending))


def test_a_thin_rim_between_two_greys_is_a_class_when_somebody_says_so(tmp_path):
    rim = np.array((0, 255, 128, 0), np.uint8)[cells()]
    thin = np.where((rim == 128) & (np.roll(rim, 1, 2) == 128), 0, rim)
    assert find_classes(np.array((0, 2, 1), np.uint8)[np.digitize(thin, (1, 200))]) is not None  # numbers: no doubt
    write(tmp_path, thin)
    assert load(tmp_path, parse_class_names("background,rim,cell")).classes.values == (0, 128, 255)


def test_a_palette_of_colours_holds_numbers(tmp_path):
    numbers = cells()
    pictures = []
    for mask in numbers:
        picture = Image.new("P", mask.shape[::-1])
        picture.putdata(mask.ravel().tolist())
        picture.putpalette(COLOURS.ravel().tolist())
        pictures.append(picture)
    (tmp_path / "masks").mkdir()
    (tmp_path / "images").mkdir()
    for k, picture in enumerate(pictures):
        Image.fromarray(np.full(numbers.shape[1:], 9 + k, np.uint8)).save(tmp_path / "images" / f"{k}.png")
        picture.save(tmp_path / "masks" / f"{k}.png")
    np.testing.assert_array_equal(load(tmp_path).labels, numbers)
    with pytest.raises(ValueError, match="is in colour"):  # where nobody asks for classes, colours are colours
        load(tmp_path, None)


def test_a_tiff_with_a_lookup_table_of_colours_holds_numbers(tmp_path):
    numbers = cells()
    write(tmp_path, numbers.astype(np.uint8))
    table = np.zeros((3, 256), np.uint16)
    table[:, :4] = COLOURS.T.astype(np.uint16) * 257
    for k, mask in enumerate(numbers):
        (tmp_path / "masks" / f"{k}.png").unlink()
        tifffile.imwrite(tmp_path / "masks" / f"{k}.tif", mask.astype(np.uint8), photometric="palette", colormap=table)
    np.testing.assert_array_equal(load(tmp_path).labels, numbers)


def test_two_colours_of_a_palette_are_a_mask(tmp_path):
    """The palette has white before black: the brighter one is the foreground, not the larger number."""
    write(tmp_path, cells().astype(np.uint8))
    inside = cells() == 0
    for k, mask in enumerate(inside):
        picture = Image.new("P", mask.shape[::-1])
        picture.putpalette([255, 255, 255, 0, 0, 90])
        picture.putdata((~mask).ravel().astype(int).tolist())
        picture.save(tmp_path / "masks" / f"{k}.png")
    np.testing.assert_array_equal(load(tmp_path).labels, inside)


def test_colours_without_a_palette_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"is in colour: .*save masks of numbers, 0, 1, 2"):
        load(write(tmp_path, COLOURS[cells()]))


# ----- names -----------------------------------------------------------------------
@pytest.mark.parametrize("folder", ["masks", "."])
@pytest.mark.parametrize(
    "content",
    [{"soil": 3, "background": 0, "rim": 2, "cell": 1}, {"0": "background", "1": "cell", "2": "rim", "3": "soil"}],
)
def test_classes_json_beside_the_masks_names_them(tmp_path, folder, content):
    write(tmp_path, cells().astype(np.uint8))
    (tmp_path / folder / "classes.json").write_text(json.dumps(content))
    sections = load(tmp_path)
    assert sections.classes.names == ("background", "cell", "rim", "soil") and sections.classes.values == (0, 1, 2, 3)
    np.testing.assert_array_equal(sections.labels, cells())


def test_pixels_to_ignore_have_no_class(tmp_path):
    write(tmp_path, np.array((0, 1, 2, 255), np.uint8)[cells()])
    assert looks_void(load(tmp_path).classes)
    assert not looks_void(load(tmp_path, parse_class_names("background,cell,rim,soil")).classes)
    (tmp_path / "classes.json").write_text('{"background": 0, "cell": 1, "rim": 2, "Ignore": 255}')
    sections = load(tmp_path)
    assert sections.classes.ignore == 255 and len(sections.classes.names) == 3
    np.testing.assert_array_equal(sections.labels, np.where(cells() == 3, -1, cells()))
    assert sections.classes.describe() == "background (0), cell (1), rim (2), ignore (255)"
    np.testing.assert_array_equal(sections.classes.write(sections.labels), np.array((0, 1, 2, 255))[cells()])


def test_the_description_of_nnunet_names_classes(tmp_path):
    write(tmp_path, cells().astype(np.uint8), place="labelsTr")
    (tmp_path / "images").rename(tmp_path / "imagesTr")
    labels = {"background": 0, "cell": 1, "rim": 2, "soil": 3}
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "EM"}, "labels": labels}))
    assert load(tmp_path).classes.names == tuple(labels)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "cell": 1}}))
    assert find_class_names(tmp_path) is None  # a foreground


def test_the_background_comes_first_whatever_its_value():
    assert parse_class_names("nucleus=0,Background=255,rim=128").names == ("Background", "nucleus", "rim")
    found = find_classes(np.array([[[0, 1, 2]]]), parse_class_names("nucleus,rim,background"))
    assert (found.names, found.values) == (("background", "nucleus", "rim"), (2, 0, 1))
    np.testing.assert_array_equal(found.number(np.array([[[2, 0, 1, 0]]]), ["a"]), [[[0, 1, 2, 1]]])


def test_classes_json_above_a_folder_of_masks_that_is_given_by_itself(tmp_path):
    write(tmp_path, cells().astype(np.uint8))
    (tmp_path / "classes.json").write_text('{"background": 0, "cell": 1, "rim": 2, "soil": 3}')
    sections = isbi.load(tmp_path / "images", tmp_path / "masks", classes="auto")
    assert sections.classes.names == ("background", "cell", "rim", "soil")


def test_two_named_classes_are_classes(tmp_path):
    write(tmp_path, np.where(cells() > 0, 255, 0).astype(np.uint8))
    named = load(tmp_path, parse_class_names("background,cell"))
    assert named.classes.values == (0, 255)
    np.testing.assert_array_equal(named.labels, cells() > 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b,a", "gives several classes one name"), ("a", "names 1 classes: expected 2 to 255"), ("a,,b", "printable"),
        ("a=0,b", "expected a value for each name"), ("a=0,b=x", "expected a value for each name"),
        ("a=1,b=1", "several classes the value 1"), ("a=0,b=70000", "expected 0 to 65535"),
        ("a,b,ignore", "say which value .ignore. is"), ("a=0,ignore=1", "names 1 classes"),
    ],
)  # fmt: skip
def test_names_that_do_not_fit(text, words):
    with pytest.raises(ValueError, match=words):
        parse_class_names(text)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[1]", "is not a file of classes"), ('{"a": "b", "c": 1}', 'expected {"background": 0, "nucleus": 1, …}'),
        ('{"a": 1.5, "b": 2}', "does not name classes"), ('{"a": 1, "b": 1}', "several classes the value 1"),
        ("{}", "names 0 classes"), ("{", "cannot be read as JSON"),
    ],
)  # fmt: skip
def test_a_classes_json_that_does_not_fit(tmp_path, content, words):
    write(tmp_path, cells().astype(np.uint8))
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(ValueError, match="classes.json") as error:
        load(tmp_path)
    assert words in str(error.value)


def test_more_names_than_values_and_values_without_a_name(tmp_path):
    write(tmp_path, cells().astype(np.uint8))
    with pytest.raises(ValueError, match=r"--class-names names 5 classes .*the masks have 4 values \(0, 1, 2, 3\)"):
        load(tmp_path, parse_class_names("a,b,c,d,e"))
    with pytest.raises(ValueError, match=r"2\.png in .*masks has pixels of 3, and --class-names has .*rim \(2\): give"):
        load(tmp_path, parse_class_names("background=0,cell=1,rim=2"))


def test_classes_stay_with_sections_that_are_taken_split_and_resized():
    classes = Classes(("background", "cell", "rim", "soil"), (0, 1, 2, 3))
    sections = isbi.Sections(cells().astype(np.uint8), cells().astype(np.int16), ["a", "b", "c"], classes)
    for part in (*sections.split(1), sections.take([2]), sections.resized((22, 19))):
        assert part.classes is classes
    assert set(np.unique(sections.resized((22, 19)).labels)) == {0, 1, 2, 3}
