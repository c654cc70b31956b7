"""One step of a network, op by op: where its time goes.

    python -m benchmarks.steps                                      # SD-UNet and U-Net, inference and training
    python -m benchmarks.steps --models sdunet --modes training --batches 4

The step is the one that `benchmarks.models` times. Every op is timed where a layer calls it, its backward pass where
the graph does, and so is Adam; ops of one kind and one size are a row, the longest first. What they leave of the whole
is Python between them: layers, the order of the backward pass. So the rows sum up to the step.

The roof of a row is the longer of two times, as in `benchmarks.kernels`: its multiply-adds at the rate of the fastest
matrix product of this machine, and reading every input and writing every output once at its highest bandwidth.
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import time

from benchmarks import machine, models, tables, worker
from tinyseg.autograd import Function, as_array
from tinyseg.backend.half import HalfFunction
from tinyseg.optim import Adam
from tinyseg.report.profile import multiply_adds

BETWEEN = "Python between the ops"


@dataclasses.dataclass
class Row:
    """Ops that are timed together: their calls and the seconds of each step, and the work of one step."""

    calls: int = 0
    seconds: list = dataclasses.field(default_factory=list)
    flops: float = 0
    moved: int = 0


class Watch:
    """The times of steps and of the ops in them."""

    def __init__(self):
        self.rows, self.totals, self.inside = {}, [], False

    def step(self, run):
        """Run a step and time it, and what calls `time` in it."""
        for row in self.rows.values():
            row.seconds.append(0.0)
            row.calls = row.flops = row.moved = 0
        start = time.perf_counter()
        self.totals.append(0.0)
        run()
        self.totals[-1] = time.perf_counter() - start

    def time(self, describe, call, *args):
        """Return ``call(*args)``, and add its time to a row; `describe` returns name, flops and bytes of the result."""
        if self.inside:  # a part of an op that is timed as a whole
            return call(*args)
        self.inside, start = True, time.perf_counter()
        try:
            result = call(*args)
        finally:
            self.inside = False
        seconds = time.perf_counter() - start
        name, flops, moved = describe(result)
        row = self.rows.setdefault(name, Row(seconds=[0.0] * len(self.totals)))
        row.seconds[-1] += seconds
        row.calls, row.flops, row.moved = row.calls + 1, row.flops + flops, row.moved + moved
        return result


@contextlib.contextmanager
def watching(watch):
    """Let `watch` time all ops, their backward passes and Adam inside the block."""
    patched = [(Function, "__call__"), (Function, "gradients"), (HalfFunction, "gradients"), (Adam, "step")]
    before = [getattr(owner, name) for owner, name in patched]

    def forward(run):
        def timed(node, *inputs):
            arrays = [as_array(x) for x in inputs]
            node.shapes = [getattr(a, "shape", ()) for a in arrays]

            def describe(y):
                node.out = y.shape
                moved = y.data.nbytes + sum(getattr(a, "nbytes", 0) for a in arrays)
                return (type(node).__name__, "forward", y.shape), 2 * work_of(node), moved

            return watch.time(describe, run, node, *inputs)

        return timed

    def backward(run):
        def timed(node, gy):
            def describe(gxs):
                found = [gx for gx in gxs if gx is not None]
                activations = sum(gx.ndim == 4 for gx in found)  # a convolution's input: as much work as its weights
                moved = gy.nbytes + sum(2 * gx.nbytes for gx in found)  # each gradient written, its array read
                return (type(node).__name__, "backward", node.out), 2 * (1 + bool(activations)) * work_of(node), moved

            return watch.time(describe, run, node, gy)

        return timed

    def update(run):
        def timed(optimizer):
            size = sum(p.data.nbytes for p in optimizer.parameters)
            # Reads weights, gradients and two moments, writes all but the gradients; some ten operations a number.
            return watch.time(lambda _: (("Adam", "", ()), 10 * size / 4, 7 * size), run, optimizer)

        return timed

    for (owner, name), wrap, run in zip(patched, (forward, backward, backward, update), before, strict=True):
        setattr(owner, name, wrap(run))
    try:
        yield
    finally:
        for (owner, name), run in zip(patched, before, strict=True):
            setattr(owner, name, run)


def work_of(node):
    """Return the multiply-adds of a node that has run."""
    return multiply_adds(node, node.shapes, node.out) or 0


def measure(case, steps, warm_up=3):
    """Time the ops of a case: {"seconds": of a step, "rows": [{"name", "calls", "seconds", "flops", "bytes"}]}.

    Seconds are the mean over the faster half of the steps, so that those of the rows sum up to those of the step.
    """
    run, watch = models.make_step(case, models.OURS), Watch()
    for _ in range(warm_up):
        run()
    with watching(watch):
        for _ in range(steps):
            watch.step(run)
    chosen = sorted(range(steps), key=watch.totals.__getitem__)[: (steps + 1) // 2]

    def mean(seconds):
        return sum(seconds[k] for k in chosen) / len(chosen)

    rows = [
        {"name": name, "calls": row.calls, "seconds": mean(row.seconds), "flops": row.flops, "bytes": row.moved}
        for name, row in watch.rows.items()
    ]
    between = mean(watch.totals) - sum(row["seconds"] for row in rows)
    rows.append({"name": (BETWEEN, "", ()), "calls": 0, "seconds": between, "flops": 0, "bytes": 0})
    return {"seconds": mean(watch.totals), "rows": rows}


def markdown(found, measured=None):
    """Return a table for each case; with what `benchmarks.machine.run` found, how near each row is to its roof."""
    parts = []
    for case in found:
        title = f"{case['network']} {tables.image(case['shape'])} {case['mode']}"
        parts.append(f"### {title}: {tables.milliseconds(case['seconds'])} ms\n")
        rows = []
        for row in sorted(case["rows"], key=lambda row: -row["seconds"]):
            kind, direction, shape = row["name"]
            cells = [kind, direction, tables.image(shape), row["calls"] or None, tables.milliseconds(row["seconds"])]
            cells.append(f"{100 * row['seconds'] / case['seconds']:.1f}")
            if measured:
                roof, limit = machine.roof(row["flops"], row["bytes"], measured) if row["bytes"] else (0, None)
                cells += [f"{100 * roof / row['seconds']:.0f}" if roof else None, limit]
            rows.append(cells)
        head = ["op", "", "its output", "calls", "ms", "% of the step"]
        parts.append(tables.table(head + (["% of the roof", "limit"] if measured else []), rows, text_columns=3))
    return "\n".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["sdunet", "unet"], help="names of tinyseg.models.MODELS")
    parser.add_argument("--modes", nargs="+", choices=models.MODES, default=list(models.MODES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1], help="at 256 x 256 (default: 1)")
    parser.add_argument("--steps", type=int, default=20, help="that are timed, after three (default: 20)")
    parser.add_argument("--no-roof", action="store_true", help="do not measure what the machine can do")
    parser.add_argument("--json", type=pathlib.Path, help="write what was measured to this file")
    args = parser.parse_args()
    worker.warn_if_busy()
    found = []
    for case in models.the_cases(args.models, args.batches, brain=False):
        if case.mode in args.modes:
            found.append(dataclasses.asdict(case) | measure(case, args.steps))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    print(markdown(found, None if args.no_roof else machine.run()))


if __name__ == "__main__":
    main()
