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
COLUMNS = {
    "tinyseg": ".0f", "PyTorch": ".0f", "PyTorch, bfloat16": ".0f", "ONNX Runtime": ".0f", "OpenVINO": ".0f",
    "ratio to the fastest": ".2f", "memory, to PyTorch": ".2f", "tinyseg, 8 bits": ".0f", "ONNX Runtime, 8 bits": ".0f",
    "OpenVINO, 8 bits": ".0f", "ratio to the fastest of 8 bits": ".2f",
}  # fmt: skip


def measure(**options):
    """Return a table: milliseconds, ratios (medians over rounds) and peak memory of whole processes."""
    rows = {}
    for record in models.run(CASES, VARIANTS, **{"rounds": 9, "budget": 30} | options):
        number, _, side, _ = record["shape"]
        title = f"{TITLES[record['network']]}, {number} of {side}², {record['mode']}"
        rows[title] = _row(record["times"], record["memory"])
        print(title, rows[title], flush=True)
    return {"columns": COLUMNS, "rows": rows}


def _row(times, memory):
    names = {models.AUTOCAST[0].name: "PyTorch, bfloat16"} | {name: name for name in COLUMNS}
    row = {names[name]: 1e3 * found["time"]["median"] for name, found in times.items() if name in names}
    torch = [variant.name for variant in TORCH if variant.name in times]
    row["PyTorch"] = min(1e3 * times[name]["time"]["median"] for name in torch)
    eight = [variant.name for variant in models.EIGHT_BITS]
    others = [name for name in times if name not in (models.OURS.name, models.OURS_INT8.name, *eight)]
    row["ratio to the fastest"] = tables.ratios(times, models.OURS.name, others, "time")["rounds"]
    least = min(memory[name]["peak"] for name in torch if name in memory)
    row["memory, to PyTorch"] = memory[models.OURS.name]["peak"] / least
    if models.OURS_INT8.name in times:
        found = tables.ratios(times, models.OURS_INT8.name, eight, "time")
        row |= {"ratio to the fastest of 8 bits": found["rounds"]} if found else {}
    return row
