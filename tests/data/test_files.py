"""Finding files in folders."""

import os

import pytest

from tinyseg.data import files, isbi, load_stack
from tinyseg.data.files import expand_pattern, find_files, same_on_disk


def test_the_files_lie_one_folder_further_in_or_are_volumes(tmp_path):
    (tmp_path / "day 1").mkdir()
    (tmp_path / "day 1" / "a.png").touch()
    (tmp_path / "notes").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no sections in .* Folders in it hold some: .* \(day 1\)\."):
        find_files(tmp_path, (".png",), "sections")
    (tmp_path / "notes" / "scan.nii.gz").touch()
    with pytest.raises(FileNotFoundError, match=r"NIfTI volumes are for train_brats\.py"):
        find_files(tmp_path / "notes", (".png",), "sections")


def test_flows_and_outlines_of_cellpose_lie_beside_the_image(tmp_path):
    left = ["a_img_flows.tif", "a_img_dP.tif", "a_img_outlines_cp_masks.png", "a_img_cp_output.png"]
    kept = ["a_img.png", "a_img_cp_masks.png", "b_flows.png", "outlines.png"]  # b has no image: this may be one
    for name in left + kept:
        (tmp_path / name).touch()
    with pytest.warns(UserWarning, match="flows or outlines of cellpose, which are left out: .*a_img_dP"):
        found = find_files(tmp_path, (".png", ".tif"), "sections")
    assert [file.name for file in found] == kept


def test_pictures_of_kinds_that_are_not_read_are_named_and_not_left_out_in_silence(tmp_path):
    for name in ("a.png", "b.gif", "c.WEBP", ".d.gif", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.warns(UserWarning, match=r"not read and are left out: b\.gif, c\.WEBP\. Save them as PNG"):
        found = find_files(tmp_path, (".png",), "sections")
    assert [file.name for file in found] == ["a.png"]


@pytest.mark.skipif(not os.path.exists(os.devnull), reason="no /dev/null here")
@pytest.mark.parametrize("read", [load_stack, isbi.load])
def test_a_device_given_for_images(read):
    with pytest.raises(FileNotFoundError, match="null is neither a file nor a folder: expected"):
        read(os.devnull)


def test_a_pattern_that_the_shell_did_not_expand(tmp_path):
    """As in the shells of Windows: tinyseg predict … cells\\*.png."""
    for name in ("cell10.png", "cell2.png", "notes.txt", ".cell3.png"):
        (tmp_path / name).touch()
    assert [path.name for path in expand_pattern(tmp_path / "*.png")] == ["cell2.png", "cell10.png"]
    assert expand_pattern(tmp_path / "*.tif") == [tmp_path / "*.tif"]  # whoever opens it says that it is not there
    odd = tmp_path / "cell[1]*.png"
    odd.touch()
    assert expand_pattern(odd) == [odd]


def test_two_names_are_one_file_on_a_mac_and_on_windows(monkeypatch):
    one, other = "masks/Zellk\N{LATIN SMALL LETTER O WITH DIAERESIS}rper_mask.png", "masks/ZELLKo\u0308rper_mask.png"
    monkeypatch.setattr(files, "FOLDS_NAMES", False)
    assert same_on_disk(one) != same_on_disk(other)
    monkeypatch.setattr(files, "FOLDS_NAMES", True)
    assert same_on_disk(one) == same_on_disk(other) != same_on_disk("masks/cell_mask.png")
