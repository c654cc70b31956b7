"""The public files of the ISBI 2012 challenge, fetched once and checked by their MD5.

The challenge's own server (brainiac2.mit.edu) asked for a login and is gone; ImageJ's site, which keeps
the challenge's page, offers the files as one archive. If that address dies as well, the error says which
files to place where.
"""

import os
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

URL = "https://downloads.imagej.net/ISBI-2012-challenge.zip"
REGISTRY = {
    "train-volume.tif": "465461edbe0254630c4ec5577f1e7764",
    "train-labels.tif": "657fe6b728c6dd0152e295c6d800001d",
    "test-volume.tif": "9767660d7abe4e0ecbdd0061a16058ad",
}


def fetch_isbi(directory, base_url=URL, progress=True, registry=None, timeout=30):
    """Download the ISBI 2012 stacks that are not there yet.

    30 sections of 512×512 (ssTEM of the Drosophila larva ventral nerve cord, 4×4×50 nm) to train on, with
    masks, and 30 without. No licence is stated anywhere: do not redistribute them, and cite
    Arganda-Carreras et al. 2015 (Front. Neuroanat. 9:142) and Cardona et al. 2010 (PLoS Biol. 8:e1000502).

    Parameters
    ----------
    directory : str or Path
        Folder for the files; made if it is not there.
    base_url : str
        Address of a ZIP archive that holds the files (ends in ``.zip``), or of a folder that they are in.
    progress : bool
        Show a progress bar on the standard error stream.
    registry : dict, optional
        MD5 by file name, None to take a file unchecked; the three public files if left out.
    timeout : float
        Seconds to wait for the server's next answer.

    Returns
    -------
    Path
        The folder, which `tinyseg.data.isbi.load` reads.

    Raises
    ------
    FileExistsError
        A file of that name but with other contents is there; nothing is downloaded or overwritten.
    ConnectionError
        The server does not answer, or does not have the files.
    RuntimeError
        What came is not the expected file.
    """
    import pooch  # not above: it makes `import tinyseg` warn in a notebook without widgets

    directory, registry = Path(directory), REGISTRY if registry is None else registry
    directory.mkdir(parents=True, exist_ok=True)
    missing = [name for name in registry if not (directory / name).exists()]
    for name in registry.keys() - missing:
        found = pooch.file_hash(str(directory / name), alg="md5")
        if registry[name] not in (None, found):
            raise FileExistsError(
                f"{directory / name} is there, but is not the public file (MD5 {found}, expected "
                f"{registry[name]}), and is not overwritten. To use it as it is, give --data {directory}; to "
                "download the public one, move it away or choose another folder."
            )
    if not missing:
        return directory

    by_hand = f"To place the files by hand, put {_words(registry)} in {directory} and give --data {directory}."
    download = pooch.HTTPDownloader(
        progressbar=progress,
        chunk_size=1 << 16,
        timeout=timeout,
        # pooch would leave the connection of an error reply open
        hooks={"response": lambda reply, **_: None if reply.ok else reply.close()},
    )
    # Made in a folder beside the result, so that a file under its final name is always whole.
    with tempfile.TemporaryDirectory(prefix=".download-", dir=directory) as temporary:
        archive = Path(temporary, "archive.zip") if base_url.lower().endswith(".zip") else None
        try:
            if archive:
                download(base_url, str(archive), None)
            for name in missing:
                part = Path(temporary, name)
                if archive:
                    _extract(archive, name, part)
                else:
                    download(f"{base_url.rstrip('/')}/{name}", str(part), None)
                found = pooch.file_hash(str(part), alg="md5")
                if registry[name] not in (None, found):
                    raise ValueError(f"{name} has MD5 {found}, expected {registry[name]}")
                os.replace(part, directory / name)
        except OSError as error:  # whatever goes wrong on the network is one
            raise ConnectionError(f"could not download from {base_url} ({error}). {by_hand}") from error
        except (ValueError, zipfile.BadZipFile) as error:
            raise RuntimeError(
                f"{base_url} does not give the expected files ({error}): another version of them, a broken "
                f"download, or a login page. {by_hand}"
            ) from error
    return directory


def _extract(archive, name, target):
    """Write one file of an archive, in whichever of its folders it is."""
    with zipfile.ZipFile(archive) as z:
        # Archives made on a Mac hold a shadow of each file under __MACOSX.
        members = {PurePosixPath(m).name: m for m in z.namelist() if not m.startswith("__MACOSX")}
        if name not in members:
            raise ValueError(f"the archive has no {name}, only {', '.join(sorted(members))}")
        target.write_bytes(z.read(members[name]))


def _words(registry):
    return ", ".join(f"{name} (MD5 {md5})" if md5 else name for name, md5 in registry.items())
