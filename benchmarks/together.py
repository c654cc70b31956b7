"""What training in several processes costs: seconds of a step, and of what the processes exchange.

    python -m benchmarks.claims --parts together

It starts itself under mpiexec: ``mpiexec -n 2 python -m benchmarks.together sdunet 2``, two microbatches, an image
each. Every process computes on one thread, so that two of them have as many cores as they need on a machine with two.
Then each exchange is made to take as long as a whole step, as over a slow network, after the backward pass and during
it: the difference is what can be hidden.
"""

import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np

STEPS, ROUNDS = 3, 3
NETWORKS = {"SD-UNet": "sdunet", "U-Net": "unet"}
NODES = 2, 4, 8, 16, 32, 64
# What a network between machines does by its name: bits in a second, and seconds until a message is there.
LINKS = {"1 Gbit/s": (1e9, 50e-6), "10 Gbit/s": (1e10, 20e-6), "100 Gbit/s": (1e11, 2e-6)}


def measure():
    """Return all figures: of steps, and by a model, of how they grow with the number of machines."""
    times = {}
    for _ in range(ROUNDS):
        for network, name in NETWORKS.items():
            for processes, threads, parts in ((1, 1, 2), (2, 1, 2), (1, 2, 2), (1, 2, 1)):
                for key, seconds in _run(name, processes, threads, parts).items():
                    times.setdefault((network, processes, threads, parts, key), []).append(seconds)
    seconds = {key: statistics.median(found) for key, found in times.items()}
    rows = {}
    for network in NETWORKS:
        one, two = seconds[network, 1, 1, 2, "step"], seconds[network, 2, 1, 2, "step"]
        rows[network] = {
            "one process": one, "two processes": two, "one process, two threads": seconds[network, 1, 2, 2, "step"],
            "the whole batch at once, two threads": seconds[network, 1, 2, 1, "step"],
            "exchange, ms": 1e3 * seconds[network, 2, 1, 2, "exchange"], "share of two cores": one / (2 * two),
            "hidden": (seconds[network, 2, 1, 2, "after"] - seconds[network, 2, 1, 2, "meanwhile"]) / two,
        }  # fmt: skip
    columns = dict.fromkeys(rows["U-Net"], ".2f") | {"exchange, ms": ".0f"}
    return {"columns": columns, "rows": rows, "strong": _model(rows, weak=False), "weak": _model(rows, weak=True)}


def _model(rows, weak):
    """Return a table of the share of the machines' time that is left for computing.

    A machine of two cores computes an image in half of the step of two. Weak scaling: each machine has four images,
    however many there are. Strong: all of them together have 64. Each of the log₂ P exchanges takes the delay and the
    time of all gradients at the link's speed. The share of a step that was found to be hidden is hidden here.
    """
    table = {}
    for network, name in NETWORKS.items():
        gradients, image = 4 * _parameters(name), rows[network]["one process, two threads"] / 2
        for link, (bits, delay) in LINKS.items():
            row = table[f"{network}, {link}"] = {}
            for nodes in NODES:
                computing = image * (4 if weak else 64 / nodes)
                exchange = math.log2(nodes) * (delay + 8 * gradients / bits)
                row[str(nodes)] = computing / (computing + max(0, exchange - rows[network]["hidden"] * computing))
    return {"columns": {str(nodes): ".2f" for nodes in NODES}, "rows": table}


def _parameters(name):
    import tinyseg as ts

    return ts.models.build(name).num_parameters()


def _run(name, processes, threads, parts):
    """Return the median seconds of a step, and of an exchange, in so many processes."""
    mpiexec = [str(pathlib.Path(sys.executable).with_name("mpiexec")), "-n", str(processes)] if processes > 1 else []
    command = [*mpiexec, sys.executable, "-m", "benchmarks.together", name, str(parts)]
    environment = os.environ | {"NUMBA_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def main(name, parts):
    """Train for some steps in this process, one of a group or alone; the first prints the seconds."""
    import tinyseg as ts
    from tinyseg.data.loader import samples_of_part
    from tinyseg.training import Step
    from tinyseg.training.loop import keep_freed_memory
    from tinyseg.training.microbatches import MicrobatchStep
    from tinyseg.training.parallel import join

    keep_freed_memory()
    group, model = join(), ts.models.build(name)
    optimizer, loss = ts.optim.Adam(model.parameters()), ts.ops.binary_cross_entropy_with_logits
    step = MicrobatchStep(model, optimizer, loss, 1.0, parts, group) if parts > 1 else Step(model, optimizer, loss, 1.0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 1, 256, 256)).astype(np.float32)
    x = x[samples_of_part(2, group.rank, group.size)]
    y = (x > 0).astype(np.float32)
    times = {"step": [], "exchange": []}
    step(x, y)
    step(x, y)

    def time_steps():
        found = []
        for _ in range(STEPS):
            group.gather(None)
            start = time.perf_counter()
            step(x, y)
            found.append(time.perf_counter() - start)
        return found

    times["step"] = time_steps()
    if group.size > 1:  # alone, so that no process waits for a slower one
        flat = [np.ones(model.num_parameters(), np.float32)]
        for _ in range(9):
            group.gather(None)
            start = time.perf_counter()
            group.sum(flat)
            times["exchange"].append(time.perf_counter() - start)
        swap, whole = group._swap, group.from_first(lambda: statistics.median(times["step"])) / model.num_parameters()

        def slow(arrays, partner):
            time.sleep(whole * sum(a.size for a in arrays))
            return swap(arrays, partner)

        group._swap = slow
        times["meanwhile"] = time_steps()
        step._sender = None
        times["after"] = time_steps()
    if group.rank == 0:
        print(json.dumps({key: statistics.median(seconds) for key, seconds in times.items() if seconds}))
    group.leave()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
