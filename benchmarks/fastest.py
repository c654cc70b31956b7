"""tinyseg beside the fastest of everything that could be found for its networks, float and 8 bits.

    python -m benchmarks.claims --parts fastest

Large images and small ones, one and several at a time. For inference that is PyTorch, ONNX Runtime and OpenVINO; for
training PyTorch in float32 and with bfloat16 by autocast. PyTorch is the faster of NCHW and channels-last, both with an
allocator that keeps freed memory.
"""

from benchmarks import models, tables
from benchmarks.summary import TITLES

CASES = [
    models.Case(network, (number, 1, side, side), 1, mode)
    for number, side, modes in (
        (1, 256, models.MODES), (4, 256, models.MODES), (1, 64, ["training"]), (4, 128, ["inference"]),
        (8, 128, ["inference"]),
    )
    for network in ("sdunet", "unet")
    for mode in modes
]  # fmt: skip
TORCH = [variant for variant in models.TORCH if variant.tuned]
VARIANTS = [*TORCH, *models.AUTOCAST, *models.RUNTIMES, *models.EIGHT_BITS, models.OURS, models.OURS_INT8]
FLOATS = {
    "tinyseg": ".0f", "PyTorch": ".0f", "PyTorch, bfloat16": ".0f", "ONNX Runtime": ".0f", "OpenVINO": ".0f",
    "ratio to the fastest": ".2f", "to PyTorch in float32": ".2f", "memory, to PyTorch": ".2f",
}  # fmt: skip
BYTES = {"tinyseg": ".0f", "ONNX Runtime": ".0f", "OpenVINO": ".0f", "ratio to the fastest": ".2f"}


def measure(**options):
    """Return two tables, of floats and ``eight bits``: milliseconds, ratios to the fastest (medians over rounds), and
    the peak memory of whole processes.
    """
    floats, eight_bits = {}, {}
    for record in models.run(CASES, VARIANTS, **{"rounds": 9, "budget": 30} | options):
        number, _, side, _ = record["shape"]
        title = f"{TITLES[record['network']]}, {number} of {side}², {record['mode']}"
        floats[title] = of_floats(record["times"], record["memory"])
        if models.OURS_INT8.name in record["times"]:
            eight_bits[title.removesuffix(", inference")] = of_bytes(record["times"])
    return {"columns": FLOATS, "rows": floats, "eight bits": {"columns": BYTES, "rows": eight_bits}}


def of_floats(times, memory):
    """Return a row of the table of floats."""
    names = {models.AUTOCAST[0].name: "PyTorch, bfloat16"} | {name: name for name in FLOATS}
    row = {names[name]: 1e3 * found["time"]["median"] for name, found in times.items() if name in names}
    torch = [variant.name for variant in TORCH if variant.name in times]
    row["PyTorch"] = min(1e3 * times[name]["time"]["median"] for name in torch)
    others = [variant.name for variant in (*TORCH, *models.AUTOCAST, *models.RUNTIMES)]
    row["ratio to the fastest"] = tables.ratios(times, models.OURS.name, others, "time")["rounds"]
    row["to PyTorch in float32"] = row[models.OURS.name] / row["PyTorch"]
    least = min(memory[name]["peak"] for name in torch if name in memory)
    return row | {"memory, to PyTorch": memory[models.OURS.name]["peak"] / least}


def of_bytes(times):
    """Return a row of the table of 8 bits."""
    variants = models.OURS_INT8, *models.EIGHT_BITS
    row = {v.name.removesuffix(", 8 bits"): 1e3 * times[v.name]["time"]["median"] for v in variants if v.name in times}
    found = tables.ratios(times, models.OURS_INT8.name, [v.name for v in models.EIGHT_BITS], "time")
    return row | ({"ratio to the fastest": found["rounds"]} if found else {})
