"""Fetching the public files, from a server on this machine."""

import hashlib
import http.server
import io
import shutil
import signal
import socket
import threading
import zipfile

import pytest

from tinyseg.data import download
from tinyseg.data.download import fetch_isbi
from tinyseg.training import interruption

CONTENTS = {name: f"contents of {name} ".encode() * 1000 for name in download.REGISTRY}
MD5 = {name: hashlib.md5(content).hexdigest() for name, content in CONTENTS.items()}


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path.startswith("/slow/"):
            self.server.stop.wait(10)
        elif self.path.startswith("/short/"):  # announces more than it sends
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(b"the beginning")
        else:
            super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def site(tmp_path):
    """A folder to serve, and a server of it."""
    folder = tmp_path / "site"
    folder.mkdir()

    def handler(*args):
        return Handler(*args, directory=folder)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.asked, server.stop, server.folder = [], threading.Event(), folder
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.stop.set()
        server.shutdown()
        thread.join()


def serve_files(site, contents=CONTENTS):
    for name, content in contents.items():
        (site.folder / name).write_bytes(content)
    return site.url


def serve_zip(site, contents=CONTENTS, folder="ISBI-2012-challenge/"):
    with zipfile.ZipFile(site.folder / "isbi.zip", "w") as z:
        for name, content in contents.items():
            z.writestr(folder + name, content)
            z.writestr(f"__MACOSX/{folder}{name}", b"a Mac's shadow of it")
    return f"{site.url}/isbi.zip"


def fetch(site_url, folder, **options):
    return fetch_isbi(folder, **{"base_url": site_url, "progress": False, "registry": MD5, "timeout": 5, **options})


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_tells_how_by_hand(error, folder):
    for text in (str(folder), f"--data {folder}", *(f"{name} (MD5 {md5})" for name, md5 in MD5.items())):
        assert text in str(error.value)


@pytest.mark.parametrize("serve", [serve_files, serve_zip])
def test_success(site, tmp_path, serve):
    folder = tmp_path / "new" / "isbi"
    assert fetch(serve(site), folder) == folder
    assert files(folder) == CONTENTS


def test_zip_without_folders(site, tmp_path):
    fetch(serve_zip(site, folder=""), tmp_path / "isbi")
    assert files(tmp_path / "isbi") == CONTENTS


def test_a_slash_at_the_end_of_the_address(site, tmp_path):
    fetch(serve_files(site) + "/", tmp_path / "isbi")
    assert sorted(site.asked) == sorted(f"/{name}" for name in CONTENTS)


def test_what_is_there_is_not_fetched_again(site, tmp_path):
    folder = tmp_path / "isbi"
    folder.mkdir()
    (folder / "train-volume.tif").write_bytes(CONTENTS["train-volume.tif"])
    url = serve_files(site)
    fetch(url, folder)
    assert sorted(site.asked) == ["/test-volume.tif", "/train-labels.tif"]
    assert files(folder) == CONTENTS
    fetch("http://127.0.0.1:1/nowhere", folder)  # all is there: no server needed


@pytest.mark.parametrize("serve", [serve_files, serve_zip])
def test_another_file_of_that_name_is_not_overwritten(site, tmp_path, serve):
    folder = tmp_path / "isbi"
    folder.mkdir()
    (folder / "train-labels.tif").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"train-labels\.tif is there, but is not .* not overwritten.*--data"):
        fetch(serve(site), folder)
    assert files(folder) == {"train-labels.tif": b"mine"}
    assert site.asked == []


def test_wrong_contents_are_not_kept(site, tmp_path):
    folder = tmp_path / "isbi"
    url = serve_files(site, {**CONTENTS, "train-labels.tif": b"<html>Please log in</html>"})
    with pytest.raises(RuntimeError, match=r"train-labels\.tif has MD5 \w+, expected .*login page") as error:
        fetch(url, folder)
    assert_tells_how_by_hand(error, folder)
    assert files(folder) == {"train-volume.tif": CONTENTS["train-volume.tif"]}  # the one before it, whole
    serve_files(site)
    site.asked.clear()
    fetch(url, folder)
    assert files(folder) == CONTENTS
    assert "/train-volume.tif" not in site.asked


def test_wrong_contents_of_an_archive_are_not_kept(site, tmp_path):
    folder = tmp_path / "isbi"
    with pytest.raises(RuntimeError, match=r"train-volume\.tif has MD5") as error:
        fetch(serve_zip(site, {**CONTENTS, "train-volume.tif": b"other"}), folder)
    assert_tells_how_by_hand(error, folder)
    assert files(folder) == {}


def test_an_archive_that_is_none_or_lacks_a_file(site, tmp_path):
    (site.folder / "isbi.zip").write_bytes(b"<html>Please log in</html>")
    with pytest.raises(RuntimeError, match=r"not a zip file.*login page") as error:
        fetch(f"{site.url}/isbi.zip", tmp_path / "isbi")
    assert_tells_how_by_hand(error, tmp_path / "isbi")
    with pytest.raises(RuntimeError, match=r"the archive has no train-volume\.tif, only other\.tif"):
        fetch(serve_zip(site, {"other.tif": b"x"}), tmp_path / "isbi")
    assert files(tmp_path / "isbi") == {}


def test_not_found(site, tmp_path):
    with pytest.raises(ConnectionError, match="could not download from .*404") as error:
        fetch(site.url, tmp_path / "isbi")
    assert_tells_how_by_hand(error, tmp_path / "isbi")
    assert files(tmp_path / "isbi") == {}


def test_server_down(tmp_path):
    with socket.socket() as s:  # a port on which nobody listens
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with pytest.raises(ConnectionError, match="could not download") as error:
        fetch(f"http://127.0.0.1:{port}", tmp_path / "isbi")
    assert_tells_how_by_hand(error, tmp_path / "isbi")


@pytest.mark.parametrize("kind", ["slow", "short"])
def test_a_server_that_stops_answering(site, tmp_path, kind):
    with pytest.raises(ConnectionError, match="could not download") as error:
        fetch(f"{site.url}/{kind}", tmp_path / "isbi", timeout=0.3)
    assert_tells_how_by_hand(error, tmp_path / "isbi")
    assert files(tmp_path / "isbi") == {}


def test_an_unchecked_file(site, tmp_path):
    registry = {**MD5, "train-labels.tif": None}
    url = serve_files(site, {**CONTENTS, "train-labels.tif": b"another version"})
    for _ in range(2):
        fetch(url, tmp_path / "isbi", registry=registry)
    assert files(tmp_path / "isbi")["train-labels.tif"] == b"another version"


def test_progress_goes_to_stderr(site, tmp_path, capsys):
    url = serve_files(site)
    fetch(url, tmp_path / "quiet")
    assert capsys.readouterr() == ("", "")
    fetch(url, tmp_path / "isbi", progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "100%" in err


def test_the_public_files():
    assert set(download.REGISTRY) == {"train-volume.tif", "train-labels.tif", "test-volume.tif"}
    assert all(len(bytes.fromhex(md5)) == 16 for md5 in download.REGISTRY.values())


def packed(kind):
    """An archive of one file that is damaged in the way that `kind` says."""
    method = {"lzma": zipfile.ZIP_LZMA, "bzip2": zipfile.ZIP_BZIP2}.get(kind, zipfile.ZIP_DEFLATED)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as z:
        z.writestr("train-volume.tif", b"v" * 4000)
    content = bytearray(file.getvalue())
    listed = content.find(b"PK\x01\x02")
    if kind == "deflate":
        content[46] = 7  # a block of no known type
    elif kind in ("lzma", "bzip2"):
        content[50:70] = b"\xff" * 20
    elif kind == "method":
        content[8:10] = content[listed + 10 : listed + 12] = b"\x63\0"
    elif kind == "encrypted":
        content[6] |= 1
        content[listed + 8] |= 1
    return bytes(content)


@pytest.mark.parametrize("kind", ["deflate", "lzma", "bzip2", "method", "encrypted"])
def test_an_archive_with_a_damaged_or_unknown_packing_is_named(kind, site, tmp_path):
    (site.folder / "isbi.zip").write_bytes(packed(kind))
    with pytest.raises(
        RuntimeError, match=r"does not give the expected files \(http.*isbi\.zip: the archive is damaged"
    ):
        fetch(f"{site.url}/isbi.zip", tmp_path / "isbi", registry={"train-volume.tif": None})
    assert files(tmp_path / "isbi") == {}


def test_an_archive_or_a_file_that_is_far_too_large_is_not_taken(site, tmp_path, monkeypatch):
    url = serve_zip(site)
    for largest in (100, (site.folder / "isbi.zip").stat().st_size):
        monkeypatch.setattr(download, "LARGEST", largest)
        monkeypatch.setattr(download.zipfile.ZipExtFile, "read", lambda file, n: b"x" * n)  # a bomb
        with pytest.raises(RuntimeError, match="has more than 0 MiB"):
            fetch(url, tmp_path / "isbi")


def test_a_signal_comes_while_the_temporary_folder_is_deleted(site, tmp_path, monkeypatch):
    def stop(number, frame):
        raise SystemExit(128 + number)

    def rmtree(path, **options):
        signal.raise_signal(signal.SIGTERM)
        delete(path, **options)

    delete = shutil.rmtree
    monkeypatch.setattr(download.shutil, "rmtree", rmtree)
    before = interruption.handle(stop)
    try:
        with pytest.raises(SystemExit):
            fetch(serve_files(site), tmp_path / "data")
    finally:
        interruption.restore(before)
    assert files(tmp_path / "data") == CONTENTS
