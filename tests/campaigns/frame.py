"""What the campaigns share: their options, the counting of outcomes, the table, the file of results.

    python -m tests.campaigns.fuzz --count 10000 --seed 1 --out fuzz.json
    python -m tests.campaigns.kill --count 300
    python -m tests.campaigns.environment

Each case of a campaign has a kind ("predict.py, SIGTERM"), a name by which it can be made again, and one outcome:

went through
    The result was right.
refused
    One sentence named the fault, and nothing was written.
lost
    Anything else: a traceback, a hang, a broken or a missing file, other numbers. The text says what.
"""

import argparse
import collections
import json
import pathlib
import sys
import tempfile
import time

from benchmarks.machine import how_measured
from tests.campaigns.processes import ROOT

OUTCOMES = ("went through", "refused", "lost")


class Campaign:
    """Counts of outcomes by kind, and each case that was lost.

    Parameters
    ----------
    name : str
    seed : int
    count : int, optional
        How many cases were asked for.
    """

    def __init__(self, name, seed, count=None):
        self.name, self.seed, self.count, self.began = name, seed, count, time.monotonic()
        self.counts, self.lost = collections.defaultdict(collections.Counter), []
        self.stopped = False  # before its end

    def add(self, kind, case, outcome, why=""):
        """Count a case; `why` says what was lost."""
        if outcome not in OUTCOMES:
            raise ValueError(f"expected one of {OUTCOMES}, found {outcome!r}")
        self.counts[kind][outcome] += 1
        if outcome == "lost":
            why = why.replace(f"{ROOT}/", "").replace(tempfile.gettempdir(), "…")
            self.lost.append({"kind": kind, "case": str(case), "why": why})
            print(f"LOST {kind} {case}: {why}", flush=True)

    @property
    def tried(self):
        """How many cases there were."""
        return sum(sum(counts.values()) for counts in self.counts.values())

    def summary(self):
        """Return what is kept of the campaign, a dict for JSON; `docs/promises.md` shows the tables."""
        kinds = [
            {"kind": kind, "tried": sum(counts.values())} | {outcome: counts[outcome] for outcome in OUTCOMES}
            for kind, counts in sorted(self.counts.items())
        ]
        total = {key: sum(kind[key] for kind in kinds) for key in ("tried", *OUTCOMES)}
        minutes = round((time.monotonic() - self.began) / 60, 1)
        asked = "" if self.count is None else f" --count {self.count}"
        command = f"python -m tests.campaigns.{self.name}{asked} --seed {self.seed}"
        about = {"campaign": self.name, "seed": self.seed, "minutes": minutes}
        about |= {"measured": how_measured(command)}
        if self.stopped:
            about["measured"]["how"] = f"`{command}`, stopped before its end"
        return about | total | {"kinds": kinds, "cases_lost": self.lost}

    def table(self):
        """Return a table in Markdown, a line for each kind and one for all."""
        summary = self.summary()
        head = ("kind", "tried", *OUTCOMES)
        rows = [head, ["---"] * len(head), *([str(kind[key]) for key in head] for kind in summary["kinds"])]
        rows.append(["**all**", *(str(summary[key]) for key in head[1:])])
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def figures(summary):
    """Return a summary with what `docs/fill.py` makes tables of: columns, and a row for each kind.

    Of kinds such as "train_isbi: SIGTERM" there are two tables more, "works" and "signals", each with a row for what is
    equal before the colon, or after it.
    """
    columns = dict.fromkeys(("tried", *OUTCOMES), ",")

    def table(row_of):
        rows = collections.defaultdict(collections.Counter)
        for each in summary["kinds"]:
            rows[row_of(each["kind"])].update({key: each[key] for key in columns})
        return {"columns": columns, "rows": rows | {"all": summary}}

    works = table(lambda kind: kind.partition(": ")[0])
    signals = table(lambda kind: kind.partition(": ")[2])
    return summary | table(str) | {"works": works, "signals": signals}


def run(name, play, default_count, description):
    """Run a campaign as a program: ``play(campaign, count, options)`` plays the cases and calls ``campaign.add``.

    Ends with status 1 if anything was lost.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=default_count, help=f"cases (default: {default_count})")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal cases (default: 0)")
    parser.add_argument("--only", help="kinds whose name has this in it")
    parser.add_argument(
        "--out", type=pathlib.Path, help="JSON file for the results, such as tests/campaigns/results/kill.json"
    )
    options = parser.parse_args()
    campaign = Campaign(name, options.seed, options.count)
    try:
        play(campaign, options.count, options)
    except KeyboardInterrupt:
        campaign.stopped = True
        print("interrupted: the table is of what was tried until then")
    print(campaign.table())
    if options.out:
        options.out.write_text(json.dumps(campaign.summary(), indent=1) + "\n", encoding="utf-8")
    sys.exit(1 if campaign.lost else 0)
