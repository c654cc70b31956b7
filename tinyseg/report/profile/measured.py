"""The peak of memory, measured in a process of its own.

The process first does steps of two small networks, so that the kernels are loaded, and then gets the model. What it
reports is its peak over three steps less what it held before: resident memory on the CPU, CuPy's pool on the GPU
(without the workspace of cuBLAS). If kernels had to be compiled, a second process does it all again: the compiler's
memory is not the model's.
"""

import contextlib
import gc
import importlib.util
import json
import os
import pathlib
import pickle
import subprocess
import sys

import numpy as np

from tinyseg import models
from tinyseg.backend import config, device_of, to_device, using, xp_of
from tinyseg.fast.cpu.arena import arena
from tinyseg.report.profile.steps import batch, first_array, step_of

COMMAND = [sys.executable, "-c", "from tinyseg.report.profile.measured import serve; serve()"]
TIMEOUT = 600  # seconds
STEPS = 3


class NotMeasured(Exception):
    """The other process could not do it; the message says why."""


def measure(model, input_shape, training, loss):
    """Return the bytes that steps of the model need, and a note: None and the reason where that cannot be found."""
    device = device_of(first_array(model))
    settings = {"device": device, "kernels": config.kernels, "winograd": config.winograd}
    try:
        task = pickle.dumps((model, input_shape, training, loss), protocol=5)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        return None, f"not measured: the model cannot be sent to another process ({error})"
    try:
        found = _ask(settings, task)
        return (_ask(settings, task) if found["compiled"] else found)["bytes"], ""
    except NotMeasured as error:
        return None, f"not measured: {error}"


def _ask(settings, task):
    """Run `serve` in a process; return what it prints."""
    path = os.pathsep.join(p or os.getcwd() for p in sys.path)  # where the classes of the model are found
    try:
        done = subprocess.run(
            COMMAND, input=json.dumps(settings).encode() + b"\n" + task, capture_output=True, timeout=TIMEOUT,
            env=os.environ | {"PYTHONPATH": path},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise NotMeasured(f"the process took more than {TIMEOUT} seconds") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise NotMeasured(f"the process ended with status {done.returncode}" + (f" ({lines[-1]})" if lines else ""))
    return json.loads(done.stdout.splitlines()[-1])


# ----- in the process -----------------------------------------------------------------
def serve():
    """Read settings (a line of JSON) and a task (pickled by the parent) from standard input; print the result."""
    settings = json.loads(sys.stdin.buffer.readline())
    device = settings.pop("device")
    with using(**settings), _compilations() as compiled:
        for name in ("unet_gn", "sdunet_bn"):
            model = models.build(name, width=16).to(device)
            x = to_device(np.zeros((2, 1, 64, 64), np.float32), device)
            for training in (False, True):
                step_of(model.train(training), x, training)()
        del model, x
        before = _held(device)
        model, input_shape, training, loss = pickle.load(sys.stdin.buffer)
        step = step_of(model.train(training), batch(model, input_shape), training, loss)
        for _ in range(STEPS):
            step()
    print(json.dumps({"bytes": _held(device, peak=True) - before, "compiled": len(compiled)}))


@contextlib.contextmanager
def _compilations():
    """Yield a list that grows with every function that numba compiles inside the block."""
    if importlib.util.find_spec("numba") is None:
        yield []
        return
    from numba.core import event

    with event.install_recorder("numba:compile") as recorder:
        yield recorder.buffer


def _held(device, peak=False):
    """Bytes that this process holds now, or has held at most."""
    gc.collect()
    if device == "gpu":
        pool = xp_of(to_device(np.zeros(1), device)).get_default_memory_pool()
        if not peak:
            pool.free_all_blocks()
        return pool.total_bytes()  # the pool keeps what it once had: this is its peak, too
    if not peak:
        arena.clear()
    with contextlib.suppress(OSError, StopIteration):
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        key = "VmHWM:" if peak else "VmRSS:"
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
    import resource  # not on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
