"""Download of the brain tumours of the Medical Segmentation Decathlon, checked by their MD5 and unpacked.

7.6 GB take hours on a slow line, so each step continues where it was interrupted:

1. The archive is received into ``Task01_BrainTumour.tar.part``. The file ``Task01_BrainTumour.tar.part.version`` keeps
   the server's name for this version of the archive, its ETag or its date. After an interruption, the request asks for
   the rest of this version only (Range and If-Range, RFC 9110). Parts of different archives are never joined.
2. The whole archive is checked and renamed to ``Task01_BrainTumour.tar``.
3. Its files are written one by one, ``dataset.json`` last. The work is done if ``dataset.json`` and all files that it
   lists exist.
"""

import errno
import hashlib
import shutil
import tarfile
import time
from pathlib import Path, PurePosixPath

import requests

from tinyseg.data.brats import find_cases
from tinyseg.data.dataset_json import describe_test
from tinyseg.data.download import progress_bar
from tinyseg.data.locks import locked
from tinyseg.data.writing import remove_stale, rename, write_atomically

URL = "https://msd-for-monai.s3-us-west-2.amazonaws.com/Task01_BrainTumour.tar"
MD5 = "240a19d752f0d9e9101544901065d872"
SIZE = 7_608_266_240  # bytes
ARCHIVE = "Task01_BrainTumour.tar"
CHUNK = 1 << 16  # bytes that are written at a time; a broken connection loses at most one chunk
RETRIES = 5  # before giving up; counted anew whenever another 1/20 of the archive has been received
PAUSE = 1.0  # seconds before the first retry; each further retry waits twice as long


def fetch_brain_tumours(directory, url=URL, md5=MD5, size=SIZE, progress=True, timeout=30, keep_archive=False):
    """Download and unpack Task01_BrainTumour of the Medical Segmentation Decathlon, or continue to do so.

    MRI of 750 patients with gliomas, 484 of them with labels: four modalities of 240×240×155 voxels of 1 mm³. Licence
    CC-BY-SA 4.0; cite Antonelli et al. 2022 (Nat. Commun. 13:4128). The download needs twice the archive's size on
    the disk until everything is unpacked, and once this size afterwards.

    Parameters
    ----------
    directory : str or Path
        Folder for ``dataset.json``, ``imagesTr``, ``labelsTr`` and ``imagesTs``; made if it does not exist. If it holds
        the archive as ``Task01_BrainTumour.tar``, nothing is downloaded.
    url : str
        Address of the archive.
    md5 : str
        MD5 of the archive, 32 hexadecimal digits.
    size : int
        Bytes of the archive.
    progress : bool
        Show progress bars on the standard error stream.
    timeout : float
        Seconds to wait for the server's next answer.
    keep_archive : bool
        Keep the archive after unpacking; otherwise it is deleted.

    Returns
    -------
    Path
        The folder, which `tinyseg.data.brats.find_cases` reads.

    Raises
    ------
    FileExistsError
        The folder has a file whose size differs from that in the archive; nothing is unpacked or overwritten.
    ConnectionError
        The server does not answer, does not have the archive, or the connection broke too often.
    OSError
        The disk has too little room, or a file cannot be written.
    RuntimeError
        The server sent something else than the expected archive.
    ValueError
        The folder has a ``dataset.json`` that does not describe a Decathlon task.
    """
    directory = Path(directory)
    archive = directory / ARCHIVE
    if _is_complete(directory) and (keep_archive or not archive.exists()):
        return directory
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory, "a download", wait=True):
        if not _is_complete(directory):  # otherwise another command has done it, or was killed when it was done
            _fetch(directory, archive, url, md5, size, progress, timeout)
        if not keep_archive:
            archive.unlink(missing_ok=True)
    return directory


def _fetch(directory, archive, url, md5, size, progress, timeout):
    for folder in ("", "imagesTr", "labelsTr", "imagesTs"):
        remove_stale(directory / folder)
    part = directory / f"{ARCHIVE}.part"
    source = archive if archive.exists() else url
    _check_room(directory, _size(archive) or _size(part), size)
    by_hand = (
        f"To do it by hand, put {url} ({size:,} bytes, MD5 {md5}; see also http://medicaldecathlon.com) into "
        f"{directory} as {ARCHIVE} and call this again, or unpack it so that dataset.json, imagesTr, labelsTr and "
        f"imagesTs are in {directory}, and give --data {directory}."
    )
    try:
        if archive.exists():
            _check(archive, md5, size, progress, delete=False)
        else:
            _download(url, part, size, progress, timeout)
            _check(part, md5, size, progress, delete=True)
            rename(part, archive)
            _version_file(part).unlink(missing_ok=True)
        _unpack(archive, directory, progress)
    except requests.RequestException as error:
        raise ConnectionError(
            f"could not download from {url} ({error}). {_size(part):,} of {size:,} bytes are in {part}: call this "
            f"again to go on from there. {by_hand}"
        ) from error
    except (ValueError, tarfile.TarError) as error:
        raise RuntimeError(f"{source} does not give the expected archive: {error}. {by_hand}") from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            f"the disk of {directory}, or your share of it, is full ({error}). Make room and call this again: it "
            "continues where it stopped."
        ) from error


def _is_complete(directory):
    if not (directory / "dataset.json").is_file():
        return False
    try:
        find_cases(directory)
    except FileNotFoundError:
        return False
    return all(file.is_file() for file in describe_test(directory))


def _check_room(directory, received, size):
    unpacked = sum(_size(path) for path in directory.glob("*T[rs]/*.nii.gz"))
    missing, packed = max(0, size - received), max(0, size - unpacked)
    free = shutil.disk_usage(directory).free
    if free < missing + packed:
        raise OSError(
            f"{directory} has too little room: {(missing + packed) / 1e9:.1f} GB are needed ({missing / 1e9:.1f} GB "
            f"that are missing of the archive, {packed / 1e9:.1f} GB to unpack it), but {free / 1e9:.1f} GB are free. "
            "Make room, or choose another folder."
        )


def _download(url, part, size, progress, timeout):
    """Download the file `part`; if the connection breaks, ask again for the rest."""
    start = milestone = _size(part)
    failures = 0  # since the milestone
    with progress_bar("downloading", size, progress, initial=start) as bar:
        while _size(part) < size:
            try:
                _receive(url, part, size, timeout, bar)
            except requests.RequestException as error:
                received = _size(part)
                if received >= milestone + size / 20:
                    milestone, failures = received, 0
                refused = isinstance(error, requests.HTTPError) and error.response.status_code < 500
                nothing_came = received == start
                if refused or nothing_came or failures == RETRIES:
                    raise
                time.sleep(PAUSE * 2**failures)
                failures += 1


def _receive(url, part, size, timeout, bar):
    """Ask for the missing bytes and write them, until the connection ends."""
    version = _version_file(part).read_text(encoding="utf-8") if _version_file(part).exists() else ""
    received = _size(part) if version else 0
    headers = {"Accept-Encoding": "identity"}
    if received:
        headers |= {"Range": f"bytes={received}-", "If-Range": version}
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as reply:
        sent = reply.headers.get("Content-Range", "")
        right_range = sent.startswith(f"bytes {received}-") and sent.endswith(f"/{size}")
        same_version = _version(reply) in ("", version)  # the server may leave the version out
        continues = received > 0 and reply.status_code == 206 and right_range and same_version
        if received and not continues and reply.status_code in (206, 416):
            part.unlink()  # the server has another archive now; the next request asks for all of it
            return
        reply.raise_for_status()
        chunks = reply.iter_content(CHUNK)
        chunk = next(chunks, b"")
        if not continues:
            found = _mismatch(chunk, int(reply.headers.get("Content-Length", size)), size)
            if found:
                raise ValueError(f"found {found}, expected {size:,} bytes; nothing of it is kept")
            received = 0
            part.unlink(missing_ok=True)  # before its version changes
            _version_file(part).write_text(_version(reply), encoding="utf-8")
        bar.n = bar.last_print_n = received
        with open(part, "ab") as file:
            while chunk and file.tell() <= size:
                file.write(chunk)
                bar.update(len(chunk))
                chunk = next(chunks, b"")
    if _size(part) < size:
        raise requests.ConnectionError(f"the connection ended after {_size(part):,} bytes")


def _version(reply):
    """Return the server's name for this version of the file; a weak ETag does not identify one."""
    etag = reply.headers.get("ETag", "W/")
    return reply.headers.get("Last-Modified", "") if etag.startswith("W/") else etag


def _version_file(part):
    return part.with_name(f"{part.name}.version")


def _check(path, md5, size, progress, delete):
    """Raise a ValueError if a file is not the archive; `delete` says whether to delete it first."""
    with open(path, "rb") as file:
        found = _mismatch(file.read(64), _size(path), size)
        if not found:
            file.seek(0)
            digest = hashlib.md5(usedforsecurity=False)
            with progress_bar("checking", size, progress) as bar:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
                    bar.update(len(chunk))
            if digest.hexdigest() == md5:
                return
            found = f"MD5 {digest.hexdigest()}"
    remedy = f"delete {path} or move it away"
    if delete:
        path.unlink()
        _version_file(path).unlink(missing_ok=True)
        remedy = f"{path} was deleted, the next call starts anew"
    raise ValueError(f"found {found}, expected {size:,} bytes with MD5 {md5}; {remedy}")


def _mismatch(start, length, size):
    """Describe a file that cannot be the archive, from its first bytes and its length; "" if it can be."""
    if start.lstrip().startswith(b"<"):
        return f"a web page, or a login page (it begins with {start[:40].decode('latin-1').strip()!r})"
    return "" if length == size else f"{length:,} bytes"


def _unpack(archive, directory, progress):
    """Write the files that do not exist yet, without the folder that the archive has around them."""
    last, members = directory / "dataset.json", {}
    with tarfile.open(archive, "r:") as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if member.isdir() or path.name.startswith("._"):  # a file that a Mac adds for each one
                continue
            if not member.isreg():
                raise ValueError(f"{member.name} in {archive} is no plain file, and nothing was unpacked")
            if path.is_absolute() or ".." in path.parts or set(":\\") & set(member.name):  # of Windows, too
                raise ValueError(f"{member.name} in {archive} leads out of the folder, and nothing was unpacked")
            members[directory.joinpath(*(path.parts[1:] or path.parts))] = member
        if last not in members:
            raise ValueError(f"{archive} has no dataset.json, and nothing was unpacked")
        others = [path for path, member in members.items() if path.exists() and _size(path) != member.size]
        if others:
            raise FileExistsError(
                f"{len(others)} files have other contents and are not overwritten: {others[0]} has "
                f"{_size(others[0]):,} bytes, expected {members[others[0]].size:,}. Move them away and call this "
                f"again. Or move {archive} to another folder and call this with that one: nothing is downloaded again."
            )
        with progress_bar("unpacking", sum(member.size for member in members.values()), progress) as bar:
            for path in sorted(members, key=lambda path: path == last):
                if not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_atomically(path, tar.extractfile(members[path]).read())
                bar.update(members[path].size)


def _size(path):
    return path.stat().st_size if path.exists() else 0
