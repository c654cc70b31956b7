"""Commands are killed at random moments and at chosen system calls; the next command must go on as if nothing was.

    python -m tests.campaigns.kill --count 300 --seed 1 --out kill.json
    python -m tests.campaigns.kill --only "train_isbi: SIGTERM"

A chain is one piece of work, such as a training: it is begun, killed, taken up by the command that a user would type
next, killed again, and in the end left alone. Each kill is a case:

went through
    The process ended with the status of its signal and without a traceback, every file under a final name is whole,
    after one signal that can be handled no temporary file is left, and no process that it had started goes on.
refused
    The next command said in a sentence which other command goes on, and that one did. A case beside that of the kill.
lost
    Anything else.

The end of each chain is a case too: its folder must hold the files of a folder in which nothing was killed, with the
same arrays, masks and scores, and no other file.
"""

import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.campaigns import frame, works
from tests.campaigns.copies import Copy
from tests.campaigns.processes import ONE_THREAD, ROOT, WRITING, Process, at, delivered, places, shows_a_fault
from tests.campaigns.whole import broken, differences, is_temporary

NAMES = {"SIGKILL": 5, "SIGTERM": 3, "SIGINT": 3, "SIGINT twice": 1, "SIGHUP": 2, "SIGTERM, then SIGKILL": 1}
STATUSES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
MOST = 8  # kills of one chain
SOON = 4  # seconds after a signal in which a process may still end as if it had not come
WAITING = 3  # seconds after which a process that has not ended must have said what it waits for


class Reference(NamedTuple):
    """What an undisturbed command leaves, how many seconds it takes, and where it writes."""

    folder: Path
    seconds: float
    places: list


class Kill(NamedTuple):
    """One kill: the signals, and the moment or the system call of the first one.

    Attributes
    ----------
    how : str
        One of `NAMES`.
    moment : float
        Seconds from the start.
    place : tuple, optional
        The system call, if there is one; see `places`.
    gap : float
        Seconds between two signals.
    alone : bool
        Whether SIGKILL and SIGTERM are for the command alone, and not for those that it has started.
    imported : bool
        Whether the command runs in a copy of this process, so that the moment is not in the imports.
    """

    how: str
    moment: float
    place: tuple | None
    gap: float
    alone: bool
    imported: bool

    @property
    def signals(self):
        """The numbers of the signals."""
        first, _, second = self.how.replace(" twice", ", then SIGINT").partition(", then ")
        return [getattr(signal, name) for name in (first, second) if name]


def draw(rng, how, reference):
    """Draw a kill with these signals."""
    at_a_call = " " not in how and reference.places and rng.random() < 0.4
    imported = not at_a_call and rng.random() < 0.7
    moment = rng.uniform(0, 0.8) if imported else rng.uniform(0.02, 1)
    place = rng.choice(reference.places) if at_a_call else None
    return Kill(how, moment * reference.seconds, place, rng.uniform(0, 0.5), rng.random() < 0.5, imported)


class Chain:
    """One piece of work that is killed and gone on with.

    Parameters
    ----------
    work : works.Work
    folder : Path
        Where the commands run; made anew.
    reference : Reference
    material : dict
        See `works.material`.
    """

    def __init__(self, work, folder, reference, material):
        self.work, self.folder, self.reference = work, folder, reference
        self.first, self.resume = works.fill(work, material)
        self.words = self.first
        if work.begin:
            shutil.copytree(material["folder"] / work.begin, folder)
        else:
            folder.mkdir(parents=True)

    def kill(self, kill):
        """Start the next command and kill it. Return what is wrong, and whether it was killed (or was done before)."""
        trace = self.folder.parent / f"{self.folder.name}.trace"
        trace.unlink(missing_ok=True)
        first, self.before = kill.signals[0], self._temporary()  # what an earlier SIGKILL left
        strace = at(kill.place, first, trace) if kill.place else None
        process = Process(self.words, self.folder, strace, launch=Copy if kill.imported else None)
        try:
            if kill.place is None:
                status, since = self._at_the_moment(process, kill)
            else:
                status = process.wait()
                since = delivered(trace, first)
            wrong = self._look_at(process, status, kill, since)
        finally:
            if kill.how != "SIGKILL" or not kill.alone:  # what a killed study has started goes on
                process.end()
        self._choose_next(process.said, status)
        return wrong, status != 0

    def _at_the_moment(self, process, kill):
        if process.wait(kill.moment) is not None:
            return process.process.returncode, None
        said, sent = len(process.said), time.monotonic()
        # A terminal sends Ctrl-C and its end to everyone, and so does a container's end.
        everyone = kill.signals[0] in (signal.SIGINT, signal.SIGHUP) or not kill.alone
        process.send(kill.signals[0], everyone)
        if len(kill.signals) > 1:
            process.wait(kill.gap)
            process.send(kill.signals[1], everyone)
        if process.wait(WAITING) is None and len(process.said) == said and process.wait(WAITING) is None:
            process.send(signal.SIGKILL)
            process.wait()
            return f"after {kill.how} it did not end, and it did not say what it waits for", 0
        return process.wait(), time.monotonic() - sent

    def _look_at(self, process, status, kill, since):
        """Return a sentence of what is wrong after a kill, or None."""
        if isinstance(status, str) or status is None:
            return status or "it hangs"
        fault = shows_a_fault(process.said)
        if status == 1 and "KeyboardInterrupt" in process.said and str(ROOT) not in process.said:
            return None  # Python itself was still starting: no line of the script had run
        if fault:
            return f"it shows {fault}"
        expected = {0} if since is None or since < SOON else set()
        for number in kill.signals:
            expected |= {-number, STATUSES.get(number, -number)}
        if status not in expected and not (since is None and status == 1 and self._other(process.said)):
            return f"status {status} after {kill.how}: {process.said.strip()[-200:]}"
        damaged = broken(self.folder)
        if damaged:
            return "; ".join(damaged)
        if signal.SIGKILL not in kill.signals:
            gone = time.monotonic() + 10
            while process.others() and time.monotonic() < gone:
                time.sleep(0.1)
            if process.others():
                return "a process that it had started goes on"
            left = [name for name in self._temporary() if name not in self.before and not name.endswith(".lock")]
            if left and len(kill.signals) == 1:  # a second Ctrl-C ends it at once
                return f"after {kill.how}, {', '.join(left)} stayed behind"
        return None

    def _temporary(self):
        hidden = self.folder.parent / f"{self.folder.name}-tmp"
        return [str(path.relative_to(self.folder.parent)) for folder in (self.folder, hidden)
                for path in folder.rglob("*") if is_temporary(path)]  # fmt: skip

    def _choose_next(self, said, status):
        """Choose what a user would type next."""
        advised = re.search(r"Go on with: python \S+ --resume", said)
        begun = any(self.folder.glob("*/checkpoint.safetensors"))
        self.words = self.resume if self.resume and (advised or begun) else self.first

    def _other(self, said):
        """Return the command to which a sentence points, or None."""
        last = (said.strip().splitlines() or [""])[-1]
        if "--resume" in last and self.words is not self.resume:
            return self.resume
        return [*self.first, "--overwrite"] if "--overwrite" in last else None

    def finish(self):
        """Run to the end. Return what is wrong, and the sentences with which a command pointed to another one."""
        refused = []
        for _ in range(3):
            process = Process(self.words, self.folder, launch=Copy)
            try:
                status = process.wait()
                fault = shows_a_fault(process.said)
            finally:
                process.end()
            if status == 0 and not fault:
                wrong = differences(self.reference.folder, self.folder, self.work.aside)
                return "; ".join(wrong + self._temporary()) or None, refused
            other = self._other(process.said)
            if fault or not other:
                break
            refused.append(process.said.strip().splitlines()[-1])
            self.words = other
        return (
            f"the next command, {shlex.join(map(str, self.words[:6]))} …, fails: {process.said.strip()[-400:]}",
            refused,
        )


def make_reference(work, folder, material):
    """Run a piece of work without any disturbance."""
    trace = folder.parent / f"{folder.name}.trace"
    chain = Chain(work, folder, None, material)
    traced = work.name != "reproduce_tables" and can_trace()  # strace would count the calls of its trainings too
    strace = ["--seccomp-bpf", "-o", str(trace), "-e", f"trace={WRITING}"] if traced else None
    process = Process(chain.first, folder, strace)
    if process.wait() != 0:
        raise RuntimeError(f"{work.name} failed without any disturbance: {process.said}")
    return Reference(folder, process.seconds, places(trace) if traced else [])


def can_trace():
    """Whether there is a strace that may trace; without it there are no kills at system calls."""
    return shutil.which("strace") and not subprocess.run(["strace", "-f", "-o", os.devnull, "true"]).returncode


def play(campaign, count, options):
    """Play chains until there were `count` kills."""
    base = Path(tempfile.mkdtemp(prefix="campaign-")).resolve()
    rng, references, killed, number = random.Random(options.seed), {}, 0, 0
    only = options.only or ""
    kinds = [(work, [how for how in NAMES if only in f"{work.name}: {how}"]) for work in works.WORKS]
    kinds = [(work, hows) for work, hows in kinds if hows]
    if not kinds:
        raise SystemExit(f"no kind has {only!r} in its name")
    try:
        with works.material(base / "material") as material:
            while killed < count:
                number += 1
                work, hows = rng.choices(kinds, [work.weight for work, _ in kinds])[0]
                here = f"{number:03}-{re.sub('[^a-z]+', '-', work.name.lower())}"
                if work.name not in references:
                    references[work.name] = make_reference(work, base / f"{here}-undisturbed", material)
                chain, most = Chain(work, base / here, references[work.name], material), rng.randint(MOST // 2, MOST)
                wrong = None
                for k in range(most):
                    if killed >= count:
                        break
                    how = rng.choices(hows, [NAMES[each] for each in hows])[0]
                    kill = draw(rng, how, references[work.name])
                    wrong, was_killed = chain.kill(kill)
                    if not (wrong or was_killed):  # it was done before
                        continue
                    where = f"at {kill.place[0]} {kill.place[1]}" if kill.place else f"after {kill.moment:.2f} s"
                    outcome = "lost" if wrong else "went through"
                    campaign.add(f"{work.name}: {how}", f"{here}/{k} {where}", outcome, wrong)
                    killed += 1
                    if wrong:
                        break
                if wrong is None:
                    wrong, refused = chain.finish()
                    for sentence in refused:
                        campaign.add(f"{work.name}: pointed to another command", f"{here}: {sentence}", "refused")
                    campaign.add(f"{work.name}: the end", here, "lost" if wrong else "went through", wrong)
                if wrong is None:
                    shutil.rmtree(base / here)
                print(
                    f"{killed} kills, {len(campaign.lost)} lost, {time.monotonic() - campaign.began:.0f} s", flush=True
                )
    finally:
        if campaign.lost:
            print(f"the folders of what was lost are in {base}")
        else:
            shutil.rmtree(base, ignore_errors=True)


def main():
    if not ONE_THREAD.items() <= os.environ.items():  # which has to be known before numba is imported
        words = [sys.executable, "-m", "tests.campaigns.kill", *sys.argv[1:]]
        os.execve(sys.executable, words, os.environ | ONE_THREAD)
    frame.run("kill", play, 300, __doc__)


if __name__ == "__main__":
    main()
