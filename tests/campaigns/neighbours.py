"""Two or three commands at once want the same folder, file or cache: all are right, or all but one are refused.

    python -m tests.campaigns.neighbours --count 60 --seed 1 --out neighbours.json

A case is one meeting, with a random time between the starts.

went through
    Every command succeeded, and each left what it leaves when it is alone.
refused
    One succeeded and left what it leaves when it is alone, and each of the others said in one sentence why it does not
    begin.
lost
    Anything else: a mixture, a traceback, a sentence that does not say who is in the way.
"""

import random
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tests.campaigns import frame, works
from tests.campaigns.meeting import Meeting, Wrong
from tests.campaigns.scenarios import CONTAINER, SCENARIOS
from tests.campaigns.whole import is_temporary


def play(campaign, count, options):
    """Play the scenarios in turn, the frequent ones more often."""
    base = Path(tempfile.mkdtemp(prefix="campaign-")).resolve()
    names = [name for name in SCENARIOS if (options.only or "") in name]
    if not names:
        raise SystemExit(f"no kind has {options.only!r} in its name")
    turn = [name for k in range(3) for name in names if k < SCENARIOS[name][1]]
    with works.material(base / "material") as material:
        for k in range(count):
            name, why = turn[k % len(turn)], None
            meeting = Meeting(base / f"{k:03}", material, random.Random(f"{options.seed} {k} {name}"))
            try:
                outcome = "refused" if SCENARIOS[name][0](meeting) else "went through"
                left = [str(path) for path in meeting.folder.rglob("*") if is_temporary(path)]
                if left:
                    raise Wrong(f"{', '.join(left)} stayed behind")
            except Wrong as error:
                outcome, why = "lost", str(error)
            finally:
                meeting.end()
            campaign.add(name, k, outcome, why)
            print(f"{k + 1} of {count}: {name}: {outcome}, {time.monotonic() - campaign.began:.0f} s", flush=True)
            if outcome != "lost":
                shutil.rmtree(meeting.folder)
    if campaign.lost:
        print(f"the folders of what was lost are in {base}")
    else:
        shutil.rmtree(base, ignore_errors=True)
    Meeting.alone.clear()


if __name__ == "__main__":
    if any(
        subprocess.run([*command, "true"], capture_output=True).returncode for command in (CONTAINER, ["strace", "-f"])
    ):
        raise SystemExit("this campaign needs strace, and unshare with its rights")
    frame.run("neighbours", play, 60, __doc__)
