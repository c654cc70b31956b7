"""Files of kinds that are not read end in a sentence that says what they are and how to convert them."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from tinyseg.data import isbi
from tinyseg.data.images import find_images, open_image
from tinyseg.data.nifti import open_volume


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("IM0001.dcm", "dcm2niix"),
        ("scan.mha", "SimpleITK"),
        ("scan.seg.nrrd", "SimpleITK"),
        ("cells.czi", "Bio-Formats"),
        ("sample_A.hdf", r"tifffile\.imwrite"),
        ("masks.npz", "may hold programs"),
        ("all.ZIP", "unpack"),
    ],
)
def test_a_folder_or_a_file_of_another_kind(tmp_path, name, said):
    (tmp_path / name).write_bytes(b"something")
    for find in (find_images, lambda path: isbi.load(path, "required")):
        with pytest.raises(FileNotFoundError, match=rf"no images in .*{name}.*{said}"):
            find(tmp_path)
    with pytest.raises(ValueError, match=said):
        open_image(tmp_path / name)


@pytest.mark.parametrize("kind", ["scan.mha", "scan.dcm"])
def test_train_brats_is_given_another_kind_of_volume(tmp_path, kind):
    (tmp_path / kind).write_bytes(b"something")
    with pytest.raises(ValueError, match=rf"{kind} cannot be read: expected NIfTI.*convert (it|them) to NIfTI"):
        open_volume(tmp_path / kind)


def test_nifti_under_the_wrong_one_of_its_two_endings(tmp_path):
    plain, packed = tmp_path / "a.nii", tmp_path / "b.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((3, 4, 5), np.int16), np.eye(4)), plain)
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    plain.rename(tmp_path / "c.nii.gz")
    packed.rename(tmp_path / "d.nii")
    for read in (open_volume, open_image):
        with pytest.raises(ValueError, match=r"c\.nii\.gz .* not compressed, saved under this .* the ending \.nii\."):
            read(tmp_path / "c.nii.gz")
        with pytest.raises(ValueError, match=r"d\.nii .* compressed by gzip, saved under .* the ending \.nii\.gz\."):
            read(tmp_path / "d.nii")
