"""The tables of `benchmarks.gpu`, in Markdown."""

import statistics

from benchmarks import tables

EAGER, COMPILED = ("NCHW", "channels-last"), "compiled"
AGAINST = {"ratio to eager": EAGER, "to compiled": (COMPILED,)}
GRAPH, OWN = "tinyseg, graph", {"ratio to tinyseg": ("tinyseg",), "to PyTorch's graph": ("graph",)}
AGAINST_GRAPHS = OWN | {"to reduce-overhead": ("compiled, graph",)}
LAUNCH = 20e-6  # seconds: what takes less is mostly the host's way to it


def markdown(results, name):
    """Return the whole page, of whatever parts there are."""
    parts = [
        f"# tinyseg beside PyTorch on {name}\n",
        "`python -m benchmarks.gpu` made this file. Each variant is a process of its own; in every round each has the "
        "GPU for itself in turn, in an order drawn anew, and gives its memory back afterwards. Times are medians of "
        "CUDA events around single repetitions, of which many are under way. A *ratio* is the median over the rounds "
        "of tinyseg's time divided by the time of that round's fastest variant of PyTorch named in the column (below "
        "1: tinyseg is faster).\n",
    ]
    found = {part: results[part]["found"] for part in results if results[part].get("found")}
    for part, title, make in (
        ("machine", "Machine", machine),
        ("networks", "Networks, float32 throughout", networks),
        ("graphs", "CUDA graphs: a step or a prediction in one launch", graphs),
        ("tf32", "Networks, with TF32", networks),
        ("amp", "Networks, in mixed precision: activations in float16, the loss scaled", networks),
        ("kernels", "Single ops", lambda records: kernels(records, found.get("machine"))),
    ):
        if part in found:
            quick = "; a quick run: fewer cases, fewer rounds" if results[part]["quick"] else ""
            parts += [f"## {title}\n\n{results[part]['date']}{quick}\n", make(found[part])]
    return "\n".join(parts)


def machine(measured):
    """Return the tables of what the machine is and how fast."""
    parts = [tables.table(["", ""], [[key, str(value)] for key, value in measured["about"].items()], text_columns=2)]
    rows = [[who, f"{rate / 1e12:.1f}"] for who, rate in measured["rates"].items()]
    parts.append(tables.table(["product of two float32 matrices, 8192³", "TFLOP/s"], rows))
    rows = [[f"{size} MiB", f"{rate / 1e9:.0f}"] for size, rate in measured["bandwidths"].items()]
    parts.append(tables.table(["copy of arrays of", "GB/s read and written"], rows))
    parts += [f"{function} {tables.reason(error)}\n" for function, error in measured["failed"].items()]
    return "\n".join(parts)


def graphs(records):
    """Return the tables of what is launched kernel by kernel, and as one graph."""
    words = (
        "*graph*: captured once and replayed. tinyseg's replayed training step clips nothing, but reads the loss and "
        "the other figures after every step, as `fit` does; PyTorch's reads nothing. *compiled, graph* is "
        'torch.compile with mode="reduce-overhead".\n'
    )
    return (
        words
        + "\n"
        + networks(records, GRAPH, ("tinyseg", "channels-last", "graph", "compiled, graph"), AGAINST_GRAPHS)
    )


def networks(records, ours="tinyseg", others=(*EAGER, COMPILED), against=AGAINST):
    """Return the tables of times and memory, and of the ratios to some of the others."""
    variants = (ours, *others)
    head = ["network", "images", "", *(v if v.startswith("tinyseg") else f"PyTorch {v}" for v in variants)]
    rows, memory, reasons = [], [], []
    of_rounds = {column: [] for column in against}
    for record in records:
        case = [record["network"], tables.image(record["shape"]), record["mode"]]
        row = case + [_cell(record, variant) for variant in variants]
        for column, theirs in against.items():
            ratios = tables.ratios(record["times"], ours, theirs, "time")
            row.append(ratios and tables.ratio(ratios["rounds"]))
            of_rounds[column] += [ratios["rounds"]] if ratios else []
        rows.append(row)
        taken = [record["memory"].get(variant) for variant in variants]
        memory.append(case + [bytes_ and f"{bytes_ / 2**20:.0f}" for bytes_ in taken])
        reasons += [f"- {' '.join(case)}, {v}: {tables.reason(e, 300)}" for v, e in record["failed"].items()]
    parts = ["Times in ms.\n", tables.table([*head, *against], rows, text_columns=3)]
    parts += [f"{column}: {tables.summary(ratios)}" for column, ratios in of_rounds.items()]
    parts += ["GPU memory that the process took, in MiB, what its pool keeps included.\n"]
    parts += [tables.table(head, memory, text_columns=3), *reasons, ""]
    return "\n".join(parts)


def _cell(record, variant):
    if variant in record["times"]:
        return tables.milliseconds(record["times"][variant]["time"]["median"])
    return "see below" if variant in record["failed"] else None


def kernels(records, measured):
    """Return the table of single ops: time, bytes over time, and the share of the roof that this is."""
    bandwidth, rate = roofs(measured)
    head = ["op", "shape", "", "ms", "GB/s", "of the copy's", "of the roof"]
    rows, shares, reasons = [], [], []
    for record in records:
        case = [record["op"], tables.image(record["shape"])]
        for direction, t in record["times"].items():
            of_copy, of_roof = share(t, bandwidth, rate)
            row = [*case, direction, tables.milliseconds(t["seconds"]), tables.significant(speed(t) / 1e9)]
            rows.append([*row, of_copy and f"{of_copy:.0%}", of_roof and f"{of_roof:.0%}"])
            shares += [of_roof] if of_roof and t["seconds"] > LAUNCH else []
        if record["failed"]:
            reasons.append(f"- {' '.join(case)}: {tables.reason(record['failed'], 300)}")
    words = (
        "tinyseg's public ops, one or a few kernels each. Bytes: every input read once and every output written once, "
        "so that an op which has to read twice cannot reach the copy's bandwidth, and one whose arrays fit into the "
        "GPU's cache may pass it. The roof is the longer of moving these bytes and of computing at the rate of the "
        "float32 product; convolutions are counted as direct sums. Small shapes are limited by launching.\n"
    )
    parts = [words, tables.table(head, rows, text_columns=3)]
    if shares:
        parts.append(f"Median share of the roof, of what takes more than 20 µs: {statistics.median(shares):.0%}.\n")
    return "\n".join([*parts, *reasons])


def roofs(measured):
    """Return (bytes/s, flop/s) that the machine was measured to reach, None where it was not."""
    bandwidths, rates = (measured[key] if measured else {} for key in ("bandwidths", "rates"))
    largest = max(bandwidths, key=int, default=None)
    plain = [rate for who, rate in rates.items() if "TF32" not in who]
    return bandwidths.get(largest), max(plain, default=None)


def speed(t):
    """Bytes/s of a measured direction."""
    return t["bytes"] / t["seconds"]


def share(t, bandwidth, rate):
    """Return (share of the copy's bandwidth, share of the roof), None where the machine was not measured."""
    of_copy = speed(t) / bandwidth if bandwidth else None
    roof = max(t["bytes"] / bandwidth, t["flops"] / rate) / t["seconds"] if bandwidth and rate else None
    return of_copy, roof
