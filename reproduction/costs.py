"""What the six networks cost: parameters, multiply-adds and time, beside PyTorch's and the paper's."""

from tqdm import tqdm

import tinyseg as ts
from reproduction import paper
from tinyseg.report.profile import picture

SHAPE = (1, 1, 256, 256)


def measure_costs(device, quick):
    """Count parameters and multiply-adds of the paper's networks, and time them, beside PyTorch where that can be.

    Parameters
    ----------
    device : {"cpu", "gpu"}
    quick : bool
        Take a few seconds a network, not a minute.

    Returns
    -------
    dict
        ``networks``: a dict for each of `paper.ROWS`; ``device`` and ``versions``.
    """
    networks = {}
    for name in paper.ROWS:
        totals = ts.profile.summary(ts.models.build(name, head="paper"), SHAPE, show=False)
        networks[name] = {"parameters": totals.parameters, "multiply_adds": totals.multiply_adds}
    about = {"device": ts.backend.device_name(device), "versions": ts.backend.versions()}
    try:
        beside = benchmarks_of_pytorch(device)
    except ImportError as error:
        print(f"times of tinyseg alone ({error})")
        for name in tqdm(paper.ROWS, desc="timing", unit="network"):
            model = ts.models.build(name).to(device)
            networks[name]["milliseconds"] = 1e3 * ts.profile.latency(model, SHAPE).median
        return {"networks": networks} | about

    import torch

    about["versions"]["torch"] = torch.__version__
    cases = [beside.Case(name, SHAPE, 1, "inference") for name in paper.ROWS]
    options = {"rounds": 3, "budget": 10} if quick else {"rounds": 9, "budget": 60}
    for name, record in zip(paper.ROWS, beside.run(cases, beside.the_variants(), **options), strict=True):
        ours = record["times"][beside.OURS.name]["time"]["median"]
        best = beside.tables.ratios(record["times"], beside.OURS.name, beside.PYTORCH, "time")
        theirs = record["times"][best["best"]]["time"]["median"]
        networks[name] |= {"milliseconds": 1e3 * ours, "pytorch_milliseconds": 1e3 * theirs, "ratio": best["rounds"]}
    return {"networks": networks} | about


def benchmarks_of_pytorch(device):
    """Import what times networks beside PyTorch; raise ImportError where PyTorch is not there or not compared with."""
    if device != "cpu":
        raise ImportError("PyTorch is timed beside tinyseg on the CPU only: for the GPU see benchmarks/gpu.py")
    import torch  # noqa: F401

    from benchmarks import models

    return models


def draw_costs(results, path):
    """Parameters, multiply-adds, time and, where it is known, Dice on ISBI, beside the paper's."""
    scores = results.get("isbi", {"rows": {}})["rows"]
    networks = {}
    for name, title in paper.ROWS.items():
        costs, theirs = results["costs"]["networks"][name], paper.TABLE_1[name]
        dice = scores.get(name, {"figures": {}})["figures"].get("dice", {"values": []})["values"]
        networks[title] = {
            "parameters": costs["parameters"], "multiply_adds": costs["multiply_adds"],
            "latency": {"median": 1e-3 * costs["milliseconds"]}, "dice": dice,
            "paper": {"parameters": 1e6 * theirs["parameters"], "latency": 1e-3 * theirs["milliseconds"]},
        }  # fmt: skip
    picture.comparison(networks, path, f"256 x 256 x 1; {results['costs']['device']}; the paper's: Tesla K40c")
