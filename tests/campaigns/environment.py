"""Commands in strange places: full disks, read-only folders, odd names, broken settings, few threads, another user.

    python -m tests.campaigns.environment                          # every place: needs Linux, and root for some
    python -m tests.campaigns.environment --only names --count 20
    python -m tests.campaigns.environment --only MPLBACKEND

Each command (`COMMANDS`) is run in each place (`PLACES`) as a user would run it. It may go through, and then its
result is that of an ordinary place, or it may end with one sentence, which says what is wrong. Where the place is
mended after that, the same command goes on and gives the same result. In no case is there a traceback, or a file that
is not whole. Equal bits are asked for, except where a place changes how numbers are computed.
"""

import itertools
import os
import pathlib
import random
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tests.campaigns import environment_disks, environment_limits, environment_settings, frame, whole
from tests.campaigns.environment_commands import COMMANDS, Base, Command, run
from tests.campaigns.environment_places import Missing

JOBS = 2  # cases at a time
# With these words a library ends the process, without a chance to clean up.
LAST_WORDS = "OpenBLAS error", "LLVM ERROR", "libgomp: Thread creation failed", "Fatal Python error"
PLACES = [
    place for part in (environment_disks, environment_limits, environment_settings) for place in part.all_places()
]


# ----- what must come of it ------------------------------------------------------------
def judge(command, setting, base, done):
    """Return an outcome, and why it was lost."""
    if "Traceback" in done.text or "report it to its developers" in done.text:
        return "lost", f"a traceback: {done.sentence[-300:]}"
    died = done.status < 0 or any(words in done.text for words in LAST_WORDS)
    if broken := not_whole(setting.made or setting.out, died):
        return "lost", f"{broken} (status {done.status}: {done.sentence[-200:]})"
    if done.status == 0:
        if setting.expected == "refused":
            return "lost", "it went through, and should have been refused"
        folder = pathlib.Path(os.fsdecode(setting.made or setting.out))
        folder = folder.parent if command.is_file else folder
        if any(not (folder / name).is_file() for name in command.pictures) and "could not be drawn" not in done.text:
            return "lost", f"a picture is missing: {done.sentence[-200:]}"
        try:
            return compare(command.result(setting.made or setting.out), base.results[command.name], setting.close)
        except Exception as error:
            return "lost", f"status 0, and no result: {type(error).__name__}: {error}; {done.sentence[-200:]}"
    if setting.killed and done.status < 0:
        return "refused", ""
    if setting.expected == "works" or done.status < 0:
        return "lost", f"status {done.status}: {done.sentence[-300:]}"
    if setting.said and (
        len(done.sentence) < 40
        or "[Errno" in done.sentence
        or (setting.words and not any(word in done.text for word in setting.words))
    ):
        return "lost", f"status {done.status}, and a sentence that does not help: {done.sentence[-300:]}"
    return "refused", ""


def compare(found, expected, close):
    """Compare two results; where they need only be close, the scores alone."""
    for name in ["scores"] if close else expected:
        same = np.allclose(found[name], expected[name], rtol=0.05, equal_nan=True) if close else np.array_equal(
            found[name], expected[name], equal_nan=found[name].dtype.kind == "f"
        )  # fmt: skip
        if not same:
            return "lost", f"other numbers than in an ordinary place ({name})"
    return "went through", ""


def not_whole(out, died):
    """Name a file below --out (or --out itself) that is not whole, or a temporary one that was left.

    A process that died may leave those: the next command deletes them.
    """
    out = pathlib.Path(os.fsdecode(out))
    folder = out if os.path.isdir(out) else out.parent if os.path.isfile(out) else None
    if folder is None:
        return None
    left = [name for name, path in whole.files_of(folder).items() if whole.is_temporary(path) and not died]
    return "; ".join([*whole.broken(folder), *(f"{name} was left" for name in left)])


# ----- the campaign --------------------------------------------------------------------
def play(campaign, count, options):
    """Try `count` cases of all places and their commands."""
    cases = draw_cases(random.Random(campaign.seed), options.only or "")[:count]
    needed = {"train_isbi"} | {command for _, command in cases}  # its network is that of the others
    with tempfile.TemporaryDirectory(prefix="environment_", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o777)
        base = Base(pathlib.Path(folder), [name for name in COMMANDS if name in needed])
        pool, running = ThreadPoolExecutor(JOBS), []
        for number, (place, command) in enumerate(cases):
            arguments = campaign, base, place, COMMANDS[command], pathlib.Path(folder) / f"case{number}"
            running.append(pool.submit(try_place, *arguments))
        try:
            for each in running:
                each.result()
        finally:
            pool.shutdown(cancel_futures=True)


def draw_cases(rng, only):
    """Return places and names of commands in a random order; every place comes once before one comes twice."""
    places = [place for place in PLACES if only in f"{place.kind}: {place.name}"]
    turns = [[(place, command) for command in rng.sample(place.commands, len(place.commands))] for place in places]
    cases = []
    for turn in itertools.zip_longest(*turns):
        there = [case for case in turn if case is not None]
        cases += rng.sample(there, len(there))
    return cases


def try_place(campaign, base, place, command, room):
    """Try one command in one place."""
    setting, case = base.ordinary(room), f"{place.name}, {command.name}"
    if command.is_file:
        setting.out += "/scores.json"
    if command.from_study:
        shutil.copytree(base.study, setting.out)
    steps = place.make(setting, command)
    try:
        next(steps)
        if setting.expected == "program":  # it has run already
            outcome, why = "went through", ""
        else:
            outcome, why = judge(command, setting, base, run(command, setting, base))
        if outcome == "refused" and next(steps, "no more") != "no more":  # the place has been mended
            setting.expected = "works"
            outcome, why = go_on(command, setting, base)
            outcome = "refused" if outcome == "went through" else outcome
    except Missing as error:
        print(f"left out: {case}: {error}")
        return
    except Exception as error:  # of the place itself
        outcome, why = "lost", f"{type(error).__name__}: {error}"
    finally:
        steps.close()
        shutil.rmtree(room, ignore_errors=True)
    campaign.add(place.kind, case, outcome, why)


def go_on(command, setting, base):
    """Run a command again in its mended place: it goes on where it was, if it was anywhere."""
    done = run(command, setting, base)
    if done.status and "--resume" in done.sentence:
        script, *words = command.arguments(base)
        cache = words[words.index("--cache") :] if "--cache" in words else []
        resumed = Command(command.name, lambda base: [script, "--resume", os.fsdecode(setting.out), *cache], None)
        done = run(resumed, setting, base)
    elif done.status and "--overwrite" in done.sentence:
        done = run(Command(command.name, lambda base: [*command.arguments(base), "--overwrite"], None), setting, base)
    outcome, why = judge(command, setting, base, done)
    return outcome, why and f"in the mended place: {why}"


if __name__ == "__main__":
    frame.run("environment", play, 1000, __doc__)
