"""How much memory inference or a training step needs, measured as the peak of a process of its own.

The process first runs steps of two small networks, which load the kernels, and then reads the model. It reports its
peak over three steps minus what it held before: resident memory on the CPU, CuPy's pool on the GPU (without the
workspace of cuBLAS). If kernels had to be compiled, the peak contains the compiler's memory: a second process then
measures again.
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
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinyseg import models
from tinyseg.autograd import Tensor
from tinyseg.backend import config, device_of, fast, to_device, using, xp_of
from tinyseg.nn import Module
from tinyseg.report.profile.steps import copy_model, default_loss, make_batch, make_step
from tinyseg.report.profile.table import format_mb, format_shape

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
        Gradients of the trained parameters, and Adam's two moments of them; 0 in inference.
    input : int
        The batch.
    measured : int or None
        Peak of a process of its own, minus what it held before it read the model. It contains the numbers above;
        the rest are activations, their gradients and memory that kernels work in.
    note : str
        Why nothing was measured; empty if something was.
    """

    input_shape: tuple[int, ...]
    training: bool
    device: str
    weights: int
    gradients: int
    moments: int
    input: int
    measured: int | None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return everything as a dict, for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        what = "a training step" if self.training else "inference"
        lines = [f"Memory of {what}, input {format_shape(self.input_shape)}, {self.device}, in MB"]
        for name in ("weights", "gradients", "moments", "input"):
            if getattr(self, name):
                lines.append(f"  {name:<20}{format_mb(getattr(self, name)):>10}")
        measured = self.note if self.measured is None else f"measured peak, in all {format_mb(self.measured):>10}"
        return "\n".join([*lines, measured])


def memory(
    model: Module,
    input_shape: Sequence[int],
    training: bool = False,
    loss: Callable[[Any], Tensor] | None = None,
) -> Memory:
    """Measure how much memory inference or a training step with Adam needs.

    Examples, in MB of 10⁶ bytes, measured on Linux with two threads::

        images              SD-UNet                  U-Net
                            inference   training     inference   training
        1 x 1 x 256 x 256         153        413           497        816
        4 x 1 x 256 x 256         540       1595           997       1636
        8 x 4 x 144 x 144         358        947           795       1380

    Python and its libraries need about 150 MB more. No numbers of a GPU have been measured yet.

    Parameters
    ----------
    model : Module
        Stays as it is: one copy runs a forward pass here, another runs steps in a process of its own, for some seconds.
    input_shape : tuple
        (N, C, H, W).
    training : bool
        Measure a step of training (forward, backward, Adam), or inference.
    loss : function of the model's output, optional
        Returns the one-element Tensor to call ``backward()`` on. The other process must be able to import it.
        By default the binary cross-entropy from logits.

    Returns
    -------
    Memory
        If the other process cannot do it, `measured` is None and `note` says why. It cannot import a model whose class
        is defined in a notebook, for example.

    Raises
    ------
    ValueError
        If `input_shape` is no such shape, does not fit the model, or would take more than this computer's memory.
    """
    copied = copy_model(model, training)
    x = make_batch(copied, input_shape)
    if training:  # in this process an error of the model or of the loss reaches the caller
        (loss or default_loss)(copied(x))
    else:
        make_step(copied, x, training)()
    shape, device, size = x.shape, device_of(x), x.nbytes
    del copied, x  # their memory is free while the other process runs
    weights = sum(getattr(*where).nbytes for where in model.slots().values())
    trained = sum(p.data.nbytes for p in model.parameters() if p.requires_grad) if training else 0
    measured, note = _measure(model, shape, training, loss, device)
    return Memory(shape, training, device, weights, trained, 2 * trained, size, measured, note)


def _measure(model, input_shape, training, loss, device):
    """Return the bytes that steps of the model need, and a note: None and the reason where they cannot be measured."""
    settings = {"device": device, "kernels": config.kernels, "winograd": config.winograd}
    try:
        task = pickle.dumps((model, input_shape, training, loss), protocol=5)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        return None, f"not measured: the model cannot be sent to another process ({error})"
    try:
        found = _run_process(settings, task)
        if found["compiled"]:
            found = _run_process(settings, task)
    except subprocess.TimeoutExpired:
        return None, f"not measured: the process took more than {TIMEOUT} seconds"
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        reason = f" ({lines[-1]})" if lines else ""
        return None, f"not measured: the process ended with status {error.returncode}{reason}"
    if found["bytes"] is None:
        return None, "not measured: on this system Python cannot ask how much memory a process has taken"
    return found["bytes"], ""


def _run_process(settings, task):
    """Run `serve` in a process of its own; return what it prints, as a dict."""
    path = os.pathsep.join(p or os.getcwd() for p in sys.path)  # where the classes of the model are found
    done = subprocess.run(
        COMMAND, input=json.dumps(settings).encode() + b"\n" + task, capture_output=True, timeout=TIMEOUT, check=True,
        env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
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
                make_step(model.train(training), x, training)()
        del model, x
        before = _bytes_held(device)
        model, input_shape, training, loss = pickle.load(sys.stdin.buffer)
        step = make_step(model.train(training), make_batch(model, input_shape), training, loss)
        for _ in range(STEPS):
            step()
    peak = _bytes_held(device, peak=True)
    print(json.dumps({"bytes": None if peak is None else peak - before, "compiled": len(compiled)}))


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
    """Return the bytes that this process holds now, or with `peak` the most that it has held; None if unknown."""
    gc.collect()
    if device == "gpu":
        pool = xp_of(to_device(np.zeros(1), device)).get_default_memory_pool()
        if not peak:
            pool.free_all_blocks()
        return pool.total_bytes()  # the pool gives nothing back by itself, so this is its peak as well
    arena = fast("cpu.arena")
    if arena is not None and not peak:
        arena.arena.clear()
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = pathlib.Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        key = "VmHWM:" if peak else "VmRSS:"
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
    try:
        import resource
    except ImportError:  # on Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
