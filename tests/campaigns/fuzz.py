"""Damaged and hostile input for every command: whatever it is, the command goes through or refuses it in a sentence.

    python -m tests.campaigns.fuzz --count 10000 --seed 1 --out fuzz.json
    python -m tests.campaigns.fuzz --only "TIFF"                  # kinds with this in their names
    python -m tests.campaigns.fuzz --seed 1 --only "TIFF tags, predict.py #12"      # one case again; its files are kept

A process of its own plays the cases. It is ended, and the case is lost, if one takes more than 20 seconds of
computing (or six times as long on a busy computer) or 4 GiB.
"""

import contextlib
import multiprocessing
import os
import pathlib
import shutil
import tempfile
import time

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# The threads are set before NumPy is imported; the two files of kinds enter theirs into KINDS.
from tests.campaigns import frame, fuzz_images, fuzz_kinds  # noqa: E402, F401
from tests.campaigns.fuzz_base import WEIGHTS, make_base  # noqa: E402

SECONDS, BYTES = 20, 4 << 30


class Player:
    """The process that plays cases; it is started again after it was ended."""

    def __init__(self, base, place, seed):
        self.arguments, self.process = (base, place, seed), None

    def play(self, kind, number):
        """Return (outcome, why) of a case."""
        if self.process is None:
            self._start()
        self.pipe.send((kind, number))
        began, worked = time.monotonic(), seconds_of(self.process.pid)
        while not self.pipe.poll(0.05):
            if not self.process.is_alive():
                status = self.process.exitcode
                self.end()
                return "lost", f"the process ended with status {status}"
            waited, took = time.monotonic() - began, seconds_of(self.process.pid) - worked
            if took > SECONDS or waited > 6 * SECONDS:  # the computer may be busy with other things
                self.end()
                return "lost", f"took more than {SECONDS} seconds"
            if peak(self.process.pid) > BYTES:
                self.end()
                return "lost", f"took more than {BYTES >> 30} GiB"
        outcome = self.pipe.recv()
        if peak(self.process.pid) > BYTES:
            return "lost", f"took more than {BYTES >> 30} GiB ({outcome[0]})"
        return outcome

    def _start(self):
        from tests.campaigns.fuzz_worker import serve

        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other, *self.arguments), daemon=True)
        self.process.start()

    def end(self):
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.pipe.close()
            self.process = None


def seconds_of(pid):
    """Return the seconds for which a process has computed, as Linux counts them; elsewhere those that have passed."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return time.monotonic()


def peak(pid):
    """Return the most bytes of memory that a process has had, as Linux counts them; 0 elsewhere."""
    with contextlib.suppress(OSError, StopIteration):
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    return 0


def play(campaign, count, options):
    """Play `count` cases, as many of each kind as its weight says."""
    only, _, number = (options.only or "").partition(" #")
    weights = {kind: weight for kind, weight in WEIGHTS.items() if only in kind}
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tinyseg-fuzz-"))
    os.environ["XDG_CACHE_HOME"] = str(folder / "home")
    player = Player(make_base(folder / "base"), str(folder / "case" / "files"), campaign.seed)
    try:
        cases = []
        for kind, weight in weights.items():
            n = round(count * weight / sum(weights.values()))
            numbers = [int(number)] if number else range(n)
            cases += [((k + 0.5) / max(n, 1), kind, k) for k in numbers]
        for _, kind, k in sorted(cases):  # the kinds take turns, so that a part of the campaign has all of them
            campaign.add(kind, f"{kind} #{k}", *player.play(kind, k))
    finally:
        player.end()
        if number:
            print(f"the files of the case are in {folder / 'case'}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    frame.run("fuzz", play, 1000, __doc__)
