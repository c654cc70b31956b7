"""NIfTI is read in the page as tinyseg.data reads it, and written as nibabel reads it."""

import gzip
import itertools

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tests.export.page.page_images import check, pixels, read, refusal, run
from tests.scripts import REAL
from tinyseg.data.nifti import common_grid, open_volume

TYPES = [np.uint8, np.uint16, np.uint32, np.int8, np.int16, np.int32, np.float32, np.float64]
AFFINE = np.array([[-0.9, 0.1, 0, 80], [0, 1.1, 0.2, -60], [0.1, 0, 2.5, 12], [0, 0, 0, 1]])


def volume(*shape, dtype=np.int16, kind=nib.Nifti1Image, affine=AFFINE, endianness="<"):
    x = pixels(*shape[::-1], dtype=dtype).T
    header = kind.header_class(endianness=endianness)
    header.set_data_dtype(dtype)
    header.set_xyzt_units("mm", "sec")
    return kind(x, affine, header)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("endianness", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", TYPES)
def test_types_and_orders_of_bytes(tmp_path, dtype, kind, endianness, ending):
    path = tmp_path / f"a{ending}"
    nib.save(volume(11, 13, 5, dtype=dtype, kind=kind, endianness=endianness), path)
    said = check(path)
    assert said["kind"] == "NIfTI"
    np.testing.assert_allclose(np.reshape(said["affine"], (4, 4)), nib.load(path).affine, atol=1e-6)
    sizes = np.linalg.norm(AFFINE[:3, :3], axis=0)
    assert [said["pixelSize"][axis] for axis in "yxz"] == pytest.approx(sizes, rel=1e-6)
    assert said["pixelSize"]["unit"] == "mm"


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_integers_of_64_bits(tmp_path, dtype):
    x = np.arange(11 * 13 * 5, dtype=dtype).reshape(11, 13, 5) * 1000
    nib.save(nib.Nifti1Image(x, AFFINE, dtype=dtype), tmp_path / "a.nii")
    check(tmp_path / "a.nii")
    x[3, 4, 2] = 2**60
    nib.save(nib.Nifti1Image(x, AFFINE, dtype=dtype), tmp_path / "a.nii")
    assert "holds integers beyond 2^53" in refusal(tmp_path / "a.nii")


@pytest.mark.parametrize(
    "shape", [(11, 13), (11, 13, 1), (11, 13, 5, 1), (11, 13, 5, 4), (11, 13, 5, 1, 3), (11, 1, 5, 2), (1, 13, 5)]
)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_axes(tmp_path, shape, ending):
    nib.save(volume(*shape), tmp_path / f"a{ending}")
    check(tmp_path / f"a{ending}", "--without-streams")
    check(tmp_path / f"a{ending}")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_a_scale(tmp_path, dtype):
    image = volume(11, 13, 5, dtype=dtype)
    for slope, intercept in ((0.1, -3.7), (2, 0), (1, 5), (-1, 0)):
        image.header.set_slope_inter(slope, intercept)
        content = bytearray(image.header.binaryblock) + bytes(4) + np.asarray(image.dataobj).tobytes(order="F")
        content[108:112] = np.float32(352).tobytes()
        (tmp_path / "a.nii").write_bytes(content)
        assert nib.load(tmp_path / "a.nii").dataobj.slope == np.float32(slope)
        assert check(tmp_path / "a.nii")["dtype"] == "float32"
    for slope in (0, np.nan):  # no scale
        content[112:120] = np.array([slope, 5], np.float32).tobytes()
        (tmp_path / "a.nii").write_bytes(content)
        check(tmp_path / "a.nii")


def test_rotations_as_quaternions(tmp_path):
    for codes, zooms in (((1, 0), (0.9, 1.1, 2.5)), ((2, 0), (1, 1, -3)), ((2, 1), (1, 1, -3)), ((0, 0), (1, 1, 1))):
        image = volume(11, 13, 5)
        angle = 0.4
        turn = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = turn @ np.diag(zooms), (3, -4, 5)
        image.header.set_qform(affine, codes[0])
        image.header.set_sform(AFFINE, codes[1])
        image = nib.Nifti1Image(np.asarray(image.dataobj), None, image.header)
        nib.save(image, tmp_path / "a.nii")
        found = check(tmp_path / "a.nii")["affine"]
        if codes == (0, 0):
            assert found is None
        else:
            np.testing.assert_allclose(np.reshape(found, (4, 4)), nib.load(tmp_path / "a.nii").affine, atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 7, 4), (5, 7, 4, 2)])
def test_volumes_are_turned_as_networks_see_them(tmp_path, shape):
    """All 48 orders of axes, not quite along those of the scanner."""
    rng = np.random.default_rng(0)
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            affine = np.eye(4)
            affine[:3, axes] = np.diag(signs) * (0.8, 1.3, 3)
            affine[:3] += rng.normal(0, 0.15, (3, 4))
            nib.save(volume(*shape, affine=affine), tmp_path / "a.nii")
            opened = open_volume(tmp_path / "a.nii")
            x = opened.read(common_grid([opened]).orientation)
            expected = x.reshape(*x.shape[:3], -1).transpose(2, 3, 0, 1)
            np.testing.assert_array_equal(read(tmp_path / "a.nii", turned=True)[1], expected)


def test_volumes_that_lie_in_any_direction_are_turned_as_networks_see_them(tmp_path):
    rng = np.random.default_rng(0)
    for turn in Rotation.random(60, random_state=0):
        affine = np.eye(4)
        affine[:3, :3] = turn.as_matrix() @ np.diag((0.8, 1.3, 3)) + rng.normal(0, 0.4, (3, 3))
        nib.save(volume(5, 7, 4, affine=affine), tmp_path / "a.nii")
        expected = open_volume(tmp_path / "a.nii").read("LPS").transpose(2, 0, 1)
        np.testing.assert_array_equal(read(tmp_path / "a.nii", turned=True)[1][:, 0], expected)


def test_volumes_that_do_not_say_how_the_patient_lies_are_not_turned(tmp_path):
    for affine in (np.eye(4), None):
        image = volume(5, 7, 4, affine=affine)
        if affine is None:
            image.header.set_sform(None, 0)
            image.header.set_qform(None, 0)
        nib.save(image, tmp_path / "a.nii")
        np.testing.assert_array_equal(read(tmp_path / "a.nii", turned=True)[1], read(tmp_path / "a.nii")[1])
    nib.save(volume(5, 7, 4), tmp_path / "a.nii")
    content = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "a.nii").write_bytes(content[:296] + bytes(16) + content[312:])  # srow_y
    assert "has axes that lie in one plane" in refusal(tmp_path / "a.nii", turned=True)


def test_gzip_of_several_members_and_with_bytes_behind_it(tmp_path):
    image = volume(31, 33, 15)
    nib.save(image, tmp_path / "plain.nii")
    content = (tmp_path / "plain.nii").read_bytes()
    cut = len(content) // 2
    expected = read(tmp_path / "plain.nii")[1]
    members = gzip.compress(content[:cut]) + gzip.compress(content[cut:])
    for packed in (members, gzip.compress(content) + b"\0" * 99):
        for options in ([], ["--without-streams"]):
            (tmp_path / "a.nii.gz").write_bytes(packed)
            np.testing.assert_array_equal(read(tmp_path / "a.nii.gz", *options)[1], expected)


def test_what_is_refused(tmp_path):
    nib.save(volume(3, 4, 5, 2, 6), tmp_path / "a.nii")
    assert "a.nii has shape (3, 4, 5, 2, 6): expected (X, Y), (X, Y, Z), or" in refusal(tmp_path / "a.nii")
    nib.save(nib.Nifti1Image(np.ones((3, 4, 5), np.complex64), AFFINE), tmp_path / "a.nii")
    assert "values of the type 32 of NIfTI: expected grey integers or floats" in refusal(tmp_path / "a.nii")
    x = volume(3, 4, 5, dtype=np.float32)
    x.get_fdata()[1, 2, 3] = np.nan
    nib.save(nib.Nifti1Image(x.get_fdata().astype(np.float32), AFFINE), tmp_path / "a.nii")
    assert "holds NaN or infinity" in refusal(tmp_path / "a.nii")
    nib.save(nib.Nifti1Pair(np.ones((3, 4, 5), np.uint8), AFFINE), tmp_path / "a.img")
    (tmp_path / "a.hdr").rename(tmp_path / "b.nii")
    assert "is one half of a pair of files" in refusal(tmp_path / "b.nii")
    for ending in (".nii", ".nii.gz"):
        nib.save(volume(31, 33, 15), tmp_path / f"a{ending}")
        content = (tmp_path / f"a{ending}").read_bytes()
        (tmp_path / f"a{ending}").write_bytes(content[:-1000])
        assert "a damaged file" in refusal(tmp_path / f"a{ending}")


@pytest.mark.parametrize("options", [[], ["--without-streams"]], ids=["streams", "no streams"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("shape", [(11, 13, 5), (11, 13, 5, 4), (11, 13)])
def test_written_labels_keep_affine_and_header(tmp_path, shape, kind, ending, options):
    image = volume(*shape, kind=kind, endianness=">" if ending == ".nii" else "<")
    image.header["descrip"] = b"what it is"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"an extension"))
    like = tmp_path / f"a{ending}"
    nib.save(image, like)
    for dtype, channels in ((np.uint8, 1), (np.float32, 3)):
        labels = pixels((*shape, 1)[2], channels, *shape[:2], dtype=dtype)  # (Z, C, X, Y)
        labels.astype(float).tofile(tmp_path / "labels.raw")
        out = tmp_path / ("out.nii.gz" if ending == ".nii.gz" and not options else "out.nii")
        job = {"writeNifti": True, "pixels": str(tmp_path / "labels.raw"), "like": str(like), "out": str(out)}
        answer = run({**job, "dtype": np.dtype(dtype).name, "width": shape[1], "height": shape[0]}, *options)
        assert answer.get("type") == ("application/gzip" if out.name.endswith("gz") else "application/octet-stream"), (
            answer
        )
        written, old = nib.load(out), nib.load(like)
        expected = labels.transpose(2, 3, 0, 1)
        expected = expected[..., 0] if channels == 1 else expected
        expected = expected[..., 0] if len(shape) == 2 and channels == 1 else expected
        np.testing.assert_array_equal(np.asanyarray(written.dataobj), expected)
        assert written.get_data_dtype() == np.dtype(dtype).newbyteorder(old.header.endianness)
        np.testing.assert_array_equal(written.affine, old.affine)
        assert written.header["descrip"] == old.header["descrip"]
        assert [e.get_content() for e in written.header.extensions] == [e.get_content() for e in old.header.extensions]
        assert written.header["sform_code"] == old.header["sform_code"]


def test_a_real_scan():
    files = sorted((REAL / "msd_brain_4ch" / "imagesTr").glob("*.nii.gz"))[:1]
    if not files:
        pytest.skip("no scan of the Decathlon is here")
    check(files[0])
