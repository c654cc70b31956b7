"""The numbers that pages quote from benchmarks/results/cpu.json, by name, and the tables made of them."""

import math
import statistics

from benchmarks import kernels, models, tables

LIMIT = 1.2  # ratio to PyTorch above which an op is listed
BATCHES = {"1×1×256×256": "batch 1", "4×1×256×256": "batch 4", "8×4×144×144": "brain"}
TITLES = {"sdunet": "SD-UNet", "unet": "U-Net"}


def summarize(results):
    """Name what was found.

    Parameters
    ----------
    results : dict
        The content of cpu.json.

    Returns
    -------
    dict
        ``measured``: commit, machine, date and command; ``rates`` in GFLOP/s; ``bandwidths`` in GB/s; ``networks``,
        ``scaling`` and ``ops``, each with the ``table`` that a page shows. Times are in ms, what else is compared with
        PyTorch is a ratio.
    """
    found = {part: content["found"] for part, content in results.items()}
    about = found["machine"]["about"]
    return {
        "measured": {
            "commit": about["commit"],
            "machine": f"{about['cores in use']} cores of {about['processor']}, {about['memory']}, Python "
            f"{about['python']}, NumPy {about['numpy']}, numba {about['numba']}, PyTorch {about['torch']}",
            "date": results["models"]["date"][:10],
            "command": "python -m benchmarks --reference",
        },
        "rates": {who: {n: rate / 1e9 for n, rate in of.items()} for who, of in found["machine"]["rates"].items()},
        "bandwidths": {n: {k: b / 1e9 for k, b in of.items()} for n, of in found["machine"]["bandwidths"].items()},
        "networks": _networks(found["models"]),
        "scaling": _scaling(found["scaling"]),
        "ops": _ops(found["kernels"]),
    }


# ----- networks -------------------------------------------------------------------
def _networks(records):
    named = {}
    for record in records:
        batch = BATCHES[tables.image(record["shape"])]
        named.setdefault(record["network"], {}).setdefault(record["mode"], {})[batch] = _network(record)
    rows, of_all = [], []
    for network, modes in named.items():
        for batch in modes["inference"]:
            cells = [f"{modes[mode][batch]['ratio']:.2f}" for mode in models.MODES]
            cells += [f"{modes[mode][batch]['memory']:.2f}" for mode in models.MODES]
            shape = next(shape for shape, name in BATCHES.items() if name == batch)
            rows.append([TITLES[network], shape, *cells])
        of_network = [figures for mode in modes.values() for figures in mode.values()]
        for mode in modes.values():
            mode |= _range(list(mode.values()))
        modes |= _range(of_network)
        of_all += of_network
    head = ["network", "images", "inference", "training step", "memory, inference", "memory, training step"]
    return named | _range(of_all) | {"table": tables.table(head, rows, text_columns=2)}


def _range(figures):
    """Return the least and the most of each figure."""
    return {
        name: {key: choose(f[key] for f in figures) for key in figures[0]}
        for name, choose in (("least", min), ("most", max))
    }


def _network(record):
    times, memory = record["times"], {name: of["peak"] for name, of in record["memory"].items()}
    ours, theirs = models.OURS.name, [v.name for v in models.TORCH if v.name in times and v.name in memory]
    ratios = tables.ratios(times, ours, models.OTHERS, "time")
    torch = tables.ratios(times, ours, models.PYTORCH, "time")
    reference = tables.ratios(times, models.REFERENCE.name, models.PYTORCH, "time")
    stock, tuned = (
        min(times[n]["time"]["median"] for n in theirs if ("tuned" in n) == is_tuned) for is_tuned in (0, 1)
    )
    found = {
        "ms": 1e3 * times[ours]["time"]["median"],
        "PyTorch": 1e3 * times[torch["best"]]["time"]["median"],
        "ratio": ratios["rounds"],
        "to PyTorch": torch["rounds"],
        "of minima": ratios["min"],
        "stock over tuned": stock / tuned,
        "memory": memory[ours] / min(memory[name] for name in theirs),
    }
    return found | ({"without numba": reference["rounds"]} if reference else {})


def _scaling(records):
    """Ratios by axis, value, network and mode."""
    named = {}
    for record in records:
        theirs = [name for name in record["times"] if name != models.OURS.name]
        found = tables.ratios(record["times"], models.OURS.name, theirs, "time")
        if found:
            place = named.setdefault(record["axis"], {}).setdefault(str(record["value"]), {})
            place.setdefault(record["network"], {})[record["mode"]] = found["rounds"]
    return named


# ----- single ops -----------------------------------------------------------------
def _ops(records):
    cases = [
        {"op": record["op"], "direction": direction, "shape": record["shape"], "ratio": found["rounds"]}
        for record in records
        for direction in kernels._directions(record)
        if (found := tables.ratios(record["times"], kernels.OURS, kernels._theirs(record), direction))
    ]
    ratios = [case["ratio"] for case in cases]
    above = [case for case in cases if case["ratio"] > LIMIT]
    return {
        "cases": len(cases),
        "at least as fast": sum(r <= 1 for r in ratios),
        "mean": math.exp(statistics.fmean(map(math.log, ratios))),
        "limit": LIMIT,
        "above": len(above),
        "ops above": len({case["op"] for case in above}),
        "table": _above(cases),
    }


def _above(cases):
    """Return the table of the ops above the limit: how many of their cases, their ratios, and the images."""
    rows = []
    for op in dict.fromkeys(case["op"] for case in cases):
        cells = []
        for directions in (("forward", "step"), ("forward + backward",)):
            of_op = [case for case in cases if case["op"] == op and case["direction"] in directions]
            slow = [case for case in of_op if case["ratio"] > LIMIT]
            sizes = ", ".join(f"{case['ratio']:.1f} at {case['shape'][1]} × {case['shape'][2]}²" for case in slow)
            cells.append(f"{len(slow)} of {len(of_op)}: {sizes}" if slow else None)
        if any(cells):
            rows.append([op, *cells])
    return tables.table(["op", "forward (Adam: the step)", "forward + backward"], rows, text_columns=3)
