"""The machine: its name, the versions in use, and how fast it multiplies and copies, which is the roof of the roofline.

python -m benchmarks.machine
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import time

from benchmarks import tables, worker
from benchmarks.worker import Worker, WorkerError
from tinyseg.backend.devices import processor

PRODUCTS = (1024, 2048)  # n of the n x n x n matrix products
SIZES = (8, 256)  # MiB of each array that is copied
IN_CACHE = 3 * SIZES[0] * 2**20  # bytes up to which the bandwidth of the small arrays is the limit


def roof(flops, moved, measured):
    """Shortest possible time: the longer of computing and moving.

    Parameters
    ----------
    flops, moved : float
        Operations, and bytes read and written.
    measured : dict
        As `run` returns it: "rates" in flop/s, "bandwidths" in bytes/s by size of the arrays.

    Returns
    -------
    seconds : float
        1 / min(rate, intensity · bandwidth) · flops. The bandwidth is that of small arrays where all that moves is no
        larger than they were, else that of large ones.
    limit : {"compute", "memory", "cache"}
        Which of them it is; "cache" is the bandwidth of small arrays.
    """
    size = SIZES[0] if moved <= IN_CACHE else SIZES[-1]
    bandwidth = max(measured["bandwidths"][str(size)].values())
    compute, move = flops / max(of[str(n)] for of in measured["rates"].values() for n in PRODUCTS), moved / bandwidth
    return max(compute, move), "compute" if compute > move else "cache" if size == SIZES[0] else "memory"


# ----- in the workers ------------------------------------------------------------
def versions():
    """Return what this process computes with: versions, BLAS and threads."""
    import numpy as np

    found = {"python": platform.python_version(), "numpy": np.__version__}
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    found["BLAS of NumPy"] = f"{blas['name']} {blas['version']}"
    try:
        import tinyseg as ts

        found |= {"tinyseg": ts.__version__, "kernels": ts.backend.kernels_in_use()}
        import numba

        found |= {"numba": numba.__version__, "threads of numba": numba.get_num_threads()}
    except ImportError:
        pass
    try:
        from threadpoolctl import threadpool_info

        for pool in threadpool_info():
            if pool["user_api"] == "blas" and "numpy" in pool["filepath"]:
                found["BLAS of NumPy"] += f", {pool.get('architecture', '?')}, {pool['num_threads']} threads"
    except ImportError:
        found["BLAS of NumPy"] += " (install threadpoolctl for its architecture and threads)"
    return found


def torch_versions():
    """Return what PyTorch computes with."""
    import torch

    return {
        "torch": torch.__version__,
        "threads of torch": torch.get_num_threads(),
        "instructions of torch": torch.backends.cpu.get_cpu_capability(),
    }


def tinyseg_rates():
    """Return flop/s of matrix products: {"BLAS": {n: ...}, "tinyseg": ...}, the latter as a pointwise convolution."""
    import numpy as np

    import tinyseg as ts

    rates = {"BLAS": {}, "tinyseg": {}}
    for n in PRODUCTS:
        a, b = (np.random.default_rng(k).standard_normal((n, n), np.float32) for k in range(2))
        out = np.empty_like(a)
        rates["BLAS"][n] = 2 * n**3 / shortest(lambda a=a, b=b, out=out: np.matmul(a, b, out=out))
        x = b.reshape(1, n // 32, 32, n).transpose(0, 3, 1, 2)  # n pixels, the n channels of each side by side
        with ts.no_grad():
            rates["tinyseg"][n] = 2 * n**3 / shortest(lambda a=a, x=x: ts.ops.pointwise_conv2d(x, a))
    return rates


def torch_rates():
    """Return flop/s of PyTorch's matrix products: {n: ...}."""
    import torch

    rates = {}
    for n in PRODUCTS:
        a, b, out = torch.randn(n, n), torch.randn(n, n), torch.empty(n, n)
        rates[n] = 2 * n**3 / shortest(lambda a=a, b=b, out=out: torch.mm(a, b, out=out))
    return rates


def bandwidths():
    """Return bytes/s read and written, {MiB: {"copy": a = b, "triad": a = b + 3 c}}, with all threads.

    What a processor reads because it is about to overwrite it is not counted.
    """
    import torch

    found = {}
    for size in SIZES:
        a, b, c = (torch.ones(size * 2**18) for _ in range(3))
        found[size] = {
            "copy": 2 * size * 2**20 / shortest(lambda a=a, b=b: a.copy_(b)),
            "triad": 3 * size * 2**20 / shortest(lambda a=a, b=b, c=c: torch.add(b, c, alpha=3, out=a)),
        }
    return found


def shortest(function, seconds=0.5):
    """Shortest time of a call, of those that fit into `seconds`, after two that do not count; at least three."""
    function(), function()
    times, begin = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


# ----- in the parent -------------------------------------------------------------
def how_measured(command):
    """Return the commit, the machine, the date and the command, to be kept beside numbers."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    about = f"{worker.cores()} cores of {processor()}, {memory:.1f} GiB"
    today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    return {"commit": worker.git_commit(), "machine": about, "date": today, "command": command}


def run():
    """Describe and measure the machine.

    Returns
    -------
    dict
        "about", "rates" ({what: {n: flop/s}}), "bandwidths" ({MiB: {"copy", "triad"}} in bytes/s), and "failed".
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    about = {"processor": processor(), "cores in use": worker.cores(), "memory": f"{memory:.1f} GiB"}
    about |= {"system": platform.platform(), "commit": worker.git_commit()}
    found = {"about": about, "rates": {}, "bandwidths": {}, "failed": {}}
    plan = {
        "tinyseg": ["versions", "tinyseg_rates"],
        "torch": ["torch_versions", "torch_rates", "bandwidths"],
    }
    for framework, functions in plan.items():
        with Worker(framework) as process:
            for function in functions:
                try:
                    answer = process.call(f"benchmarks.machine:{function}")
                except WorkerError as error:
                    found["failed"][function] = str(error)
                    continue
                if "versions" in function:
                    about |= answer
                elif function == "bandwidths":
                    found["bandwidths"] = answer
                else:
                    found["rates"] |= answer if framework == "tinyseg" else {"PyTorch": answer}
    return found


def markdown(measured):
    """Return the tables of what `run` found."""
    parts = [tables.table(["", ""], [[key, value] for key, value in measured["about"].items()], text_columns=2)]
    head = ["matrix product, GFLOP/s", *(f"{n}³" for n in PRODUCTS)]
    rows = [[name, *(f"{of[str(n)] / 1e9:.0f}" for n in PRODUCTS)] for name, of in measured["rates"].items()]
    parts.append(tables.table(head, rows))
    head = ["bandwidth, GB/s", *(f"{size} MiB" for size in measured["bandwidths"])]
    rows = [[k, *(f"{of[k] / 1e9:.0f}" for of in measured["bandwidths"].values())] for k in ("copy", "triad")]
    parts.append(tables.table(head, rows))
    parts += [f"{function} {tables.reason(error)}\n" for function, error in measured["failed"].items()]
    return "\n".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=pathlib.Path, help="write what was measured to this file")
    args = parser.parse_args()
    worker.warn_if_busy()
    measured = run()
    if args.json:
        args.json.write_text(json.dumps(measured, indent=1))
    print(markdown(measured))


if __name__ == "__main__":
    main()
