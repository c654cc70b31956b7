"""Download of the public files of the ISBI 2012 challenge, checked by their MD5.

The challenge's own server (brainiac2.mit.edu) is gone. ImageJ's site, which keeps the challenge's page, offers the
files as one archive. If this download fails, the error says how to place the files by hand.
"""

import contextlib
import hashlib
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from tinyseg.data.files import list_names
from tinyseg.data.load_tqdm import tqdm
from tinyseg.data.locks import locked
from tinyseg.data.undisturbed import undisturbed
from tinyseg.data.writing import FilePath, rename

URL = "https://downloads.imagej.net/ISBI-2012-challenge.zip"
LARGEST = 1 << 30  # bytes of a file or an archive; more is not read
TEMPORARY = ".download-"  # the folder of a download begins with this, in the folder of the files
REGISTRY = {
    "train-volume.tif": "465461edbe0254630c4ec5577f1e7764",
    "train-labels.tif": "657fe6b728c6dd0152e295c6d800001d",
    "test-volume.tif": "9767660d7abe4e0ecbdd0061a16058ad",
}


def fetch_isbi(
    directory: FilePath,
    base_url: str = URL,
    progress: bool = True,
    registry: Mapping[str, str | None] | None = None,
    timeout: float = 30,
) -> Path:
    """Download the ISBI 2012 stacks that are not in a folder yet.

    30 sections of 512×512 (ssTEM of the Drosophila larva ventral nerve cord, 4×4×50 nm) to train on, with
    masks, and 30 without. No licence is stated anywhere: do not redistribute them, and cite
    Arganda-Carreras et al. 2015 (Front. Neuroanat. 9:142) and Cardona et al. 2010 (PLoS Biol. 8:e1000502).

    Parameters
    ----------
    directory : str or Path
        Folder for the files; made if it does not exist.
    base_url : str
        Address of a ZIP archive of the files, ending in ``.zip``, or of a folder that holds them.
    progress : bool
        Show a progress bar on the standard error stream.
    registry : dict of str to (str or None), optional
        MD5 of each file to download; None for a file that is not checked. The three public files if left out.
    timeout : float
        Seconds to wait for the server's next answer.

    Returns
    -------
    Path
        The folder, which `tinyseg.data.isbi.load` reads.

    Raises
    ------
    FileExistsError
        The folder has a file of this name with other contents; nothing is downloaded or overwritten.
    ConnectionError
        The server does not answer, or does not have the files.
    RuntimeError
        The server sent something else than the expected files.
    """
    directory, registry = Path(directory), REGISTRY if registry is None else registry
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory, "a download", wait=True):
        return _fetch_missing(directory, base_url, progress, registry, timeout)


def _fetch_missing(directory, base_url, progress, registry, timeout):
    for left in directory.glob(f"{TEMPORARY}*"):  # by a download that was killed: only one is here at a time
        shutil.rmtree(left, ignore_errors=True)
    missing = [name for name in registry if not (directory / name).exists()]
    for name in registry.keys() - missing:
        found = _md5(directory / name)
        if registry[name] not in (None, found):
            raise FileExistsError(
                f"{directory / name} is there, but is not the public file (MD5 {found}, expected "
                f"{registry[name]}), and is not overwritten. To use it as it is, give --data {directory}; to "
                "download the public one, move it away or choose another folder."
            )
    if not missing:
        return directory

    listed = ", ".join(f"{name} (MD5 {md5})" if md5 else name for name, md5 in registry.items())
    by_hand = f"To place the files by hand, put {listed} in {directory} and give --data {directory}."
    # A file is moved into the folder when it is whole.
    with contextlib.ExitStack() as cleanup:
        with undisturbed():
            temporary = tempfile.mkdtemp(prefix=TEMPORARY, dir=directory)
            cleanup.callback(_delete, temporary)
        archive = Path(temporary, "archive.zip") if base_url.lower().endswith(".zip") else None
        try:
            if archive:
                _download(base_url, archive, progress, timeout)
            for name in missing:
                part = Path(temporary, name)
                if archive:
                    _extract(archive, name, part)
                else:
                    _download(f"{base_url.rstrip('/')}/{name}", part, progress, timeout)
                found = _md5(part)
                if registry[name] not in (None, found):
                    raise ValueError(f"{name} has MD5 {found}, expected {registry[name]}")
                rename(part, directory / name)
        except OSError as error:  # all errors of requests are OSErrors
            raise ConnectionError(f"could not download from {base_url} ({error}). {by_hand}") from error
        except ValueError as error:
            raise RuntimeError(
                f"The download does not give the expected files ({base_url}: {error}): another version of them, a "
                f"broken download, or a login page. {by_hand}"
            ) from error
    return directory


def _delete(folder):
    """Delete a temporary folder; a signal waits until it is gone."""
    with undisturbed():
        shutil.rmtree(folder, ignore_errors=True)


def progress_bar(what, total, show, initial=0):
    """Return a progress bar of bytes on the standard error stream."""
    return tqdm(desc=what, total=total, initial=initial, unit="B", unit_scale=True, disable=not show)


def _download(url, path, progress, timeout):
    """Write the file at an address to a path."""
    import requests  # not at the top: `import tinyseg` would take longer

    with requests.get(url, stream=True, timeout=timeout) as reply:
        reply.raise_for_status()
        size = int(reply.headers.get("Content-Length", 0))
        with open(path, "wb") as file, progress_bar("downloading", size or None, progress) as bar:
            for chunk in reply.iter_content(1 << 16):
                file.write(chunk)
                _check_size(file.tell(), url)
                bar.update(len(chunk))


def _md5(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _extract(archive, name, target):
    """Write one file of an archive, whichever of the archive's folders holds it; a damaged one is a ValueError."""
    try:
        with zipfile.ZipFile(archive) as z:
            # An archive made on a Mac has a second, small file of the same name for each file, in the folder __MACOSX.
            members = {PurePosixPath(m).name: m for m in z.namelist() if not m.startswith("__MACOSX")}
            if name in members:
                with z.open(members[name]) as file:
                    content = file.read(LARGEST + 1)
    except Exception as error:  # what a damaged archive raises depends on its packing: zlib.error, LZMAError, OSError …
        raise ValueError(f"the archive is damaged, {type(error).__name__}: {error}") from error
    if name not in members:
        raise ValueError(f"the archive has no {name}, only {list_names(sorted(members)) or 'nothing'}")
    _check_size(len(content), name)
    target.write_bytes(content)


def _check_size(size, name):
    if size > LARGEST:
        raise ValueError(f"{name} has more than {LARGEST >> 20} MiB, and the public files have less than 10 MiB each")
