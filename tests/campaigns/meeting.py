"""What a scenario of `tests.campaigns.neighbours` works with: commands that run at once, and what each leaves alone."""

import re
import shutil
import time

from tests.campaigns.processes import Process, shows_a_fault
from tests.campaigns.whole import differences

WHO = r"in use by .*process \d+|already holds a training run|was made with another|is there already"


class Wrong(Exception):
    """What is wrong in a case."""


class Meeting:
    """One case: its folder, and the commands that run there.

    Attributes
    ----------
    folder : Path
        Where the commands run.
    material : dict
        See `works.material`.
    rng : random.Random
    """

    alone = {}  # what a command leaves when it is alone: a folder for its words

    def __init__(self, folder, material, rng):
        self.folder, self.material, self.rng, self.started = folder, material, rng, []
        folder.mkdir(parents=True)

    def put(self, name):
        """Put a folder of the material here."""
        shutil.copytree(self.material["folder"] / name, self.folder, dirs_exist_ok=True)

    def start(self, words, **options):
        """Start a command here."""
        process = Process(self.fill(words), self.folder, **options)
        self.started.append(process)
        return process

    def fill(self, words):
        """Return the words with what stands for the material filled in."""
        return [word.format(**self.material) if isinstance(word, str) and "{" in word else word for word in words]

    def at_once(self, *commands, most=2.5, **options):
        """Start commands in a random order with random pauses, and wait for all; return them in the given order."""
        order = list(range(len(commands)))
        self.rng.shuffle(order)
        processes = [None] * len(commands)
        for k in order:
            processes[k] = self.start(commands[k], **options)
            time.sleep(self.rng.uniform(0, most) * self.rng.choice((0, 1)))
        for process in processes:
            self.ended(process)
        return processes

    def ended(self, process, *statuses):
        """Wait for a command; raise `Wrong` if it hangs, shows a traceback, or ends with another status than these."""
        status = process.wait()
        if status is None:
            raise Wrong(f"{process.words[:1]} hangs: {process.said.strip()[-300:]}")
        fault = shows_a_fault(process.said)
        if fault:
            raise Wrong(f"{process.words[:1]} shows {fault}")
        if status not in (statuses or (0, 1)):
            raise Wrong(f"{process.words[:1]} ends with {status}: {process.said.strip()[-300:]}")
        return status

    def refusals(self, processes, who=WHO):
        """Return how many were refused; `Wrong` if none succeeded, or one does not say who is in the way."""
        refused = [process for process in processes if process.process.returncode]
        if len(refused) == len(processes):
            raise Wrong("all failed: " + " | ".join(p.said.strip()[-200:] for p in refused))
        for process in refused:
            if not re.search(who, process.said):
                raise Wrong(f"the refused one says: {process.said.strip()[-300:]}")
        return len(refused)

    def leaves(self, *commands, begin=None):
        """Return the folder of what commands leave when they run alone, one after the other."""
        key = repr((commands, begin))
        if key not in self.alone:
            folder = self.folder.parent / f"alone-{len(self.alone)}"
            folder.mkdir()
            if begin:
                shutil.copytree(self.material["folder"] / begin, folder, dirs_exist_ok=True)
            for words in commands:
                process = Process(self.fill(words), folder)
                if process.wait() != 0:
                    raise RuntimeError(f"{words[0]} fails alone: {process.said}")
            self.alone[key] = folder
        return self.alone[key]

    def compare(self, *expected, aside=()):
        """Raise `Wrong` if the folder holds something else than one of the expected ones."""
        found = [differences(folder, self.folder, aside) for folder in expected]
        if all(found):
            raise Wrong("; ".join(min(found, key=len)))

    def end(self):
        """End what still runs."""
        for process in self.started:
            process.end()


def wait_for(condition, process):
    """Wait until something is there, or the process has ended."""
    while not condition() and process.process.poll() is None:
        time.sleep(0.01)
