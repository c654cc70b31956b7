"""BraTS's releases as they are unpacked: cases in further folders, other capitals and endings, one wrong name."""

import nibabel as nib
import numpy as np
import pytest

from tinyseg.data.brats import find_cases, read_case, read_label
from tinyseg.data.brats_folders import brats_files
from tinyseg.data.files import find_volumes
from tinyseg.data.label_volumes import find_labels, holds_volumes
from tinyseg.data.scans import find_scans

SHAPE = (9, 7, 5)
ENDINGS = ("_flair", "_t1", "_t1ce", "_t2", "_seg")


def write_case(folder, name, endings=ENDINGS, seed=0):
    """Write a case of four modalities, the m-th of which holds values from 100 · m, and labels 0, 1, 2 and 4."""
    folder = folder / name
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for m, ending in enumerate(endings):
        voxels = rng.choice([0, 1, 2, 4], SHAPE) if m == 4 else 100 * m + rng.integers(0, 100, SHAPE)
        nib.save(nib.Nifti1Image(voxels.astype(np.int16), np.diag([-1, -1, 1, 1])), folder / f"{name}{ending}.nii.gz")
    return folder


def names_in(folder):
    return [case.name for case in find_cases(folder)]


def test_the_user_gives_the_folder_above_hgg_and_lgg(tmp_path):
    root = tmp_path / "MICCAI_BraTS_2018_Data_Training"
    write_case(root / "HGG", "Brats18_2013_2_1")
    write_case(root / "LGG", "Brats18_TCIA09_2_1")
    (root / "survival_data.csv").write_text("age")
    for folder in (root, tmp_path):
        assert names_in(folder) == ["Brats18_2013_2_1", "Brats18_TCIA09_2_1"]
        scans = find_scans(folder, ["T1gd"])
        assert [scan.files[0].name for scan in scans] == [f"{name}_t1ce.nii.gz" for name in names_in(root)]
        assert holds_volumes(folder)
    assert names_in(root / "HGG") == ["Brats18_2013_2_1"]


def test_one_patient_is_in_hgg_and_in_lgg(tmp_path):
    write_case(tmp_path / "HGG", "Brats18_2013_2_1")
    write_case(tmp_path / "LGG", "Brats18_2013_2_1")
    with pytest.raises(ValueError, match="two cases named Brats18_2013_2_1"):
        find_cases(tmp_path)


def test_the_user_gives_the_folder_of_one_case(tmp_path):
    assert names_in(write_case(tmp_path, "BraTS2021_00000")) == ["BraTS2021_00000"]


def test_results_within_the_folder_of_a_case_are_no_cases(tmp_path):
    write_case(write_case(tmp_path, "BraTS2021_00000"), "mine")
    assert names_in(tmp_path) == ["BraTS2021_00000"]


@pytest.mark.parametrize(
    "endings", [("_FLAIR", "_T1", "_T1GD", "_T2", "_seg"), ("_flair", "_T1", "_T1c", "_T2", "_SEG")]
)
def test_other_capitals_and_other_names_of_t1_with_gadolinium(tmp_path, endings):
    write_case(tmp_path, "UCSF-PDGM-0004", endings)
    (case,) = find_cases(tmp_path)
    volume, label = read_case(case)
    np.testing.assert_array_equal(volume.min(axis=(1, 2, 3)) // 100, [0, 1, 2, 3])
    assert set(np.unique(label)) == {0, 1, 2, 3}
    (scan,) = find_scans(tmp_path, ["t1c", "FLAIR"])
    assert [file.name.split("_")[1] for file in scan.files] == [f"{endings[2]}.nii.gz"[1:], f"{endings[0]}.nii.gz"[1:]]


def test_labels_alone_in_other_capitals_have_brats_numbers(tmp_path):
    folder = write_case(tmp_path, "a", ("_FLAIR", "_T1", "_T1CE", "_T2", "_SEG"))
    truth = read_case(find_cases(tmp_path).cases[0])[1]
    for path in folder.glob("*_[FT]*.gz"):
        path.unlink()
    (case,) = find_labels(folder)
    assert case.name == "a"
    np.testing.assert_array_equal(read_label(case.label, case.recode), truth)


def test_two_files_of_one_modality(tmp_path):
    folder = write_case(tmp_path, "a")
    (folder / "a_T1GD.nii.gz").write_bytes((folder / "a_t1ce.nii.gz").read_bytes())
    with pytest.raises(ValueError, match="are the same of one case: keep one"):
        brats_files(find_volumes(folder), ENDINGS)
    with pytest.raises(FileNotFoundError, match="keep one of them"):
        find_cases(tmp_path)


def test_the_labels_of_case_355_of_brats_2020_have_a_wrong_name(tmp_path):
    folder = write_case(tmp_path, "BraTS20_Training_355")
    (folder / "BraTS20_Training_355_seg.nii.gz").rename(folder / "W39_1998.09.19_Segm.nii")
    with pytest.raises(FileNotFoundError, match=r"355 has no .*355_seg .*W39_.*Segm\.nii\. If one of .* that name"):
        find_cases(tmp_path)


def test_the_archive_is_not_unpacked(tmp_path):
    (tmp_path / "BraTS2021.tar").write_bytes(b"")
    for path in (tmp_path, tmp_path / "BraTS2021.tar"):
        with pytest.raises(FileNotFoundError, match="unpack them first"):
            find_cases(path)


def test_the_user_gives_the_folder_above_the_task(tmp_path):
    (tmp_path / "Task01").mkdir()
    (tmp_path / "Task01" / "dataset.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="no cases in .* Give .*Task01 by itself"):
        find_cases(tmp_path)


@pytest.mark.timeout(60)
def test_links_that_lead_in_circles_are_looked_into_once(tmp_path):
    for k in range(50):
        (tmp_path / f"l{k}").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(FileNotFoundError, match="no cases in"):
        find_cases(tmp_path)
    write_case(tmp_path / "set", "BraTS20_Training_001")
    assert [case.name for case in find_cases(tmp_path)] == ["BraTS20_Training_001"]
