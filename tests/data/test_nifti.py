"""Volumes as users store them: in other orders of axes, without codes, in other units, damaged at the end."""

import gzip
import itertools

import nibabel as nib
import numpy as np
import pytest

from tinyseg.data.brats import Case, read_case, read_label
from tinyseg.data.images import open_image
from tinyseg.data.nifti import common_grid, open_volume

SHAPE = (9, 7, 5)
LPS = np.diag([-1.0, -1.25, 2.0, 1.0])
LPS[:3, 3] = 20, -30, 7
ORIENTATIONS = [
    "".join(codes)
    for axes in itertools.permutations(("LR", "PA", "SI"))
    for codes in itertools.product(*axes)
]  # fmt: skip


def scan(*shape, seed=0):
    return np.random.default_rng(seed).integers(1, 900, shape or SHAPE).astype(np.int16)


def labels():
    return np.random.default_rng(9).choice(np.arange(4, dtype=np.uint8), SHAPE)


def save(path, voxels, affine=LPS, orientation=None, codes=None, units=None):
    image = nib.Nifti1Image(voxels, affine)
    if orientation:
        change = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(orientation))
        image = image.as_reoriented(change)
    if codes is not None:
        image.set_sform(image.affine, codes)
        image.set_qform(image.affine, codes)
    if units:
        image.header.set_xyzt_units(units)
    nib.save(image, path)
    return path


def case_of(images, label):
    return Case("A", tuple(images), label, tuple((k, k) for k in range(4)))


def test_there_are_48_orders_of_axes():
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_case_stored_in_any_order_is_read_alike(tmp_path, orientation):
    """Image, label and a modality in another order than the other: all in LPS, as BraTS has them."""
    voxels, truth = [scan(seed=0), scan(seed=1)], labels()
    images = [save(tmp_path / "a.nii.gz", voxels[0], orientation=orientation), save(tmp_path / "b.nii", voxels[1])]
    volume, label = read_case(case_of(images, save(tmp_path / "l.nii.gz", truth, orientation="RAS")))
    np.testing.assert_array_equal(volume, voxels)
    np.testing.assert_array_equal(label, truth)
    both = save(tmp_path / "both.nii.gz", np.stack(voxels, axis=-1), orientation=orientation)
    volume, label = read_case(case_of([both], save(tmp_path / "l.nii.gz", truth, orientation=orientation)))
    np.testing.assert_array_equal(volume, voxels)
    np.testing.assert_array_equal(label, truth)


def test_files_that_do_not_say_how_the_patient_lies_are_taken_as_stored(tmp_path):
    """The Decathlon's affine, the identity, and none at all; a label that is stored otherwise follows the image."""
    voxels, truth = scan(), labels()
    image = save(tmp_path / "a.nii.gz", voxels, np.eye(4))
    for orientation in ("RAS", "LPS", "SAR"):
        label = save(tmp_path / "l.nii.gz", truth, np.eye(4), orientation=orientation)
        found = read_case(case_of([image], label))
        np.testing.assert_array_equal(found[0][0], voxels)
        np.testing.assert_array_equal(found[1], truth)
    image = save(tmp_path / "a.nii.gz", voxels, np.diag([1.0, 1, 3, 1]), codes=0)
    for affine in (LPS, np.diag([1.0, 1, 3, 1])):
        found = read_case(case_of([image], save(tmp_path / "l.nii.gz", truth, affine)))
        np.testing.assert_array_equal(found[0][0], voxels)
        np.testing.assert_array_equal(found[1], truth)


@pytest.mark.parametrize("orientation", ["RAS", "PIR"])
def test_a_label_without_codes_lies_as_its_image_does(tmp_path, orientation):
    """Saved by a program that loses the affine: the image is still brought into the network's order, and both alike."""
    voxels, truth = scan(), labels()
    image = save(tmp_path / "a.nii.gz", voxels, orientation=orientation)
    label = save(tmp_path / "l.nii.gz", truth, orientation=orientation, codes=0)
    found = read_case(case_of([image], label))
    np.testing.assert_array_equal(found[0][0], voxels)
    np.testing.assert_array_equal(found[1], truth)


def changed(index, value):
    affine = LPS.copy()
    affine[index] = value
    return affine


def turned_by(degrees):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ LPS


@pytest.mark.parametrize(
    ("affine", "shape", "words"),
    [
        (LPS, (9, 7, 6), r"shape is \(9, 7, 6\) and \(9, 7, 5\)"),
        (changed((2, 2), 3.0), SHAPE, "spacing is 1 × 1.25 × 3 mm and 1 × 1.25 × 2 mm"),
        (changed((0, 3), 23.0), SHAPE, r"origin differs by \(3.0, 0.0, 0.0\) mm"),
        (turned_by(5), SHAPE, r"origin differs by \(.*\) mm at the middle, and their orientation by 5.0 degrees"),
    ],
)
def test_a_label_of_another_grid_is_refused_with_both_files_and_what_differs(tmp_path, affine, shape, words):
    image = save(tmp_path / "scan.nii.gz", scan())
    label = save(tmp_path / "truth.nii.gz", np.zeros(shape, np.uint8), affine)
    with pytest.raises(ValueError, match=rf"truth\.nii\.gz and .*scan\.nii\.gz do not lie on one grid: .*{words}"):
        read_case(case_of([image], label))
    with pytest.raises(ValueError, match="do not lie on one grid"):
        common_grid([open_volume(path) for path in (image, label)])


@pytest.mark.parametrize(("units", "size"), [("mm", 1.0), ("micron", 1000.0), ("meter", 0.001), ("unknown", 1.0)])
def test_a_voxel_is_measured_in_cubic_millimetres_whatever_the_unit(tmp_path, units, size):
    affine = LPS @ np.diag([size, size, size, 1])
    assert open_volume(save(tmp_path / "a.nii", scan(), affine, units=units)).grid.voxel == pytest.approx(2.5)


def test_zooms_that_disagree_with_the_affine_do_not_count(tmp_path):
    image = nib.Nifti1Image(scan(), LPS)
    image.header["pixdim"][1:4] = 7
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[80:92] = np.array([7, 7, 7], "<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(content)
    assert nib.load(tmp_path / "a.nii").header.get_zooms() == (7, 7, 7)
    assert open_volume(tmp_path / "a.nii").grid.voxel == pytest.approx(2.5)


def test_voxels_without_a_size_are_refused(tmp_path):
    content = bytearray(nib.Nifti1Image(scan(), LPS).to_bytes())
    content[280:292] = bytes(12)  # the first row of the sform
    (tmp_path / "flat.nii").write_bytes(content)
    with pytest.raises(ValueError, match=r"flat\.nii has voxels of 0 mm³"):
        open_volume(tmp_path / "flat.nii")
    content[252:256], content[80:84] = bytes(4), bytes(4)  # no codes, a zoom of 0
    (tmp_path / "flat.nii").write_bytes(content)
    with pytest.raises(ValueError, match=r"flat\.nii has zooms of \[0.0, "):
        open_volume(tmp_path / "flat.nii")


def test_complex_numbers_colours_and_pairs_of_files_are_refused_by_name(tmp_path):
    colours = np.zeros(SHAPE, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    for voxels, words in ((scan().astype(np.complex64), "complex64"), (colours, "RGB")):
        with pytest.raises(ValueError, match=rf"a\.nii has voxels of type {words}"):
            open_volume(save(tmp_path / "a.nii", voxels))
    nib.save(nib.Nifti1Pair(scan(), LPS), tmp_path / "pair.img")
    with pytest.raises(ValueError, match=r"pair\.img is Nifti1Pair: expected NIfTI in one file"):
        open_volume(tmp_path / "pair.img")


@pytest.mark.parametrize("where", ["a bit in the middle", "the checksum", "the last bytes"])
def test_a_gzipped_file_that_is_damaged_is_not_read(tmp_path, where):
    content = bytearray(gzip.compress(nib.Nifti1Image(labels(), LPS).to_bytes(), 0))
    if where == "a bit in the middle":
        content[-30] ^= 1
    elif where == "the checksum":
        content[-6] ^= 1
    else:
        content = content[:-4]
    (tmp_path / "l.nii.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"l\.nii\.gz cannot be read"):
        read_label(tmp_path / "l.nii.gz", [(k, k) for k in range(4)])


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("size", [15 << 20, 17 << 20])
def test_a_small_file_with_large_extensions_is_refused_before_they_are_unpacked(tmp_path, monkeypatch, kind, size):
    """An extension of zeros, which gzip stores in a thousandth of its size."""
    image = kind(scan(), LPS)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", bytes(size)))
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(image.to_bytes()))
    if size < 16 << 20:
        np.testing.assert_array_equal(open_volume(tmp_path / "a.nii.gz").read(), scan())
        with open_image(tmp_path / "a.nii.gz") as opened:
            np.testing.assert_array_equal(opened.section(1)[0], scan()[:, :, 1])
        return
    monkeypatch.setattr(nib, "load", None)
    for read in (open_volume, open_image):
        with pytest.raises(
            ValueError, match=r"a\.nii\.gz cannot be read: .* its voxels begin at byte 17,82.,...: expected"
        ):
            read(tmp_path / "a.nii.gz")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [("vox_offset", 0, "begin at byte 0: expected 352"), ("magic", b"ni1", "one half of a pair of files")],
)
def test_a_header_that_leads_to_itself_is_not_read_as_voxels(tmp_path, field, value, words):
    content = bytearray(nib.Nifti1Image(scan(), LPS).to_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    header[field] = value
    (tmp_path / "a.nii").write_bytes(header.binaryblock + content[348:])
    for read in (open_volume, open_image):
        with pytest.raises(ValueError, match=words):
            read(tmp_path / "a.nii")


@pytest.mark.parametrize("name", ["a.Nii", "a.nIi.gz", "b.NII", "b.nii.GZ"])
def test_names_in_capitals(tmp_path, name):
    save(tmp_path / name.lower(), scan())
    (tmp_path / name.lower()).rename(tmp_path / name)
    if name[0] == "b":
        np.testing.assert_array_equal(open_volume(tmp_path / name).read(), scan())
        return
    with pytest.raises(ValueError, match=rf"{name} cannot be read: .* so that it ends in {name[1:].lower()}"):
        open_volume(tmp_path / name)


@pytest.mark.parametrize("shape", [(*SHAPE, 1), (*SHAPE, 1, 1)])
def test_labels_and_modalities_with_further_axes_of_one(tmp_path, shape):
    voxels, truth = scan(), labels()
    images = [save(tmp_path / f"{m}.nii.gz", (voxels + m).reshape(shape)) for m in range(2)]
    volume, label = read_case(case_of(images, save(tmp_path / "l.nii.gz", truth.reshape(shape))))
    np.testing.assert_array_equal(volume, [voxels, voxels + 1])
    np.testing.assert_array_equal(label, truth)


def test_modalities_on_the_fifth_axis_and_volumes_of_one_slice(tmp_path):
    voxels = scan(9, 7, 1, 1, 3)
    volume, label = read_case(case_of([save(tmp_path / "a.nii", voxels)], save(tmp_path / "l.nii", labels()[:, :, :1])))
    np.testing.assert_array_equal(volume, np.moveaxis(voxels[:, :, :, 0], 3, 0))
    assert label.shape == (9, 7, 1)


@pytest.mark.parametrize("shape", [(9, 7, 5, 3, 1), (9, 7, 5, 1, 3), (9, 7, 5, 1, 1, 3)])
def test_axes_of_one_do_not_count_for_training_nor_for_predicting(tmp_path, shape):
    voxels = scan(9, 7, 5, 3)
    path = save(tmp_path / "a.nii.gz", voxels.reshape(shape))
    np.testing.assert_array_equal(read_case(case_of([path], None))[0], np.moveaxis(voxels, 3, 0))
    with open_image(path) as image:
        np.testing.assert_array_equal(np.stack(list(image), axis=-1), np.moveaxis(voxels, 2, 3).transpose(2, 0, 1, 3))


@pytest.mark.parametrize("value", [0.9999, 1.0004])
def test_labels_within_rounding_are_labels(tmp_path, value):
    truth = labels()
    path = save(tmp_path / "l.nii.gz", np.where(truth == 1, value, truth).astype(np.float32))
    np.testing.assert_array_equal(read_label(path, [(k, k) for k in range(4)]), truth)


@pytest.mark.parametrize("value", [0.5, 0.99, np.nan, np.inf, 257, -255, -1])
def test_values_that_are_no_labels_are_refused(tmp_path, value):
    truth = labels()
    path = save(tmp_path / "l.nii.gz", np.where(truth == 1, np.float32(value), truth.astype(np.float32)))
    with pytest.raises(ValueError, match=r"l\.nii\.gz holds the labels \["):
        read_label(path, [(k, k) for k in range(4)])


def test_a_slope_and_an_intercept_are_applied_once(tmp_path):
    image = nib.Nifti1Image(scan(), LPS)
    image.header.set_slope_inter(2, 10)
    content = bytearray(image.to_bytes())
    content[112:120] = np.array([2, 10], "<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(content)
    np.testing.assert_array_equal(open_volume(tmp_path / "a.nii").read(), 2 * scan() + 10)


@pytest.mark.parametrize("where", ["two axes run along one line", "a row beyond float32"])
def test_an_affine_of_which_no_order_of_axes_follows_is_refused(tmp_path, where):
    affine = LPS.copy()
    if where == "a row beyond float32":
        affine[0, 0] = 3e38
    else:
        affine[:3, 2] = affine[:3, 0] + [0, 1e-20, 1e-20]
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), None)
    image.header["srow_x"], image.header["srow_y"], image.header["srow_z"] = affine[:3]
    image.header["sform_code"] = 1
    nib.save(image, tmp_path / "a.nii")
    with pytest.raises(ValueError, match=r"a\.nii has voxels of .* mm³ by its header"):
        open_volume(tmp_path / "a.nii")
