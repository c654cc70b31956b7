"""tinyseg beside PyTorch on a GPU: the machine, single ops against its bandwidth, and networks.

    python -m benchmarks.gpu                           # less than ten minutes
    python -m benchmarks.gpu --quick                   # two minutes: fewer cases, fewer rounds
    python -m benchmarks.gpu --parts graphs tf32 amp   # for which no time may have been left

Leaves gpu-<device>.json and .md in benchmarks/results, written anew after every case. A variant that fails, or for
which no time is left, is named in the tables with the reason; nothing else is lost by it. Parts that are not asked for
stay as they are in the files. What is timed is in `benchmarks.gpu_worker`.
"""

import argparse
import contextlib
import functools
import json
import pathlib
import re
import sys
import time

from benchmarks import tables
from benchmarks.catalogue import ADAM, OPS, work
from benchmarks.gpu_tables import markdown
from benchmarks.models import Variant
from benchmarks.run import _replace, now
from benchmarks.worker import ROOT, Worker, WorkerError, difference, git_commit, measure

PARTS = ("machine", "kernels", "networks", "graphs", "tf32", "amp")
BATCH = 16  # of the single ops
COMPILING = 75  # seconds that torch.compile may need
TOLERANCE = {False: 1e-2, True: 5e-2}  # relative difference of two frameworks' outputs; in TF32 or float16


OURS = Variant("tinyseg", "tinyseg")
EAGER = [Variant("NCHW", "torch"), Variant("channels-last", "torch", "channels_last")]
COMPILED = Variant("compiled", "torch", "channels_last", compiled=True)
GRAPHS = [Variant("tinyseg, graph", "tinyseg", graph=True), Variant("graph", "torch", "channels_last", graph=True)]
COMPILED_GRAPH = Variant("compiled, graph", "torch", "channels_last", compiled=True, graph=True)


class Workers:
    """A process for each name, started when it is first asked for, and again if it has died."""

    def __init__(self, timeout=240):
        self.timeout, self.running = timeout, {}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for process in self.running.values():
            process.close()

    def __call__(self, name, framework):
        if name in self.running and not self.running[name].alive:
            self.running.pop(name).close()
        if name not in self.running:
            self.running[name] = Worker(framework, timeout=self.timeout)
        return self.running[name]


class Clock:
    """How much of the time for everything is left."""

    def __init__(self, minutes):
        self.end = time.monotonic() + 60 * minutes

    def left(self):
        return self.end - time.monotonic()


# ----- the parts -----------------------------------------------------------------
def run_machine(workers, clock, quick):
    """Yield what is known of the machine so far: "about", "bandwidths", "rates" and "failed"."""
    found = {"about": {"commit": git_commit()}, "bandwidths": {}, "rates": {}, "failed": {}}
    plan = [("tinyseg", "tinyseg", "about", {}), ("NCHW", "torch", "torch_about", {})]
    plan += [("tinyseg", "tinyseg", "bandwidths", {})]
    for tf32 in (False, True):
        plan += [(with_precision("tinyseg", tf32), "tinyseg", "product_rate", {"tf32": tf32})]
        plan += [("NCHW", "torch", "torch_product_rate", {"tf32": tf32})]
    for name, framework, function, options in plan:
        try:
            answer = workers(name, framework).call(f"benchmarks.gpu_worker:{function}", **options)
        except WorkerError as error:
            found["failed"][f"{function} {options or ''}".strip()] = str(error)
            continue
        if function == "bandwidths":
            found["bandwidths"] = answer
        elif "about" in function:
            found["about"] |= answer
        else:
            who = "CuPy" if framework == "tinyseg" else "PyTorch"
            found["rates"][with_precision(who, options["tf32"])] = answer
    yield found


def with_precision(name, tf32, amp=False):
    """Return a name, followed by the precision where that is not float32's own."""
    if tf32:
        name += ", TF32"
    return f"{name}, mixed precision" if amp else name


def the_ops(quick):
    """List (op, shape): every op of the catalogue at its scales, and Adam."""
    names = ["depthwise 3x3", "group norm", "separable 3x3 + relu"] if quick else list(OPS)
    found = [(name, (BATCH, *scale)) for name in names for scale in OPS[name].shapes]
    return found + [(ADAM, (1, C, 1, 1)) for C in ((1024,) if quick else (64, 256, 1024))]


def run_kernels(workers, clock, quick):
    """Yield a growing list of records: an op, its shape, and {direction: seconds, flops, bytes}."""
    found = []
    for op, shape in the_ops(quick):
        record = {"op": op, "shape": shape, "times": {}, "failed": None}
        found.append(record)
        if clock.left() < 5:
            record["failed"] = "no time was left"
            continue
        process = workers("tinyseg", "tinyseg")
        try:
            process.call("benchmarks.gpu_worker:prepare_op", key="op", op=op, shape=shape)
            times = process.call("benchmarks.worker:run", key="op", k=1)
        except WorkerError as error:
            record["failed"] = str(error)
        else:
            for direction, (flops, moved) in work(op, shape).items():
                record["times"][direction] = {"seconds": times[direction][0], "flops": flops, "bytes": moved}
        yield found
    yield found


def the_networks(quick, batches):
    """List (network, shape, mode), the more important before the others."""
    sizes = [(batch, 1, 256, 256) for batch in (batches[:1] if quick else batches)]
    return [(network, s, mode) for network in ("sdunet", "unet") for s in sizes for mode in ("inference", "training")]


def run_networks(workers, clock, quick, tf32=False, amp=False, batches=(1, 4, 16), compiled=True, width=64):
    """Yield a growing list of records, as `measure_network` makes them; torch.compile for SD-UNet alone."""
    found = []
    for network, shape, mode in the_networks(quick, batches):
        variants = [OURS, *EAGER]
        if compiled and network == "sdunet":
            variants.append(COMPILED)
        case = {"network": network, "shape": shape, "mode": mode, "width": width, "tf32": tf32, "amp": amp}
        found.append(measure_network(workers, clock, case, variants, rounds=3 if quick else 7))
        print(_line(found[-1]), flush=True)
        yield found


def run_graphs(workers, clock, quick, batches=(1, 4, 16), compiled=True, width=64):
    """Yield a growing list of records: networks launched kernel by kernel, and as one CUDA graph; small batches."""
    found = []
    for network, shape, mode in the_networks(quick, batches[:2]):
        variants = [OURS, *GRAPHS, EAGER[1]]
        if compiled and network == "sdunet":
            variants.append(COMPILED_GRAPH)
        case = {"network": network, "shape": shape, "mode": mode, "width": width, "tf32": False, "amp": False}
        found.append(measure_network(workers, clock, case, variants, rounds=3 if quick else 7))
        print(_line(found[-1]), flush=True)
        yield found


def measure_network(workers, clock, case, variants, rounds):
    """Time one network, in rounds in which each variant has a turn.

    Parameters
    ----------
    workers : Workers
    clock : Clock
        A variant for which it leaves no time is passed over.
    case : dict
        "network", "shape", "mode", "width", "tf32" and "amp".
    variants : list of Variant
    rounds : int

    Returns
    -------
    dict
        The case, "times" and "failed" as from `benchmarks.worker.measure`, and "memory": {variant: bytes}, what the
        process took of the GPU's.
    """
    turns, failed, memory, samples = {}, {}, {}, {}
    for variant in variants:
        try:
            if clock.left() < (COMPILING if variant.compiled else 8):
                raise WorkerError("no time was left")
            process = workers(with_precision(variant.name, case["tf32"]), variant.framework)
            options = {"layout": variant.layout, "compiled": variant.compiled, "framework": variant.framework}
            options["graph"] = variant.graph
            sample = process.call("benchmarks.gpu_worker:prepare_network", key="case", **case, **options)
            if sample and samples:
                error = difference([sample], [next(iter(samples.values()))])
                if error > TOLERANCE[case["tf32"] or case["amp"]]:
                    raise WorkerError(f"its output differs from that of the others by {error:.1e}")
            samples |= {variant.name: sample} if sample else {}
            turns[variant.name] = process, "case"
        except WorkerError as error:
            failed[variant.name] = str(error)

    def weigh(name, process):
        with contextlib.suppress(WorkerError):
            memory[name] = process.call("benchmarks.gpu_worker:peak", key="case")

    budget = max(1, min(15, clock.left() - 10))
    times, more = measure(turns, rounds=rounds, turn=0, budget=budget, warm_up=1, warmed=weigh)
    return case | {"times": times, "failed": failed | more, "memory": memory}


def _line(record):
    name = f"{record['network']} {tables.image(record['shape'])} {record['mode']}"
    name = with_precision(name, record["tf32"], record["amp"])
    words = [f"{v} {tables.milliseconds(t['time']['median'])} ms" for v, t in record["times"].items()]
    return f"{name}: " + "; ".join(words + [f"{v} {tables.reason(e)}" for v, e in record["failed"].items()])


# ----- all of it -----------------------------------------------------------------
def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer cases and rounds")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="only these")
    parser.add_argument("--minutes", type=float, default=9, help="after which nothing new is begun (default: 9)")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4, 16], help="of the networks (default: 1 4 16)")
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile, which takes long")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benchmarks" / "results")
    args = parser.parse_args(arguments)
    name = gpu_name()
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / f"gpu-{slug(name)}.json"
    results = json.loads(file.read_text()) if file.exists() and set(args.parts) != set(PARTS) else {}
    clock, options = Clock(args.minutes), {"batches": args.batches, "compiled": not args.no_compile}
    precisions = {}, {"tf32": True}, {"amp": True}
    plain, *others = (functools.partial(run_networks, **precision, **options) for precision in precisions)
    measured = run_machine, run_kernels, plain, functools.partial(run_graphs, **options), *others
    measures = dict(zip(PARTS, measured, strict=True))
    with Workers() as workers:
        for part in args.parts:
            print(f"----- {part}, {clock.left() / 60:.1f} minutes left", flush=True)
            results[part] = {"date": now(), "quick": args.quick, "found": None}
            for found in measures[part](workers, clock, args.quick):
                results[part]["found"] = found
                write(results, file, name)
    print(f"See {file.with_suffix('.md')}")


def gpu_name():
    """Return the name of the GPU; ends the program with a sentence if there is none."""
    from tinyseg import backend

    try:
        backend.parse_device("gpu")
    except RuntimeError as error:
        sys.exit(f"python -m benchmarks.gpu needs a GPU. {error} For the CPU: python -m benchmarks")
    return backend.device_name("gpu").removeprefix("gpu: ")


def slug(name):
    """Return a device's name as part of a file's: "NVIDIA H100 80GB HBM3" -> "nvidia-h100-80gb-hbm3"."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def write(results, file, name):
    """Write the JSON file and, beside it, the Markdown."""
    _replace(file, json.dumps(results, indent=1))
    _replace(file.with_suffix(".md"), markdown(json.loads(json.dumps(results)), name))


if __name__ == "__main__":
    main()
