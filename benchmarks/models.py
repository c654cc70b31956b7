"""Networks: time and memory of inference and of training steps, tinyseg beside what else runs them.

    python -m benchmarks.models
    python -m benchmarks.models --models sdunet --batches 1 --rounds 3
    python -m benchmarks.models --compile --reference        # torch.compile; tinyseg without numba

Everything goes through the public interfaces; PyTorch runs the twin of the network from the test suite, with the fused
step of its Adam; ONNX Runtime and OpenVINO run the file that `tinyseg export` writes. Each case has processes of its
own, one for each variant.
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import time

import numpy as np

from benchmarks import runtimes, tables, worker
from benchmarks.worker import Worker, WorkerError, measure

MODES = ("inference", "training")
TOLERANCE = {"float32": 1e-2, "int8": 0.5}  # of an output beside the others', relative; of networks not trained


@dataclasses.dataclass(frozen=True)
class Variant:
    """What can be timed: a framework and how it is set up."""

    name: str
    framework: str
    layout: str = "nchw"
    tuned: bool = False
    compiled: bool = False
    numba: bool = True
    graph: bool = False  # on a GPU: one CUDA graph a repetition
    dtype: str = "float32"  # of PyTorch also "bfloat16", by autocast; of tinyseg and ONNX files also "int8"
    flags: tuple = ()  # for the compiler of C


OURS = Variant("tinyseg", "tinyseg")
OURS_INT8 = Variant("tinyseg, 8 bits", "tinyseg", dtype="int8")
REFERENCE = Variant("tinyseg, NumPy only", "tinyseg", numba=False)
TORCH = [
    Variant("NCHW", "torch"),
    Variant("NCHW, tuned", "torch", tuned=True),
    Variant("channels-last", "torch", layout="channels_last"),
    Variant("channels-last, tuned", "torch", layout="channels_last", tuned=True),
]
COMPILED = [Variant("compiled, tuned", "torch", layout="channels_last", tuned=True, compiled=True)]
AUTOCAST = [Variant("channels-last, tuned, bfloat16", "torch", layout="channels_last", tuned=True, dtype="bfloat16")]
RUNTIMES = [Variant("ONNX Runtime", "onnxruntime"), Variant("OpenVINO", "openvino")]
EIGHT_BITS = [dataclasses.replace(variant, name=f"{variant.name}, 8 bits", dtype="int8") for variant in RUNTIMES]
PROGRAMS = [Variant("C, one core", "c"), Variant("C, one core, -march=native", "c", flags=("-march=native",))]
PYTORCH = [variant.name for variant in TORCH + COMPILED + AUTOCAST]
OTHERS = [*PYTORCH, *(variant.name for variant in RUNTIMES)]  # the fastest of them is the yardstick


@dataclasses.dataclass(frozen=True)
class Case:
    """A network, images and what is done with them. More than one class: cross-entropy, else binary cross-entropy."""

    network: str
    shape: tuple
    classes: int
    mode: str
    width: int = 64


def the_cases(networks=("sdunet", "unet"), batches=(1, 4), brain=True):
    """List the cases: each network at 256 x 256, and 4 classes from 4 modalities of 144 x 144, batch 8."""
    found = []
    for network in networks:
        inputs = [((batch, 1, 256, 256), 1) for batch in batches]
        if brain:
            inputs.append(((8, 4, 144, 144), 4))
        found += [Case(network, shape, classes, mode) for shape, classes in inputs for mode in MODES]
    return found


# ----- in the workers ------------------------------------------------------------
def prepare(key, case, variant):
    """Put a case into this worker.

    Parameters
    ----------
    key : str
        Its name in `worker.cases`.
    case, variant : dict
        What a `Case` and a `Variant` have.

    Returns
    -------
    dict
        "imported": resident MiB after the imports and one tiny step, which loads or compiles what there is to compile;
        "sample": elements of the output (inference only), to compare frameworks by.
    """
    case, variant = Case(**case), Variant(**variant)
    tiny = dataclasses.replace(case, shape=(1, case.shape[1], 32, 32), width=4)
    make_step(tiny, dataclasses.replace(variant, compiled=False))()
    imported = worker.memory()["now"]
    step = make_step(case, variant)

    def once():
        start = time.perf_counter()
        result = step()
        seconds = time.perf_counter() - start
        del result
        return {"time": seconds}

    worker.cases[key] = once
    return {"imported": imported, "sample": worker.sample(step()) if case.mode == "inference" else None}


def make_step(case, variant):
    """Return a function that does once what is timed."""
    return {"tinyseg": _tinyseg, "torch": _torch}.get(variant.framework, _runtime)(case, variant)


def make_data(shape, classes):
    """Return images, and masks (one class) or class numbers."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape, np.float32)
    if classes == 1:
        return x, (x[:, :1] > 0).astype(np.float32)
    return x, rng.integers(0, classes, (shape[0], *shape[2:]))


def make_weights(shapes):
    """Yield the same weights for all frameworks: their shapes may differ in axes of length 1."""
    for number, shape in enumerate(shapes):
        rng = np.random.default_rng(number)
        fan_in = np.prod(shape[1:])
        yield rng.standard_normal(shape, np.float32) * np.float32(2 / fan_in) ** 0.5 if len(shape) > 1 else None


def build_network(case):
    """Return tinyseg's network of a case, with the weights of `make_weights`."""
    import tinyseg as ts

    model = ts.models.build(case.network, case.shape[1], case.classes, width=case.width)
    parameters = list(model.parameters())
    for p, w in zip(parameters, make_weights([p.shape for p in parameters]), strict=True):
        p.data[...] = p.data if w is None else w
    return model


def _tinyseg(case, variant):
    import tinyseg as ts
    from tinyseg.training.loop import keep_freed_memory

    keep_freed_memory()
    x, y = make_data(case.shape, case.classes)
    model = build_network(case)
    if variant.dtype == "int8":
        network = ts.export.quantize(ts.export.describe(model), x)
        return lambda: network(x)
    if case.mode == "inference":
        model.eval()

        def predict():
            with ts.no_grad():
                return model(x).data

        return predict
    optimizer = ts.optim.Adam(model.parameters(), lr=1e-4)
    loss_of = ts.ops.binary_cross_entropy_with_logits if case.classes == 1 else ts.ops.cross_entropy

    def step():
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()

    return step


def _torch(case, variant):
    import torch
    from torch.nn import functional as F

    from tests.models.torch_twin import build

    memory_format = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}[variant.layout]
    x, y = map(torch.from_numpy, make_data(case.shape, case.classes))
    x = x.contiguous(memory_format=memory_format)
    model = build(case.network, case.shape[1], case.classes, width=case.width)
    parameters = list(model.parameters())
    for p, w in zip(parameters, make_weights([p.shape for p in parameters]), strict=True):
        if w is not None:
            p.data.copy_(torch.from_numpy(w))
    model = model.to(memory_format=memory_format)
    optimizer = torch.optim.Adam(parameters, lr=1e-4, fused=True)
    loss_of = F.binary_cross_entropy_with_logits if case.classes == 1 else F.cross_entropy
    model.train(case.mode == "training")
    run = torch.compile(model) if variant.compiled else model
    if case.mode == "inference":

        def predict():
            with torch.no_grad():
                return run(x).numpy()

        return predict

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=variant.dtype == "bfloat16"):
            loss = loss_of(run(x), y)
        loss.backward()
        optimizer.step()

    return step


def _runtime(case, variant):
    return runtimes.open_network(build_network(case), make_data(case.shape, case.classes)[0], variant)


# ----- in the parent -------------------------------------------------------------
def start(variant, timeout=600):
    """Start a worker for a variant."""
    framework = "torch" if variant.framework == "torch" else "tinyseg"  # which writes the file that others run
    return Worker(framework, tuned=variant.tuned, numba=variant.numba, timeout=timeout)


def prepare_in(process, key, case, variant):
    """Call `prepare` in a worker."""
    about = {"case": dataclasses.asdict(case), "variant": dataclasses.asdict(variant)}
    return process.call("benchmarks.models:prepare", key=key, **about)


def can_run(variant, case):
    """Whether a variant is there for a case: files and integers do not train, and autocast is for training."""
    if case.mode == "training":
        return variant.framework in ("tinyseg", "torch") and variant.dtype != "int8"
    return variant.dtype != "bfloat16" and (variant.framework != "c" or case.shape[0] == 1)


def measure_case(case, variants, **options):
    """Time a case and take its memory.

    Parameters
    ----------
    case : Case
    variants : list of Variant
        Those that cannot run the case are passed over.
    **options
        Of `benchmarks.worker.measure`.

    Returns
    -------
    dict
        The case, "times" and "failed" as from `measure`, and "memory": {variant: {"imported", "peak"}} in MiB, the peak
        after three repetitions.
    """
    turns, memory, samples, imported, failed = {}, {}, {}, {}, {}

    def weigh(name, process):
        with contextlib.suppress(WorkerError):
            peak = process.call("benchmarks.worker:memory")["peak"]
            memory[name] = {"imported": imported[name], "peak": peak}

    with contextlib.ExitStack() as stack:
        for variant in variants:
            if not can_run(variant, case):
                continue
            process = stack.enter_context(start(variant))
            try:
                found = prepare_in(process, "case", case, variant)
                if case.mode == "inference" and samples:
                    error = worker.difference([found["sample"]], [next(iter(samples.values()))])
                    if error > TOLERANCE[variant.dtype]:
                        raise WorkerError(f"its output differs from that of the others by {error:.1e}")
            except WorkerError as error:
                failed[variant.name] = str(error)
                process.close()
            else:
                samples[variant.name], imported[variant.name] = found["sample"], found["imported"]
                turns[variant.name] = process, "case"
        times, more = measure(turns, warm_up=3, warmed=weigh, **options)
    return dataclasses.asdict(case) | {"times": times, "failed": failed | more, "memory": memory}


def compile_kernels(networks):
    """Let numba compile what the networks need, into its cache on disk: a compiler's memory is not theirs."""
    for network in networks:
        with Worker("tinyseg") as process, contextlib.suppress(WorkerError):
            for mode in MODES:
                prepare_in(process, mode, Case(network, (1, 1, 32, 32), 1, mode), OURS)
                process.call("benchmarks.worker:run", key=mode, k=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["sdunet", "unet"], help="names of tinyseg.models.MODELS")
    parser.add_argument("--batches", nargs="*", type=int, default=[1, 4], help="at 256 x 256 (default: 1 4)")
    parser.add_argument("--no-brain", action="store_true", help="without the case of 8 x 4 x 144 x 144")
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile (channels-last) too: a minute more for each case"
    )
    parser.add_argument("--reference", action="store_true", help="tinyseg without numba too")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--budget", type=float, default=60, help="seconds a case, at least three rounds (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the turns")
    parser.add_argument("--json", type=pathlib.Path, help="write what was measured to this file")
    args = parser.parse_args()
    worker.warn_if_busy()
    found = []
    variants = the_variants(args.compile, args.reference)
    options = {"rounds": args.rounds, "budget": args.budget, "seed": args.seed}
    for record in run(the_cases(args.models, args.batches, not args.no_brain), variants, **options):
        found.append(record)
        if args.json:
            args.json.write_text(json.dumps(found, indent=1))
    print("\n" + markdown(found))


def the_variants(compiled=False, reference=False):
    """List the variants to be timed."""
    found = [*TORCH, *AUTOCAST, *RUNTIMES, *EIGHT_BITS, OURS, OURS_INT8]
    return found + (COMPILED if compiled else []) + ([REFERENCE] if reference else [])


def run(cases, variants, **options):
    """Measure cases one after the other, say so, and yield each record (see `measure_case`)."""
    compile_kernels(sorted({case.network for case in cases}))
    for case in cases:
        record = measure_case(case, variants, **options)
        print(_line(record), flush=True)
        yield record


def _line(record):
    name = f"{record['network']} {tables.image(record['shape'])} {record['mode']}"
    found = tables.ratios(record["times"], OURS.name, OTHERS, "time")
    words = [f"{v} {tables.reason(e)}" for v, e in record["failed"].items()]
    if found:
        ours, best = (record["times"][v]["time"]["median"] for v in (OURS.name, found["best"]))
        words.insert(
            0,
            f"tinyseg {tables.milliseconds(ours)} ms, {found['best']} {tables.milliseconds(best)} ms, "
            f"ratio {tables.ratio(found['rounds'])}",
        )
    return f"{name}: " + "; ".join(words)


def markdown(records):
    """Return the tables of times and memory."""
    known = [OURS, OURS_INT8, REFERENCE, *TORCH, *COMPILED, *AUTOCAST, *RUNTIMES, *EIGHT_BITS]
    measured = [v.name for v in known if any(_has(r, v.name) for r in records)]
    torch = [name for name in measured if name in PYTORCH]
    against = {"ratio": (OURS.name, OTHERS), "to PyTorch": (OURS.name, torch)}
    if any(v.name in measured for v in COMPILED):
        against["to eager PyTorch"] = OURS.name, [name for name in torch if name != COMPILED[0].name]
    if OURS_INT8.name in measured:
        against["with 8 bits"] = OURS_INT8.name, [variant.name for variant in EIGHT_BITS]
    titles = {name: f"PyTorch {name}" if name in torch else name for name in measured}
    weighed = [name for name in measured if name in (OURS.name, REFERENCE.name, *torch)]
    rows, memory, of_rounds = [], [], []
    for record in records:
        name = [record["network"], tables.image(record["shape"]), record["mode"]]
        rows.append(name + [_cell(record, variant) for variant in measured])
        found = [tables.ratios(record["times"], ours, theirs, "time") for ours, theirs in against.values()]
        rows[-1] += [ratios and tables.ratio(ratios["rounds"]) for ratios in found]
        rows[-1] += [found[0] and tables.ratio(found[0][key]) for key in ("median", "min")]
        of_rounds += [found[0]["rounds"]] if found[0] else []
        memory.append(name + _memory(record["memory"], weighed, torch))
    times_of = ["network", "images", "", *titles.values(), *against, "of medians", "of minima"]
    memory_of = ["network", "images", "", *map(titles.get, weighed), "ratio in all", "above"]
    parts = [
        "Times in ms: medians of all repetitions. “Tuned” is a process whose allocator keeps freed memory. The ratio "
        "is that to the fastest of the others, and “with 8 bits” the same of integers; of medians and of minima is the "
        "ratio of other times.\n",
        tables.table(times_of, rows, text_columns=3),
        tables.summary(of_rounds),
        "Peak resident memory in MiB of a process that has done only this, three times: in all / above what it held "
        "after the imports and one tiny step. The ratios are to PyTorch's lowest.\n",
        tables.table(memory_of, memory, text_columns=3),
    ]
    return "\n".join(parts)


def _has(record, variant):
    return variant in record["times"] or variant in record["failed"]


def _cell(record, variant):
    if variant in record["times"]:
        return tables.milliseconds(record["times"][variant]["time"]["median"])
    return tables.reason(record["failed"][variant]) if variant in record["failed"] else None


def _memory(memory, variants, theirs):
    """Cells: total / above imports of each variant, and the two ratios."""
    pairs = {name: (m["peak"], m["peak"] - m["imported"]) for name, m in memory.items()}
    cells = [f"{pairs[v][0]:.0f} / {pairs[v][1]:.0f}" if v in pairs else None for v in variants]
    lowest = [min((pairs[v][k] for v in theirs if v in pairs), default=None) for k in (0, 1)]
    if OURS.name not in pairs or None in lowest:
        return [*cells, None, None]
    return cells + [tables.ratio(mine / least) for mine, least in zip(pairs[OURS.name], lowest, strict=True)]


if __name__ == "__main__":
    main()
