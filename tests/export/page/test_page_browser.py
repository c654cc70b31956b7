"""What only a browser decodes, and what browsers do in their own ways: JPEG, WebP, streams; in Chromium and Firefox."""

import gzip
import io

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.export.page.page_browser import read_in_browser
from tests.export.page.page_images import pixels
from tinyseg.data.images import open_image

BROWSERS = pytest.mark.parametrize("browser", ["chromium", "firefox"])


def smooth(*shape):
    y, x = np.mgrid[: shape[0], : shape[1]]
    grey = 120 + 80 * np.sin(x / 9 + y / 17) * np.cos(y / 7)
    if len(shape) == 2:
        return grey.astype(np.uint8)
    return np.stack([grey * share + 20 for share in (1, 0.6, 0.3)], axis=-1).astype(np.uint8)


@pytest.mark.slow
@BROWSERS
def test_pictures_that_a_browser_decodes(tmp_path, browser):
    grey, colour, expected = smooth(37, 53), smooth(37, 53, 3), {}
    for orientation in (None, 1, 3, 6, 8):
        exif = Image.Exif()
        if orientation:
            exif[0x0112] = orientation
        path = tmp_path / f"grey{orientation}.jpg"
        Image.fromarray(grey).save(path, quality=90, exif=exif, dpi=(300, 100))
        with open_image(path) as image:
            expected[path] = image.section(0)[0].astype(int)
    for name, picture, options in (
        ("colour.jpg", colour, {"quality": 95, "subsampling": 0}), ("progressive.jpg", grey, {"progressive": True}),
        ("grey.bmp", grey, {}), ("colour.bmp", colour, {}), ("grey.gif", grey, {}),
        ("a.webp", colour, {"lossless": True}),
    ):  # fmt: skip
        Image.fromarray(picture).save(tmp_path / name, **options)
        with Image.open(tmp_path / name) as opened:
            expected[tmp_path / name] = np.array(opened.convert("L")).astype(int)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic and so on")
    *answers, unread = read_in_browser(browser, [*expected, tmp_path / "a.heic"])
    assert "a.heic is HEIC, of a kind that this browser does not decode, or damaged" in unread["error"]
    for (path, x), answer in zip(expected.items(), answers, strict=True):
        assert "error" not in answer, answer
        assert (answer["dtype"], answer["colour"]) == ("uint8", path.stem in ("colour", "a")), path
        found = answer["pixels"][0, 0].astype(int)
        assert found.shape == x.shape, path
        assert np.abs(found - x).max() <= (1 if path.suffix == ".jpg" else 0), (path, np.abs(found - x).max())
        np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(answer["written"][1]))), found)
    assert answers[0]["pixelSize"] == {"x": pytest.approx(1 / 300), "y": pytest.approx(1 / 100), "unit": "inch"}


@pytest.mark.slow
def test_a_browser_that_hides_pixels(tmp_path):
    Image.fromarray(smooth(37, 53)).save(tmp_path / "a.jpg")
    Image.fromarray(smooth(37, 53)).save(tmp_path / "b.png")
    settings = 'user_pref("privacy.resistFingerprinting", true);\n'
    jpeg, png = read_in_browser("firefox", [tmp_path / "a.jpg", tmp_path / "b.png"], settings)
    assert "a.jpg is decoded by the browser, and this browser changes the pixels" in jpeg["error"]
    np.testing.assert_array_equal(png["pixels"][0, 0], smooth(37, 53))


@pytest.mark.slow
@BROWSERS
def test_tiffs_of_jpeg(tmp_path, browser):
    pytest.importorskip("imagecodecs")
    grey, colour, expected = smooth(67, 93), smooth(67, 93, 3), {}
    for name, x, options in (
        ("strips", grey, {"rowsperstrip": 16, "photometric": "minisblack"}),
        ("tiles", grey, {"tile": (32, 48), "photometric": "minisblack"}),
        ("white", grey, {"photometric": "miniswhite"}),
        ("ycbcr", colour, {"photometric": "rgb", "compressionargs": {"outcolorspace": "ycbcr"}}),
        ("rgb", colour, {"photometric": "rgb", "compressionargs": {"outcolorspace": "rgb"}}),
        ("stack", np.stack([grey, grey.T[:67, :67].repeat(2, 1)[:, :93]]), {"photometric": "minisblack"}),
    ):  # fmt: skip
        level = {"level": 95} | options.pop("compressionargs", {})
        tifffile.imwrite(tmp_path / f"{name}.tif", x, compression="jpeg", compressionargs=level, **options)
    Image.fromarray(grey).save(tmp_path / "tables.tif", compression="jpeg")  # with JPEGTables
    Image.fromarray(colour).save(tmp_path / "colourtables.tif", compression="jpeg")
    for path in sorted(tmp_path.iterdir()):
        with tifffile.TiffFile(path) as tif:
            x = tif.asarray()
            if tif.pages[0].photometric == 0:
                x = 255 - x
        x = x if x.shape[-1] != 3 else np.array(Image.fromarray(x).convert("L"))
        expected[path] = x.reshape(-1, *x.shape[-2:]).astype(int)
    answers = read_in_browser(browser, list(expected))
    for (path, x), answer in zip(expected.items(), answers, strict=True):
        assert "error" not in answer, (path, answer)
        assert np.abs(answer["pixels"][:, 0].astype(int) - x).max() <= 2, path


@pytest.mark.slow
@BROWSERS
def test_what_the_page_reads_itself_is_read_alike_in_browsers(tmp_path, browser):
    pytest.importorskip("imagecodecs")
    stack = pixels(3, 137, 253, dtype=np.uint16)
    for packing in ("none", "lzw", "zlib"):
        tifffile.imwrite(tmp_path / f"{packing}.tif", stack, compression=packing, photometric="minisblack")
    Image.fromarray(stack[0]).save(tmp_path / "a.png")
    nib.save(nib.Nifti1Image(stack.T, np.eye(4)), tmp_path / "b.nii.gz")
    nib.save(nib.Nifti1Image(stack.T, np.eye(4)), tmp_path / "c.nii")
    content = (tmp_path / "c.nii").read_bytes()
    paths = sorted(tmp_path.iterdir())
    (tmp_path / "members.nii.gz").write_bytes(gzip.compress(content[:99999]) + gzip.compress(content[99999:]))
    (tmp_path / "behind.nii.gz").write_bytes(gzip.compress(content) + bytes(99))
    answers = read_in_browser(browser, [*paths, tmp_path / "members.nii.gz", tmp_path / "behind.nii.gz"])
    for path, answer in zip([*paths, *[tmp_path / "c.nii"] * 2], answers, strict=True):
        assert "error" not in answer, (path, answer)
        with open_image(path) as image:
            np.testing.assert_array_equal(answer["pixels"], np.stack(list(image)))
        with tifffile.TiffFile(io.BytesIO(answer["written"][0])) as tif:
            assert tif.pages[0].compression == 8
            np.testing.assert_array_equal(tif.asarray().ravel(), answer["pixels"].ravel())
