"""The process in which commands get damaged input: it plays one case after the other and says what came of each."""

import contextlib
import io
import os
import pathlib
import re
import shutil
import sys
import traceback
import warnings
import zlib

import numpy as np

from tests.campaigns.fuzz_changes import ELSEWHERE
from tinyseg.commands.output import one_line

SIGNS = ("Traceback (most recent call last)", "This is a bug in tinyseg")


def serve(pipe, base, place, seed):
    """Play the cases (kind, number) that come through a pipe, in the folder `place`; send (outcome, why) back."""
    from tests.campaigns import fuzz_images, fuzz_kinds  # noqa: F401 (they enter their kinds into KINDS)
    from tests.campaigns.fuzz_base import KINDS
    from tinyseg.report import plots

    @contextlib.contextmanager
    def not_drawn(path):
        yield None

    os.fsync = lambda file: None  # nothing here has to outlive a power cut
    plots.drawing = not_drawn  # pictures would take most of the time, and read nothing
    for name in ("predictions", "curves", "tumours"):
        setattr(plots, name, lambda *args, **options: None)
    while True:
        kind, number = pipe.recv()
        rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), number])
        forget_peak()
        try:
            outcome = play(KINDS[kind], rng, base, pathlib.Path(place))
        except Exception:
            outcome = "lost", f"a fault of the campaign: {traceback.format_exc()}"
        pipe.send(outcome)


def play(make, rng, base, place):
    """Make a case in an empty folder, run it, and judge: return (outcome, why)."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    around = listing(place.parent, deep=False)
    command, names = make(rng, base, place)
    before = listing(place)
    status, text, warned = run(command)
    after = listing(place)
    if why := next((sign for sign in SIGNS if sign in text), None):
        return "lost", f"{why}: {text[-1500:]}"
    if warned:
        return "lost", f"a warning of NumPy: {warned[0]}"
    if pathlib.Path(ELSEWHERE).exists() or listing(place.parent, deep=False) != around:
        return "lost", "something was written elsewhere"
    left = [name for name in after if name.endswith(".tmp")]
    if left:
        return "lost", f"left behind: {left}"
    if status == 0:
        return "went through", ""
    changed = [name for name, state in after.items() if before.get(name) != state and "cache" not in name]
    # The other files of several were predicted; a training that diverged was begun.
    fine = re.search(r"\d+ of [2-9]\d* files could not be predicted|TrainingDiverged", text)
    if changed and not fine:
        return "lost", f"refused, and written: {changed}: {text[-500:]}"
    if not text.strip():
        return "lost", "refused without a word"
    if (length := len(text.splitlines()[-1])) > 2500:
        return "lost", f"a sentence of {length} characters: {text[:300]}"
    if not any(name in text or one_line(name) in text for name in names):
        return "lost", f"the sentence names none of {names}: {text[-700:]}"
    return "refused", ""


def run(command):
    """Run a command, which may end as scripts do: return its status, what it printed, and warnings of NumPy."""
    out, status, warned, argv = io.StringIO(), 0, [], sys.argv

    def note(message, category, filename, line, *_):
        if issubclass(category, RuntimeWarning):
            warned.append(f"{message} ({pathlib.Path(filename).name}:{line})")

    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), warnings.catch_warnings():
            warnings.showwarning = note
            command()
    except SystemExit as stop:
        status = stop.code or 0
        if isinstance(status, str):
            out.write("\n" + status)
            status = 1
    except BaseException:
        out.write(traceback.format_exc())
        status = 1
    finally:
        sys.argv = argv
    return status, out.getvalue(), warned


def listing(folder, deep=True):
    """Return a checksum of every file below a folder by name; not `deep`, the names of what is right in it."""
    found = {}
    for path in folder.rglob("*") if deep else folder.iterdir():
        with contextlib.suppress(OSError):
            if path.is_file():
                found[str(path.relative_to(folder))] = zlib.crc32(path.read_bytes()) if deep else 0
            elif not deep:
                found[path.name] = 0
    return found


def forget_peak():
    """Let the system count this process's largest memory from now on (Linux)."""
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5")
