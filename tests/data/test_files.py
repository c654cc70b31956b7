"""Writing files as a whole or not at all, and knowing at the start whether that will be possible."""

import errno
import os
import types

import pytest

from tinyseg.data import files, isbi, load_stack
from tinyseg.data.files import check_writable, find_files, write_atomically


@pytest.mark.parametrize("name", ["x" * 255, "ä" * 127, ".hidden", "a b"])
def test_names_as_long_as_the_system_takes_them(name, tmp_path):
    write_atomically(tmp_path / name, "text")
    assert [p.name for p in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "text"


def test_a_new_file_has_the_permissions_of_any_other(tmp_path):
    write_atomically(tmp_path / "a", b"")
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(OSError, match=f"{path} could not be written: it is a folder, a device or a pipe"):
            write_atomically(path, "text")
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(OSError, match="The folder .*none does not exist: make it first"):
        write_atomically(tmp_path / "none" / "a", "text")


def test_a_folder_that_can_be_made_is_not_made(tmp_path):
    check_writable(tmp_path / "a" / "b", size=1000)
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_nothing_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "a"):
        with pytest.raises(
            OSError, match=f"{path} could not be written: .*file is not a folder. Choose another folder"
        ):
            check_writable(path)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=2**20))
    check_writable(tmp_path, 2**20)
    with pytest.raises(OSError, match="No space left on device. Up to 2.0 MiB are needed: make room or") as caught:
        check_writable(tmp_path, 2**21)
    assert caught.value.errno == errno.ENOSPC


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
