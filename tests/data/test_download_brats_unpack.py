"""What is in the Decathlon's archive, and how it comes into its folder."""

import errno
import io
import tarfile

import pytest
from decathlon_site import FILES, TAR, fetch, files, make_tar, serve

from tinyseg.data import download_brats
from tinyseg.data.brats import find_cases, read_case
from tinyseg.data.download_brats import ARCHIVE


@pytest.fixture
def site(monkeypatch):
    with serve(monkeypatch) as site:
        yield site


def test_the_whole_way(site, tmp_path):
    folder = tmp_path / "new" / "brats"
    assert fetch(site, folder) == folder
    assert files(folder) == FILES  # no archive, no shadows, nothing temporary
    assert site.asked == [None]
    cases = find_cases(folder)
    assert [case.name for case in cases] == ["BRATS_1", "BRATS_2"] and cases.modalities == ("FLAIR", "T1w")
    assert read_case(cases.cases[0])[0].shape == (2, 9, 8, 7)
    site.content = b"another"
    assert fetch(site, folder) == folder
    assert len(site.asked) == 1


def test_a_missing_file_is_not_complete(site, tmp_path):
    fetch(site, tmp_path)
    for name in ("labelsTr/BRATS_2.nii.gz", "imagesTs/BRATS_3.nii.gz"):
        (tmp_path / name).unlink()
        fetch(site, tmp_path)
        assert files(tmp_path) == FILES
    assert len(site.asked) == 3


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_a_disk_that_fills_up(site, tmp_path, monkeypatch, code):
    def fail(*args):
        raise OSError(code, "no")

    monkeypatch.setattr(download_brats, "write_atomically", fail)
    with pytest.raises(OSError, match=r"\[Errno" if code == errno.EACCES else f"disk of {tmp_path}.* is full .*again"):
        fetch(site, tmp_path)
    assert files(tmp_path) == {ARCHIVE: TAR}


@pytest.mark.parametrize(
    "name", ["../evil", "Task01_BrainTumour/../evil", "Task01_BrainTumour/imagesTr/../../../evil", "/evil"]
)
def test_no_path_leads_out_of_the_folder(site, tmp_path, name):
    buffer = io.BytesIO(TAR)
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        tar.addfile(tarfile.TarInfo(name))
    site.content = buffer.getvalue()
    with pytest.raises(RuntimeError, match=r"evil in .* leads out of the folder, and nothing was unpacked"):
        fetch(site, tmp_path / "a" / "b", site.content)
    assert files(tmp_path) == {f"a/b/{ARCHIVE}": site.content}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (make_tar(FILES, imagesTr="/tmp"), "imagesTr in .* is no plain file, and nothing was unpacked"),
        (make_tar({"imagesTr/BRATS_1.nii.gz": b"x"}), "has no dataset.json, and nothing was unpacked"),
        (b"no tar " * 99, "invalid header"),
    ],
)
def test_other_archives(site, tmp_path, content, says):
    site.content = content
    with pytest.raises(RuntimeError, match=f"does not give the expected archive: .*{says}"):
        fetch(site, tmp_path, content)
    assert files(tmp_path) == {ARCHIVE: content}


def test_interrupted_unpacking_goes_on(site, tmp_path, monkeypatch):
    written = []

    def write(path, content):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path.name)
        path.write_bytes(content)

    monkeypatch.setattr(download_brats, "write_atomically", write)
    with pytest.raises(KeyboardInterrupt):
        fetch(site, tmp_path)
    assert len(files(tmp_path)) == 4 and ARCHIVE in files(tmp_path)
    written.insert(0, "more than three")
    site.asked.clear()
    written.append("again")
    fetch(site, tmp_path)
    assert site.asked == [] and files(tmp_path) == FILES
    assert len(written) == 2 + len(FILES) and written[-1] == "dataset.json"


def test_another_file_is_not_overwritten(site, tmp_path):
    (tmp_path / "labelsTr").mkdir()
    mine = tmp_path / "labelsTr" / "BRATS_2.nii.gz"
    mine.write_bytes(b"mine")
    for asked in (1, 1):  # the archive stays
        with pytest.raises(FileExistsError, match=rf"not overwritten: {mine} has 4 bytes, expected \d+\. Move"):
            fetch(site, tmp_path)
        assert files(tmp_path) == {"labelsTr/BRATS_2.nii.gz": b"mine", ARCHIVE: TAR}
        assert len(site.asked) == asked
    mine.unlink()
    fetch(site, tmp_path)
    assert files(tmp_path) == FILES and len(site.asked) == 1


def test_another_description_is_refused_first(site, tmp_path):
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(ValueError, match=r"dataset\.json is not a description"):
        fetch(site, tmp_path)
    assert site.asked == []
