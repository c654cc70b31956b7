"""Fetching the Decathlon's archive, all of it or the rest, from a server on this machine."""

import hashlib
import shutil
import socket
from types import SimpleNamespace

import pytest
from decathlon_site import FILES, PAGE, PART, TAR, assert_tells_how_by_hand, fetch, files, make_tar, serve, volume
from scripts import run_example

from tinyseg.commands import train_brats
from tinyseg.data import download_brats
from tinyseg.data.brats import find_cases
from tinyseg.data.download_brats import ARCHIVE


@pytest.fixture
def site(monkeypatch):
    with serve(monkeypatch) as site:
        yield site


def half(site, folder, monkeypatch):
    """Begin a download that breaks off; what is there of it."""
    site.cuts = [len(TAR) // 2]
    with monkeypatch.context() as patch:
        patch.setattr(download_brats, "RETRIES", 0)
        with pytest.raises(ConnectionError, match="could not download .* call this again to go on") as error:
            fetch(site, folder)
    assert_tells_how_by_hand(error, site, folder)
    assert (folder / PART).read_bytes() == TAR[: (folder / PART).stat().st_size]
    site.asked.clear()
    site.sent.clear()
    return (folder / PART).stat().st_size


@pytest.mark.parametrize("version", [("ETag", '"one"'), ("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")])
def test_an_interrupted_download_goes_on(site, tmp_path, monkeypatch, version):
    site.version = version
    have = half(site, tmp_path, monkeypatch)
    assert have > len(TAR) // 2 - 64
    fetch(site, tmp_path)
    assert site.asked == [f"bytes={have}-"] and site.sent == [len(TAR) - have]
    assert files(tmp_path) == FILES


def test_broken_connections_are_taken_up_again(site, tmp_path):
    site.cuts = [len(TAR) // 9] * 7  # more often than RETRIES, but each time it is further on
    fetch(site, tmp_path)
    assert len(site.asked) > 7 and sum(site.sent) < len(TAR) + 64 * len(site.asked)
    assert files(tmp_path) == FILES


def test_broken_connections_come_to_an_end(site, tmp_path):
    site.cuts = [9000] + [100] * 99
    with pytest.raises(ConnectionError, match="could not download"):
        fetch(site, tmp_path)
    assert len(site.asked) == 1 + download_brats.RETRIES
    assert (tmp_path / PART).read_bytes() == TAR[: 9000 // 64 * 64 + 64 * download_brats.RETRIES]


def test_a_server_that_gives_little_at_a_time(site, tmp_path):
    site.cuts, site.most = [5000], 3000
    fetch(site, tmp_path)
    assert len(site.asked) == 1 + len(TAR[4992:]) // 3000 + 1 and files(tmp_path) == FILES


def test_a_busy_server_is_asked_again(site, tmp_path):
    site.cuts, site.statuses = [9000], [200, 503, 503]
    fetch(site, tmp_path)
    assert len(site.asked) == 4 and files(tmp_path) == FILES


def test_a_download_that_only_lacks_its_check(site, tmp_path):
    (tmp_path / PART).write_bytes(TAR)
    fetch(site, tmp_path)
    assert site.asked == [] and files(tmp_path) == FILES


@pytest.mark.parametrize("version", [None, ("ETag", 'W/"one"'), ("ETag", '"one"')])
def test_a_server_without_ranges_or_versions_starts_again(site, tmp_path, monkeypatch, version):
    site.version, site.ranges, site.tells_length = version, False, False
    have = half(site, tmp_path, monkeypatch)
    fetch(site, tmp_path)
    assert site.asked == [f"bytes={have}-" if version == ("ETag", '"one"') else None]
    assert site.sent == [len(TAR)] and files(tmp_path) == FILES


@pytest.mark.parametrize("careless", [False, True], ids=["If-Range", "no If-Range"])
def test_halves_of_different_archives_are_not_put_together(site, tmp_path, monkeypatch, careless):
    have = half(site, tmp_path, monkeypatch)
    site.content = make_tar({**FILES, "labelsTr/BRATS_1.nii.gz": volume(9, below=4)})
    site.version, site.careless = ("ETag", '"two"'), careless
    assert len(site.content) == len(TAR) and site.content[:have] != TAR[:have]
    fetch(site, tmp_path, site.content)
    assert site.asked == [f"bytes={have}-", None][: 1 + careless] and site.sent[-1] == len(TAR)
    assert find_cases(tmp_path) and files(tmp_path) != FILES


def test_a_length_that_changed_is_noticed(site, tmp_path, monkeypatch):
    have = half(site, tmp_path, monkeypatch)
    site.version, site.careless, site.content = None, True, TAR + bytes(512)
    with pytest.raises(RuntimeError, match=f"found {len(TAR) + 512:,} bytes, expected {len(TAR):,}"):
        fetch(site, tmp_path)
    assert site.asked == [f"bytes={have}-", None]


@pytest.mark.parametrize("answer", [{"shift": -64}, {"statuses": [416]}], ids=["another place", "not there"])
def test_a_range_that_is_not_the_one_asked_for_starts_again(site, tmp_path, monkeypatch, answer):
    have = half(site, tmp_path, monkeypatch)
    vars(site).update({name: list(v) if isinstance(v, list) else v for name, v in answer.items()})
    fetch(site, tmp_path)
    assert site.asked == [f"bytes={have}-", None] and files(tmp_path) == FILES


@pytest.mark.parametrize("tells_length", [False, True])
def test_a_login_page(site, tmp_path, monkeypatch, tells_length):
    site.content, site.tells_length = PAGE, tells_length
    with pytest.raises(RuntimeError, match=r"found a web page, or a login page \(it begins with .*log in") as error:
        fetch(site, tmp_path)
    assert_tells_how_by_hand(error, site, tmp_path)
    assert files(tmp_path) == {}
    site.content, site.tells_length = TAR, True
    have = half(site, tmp_path, monkeypatch)
    site.content, site.version, site.tells_length = PAGE, None, tells_length
    with pytest.raises(RuntimeError, match="a login page"):
        fetch(site, tmp_path)
    site.content, site.version = TAR, ("ETag", '"one"')
    fetch(site, tmp_path)
    assert site.sent[-1] == len(TAR) - have  # the page in between has cost nothing


def test_another_md5_is_refused_and_deleted(site, tmp_path):
    site.content = TAR[:-1] + b"x"
    found = hashlib.md5(site.content).hexdigest()
    with pytest.raises(RuntimeError, match=rf"found MD5 {found}, expected .*{PART} was deleted") as error:
        fetch(site, tmp_path)
    assert_tells_how_by_hand(error, site, tmp_path)
    assert files(tmp_path) == {}
    site.content = TAR
    fetch(site, tmp_path)
    assert files(tmp_path) == FILES


def test_more_than_expected_is_refused_and_deleted(site, tmp_path):
    site.content, site.tells_length = TAR * 99, False
    with pytest.raises(RuntimeError, match=f"found {len(TAR) + 64:,} bytes, expected {len(TAR):,}"):
        fetch(site, tmp_path)
    assert files(tmp_path) == {}


def test_an_archive_placed_by_hand(site, tmp_path):
    for content, found in ((TAR[:-9], f"{len(TAR) - 9:,} bytes"), (TAR[:-1] + b"x", "MD5"), (PAGE, "a web page")):
        (tmp_path / ARCHIVE).write_bytes(content)
        with pytest.raises(RuntimeError, match=f"found {found}.*delete {tmp_path / ARCHIVE} or move it away"):
            fetch(site, tmp_path)
        assert files(tmp_path) == {ARCHIVE: content}
    (tmp_path / ARCHIVE).write_bytes(TAR)
    fetch(site, tmp_path, keep_archive=True)
    assert files(tmp_path) == FILES | {ARCHIVE: TAR}
    fetch(site, tmp_path)  # as if it had been killed when all was unpacked
    assert files(tmp_path) == FILES
    assert site.asked == []


def test_no_room(site, tmp_path, monkeypatch):
    free = 0
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    unpacked = len(FILES["labelsTr/BRATS_2.nii.gz"])
    for there, needed in (
        ({}, 2 * len(TAR)),
        ({PART: TAR[:-1000]}, len(TAR) + 1000),
        ({ARCHIVE: TAR}, len(TAR)),
        ({ARCHIVE: TAR, "labelsTr/BRATS_2.nii.gz": None}, len(TAR) - unpacked),
    ):
        folder = tmp_path / str(needed)
        for name, content in there.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content or FILES[name])
        free = needed - 1
        with pytest.raises(OSError, match=f"{folder} has too little room"):
            fetch(site, folder)
        assert site.asked == []
        free = needed
        fetch(site, folder)
        site.asked.clear()
    with pytest.raises(OSError, match=r"15\.2 GB are needed \(7\.6 GB .* 7\.6 GB .*, but 5\.0 GB are free"):
        free = 5e9
        fetch(site, tmp_path / "new", size=download_brats.SIZE)


@pytest.mark.parametrize("code", [404, 503])
def test_what_never_begins_is_not_tried_again(site, tmp_path, code):
    site.statuses = [code]
    with pytest.raises(ConnectionError, match=f"could not download .*{code}") as error:
        fetch(site, tmp_path)
    assert_tells_how_by_hand(error, site, tmp_path)
    assert len(site.asked) == 1 and files(tmp_path) == {}


def test_what_is_gone_is_not_tried_again(site, tmp_path):
    site.cuts, site.statuses = [9000], [200, 404]
    with pytest.raises(ConnectionError, match="could not download .*404"):
        fetch(site, tmp_path)
    assert len(site.asked) == 2


def test_server_down(site, tmp_path):
    with socket.socket() as s:  # a port on which nobody listens
        s.bind(("127.0.0.1", 0))
        site.url = f"http://127.0.0.1:{s.getsockname()[1]}/Task01.tar"
    with pytest.raises(ConnectionError, match="could not download") as error:
        fetch(site, tmp_path)
    assert_tells_how_by_hand(error, site, tmp_path)


def test_progress_goes_to_stderr(site, tmp_path, monkeypatch, capsys):
    fetch(site, tmp_path / "quiet")
    assert capsys.readouterr() == ("", "")
    for name, ranges in (("goes on", True), ("starts again", False)):
        half(site, tmp_path / name, monkeypatch)
        site.ranges = ranges
        fetch(site, tmp_path / name, progress=True)
        out, err = capsys.readouterr()
        assert out == "" and all(f"{what}: 100%" in err for what in ("downloading", "checking", "unpacking"))


def test_the_script_fetches_into_its_data(tmp_path, monkeypatch):
    def fetch(directory):
        raise ConnectionError(f"asked for {directory}")

    monkeypatch.setattr(train_brats, "fetch_brain_tumours", fetch)
    options = ["--download", "--out", tmp_path / "run"]
    _, err = run_example("train_brats.py", *options, "--data", tmp_path / "d", code=1)
    assert f"asked for {tmp_path / 'd'}" in err
    _, err = run_example("train_brats.py", *options, code=2)
    assert "--download needs --data" in err
