"""Time a pixel against image size, batch and width: SD-UNet and U-Net, inference and training, tinyseg beside PyTorch.

    python -m benchmarks.scaling
    python -m benchmarks.scaling --largest 256 --out /tmp

Leaves scaling.json and scaling.png. PyTorch: channels-last, tuned allocator.
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib

from benchmarks import models, tables, worker
from benchmarks.worker import ROOT, WorkerError, measure

RESULTS = ROOT / "benchmarks" / "results"
NETWORKS = {"sdunet": ("SD-UNet", "#0072B2", "o"), "unet": ("U-Net", "#D55E00", "s")}  # Okabe & Ito's colours
VARIANTS = {"tinyseg": (models.OURS, "-"), "PyTorch": (models.TORCH[3], "--")}
AXES = {  # what is varied: its values, label, and the images and width for each value
    "size": ([64, 128, 256, 512, 1024], "height and width of one image, pixels", lambda v: ((1, 1, v, v), 64)),
    "batch": ([1, 2, 4, 8], "images of 128 × 128 in a batch", lambda v: ((v, 1, 128, 128), 64)),
    "width": ([16, 32, 64], "channels of the first level, 256 × 256", lambda v: ((1, 1, 256, 256), v)),
}
LARGEST = {"inference": 1024, "training": 512}  # side of a square of as many pixels


def the_cases(network, largest=1024):
    """List (case, [(axis, value), …]) of up to largest² pixels, small ones first: large ones then find memory there."""
    found = {}
    for axis, (values, _, of_value) in AXES.items():
        for value in values:
            shape, width = of_value(value)
            for mode in models.MODES:
                if shape[0] * shape[2] ** 2 <= min(largest, LARGEST[mode]) ** 2:
                    found.setdefault(models.Case(network, shape, 1, mode, width), []).append((axis, value))
    return sorted(found.items(), key=lambda entry: entry[0].shape[0] * entry[0].shape[2] ** 2)


def run(networks=tuple(NETWORKS), largest=1024, **options):
    """Measure point after point, say so, and yield records: axis, value, network, mode, shape, width, times, failed."""
    models.compile_kernels(networks)
    for network in networks:
        processes = {}
        with contextlib.ExitStack() as stack:
            for case, places in the_cases(network, largest):
                turns, failed = {}, {}
                for name, (variant, _) in VARIANTS.items():
                    if name not in processes or not processes[name].alive:
                        processes[name] = stack.enter_context(models.start(variant))
                    try:
                        models.prepare_in(processes[name], "case", case, variant)
                        turns[name] = processes[name], "case"
                    except WorkerError as error:
                        failed[name] = str(error)
                times, more = measure(turns, warm_up=1, **options)
                for process in processes.values():
                    with contextlib.suppress(WorkerError):
                        process.call("benchmarks.worker:drop")
                record = dataclasses.asdict(case) | {"times": times, "failed": failed | more}
                print(_line(record), flush=True)
                yield from ({"axis": axis, "value": value} | record for axis, value in places)


def per_pixel(record, variant):
    """Return seconds a pixel of the input, or None if the variant failed."""
    N, _, H, W = record["shape"]
    times = record["times"].get(variant)
    return times and times["time"]["median"] / (N * H * W)


def _line(record):
    name = f"{record['network']} {record['mode']} {tables.image(record['shape'])} width {record['width']}"
    words = [f"{v} {tables.significant(1e6 * per_pixel(record, v))} µs / pixel" for v in record["times"]]
    return f"{name}: " + "; ".join(words + [f"{v} {tables.reason(e)}" for v, e in record["failed"].items()])


def markdown(records):
    """Return the table of the plotted points."""
    rows = []
    for axis, mode, network in ((a, m, n) for a in AXES for m in models.MODES for n in NETWORKS):
        for record in records:
            if (record["axis"], record["mode"], record["network"]) != (axis, mode, network):
                continue
            cells = [per_pixel(record, v) for v in VARIANTS]
            cells = [
                tables.significant(1e6 * c) if c else tables.reason(record["failed"].get(v, "not measured"))
                for c, v in zip(cells, VARIANTS, strict=True)
            ]
            found = tables.ratios(record["times"], "tinyseg", ["PyTorch"], "time")
            rows.append([network, mode, axis, record["value"], *cells, found and tables.ratio(found["rounds"])])
    head = ["network", "", "varied", "value", "tinyseg, µs / pixel", "PyTorch, µs / pixel", "ratio"]
    return tables.table(head, rows, text_columns=3)


def plot(records, path):
    """Write the figure: columns are what is varied, rows inference and training; all axes logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    figure = Figure(figsize=(12, 7), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(models.MODES), len(AXES), sharey="row", squeeze=False)
    for row, mode in zip(grid, models.MODES, strict=True):
        for ax, (axis, (values, label, _)) in zip(row, AXES.items(), strict=True):
            for network, (title, colour, marker) in NETWORKS.items():
                for variant, (_, line) in VARIANTS.items():
                    points = [
                        (record["value"], 1e6 * per_pixel(record, variant))
                        for record in sorted(records, key=lambda record: record["value"])
                        if (record["axis"], record["mode"], record["network"]) == (axis, mode, network)
                        and per_pixel(record, variant)
                    ]
                    if points:
                        face = colour if variant == "tinyseg" else "white"
                        ax.plot(
                            *zip(*points, strict=True), line, color=colour, marker=marker, markerfacecolor=face,
                            label=f"{title}, {variant}",
                        )  # fmt: skip
            ax.set_xscale("log", base=2)
            ax.set_yscale("log")
            ax.set_xlim(values[0] / 1.15, values[-1] * 1.15)
            ax.set_xticks(values, map(str, values))
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_locator(NullLocator())
            ax.yaxis.set_minor_locator(NullLocator())
            ax.set_xlabel(label)
            ax.set_title(mode)
            ax.grid(alpha=0.3)
        row[0].set_ylabel("time, µs / pixel")
    if grid[0, 0].lines:
        grid[0, 0].legend(fontsize="small")
    figure.savefig(path, dpi=110)


def write(records, folder):
    """Write scaling.json and scaling.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scaling.json").write_text(json.dumps(records, indent=1))
    plot(records, folder / "scaling.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument(
        "--largest",
        type=int,
        default=1024,
        help="side of the largest image (default: 1024; training 512)",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS, help="folder (default: benchmarks/results)")
    args = parser.parse_args()
    worker.warn_if_busy()
    found = []
    for record in run(args.networks, args.largest, rounds=args.rounds, turn=0.2):
        found.append(record)
        write(found, args.out)
    print("\n" + markdown(found))


if __name__ == "__main__":
    main()
