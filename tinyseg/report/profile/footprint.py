"""How much memory inference or a training step needs: the peak of a process of its own.

The process first runs steps of two small networks, so that the kernels are loaded, and then gets the model. It reports
its peak over three steps less what it held before: resident memory on the CPU, CuPy's pool on the GPU (without the
workspace of cuBLAS). If kernels had to be compiled, a second process runs the same again, because the compiler's memory
is not the model's.
"""

import contextlib
import dataclasses
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
from tinyseg.backend import config, device_of, fast, to_device, using, xp_of
from tinyseg.report.profile.steps import batch, default_loss, first_array, step_of
from tinyseg.report.profile.table import mb, shape_text
from tinyseg.report.profile.trace import trace

COMMAND = [sys.executable, "-c", "from tinyseg.report.profile.footprint import serve; serve()"]
TIMEOUT = 600  # seconds
STEPS = 3


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes that inference or a training step needs.

    Attributes
    ----------
    input_shape : tuple
    training : bool
    device : {"cpu", "gpu"}
    weights : int
        Parameters and buffers.
    gradients, moments : int
        Gradients of what is trained, and Adam's two moments of it; 0 in inference.
    input : int
        The batch.
    measured : int or None
        Peak of a process of its own, above what it held before it had the model. It contains the numbers above;
        the rest are activations, their gradients and memory that kernels work on.
    note : str
        Why nothing was measured, if so.
    """

    input_shape: tuple
    training: bool
    device: str
    weights: int
    gradients: int
    moments: int
    input: int
    measured: int | None
    note: str = ""

    def as_dict(self):
        """Return everything as a dict, for JSON."""
        return dataclasses.asdict(self)

    def __str__(self):
        what = "a training step" if self.training else "inference"
        parts = [name for name in ("weights", "gradients", "moments", "input") if getattr(self, name)]
        return "\n".join(
            [
                f"Memory of {what}, input {shape_text(self.input_shape)}, {self.device}, in MB",
                *(f"  {name:<20}{mb(getattr(self, name)):>10}" for name in parts),
                self.note if self.measured is None else f"measured peak, in all {mb(self.measured):>10}",
            ]
        )


def memory(model, input_shape, training=False, loss=None):
    """Measure how much memory inference or a training step with Adam needs.

    Measured in MB of 10⁶ bytes, on Linux with two threads::

        images              SD-UNet                  U-Net
                            inference   training     inference   training
        1 x 1 x 256 x 256         153        413           497        816
        4 x 1 x 256 x 256         540       1595           997       1636
        8 x 4 x 144 x 144         358        947           795       1380

    Python with its libraries comes on top, about 150 MB. On a GPU nothing has been measured yet.

    Parameters
    ----------
    model : Module
        Stays as it is: a copy runs one forward pass here, and steps in a process of its own, for some seconds.
    input_shape : tuple
        (N, C, H, W).
    training : bool
        Measure a step of training (forward, backward, Adam), or inference.
    loss : function of the model's output, optional
        Returns the one-element Tensor to call ``backward()`` on; a function that another process can import.
        Binary cross-entropy from logits without.

    Returns
    -------
    Memory
        Its `measured` is None, and its `note` says why, where the other process cannot do it: it does not know a model
        whose class is defined in a notebook, for example.

    Raises
    ------
    ValueError
        If the model does not take this shape; the sentence is its own.
    """
    seen = trace(model, input_shape, training, (loss or default_loss) if training else None)
    trained = sum(p.data.nbytes for p in seen.model.parameters() if p.requires_grad) if training else 0
    input_shape, weights, size = tuple(map(int, input_shape)), seen.weights, seen.input
    del seen
    measured, note = _measure(model, input_shape, training, loss)
    return Memory(
        input_shape, training, device_of(first_array(model)), weights, trained, 2 * trained, size, measured, note
    )


class NotMeasured(Exception):
    """The other process could not do it; the message says why."""


def _measure(model, input_shape, training, loss):
    """Return the bytes that steps of the model need, and a note: None and the reason where that cannot be found."""
    settings = {"device": device_of(first_array(model)), "kernels": config.kernels, "winograd": config.winograd}
    try:
        task = pickle.dumps((model, input_shape, training, loss), protocol=5)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        return None, f"not measured: the model cannot be sent to another process ({error})"
    try:
        found = _run_process(settings, task)
        if found["compiled"]:
            found = _run_process(settings, task)
    except NotMeasured as error:
        return None, f"not measured: {error}"
    return found["bytes"], ""


def _run_process(settings, task):
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
        before = _bytes_held(device)
        model, input_shape, training, loss = pickle.load(sys.stdin.buffer)
        step = step_of(model.train(training), batch(model, input_shape), training, loss)
        for _ in range(STEPS):
            step()
    print(json.dumps({"bytes": _bytes_held(device, peak=True) - before, "compiled": len(compiled)}))


@contextlib.contextmanager
def _compilations():
    """Yield a list that grows with every function that numba compiles inside the block."""
    if importlib.util.find_spec("numba") is None:
        yield []
        return
    from numba.core import event

    with event.install_recorder("numba:compile") as recorder:
        yield recorder.buffer


def _bytes_held(device, peak=False):
    """Return the bytes that this process holds now, or the most that it has held."""
    gc.collect()
    if device == "gpu":
        pool = xp_of(to_device(np.zeros(1), device)).get_default_memory_pool()
        if not peak:
            pool.free_all_blocks()
        return pool.total_bytes()  # the pool keeps what it once had: this is its peak, too
    arena = fast("cpu.arena")
    if arena is not None and not peak:
        arena.arena.clear()
    with contextlib.suppress(OSError, StopIteration):
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        key = "VmHWM:" if peak else "VmRSS:"
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
    import resource  # not on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
