"""Measure what the six networks cost: parameters, multiply-adds and time, beside PyTorch's and the paper's."""

import tinyseg as ts
from reproduction import paper
from tinyseg.data.load_tqdm import tqdm
from tinyseg.report.profile import picture

SHAPE = (1, 1, 256, 256)


def measure_costs(device, quick):
    """Count parameters and multiply-adds of the paper's networks, and time them, beside PyTorch if it is installed.

    Parameters
    ----------
    device : {"cpu", "gpu"}
    quick : bool
        Take a few seconds for each network instead of a minute.

    Returns
    -------
    dict
        ``networks``: a dict for each of `paper.ROWS`; ``device`` and ``versions``.
    """
    networks = {}
    for name in paper.ROWS:
        totals = ts.profile.summary(ts.models.build(name, head="paper"), SHAPE, show=False)
        networks[name] = {"parameters": totals.parameters, "multiply_adds": totals.multiply_adds}
    costs = {"networks": networks, "device": ts.backend.device_name(device), "versions": ts.backend.versions()}
    try:
        torch, benchmark = import_benchmark(device)
    except ImportError as error:
        print(f"times of tinyseg alone ({error})")
        for name in tqdm(paper.ROWS, desc="timing", unit="network"):
            model = ts.models.build(name).to(device)
            networks[name]["milliseconds"] = 1e3 * ts.profile.latency(model, SHAPE).median
        return costs

    costs["versions"]["torch"] = torch.__version__
    cases = [benchmark.Case(name, SHAPE, 1, "inference") for name in paper.ROWS]
    options = {"rounds": 3, "budget": 10} if quick else {"rounds": 9, "budget": 60}
    for name, record in zip(paper.ROWS, benchmark.run(cases, benchmark.the_variants(), **options), strict=True):
        times = record["times"]
        ours = times[benchmark.OURS.name]["time"]["median"]
        best = benchmark.tables.ratios(times, benchmark.OURS.name, benchmark.PYTORCH, "time")
        theirs = times[best["best"]]["time"]["median"]
        networks[name] |= {"milliseconds": 1e3 * ours, "pytorch_milliseconds": 1e3 * theirs, "ratio": best["rounds"]}
    return costs


def import_benchmark(device):
    """Import PyTorch and what times networks beside it; raise an ImportError if that is not possible."""
    if device != "cpu":
        raise ImportError("PyTorch is timed beside tinyseg on the CPU only: for the GPU see benchmarks/gpu.py")
    import torch

    from benchmarks import models

    return torch, models


def draw_costs(results, path):
    """Draw parameters, multiply-adds, time and, where it is known, Dice on ISBI, beside the paper's."""
    rows = results.get("isbi", {}).get("rows", {})
    networks = {}
    for name, title in paper.ROWS.items():
        costs, theirs = results["costs"]["networks"][name], paper.TABLE_1[name]
        dice = rows.get(name, {}).get("figures", {}).get("dice", {}).get("values", [])
        networks[title] = {
            "parameters": costs["parameters"], "multiply_adds": costs["multiply_adds"],
            "latency": {"median": 1e-3 * costs["milliseconds"]}, "dice": dice,
            "paper": {"parameters": 1e6 * theirs["parameters"], "latency": 1e-3 * theirs["milliseconds"]},
        }  # fmt: skip
    picture.comparison(networks, path, f"256 x 256 x 1; {results['costs']['device']}; the paper's: Tesla K40c")
