"""Finding files in natural order, and naming them in messages."""

import glob
import os
import pathlib
import re
import sys
import unicodedata
import warnings

from tinyseg.data.other_kinds import UNREAD, how_to_convert, leftovers

FOLDS_NAMES = sys.platform in ("win32", "darwin")  # their disks, as a rule, take Cell.png and cell.png for one file


def same_on_disk(path):
    """Return what is equal for two paths that are one file: on Windows and macOS without capitals."""
    return unicodedata.normalize("NFC", str(path)).casefold() if FOLDS_NAMES else path


def expand_pattern(path):
    """Return the paths that a pattern such as ``*.tif`` stands for, in natural order, or a list of the path alone.

    Most shells do that for a command, but not those of Windows.
    """
    found = [] if os.path.lexists(path) else [pathlib.Path(each) for each in glob.glob(str(path))]
    return sorted(found, key=lambda each: natural_order(str(each))) or [path]


def find_files(path, suffixes, what):
    """List the files of a folder whose names end in one of `suffixes`, in natural order; or `path` if it is a file.

    Hidden files are left out; a warning names pictures of kinds that are not read, and cellpose's flows. If there is no
    file, a FileNotFoundError says so; if such a name is a folder, or a link to what is not there, a ValueError. `what`
    is the name of the files in it.
    """
    path = pathlib.Path(path)
    refuse_missing(path, f"a file or a folder of {what}")
    if not path.is_dir():
        return [path]
    there = list(path.iterdir())
    files = with_ending(there, suffixes)
    if not files:
        inner = [p.name for p in folders_in(path) if any(q.name.lower().endswith(suffixes) for q in p.iterdir())]
        hint = f" Folders in it hold some: give one of them ({list_names(inner)})." if inner else ""
        if any(p.name.lower().endswith((".nii", ".nii.gz")) for p in there):
            hint += " NIfTI volumes are for train_brats.py."
        raise FileNotFoundError(
            f"no {what} in {path}: looked for files ending in {', '.join(suffixes)}. There is: {list_contents(path)}."
            f"{hint}{how_to_convert(there)}"
        )
    unread = sorted(p.name for p in with_ending(there, UNREAD))
    if unread:
        warnings.warn(
            f"{path} holds pictures of kinds that are not read and are left out: {list_names(unread)}. Save them as "
            "PNG or TIFF if they belong to it.",
            stacklevel=3,
        )
    files.sort(key=lambda file: natural_order(file.name))
    left = leftovers([file.name for file in files])
    if left:
        said = f"{path} holds flows or outlines of cellpose, which are left out: {list_names(left)}."
        warnings.warn(said, stacklevel=3)
    files = [file for file in files if file.name not in left]
    odd = [f"{p.name} ({_what_it_is(p)})" for p in files if not p.is_file()]
    if odd:
        raise ValueError(
            f"{path} has {list_names(odd)} among its {what}: expected files. Fetch what is missing (git annex get, "
            "datalad get), or move these elsewhere."
        )
    return files


def with_ending(paths, suffixes):
    """Return the paths whose names end in one of `suffixes`, capitals aside, without hidden ones."""
    return [path for path in paths if path.name.lower().endswith(suffixes) and path.name[0] != "."]


def refuse_missing(path, expected):
    """Raise a FileNotFoundError if `path` is no file or folder, such as a device, or a link to what does not exist."""
    if not (path.is_file() or path.is_dir()):
        found = f"is {_what_it_is(path)}" if path.is_symlink() or path.exists() else "does not exist"
        raise FileNotFoundError(f"{path} {found}: expected {expected}.")


def _what_it_is(path):
    """Say what a path is that is no file."""
    if path.is_symlink() and not path.exists():
        return f"a link to {os.readlink(path)}, which is not there"
    return "a folder" if path.is_dir() else "neither a file nor a folder"


def natural_order(name):
    """Return a key that sorts names as people do: 2 before 10, small letters and capitals alike."""
    parts = re.split(r"(\d+)", name)  # text and digits alternate, and text comes first
    return [int(part) if i % 2 else part.casefold() for i, part in enumerate(parts)]


def find_volumes(folder):
    """Return a dict of the NIfTI files of a folder, by name without the ending; hidden files are left out.

    Two files of one name, ``a.nii`` and ``a.nii.gz``, are a ValueError: it is not known which one to take.
    """
    found = {}
    for path in sorted(folder.glob("[!.]*")):
        if path.name.lower().endswith((".nii", ".nii.gz")):
            other = found.setdefault(volume_name(path), path)
            if other is not path:
                raise ValueError(f"{other} and {path} have one name: keep one of them.")
    return found


def volume_name(path):
    """Return the name of a NIfTI file without its ending."""
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def folders_in(folder):
    """Return the folders in a folder, sorted; hidden ones are left out."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def list_contents(folder):
    """Return the names of what a folder holds, for a message."""
    return list_names(sorted(f"{p.name}/" if p.is_dir() else p.name for p in folder.iterdir())) or "nothing"


def list_names(names):
    """Join names with commas, for a message: the first 12, and how many more there are."""
    text = ", ".join(names[:12])
    return f"{text}, and {len(names) - 12} more" if len(names) > 12 else text
