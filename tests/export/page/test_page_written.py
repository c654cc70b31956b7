"""What the page writes is read by tifffile and Pillow."""

import os
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.export.page.page_images import check, pixels, read, run

# ---- writing


def write(tmp_path, what, x, *options, **job):
    """Write sections (S, H, W) as the page does; return the path of the file."""
    x.astype(float).tofile(tmp_path / "pixels.raw")
    out = tmp_path / f"out.{'png' if what == 'writePng' else 'tif'}"
    said = {what: True, "pixels": str(tmp_path / "pixels.raw"), "out": str(out), "dtype": str(x.dtype)}
    answer = run({**said, "height": x.shape[-2], "width": x.shape[-1], **job}, *options)
    assert "error" not in answer, answer["error"]
    return out


@pytest.mark.parametrize("options", [[], ["--without-streams"]], ids=["streams", "no streams"])
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_written_tiff_is_read_by_tifffile_and_pillow(tmp_path, dtype, count, options):
    x = pixels(count, 37, 53, dtype=dtype)
    size = {"x": 0.25, "y": 0.5, "z": 2, "unit": "µm"}
    path = write(tmp_path, "writeTiff", x, *options, pixelSize=size)
    with tifffile.TiffFile(path) as tif:
        assert [series.shape for series in tif.series] == [x.squeeze().shape if count == 1 else x.shape]
        np.testing.assert_array_equal(tif.asarray().reshape(x.shape), x)
        assert tif.imagej_metadata["unit"] == "\\u00B5m" and tif.imagej_metadata["spacing"] == 2
        assert "images=" not in tif.pages[0].description
        assert all(page.compression == (1 if options else 8) for page in tif.pages)
        tags = tif.pages[-1].tags
        assert tags["XResolution"].value[0] / tags["XResolution"].value[1] == 4
        assert tags["YResolution"].value[0] / tags["YResolution"].value[1] == 2
    with Image.open(path) as picture:
        assert picture.n_frames == count
        for k in range(count):
            picture.seek(k)
            np.testing.assert_array_equal(np.array(picture), x[k])
    said = check(path)
    assert {key: said["pixelSize"][key] for key in size} == size


def test_a_big_tiff_is_written_where_it_has_to_be(tmp_path):
    x = pixels(2, 37, 53, dtype=np.float32)
    path = write(tmp_path, "writeTiff", x, count=10**6, pixelSize={"x": 3, "y": 1e-4, "unit": "mm"})
    with tifffile.TiffFile(path) as tif:
        assert tif.is_bigtiff
        np.testing.assert_array_equal([page.asarray() for page in tif.pages], x)
        across, down = (tif.pages[1].tags[name].value for name in ("XResolution", "YResolution"))
        assert (across[0] / across[1], down[0] / down[1]) == pytest.approx((1 / 3, 1e4))
    np.testing.assert_array_equal(read(path)[1][:, 0], x)


IMAGEJ = """
import ij.*;
public class Show {
  public static void main(String[] paths) {
    for (String path : paths) {
      ImagePlus image = IJ.openImage(path);
      ij.measure.Calibration size = image.getCalibration();
      System.out.print(image.getBitDepth() + " " + image.getNSlices() + " " + image.getWidth());
      System.out.print(" " + image.getHeight());
      System.out.print(" " + size.pixelWidth + " " + size.pixelHeight + " " + size.pixelDepth + " " + size.getUnit());
      for (int k = 1; k <= image.getNSlices(); k++) {
        double sum = 0;
        for (int i = 0; i < 37 * 53; i++) sum += i * (double) image.getStack().getProcessor(k).getf(i);
        System.out.print(" " + sum);
      }
      System.out.println();
    }
  }
}
"""


@pytest.mark.slow
def test_imagej_opens_what_was_written_as_a_stack_with_its_units(tmp_path):
    jar = pathlib.Path(os.environ.get("IMAGEJ_JAR", "/usr/share/java/ij.jar"))
    if shutil.which("java") is None or not jar.is_file():
        pytest.skip(f"ImageJ is not there: looked for java and {jar} (Debian: imagej)")
    stacks, paths, size = [], [], {"x": 0.25, "y": 0.5, "z": 2, "unit": "µm"}
    for dtype in (np.uint8, np.uint16, np.float32):
        for options in ([], ["--without-streams"]):
            stacks.append(pixels(3, 37, 53, dtype=dtype))
            path = write(tmp_path, "writeTiff", stacks[-1], *options, pixelSize=size)
            paths.append(path.rename(tmp_path / f"{len(paths)}.tif"))
    (tmp_path / "Show.java").write_text(IMAGEJ)
    call = ["java", "-Djava.awt.headless=true", "-cp", jar, tmp_path / "Show.java", *paths]
    lines = subprocess.run(call, capture_output=True, text=True, check=True, encoding="utf-8").stdout.splitlines()
    for x, line in zip(stacks, lines, strict=True):
        bits, *shape, width, height, depth, unit, first, second, third = line.split()
        assert (int(bits), [int(n) for n in shape]) == (8 * x.itemsize, [3, 53, 37])
        assert (float(width), float(height), float(depth), unit) == (0.25, 0.5, 2, "µm")
        sums = x.reshape(3, -1).astype(float) @ np.arange(37 * 53)
        np.testing.assert_allclose([float(first), float(second), float(third)], sums)


def test_resolution_and_units_are_kept(tmp_path):
    x, metadata = pixels(3, 37, 53), {"axes": "ZYX", "unit": "nm", "spacing": 45, "xorigin": 7}
    tifffile.imwrite(tmp_path / "a.tif", x, imagej=True, metadata=metadata, resolution=((7, 30), (9, 40)))
    path = write(tmp_path, "writeTiff", x, pixelSize=read(tmp_path / "a.tif")[0]["pixelSize"])
    with tifffile.TiffFile(path) as tif, tifffile.TiffFile(tmp_path / "a.tif") as old:
        for name in ("XResolution", "YResolution", "ResolutionUnit"):
            assert tif.pages[0].tags[name].value == old.pages[0].tags[name].value
        assert {key: tif.imagej_metadata[key] for key in ("unit", "spacing", "xorigin")} == {
            "unit": "nm",
            "spacing": 45,
            "xorigin": 7,
        }
    tifffile.imwrite(tmp_path / "a.tif", x, resolution=((7, 3), (9, 4)), resolutionunit=3, photometric="minisblack")
    path = write(tmp_path, "writeTiff", x, pixelSize=read(tmp_path / "a.tif")[0]["pixelSize"])
    with tifffile.TiffFile(path) as tif:
        assert (tif.pages[0].tags["XResolution"].value, tif.pages[0].tags["ResolutionUnit"].value) == ((7, 3), 3)


@pytest.mark.parametrize("options", [[], ["--without-streams"]], ids=["streams", "no streams"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_written_png_is_read_by_pillow(tmp_path, dtype, options):
    for x in (pixels(1, 37, 53, dtype=dtype), pixels(1, 301, 453, dtype=dtype)):
        path = write(tmp_path, "writePng", x, *options, pixelSize={"x": 1 / 300, "y": 1 / 100, "unit": "inch"})
        with Image.open(path) as picture:
            assert picture.info["dpi"] == pytest.approx((300, 100), abs=0.1)
            np.testing.assert_array_equal(np.array(picture), x[0])
        check(path)


def test_what_cannot_be_written(tmp_path):
    x = pixels(1, 37, 53, dtype=np.int32)
    x.astype(float).tofile(tmp_path / "pixels.raw")
    path = str(tmp_path / "pixels.raw")
    job = {"pixels": path, "height": 37, "width": 53, "dtype": "int32", "out": str(tmp_path / "o")}
    for change, message in (
        ({"writeTiff": 1}, "A TIFF is written as uint8, uint16 or float32, not as int32: convert the pixels."),
        ({"writePng": 1}, "A PNG is written as uint8 or uint16, not as int32: convert the pixels."),
        ({"writePng": 1, "dtype": "uint8", "width": 9}, "A PNG of 37 × 9 pixels was given 1961 values: give"),
        ({"writeTiff": 1, "dtype": "uint8", "height": 1000}, "A TIFF needs at least one section: none was given."),
    ):  # fmt: skip
        assert run({**job, **change})["error"].startswith(message)
