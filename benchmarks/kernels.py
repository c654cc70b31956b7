"""Single ops: time of forward and of forward + backward at the five scales of the network, tinyseg beside PyTorch.

    python -m benchmarks.kernels
    python -m benchmarks.kernels --ops relu "depthwise 3x3" --scales 0 4
    python -m benchmarks.kernels --reference                 # tinyseg without numba too

`benchmarks.catalogue` lists them. Activations lie in memory channels-last, as tinyseg's kernels hand them on, and, in a
second column, in plain NCHW; PyTorch is timed in both layouts and the faster one counts. Both get the same numbers,
and what comes out is compared before it is timed.

An activation is not a leaf of tinyseg's graph here, as it is not in a network: backward hands its gradient on and
accumulates only those of the weights.
"""

import argparse
import contextlib
import json
import math
import pathlib
import time

import numpy as np

from benchmarks import machine, tables, worker
from benchmarks.catalogue import ADAM, OPS, SCALES, work
from benchmarks.worker import Worker, WorkerError, measure

LAYOUTS = ("channels_last", "nchw")
DIRECTIONS = ("forward", "forward + backward")
ADAMS = {"loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}


# ----- in the workers ------------------------------------------------------------
def prepare(key, framework, op, shape, variant):
    """Put an op into this worker; return samples of the output and of all gradients."""
    if op == ADAM:
        worker.cases[key], samples = _adam(framework, shape[1], variant)
        return samples
    N, C, H, W = shape
    rng, op = np.random.default_rng(0), OPS[op]
    xs = [rng.standard_normal(shape, np.float32) for _ in range(op.xs)]
    weights = [rng.standard_normal(s, np.float32) / np.float32(math.prod(s[1:])) ** 0.5 for s in op.weights(C)]
    constants = op.constants(rng, shape)
    make = {"tinyseg": _tinyseg, "torch": _torch}[framework]
    forward, inputs, backward, grads = make(op, xs, weights, constants, variant)
    y = forward()
    gy = _like(y, np.random.default_rng(1))

    def once():
        start = time.perf_counter()
        y = forward()
        middle = time.perf_counter()
        del y
        leaves = inputs()
        begin = time.perf_counter()
        y = backward(leaves, gy)
        end = time.perf_counter()
        del y
        return {"forward": middle - start, "forward + backward": end - begin}

    worker.cases[key] = once
    leaves = inputs()
    backward(leaves, gy)
    return [worker.sample(np.asarray(a)) for a in [y, *grads(leaves)]]


def available():
    """Return the names of the public ops of tinyseg."""
    import tinyseg

    return tinyseg.ops.__all__


def _like(y, rng):
    """Random numbers with the shape, layout in memory and type of `y`; ones for a number."""
    numbers = rng.standard_normal(tuple(y.shape), np.float32) if y.ndim else np.ones((), np.float32)
    if isinstance(y, np.ndarray):
        gy = np.empty_like(y)
        gy[...] = numbers
        return gy
    import torch

    return torch.empty_like(y).copy_(torch.from_numpy(numbers))


def _tinyseg(op, xs, weights, constants, layout):
    import tinyseg as ts

    class Before(ts.Function):
        """The op before, in a network: it has made x and is handed x's gradient."""

        def __init__(self, x):
            self.x, self.gx = x, None

        def forward(self, anchor):
            return self.x

        def backward(self, gx):
            self.gx = gx
            return np.zeros(1, np.float32)

    if layout == "channels_last":
        xs = [np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) for x in xs]
    weights = [np.ascontiguousarray(w.squeeze()) for w in weights]
    anchor = ts.Tensor(np.zeros(1, np.float32), requires_grad=True)

    def forward():
        with ts.no_grad():
            return op.ours(ts.ops, *xs, *weights, *constants).data

    def inputs():
        anchor.grad = None
        return [Before(x)(anchor) for x in xs] + [ts.Tensor(w, requires_grad=True) for w in weights]

    def backward(inputs, gy):
        y = op.ours(ts.ops, *inputs, *constants)
        y.backward(gy)
        return y

    def grads(inputs):
        return [t.creator.gx if t.creator else t.grad for t in inputs]

    return forward, inputs, backward, grads


def _torch(op, xs, weights, constants, layout):
    import torch
    from torch.nn import functional as F

    memory_format = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}[layout]
    constants = [torch.from_numpy(a) for a in constants]
    leaves = [torch.from_numpy(a) for a in (*xs, *weights)]
    leaves = [a.contiguous(memory_format=memory_format) if a.ndim == 4 else a for a in leaves]
    leaves = [a.requires_grad_() for a in leaves]

    def forward():
        with torch.no_grad():
            return op.theirs(torch, F, *leaves, *constants)

    def inputs():
        for a in leaves:
            a.grad = None
        return leaves

    def backward(leaves, gy):
        y = op.theirs(torch, F, *leaves, *constants)
        y.backward(gy)
        return y.detach()

    return forward, inputs, backward, lambda leaves: [a.grad for a in leaves]


def _adam(framework, C, variant):
    rng = np.random.default_rng(0)
    w, g = (rng.standard_normal((C, C, 3, 3), np.float32) for _ in range(2))
    if framework == "tinyseg":
        import tinyseg as ts

        p = ts.nn.Parameter(w)
        p.grad, optimizer = g, ts.optim.Adam([p], lr=1e-4)
    else:
        import torch

        p = torch.nn.Parameter(torch.from_numpy(w))
        p.grad, optimizer = torch.from_numpy(g), torch.optim.Adam([p], lr=1e-4, **ADAMS[variant])

    def once():
        start = time.perf_counter()
        optimizer.step()
        return {"step": time.perf_counter() - start}

    once()
    return once, [worker.sample(np.asarray(p.data))]


# ----- in the parent -------------------------------------------------------------
class Workers:
    """One worker for each framework (and one without numba), started anew if the last case killed it."""

    def __init__(self, reference=False):
        self.options = {"torch": {"framework": "torch", "tuned": True}, "tinyseg": {"framework": "tinyseg"}}
        if reference:
            self.options["reference"] = {"framework": "tinyseg", "numba": False}
        self.running = {}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for process in self.running.values():
            process.close()

    def __getitem__(self, name):
        if name in self.running and not self.running[name].alive:
            self.running.pop(name).close()
        if name not in self.running:
            self.running[name] = Worker(**self.options[name])
        return self.running[name]

    def drop(self):
        """Let all workers forget their cases."""
        for process in self.running.values():
            with contextlib.suppress(WorkerError):
                process.call("benchmarks.worker:drop")


def measure_op(name, shape, workers, **options):
    """Time an op at a shape; returns a dict with "op", "shape", "times" and "failed" (see `benchmarks.worker.measure`).

    Variants are named "worker layout": "tinyseg channels_last", "torch nchw", and so on.
    """
    turns, failed, expected = {}, {}, None
    for kind in workers.options:  # torch first: the others are compared with it
        for variant in _variants(name, kind):
            process, framework = workers[kind], workers.options[kind]["framework"]
            try:
                key = f"{kind} {variant}"
                found = process.call(
                    "benchmarks.kernels:prepare", key=key, framework=framework, op=name, shape=shape, variant=variant
                )
                expected = expected or found
                error = worker.difference(found, expected)
                if error > 2e-2:  # a ReLU may fall on either side of 0: by rounding alone they differ up to 4e-3
                    raise WorkerError(f"its results differ from PyTorch's by {error:.1e}")
                turns[key] = process, key
            except WorkerError as error:
                failed[key] = str(error)
    times, more = measure(turns, **options)
    workers.drop()
    return {"op": name, "shape": shape, "times": times, "failed": failed | more}


def _variants(name, kind):
    if kind == "reference":
        return ["nchw"]
    if name == ADAM:
        return list(ADAMS) if kind == "torch" else ["channels_last"]
    return LAYOUTS


def the_cases(batch=1, ops=None, scales=None, available=None):
    """List (op, shape): all of `OPS` that tinyseg has, and Adam, or those named; at all scales, or those numbered."""
    found = []
    for name, op in OPS.items():
        if (ops and name not in ops) or (available is not None and op.name not in available):
            continue
        chosen = [op.shapes[k] for k in scales if k < len(op.shapes)] if scales else op.shapes
        found += [(name, (batch, *shape)) for shape in chosen]
    if not ops or ADAM in ops:
        found += [(ADAM, (1, *OPS["relu"].shapes[k])) for k in scales or range(len(SCALES))]
    return found


def run(batch=1, ops=None, scales=None, reference=False, **options):
    """Measure op after op, say so, and yield each record (see `measure_op`)."""
    with Workers(reference) as workers:
        for name, shape in the_cases(batch, ops, scales, workers["tinyseg"].call("benchmarks.kernels:available")):
            record = measure_op(name, shape, workers, **options)
            print(_line(record), flush=True)
            yield record


def _line(record):
    words = []
    for direction in _directions(record):
        found = tables.ratios(record["times"], OURS, _theirs(record), direction)
        if found:
            ours, best = (record["times"][v][direction]["median"] for v in (OURS, found["best"]))
            words.append(
                f"{direction} {tables.milliseconds(ours)} / {tables.milliseconds(best)} ms = "
                f"{tables.ratio(found['rounds'])}"
            )
    words += [f"{variant} {tables.reason(error)}" for variant, error in record["failed"].items()]
    return f"{record['op']} {tables.image(record['shape'])}: " + "; ".join(words)


OURS = "tinyseg channels_last"


def _theirs(record):
    return [variant for variant in record["times"] if variant.startswith("torch")]


def _directions(record):
    return ["step"] if record["op"] == ADAM else DIRECTIONS


def _cell(record, variant, direction):
    if variant in record["times"]:
        return tables.milliseconds(record["times"][variant][direction]["median"])
    return tables.reason(record["failed"][variant]) if variant in record["failed"] else None


def markdown(records):
    """Return the table of times."""
    reference = any("reference nchw" in {**r["times"], **r["failed"]} for r in records)
    variants = {OURS: "tinyseg", "tinyseg nchw": "tinyseg, NCHW"}
    if reference:
        variants["reference nchw"] = "NumPy only"
    head = ["op", "shape", "", *variants.values(), "PyTorch", "its layout", "ratio", "of medians", "of minima"]
    rows, of_rounds = [], []
    for record in records:
        for direction in _directions(record):
            found = tables.ratios(record["times"], OURS, _theirs(record), direction)
            theirs = _best_of_theirs(record, direction)
            row = [record["op"], tables.image(record["shape"]), direction]
            row += [_cell(record, v, direction) for v in variants]
            row += [theirs and _cell(record, theirs, direction), theirs and theirs.split()[1].replace("_", "-")]
            rows.append(row + [found and tables.ratio(found[key]) for key in ("rounds", "median", "min")])
            of_rounds += [found["rounds"]] if found else []
    return f"Times in ms.\n\n{tables.table(head, rows, text_columns=3)}\n{tables.summary(of_rounds)}"


def _best_of_theirs(record, direction):
    return min(_theirs(record), key=lambda v: record["times"][v][direction]["median"], default=None)


def roofline(records, measured):
    """Return the table of how close each op comes to what the machine (see `benchmarks.machine.measure`) can do."""
    head = ["op", "shape", "", "GFLOP", "MiB", "flop / byte", "limit", "roof, ms", "tinyseg, % of it", "PyTorch, %"]
    rows = []
    for record in records:
        for direction, (flops, moved) in work(record["op"], tuple(record["shape"])).items():
            roof, limit = machine.roof(flops, moved, measured)
            row = [
                record["op"],
                tables.image(record["shape"]),
                direction,
                *map(tables.significant, (flops / 1e9, moved / 2**20)),
            ]
            row += [tables.significant(flops / moved), limit, tables.milliseconds(roof)]
            for variant in (OURS, _best_of_theirs(record, direction)):
                times = record["times"].get(variant)
                row.append(times and f"{100 * roof / times[direction]['median']:.0f}")
            rows.append(row)
    return tables.table(head, rows, text_columns=3)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ops", nargs="+", choices=[*OPS, ADAM], help="(default: all)", metavar="OP")
    parser.add_argument(
        "--scales", nargs="+", type=int, choices=range(len(SCALES)), help="0 is 256 x 256 (default: all)"
    )
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--reference", action="store_true", help="tinyseg without numba too")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--turn", type=float, default=0.1, help="seconds a worker runs at a time (default: 0.1)")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the turns")
    parser.add_argument("--roofline", action="store_true", help="measure the machine, and tell how close the ops come")
    parser.add_argument("--json", type=pathlib.Path, help="write what was measured to this file")
    args = parser.parse_args()
    worker.warn_if_busy()
    found = []
    for record in run(
        args.batch, args.ops, args.scales, args.reference, rounds=args.rounds, turn=args.turn, seed=args.seed
    ):
        found.append(record)
        if args.json:
            args.json.write_text(json.dumps(found, indent=1))
    print("\n" + markdown(found))
    if args.roofline:
        print(roofline(found, machine.run()))


if __name__ == "__main__":
    main()
