"""The files of evaluate.py: a JSON file with the scores, and beside it a picture of the worst."""

import contextlib
import os
import pathlib
import re

import numpy as np

from tinyseg.commands.compared import PICTURE
from tinyseg.data.json_files import write_json
from tinyseg.data.locks import locked
from tinyseg.data.writing import check_writable
from tinyseg.report import plots
from tinyseg.report.saving import is_own_picture


def hold_out(path):
    """Return a with-block that keeps other commands from writing the JSON file of --out; there may be none.

    It raises an error at once, before hours of work, if the file cannot be written or is something else. A file that is
    there is replaced if it holds scores, or nothing; a picture beside it with the scores, or if it is this library's.
    """
    if path is None:
        return contextlib.nullcontext()
    if path.exists() and not path.is_file():
        raise ValueError(f"--out {path} is a folder or a device: give the name of a JSON file.")
    scores, picture = _begins(path), _picture(path)
    if scores and not re.match(rb'\s*{\s*"metrics"', scores):
        raise ValueError(f"--out {path} is there already and holds no scores of evaluate.py: give another name.")
    replaced = picture.is_file() and (scores or not _begins(picture) or is_own_picture(picture))
    if os.path.lexists(picture) and not replaced:
        raise ValueError(
            f"--out {path} needs the name {picture} for a picture, and something else is there: give another name, or "
            "move it elsewhere."
        )
    check_writable(path.parent)
    return locked(path.parent, "an evaluation", path.name)


def _begins(path):
    """Return the first bytes of a file, none if there is no file."""
    if not path.exists():
        return b""
    with path.open("rb") as file:
        return file.read(4096)


def write_scores(args, report):
    """Write the JSON file of --out, before anything is printed or drawn."""
    if args.out:
        settings = {n: str(value) if isinstance(value, pathlib.Path) else value for n, value in vars(args).items()}
        del settings["given"]
        _picture(args.out).unlink(missing_ok=True)  # of other scores: if this is killed now, nobody mistakes it
        write_json(args.out, report | {"settings": settings})


def _picture(out):
    return out.with_name(out.name.removesuffix(".json") + PICTURE)


def draw_worst(args, scores, draw):
    """Beside the JSON file, ``draw(worst, path)`` draws the images with the lowest scores; say what was written."""
    if args.out is None:
        return
    written, worst = [args.out], np.argsort(scores, kind="stable")[: args.worst]
    if len(worst):
        with plots.drawing(_picture(args.out)) as picture:
            draw(worst, picture)
            written.append(picture)
    print(f"wrote {' and '.join(map(str, written))}")
