"""A small archive in the layout of the Medical Segmentation Decathlon, and a server of it on this machine."""

import contextlib
import gzip
import hashlib
import http.server
import io
import json
import pathlib
import tarfile
import threading
from types import SimpleNamespace

import nibabel as nib
import numpy as np

from tinyseg.data import download_brats
from tinyseg.data.classes import DECATHLON
from tinyseg.data.download_brats import ARCHIVE, fetch_brain_tumours

PAGE = b"<!DOCTYPE html><title>Please log in</title>"
PART = f"{ARCHIVE}.part"


def volume(seed, *shape, below):
    voxels = np.random.default_rng(seed).integers(0, below, (9, 8, 7, *shape)).astype(np.int16)
    return gzip.compress(nib.Nifti1Image(voxels, np.eye(4)).to_bytes(), mtime=0)


def make_files():
    listed = [{"image": f"./imagesTr/BRATS_{k}.nii.gz", "label": f"./labelsTr/BRATS_{k}.nii.gz"} for k in (1, 2)]
    about = {
        "modality": {"0": "FLAIR", "1": "T1w"}, "labels": dict(enumerate(DECATHLON)), "training": listed,
        "test": ["./imagesTs/BRATS_3.nii.gz", "./imagesTs/BRATS_4.nii.gz"],
    }  # fmt: skip
    files = {"dataset.json": json.dumps(about).encode()}  # first in the archive, last on the disk
    for k in (1, 2):
        files[f"imagesTr/BRATS_{k}.nii.gz"] = volume(k, 2, below=900)
        files[f"labelsTr/BRATS_{k}.nii.gz"] = volume(k, below=4)
    return files | {f"imagesTs/BRATS_{k}.nii.gz": volume(k, 2, below=900) for k in (3, 4)}


def make_tar(files, **links):
    """The archive's bytes; each of its files has a Mac's shadow, as in the real one."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            path = pathlib.PurePosixPath("Task01_BrainTumour", name)
            for each, data in ((path.with_name(f"._{path.name}"), b"shadow"), (path, content)):
                member = tarfile.TarInfo(f"./{each}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        for name, target in links.items():
            member = tarfile.TarInfo(f"Task01_BrainTumour/{name}")
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return buffer.getvalue()


FILES = make_files()
TAR = make_tar(FILES)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        site = self.server.site
        assert self.headers["Accept-Encoding"] == "identity"
        asked = self.headers.get("Range")
        site.asked.append(asked)
        status = site.statuses.pop(0) if site.statuses else 200
        if status != 200:
            self.send_error(status)
            return
        start, size = 0, len(site.content)
        same = site.careless or (site.version and self.headers["If-Range"] == site.version[1])
        if asked and site.ranges and same:
            start = int(asked.removeprefix("bytes=").removesuffix("-")) + site.shift
        body = site.content[start : start + site.most if start else size]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{size}")
        if site.tells_length:
            self.send_header("Content-Length", str(len(body)))
        if site.version and not (start and site.version[0] == "Last-Modified"):  # RFC 9110 lets 206 leave it out
            self.send_header(*site.version)
        body = body[: site.cuts.pop(0) if site.cuts else None]
        site.sent.append(len(body))  # before the headers are sent: then the client may ask again at once
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serve(monkeypatch):
    """Serve the archive with ranges and versions; knows what it was asked and has sent, and misbehaves as told."""
    monkeypatch.setattr(download_brats, "PAUSE", 0)
    monkeypatch.setattr(download_brats, "CHUNK", 64)
    site = SimpleNamespace(
        content=TAR, asked=[], sent=[], cuts=[], statuses=[], ranges=True, most=len(TAR), shift=0,
        careless=False, tells_length=True, version=("ETag", '"one"'),
    )  # fmt: skip
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.site, site.url = site, f"http://127.0.0.1:{server.server_port}/Task01.tar"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield site
        server.shutdown()
        thread.join()


def fetch(site, folder, content=TAR, **options):
    options = {"size": len(content), "md5": hashlib.md5(content).hexdigest(), "progress": False} | options
    return fetch_brain_tumours(folder, site.url, timeout=5, **options)


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_tells_how_by_hand(error, site, folder):
    for text in (site.url, str(folder), ARCHIVE, hashlib.md5(TAR).hexdigest(), f"{len(TAR):,}", f"--data {folder}"):
        assert text in str(error.value)
