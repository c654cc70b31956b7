"""What there is to predict in a folder, and modalities in several files read as one image."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from brains import change_dataset

from tinyseg.data.nifti import same_grid
from tinyseg.data.scans import Scan, channels_of, find_scans, open_scan

SHAPE = (9, 7, 5)
ENDINGS = ("_flair", "_t1", "_t1ce", "_t2")


def nifti(path, shape=SHAPE, seed=0, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(seed).integers(0, 900, shape).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)
    return voxels


def test_modalities_are_found_under_other_names():
    assert channels_of(["t1gd", "FLAIR"], ["FLAIR", "T1w", "T1gd", "T2w"], "x") == (2, 0)
    assert channels_of(["t2f", "t1c"], ["t1", "t1ce", "flair"], "x") == (2, 1)
    assert channels_of(["ADC", "dwi"], ["DWI", "adc"], "x") == (1, 0)  # names of no table: as they are
    with pytest.raises(ValueError, match="folder has the modalities FLAIR, T1w, but .* there is no T2w, PD"):
        channels_of(["FLAIR", "T2w", "PD"], ["FLAIR", "T1w"], "folder")


def test_brats_cases_in_one_folder_or_in_folders_of_their_own(tmp_path):
    for name in ("A_2", "A_10"):
        for m, ending in enumerate(ENDINGS):
            nifti(tmp_path / "flat" / f"{name}{ending}.nii", seed=m)
            nifti(tmp_path / "deep" / name / f"{name}{ending}.nii.gz", seed=m)
    nifti(tmp_path / "deep" / "A_2" / "._A_3_flair.nii.gz")
    nifti(tmp_path / "deep" / ".hidden" / "A_4_flair.nii.gz")
    for folder, ending in (("flat", ".nii"), ("deep", ".nii.gz")):
        scans = find_scans(tmp_path / folder, ["T1gd", "FLAIR"])
        assert sorted(scan.name for scan in scans) == ["A_10.nii.gz", "A_2.nii.gz"]
        files = [path.name for scan in scans for path in scan.files if scan.name == "A_2.nii.gz"]
        assert files == [f"A_2_t1ce{ending}", f"A_2_flair{ending}"]
    plain = find_scans(tmp_path / "flat")  # a network that does not say its modalities
    assert len(plain) == 8 and {len(scan.files) for scan in plain} == {1}


def test_a_folder_of_other_images_is_a_folder_of_images(tmp_path):
    nifti(tmp_path / "case_2.nii.gz")
    nifti(tmp_path / "case_10.nii.gz")
    scans = find_scans(tmp_path, ["FLAIR"])
    assert [scan.name for scan in scans] == ["case_2.nii.gz", "case_10.nii.gz"] and scans[0].channels is None
    assert find_scans(tmp_path / "case_2.nii.gz", ["FLAIR"]) == [scans[0]]
    with pytest.raises(FileNotFoundError, match="does not exist"):
        find_scans(tmp_path / "nowhere", ["FLAIR"])


def test_a_decathlon_folder_without_images_says_so(tmp_path):
    (tmp_path / "dataset.json").write_text('{"labels": {"0": "a"}, "training": []}')
    change_dataset(tmp_path, modality={"0": "FLAIR", "1": "T2w"})
    with pytest.raises(FileNotFoundError, match="imagesTr does not exist"):
        find_scans(tmp_path, ["FLAIR"])
    nifti(tmp_path / "imagesTr" / "a.nii.gz", (*SHAPE, 2))
    assert find_scans(tmp_path, ["T2w", "FLAIR"])[0].channels == (1, 0)
    assert find_scans(tmp_path)[0].channels is None
    # The folder of images by itself: its modalities are still those of dataset.json, in their order.
    assert find_scans(tmp_path / "imagesTr", ["T2w", "FLAIR"])[0].channels == (1, 0)
    nifti(tmp_path / "imagesTr" / "a.nii.gz")
    with pytest.raises(ValueError, match="has 1 channels, fewer than its dataset"):
        open_scan(find_scans(tmp_path, ["T2w", "FLAIR"])[0])


def test_several_files_are_one_image(tmp_path):
    paths = tuple(tmp_path / f"A{ending}.nii.gz" for ending in ENDINGS[:3])
    volumes = [nifti(path, seed=m) for m, path in enumerate(paths)]
    with open_scan(Scan("A.nii.gz", paths)) as image:
        assert (image.channels, len(image), image.shape, image.kind, image.ndim) == (3, 5, (9, 7), "nifti", 3)
        assert image.path == paths[0] and image.name(2) == "A_flair.nii.gz[2]"
        for k in (0, 3, 4):
            np.testing.assert_array_equal(image.section(k), np.stack([v[:, :, k] for v in volumes]))
    with pytest.raises(ValueError, match="closed"):
        image.section(1)


def test_chosen_channels_of_one_file(tmp_path):
    volume = nifti(tmp_path / "a.nii", (*SHAPE, 4))
    with open_scan(Scan("a.nii", (tmp_path / "a.nii",), (3, 1))) as image:
        assert image.channels == 2
        np.testing.assert_array_equal(image.section(2), np.moveaxis(volume[:, :, 2], 2, 0)[[3, 1]])


def test_what_does_not_belong_together_is_refused(tmp_path):
    nifti(tmp_path / "A_flair.nii.gz")
    turned = np.diag([1, -1, 1, 1.0])
    for name, shape, affine in (("shorter", (9, 7, 4), None), ("turned", SHAPE, turned), ("wider", (10, 7, 5), None)):
        nifti(tmp_path / f"{name}.nii.gz", shape, affine=affine)
        with pytest.raises(ValueError, match=f"{name}.nii.gz and .*A_flair.* do not lie on one grid"):
            open_scan(Scan("A.nii.gz", (tmp_path / "A_flair.nii.gz", tmp_path / f"{name}.nii.gz")))
    with pytest.raises(FileNotFoundError, match=r"A_t2\.nii\.gz is not there: the network takes 2 modalities"):
        open_scan(Scan("A.nii.gz", (tmp_path / "A_flair.nii.gz", Path(tmp_path / "A_t2.nii.gz"))))


def test_grids_agree_to_a_tenth_of_a_voxel():
    affine = np.diag([2.0, 2, 3, 1])
    affine[:3, 3] = 100, -50, 7
    for entry, step, same in (
        ((0, 3), 0.15, True),
        ((0, 3), 0.25, False),
        ((0, 0), 0.0005, True),
        ((0, 0), 0.002, False),
    ):
        other = affine.copy()
        other[entry] += step  # in the scale it adds up over 240 voxels
        assert same_grid((240, 240, 155), affine, (240, 240, 155, 4), other) is same, (entry, step)
    assert not same_grid((240, 240, 155), affine, (240, 240, 154), affine)
