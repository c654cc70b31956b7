"""What `benchmarks.gpu` lets its worker processes do: describe and measure the GPU, and time networks and single ops.

Times are taken by the GPU itself, with CUDA events before and after each repetition, while the next ones are already on
their way: what the host needs to launch them shows only where it is the longer.
"""

import os
import platform
import statistics

import numpy as np

from benchmarks import models, worker
from benchmarks.catalogue import ADAM, OPS

SECONDS = 0.1  # that one turn should take
WARM_UP = 2  # repetitions of each turn that do not count
SIZES = (16, 1024)  # MiB of each array that is copied: within the cache of the GPU, and far beyond
PRODUCT = 8192  # n of the n x n x n matrix product
peaks = {}  # bytes of GPU memory that a case took, by its key


class CuPy:
    """Events and memory, as CuPy has them."""

    def __init__(self):
        from tinyseg.backend import devices
        from tinyseg.fast.gpu import graphs

        devices.parse_device("gpu")
        self.cp, self.graphs = devices.cp, graphs

    def event(self):
        event = self.cp.cuda.Event()
        event.record()
        return event

    def seconds(self, start, end):
        return self.cp.cuda.get_elapsed_time(start, end) / 1e3

    def taken(self):
        """Bytes in the pools, of CUDA graphs too: of arrays, and kept for the next ones."""
        return self.cp.get_default_memory_pool().total_bytes() + self.graphs.bytes_in_pools()

    def release(self):
        """Give back what is not in use, so that the other processes have room."""
        self.cp.get_default_memory_pool().free_all_blocks()


class Torch:
    """Events and memory, as PyTorch has them."""

    def __init__(self):
        import torch

        self.torch = torch

    def event(self):
        event = self.torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start, end):
        return start.elapsed_time(end) / 1e3

    def taken(self):
        return self.torch.cuda.memory_reserved()

    def release(self):
        self.torch.cuda.empty_cache()


def timed(step, gpu, repetitions):
    """Median of the seconds between the events before and after each call of `step`."""
    events = [gpu.event()]
    for _ in range(repetitions):
        step()
        events.append(gpu.event())
    events[-1].synchronize()
    return statistics.median(gpu.seconds(a, b) for a, b in zip(events[:-1], events[1:], strict=True))


def put(key, steps, gpu):
    """Make a case of {direction: function}, for `worker.run`: each turn warms up, is timed, and gives memory back."""

    def once():
        found = {}
        for direction, step in steps.items():
            timed(step, gpu, WARM_UP)
            repetitions = min(50, max(3, round(SECONDS / max(timed(step, gpu, 1), 1e-6))))
            found[direction] = timed(step, gpu, repetitions)
        peaks[key] = gpu.taken()
        gpu.release()
        return found

    worker.cases[key] = once


def peak(key):
    """Bytes of GPU memory that the process had taken in the last turn of a case."""
    return peaks[key]


# ----- the machine ---------------------------------------------------------------
def about():
    """Name the GPU and the versions in use, with CuPy."""
    from tinyseg import backend

    cp = CuPy().cp
    properties = cp.cuda.runtime.getDeviceProperties(cp.cuda.Device().id)
    return {
        "GPU": properties["name"].decode(),
        "compute capability": f"{properties['major']}.{properties['minor']}",
        "memory": f"{properties['totalGlobalMem'] / 2**30:.1f} GiB",
        "CUDA of the driver": cp.cuda.runtime.driverGetVersion(),
        "CUDA of CuPy": cp.cuda.runtime.runtimeGetVersion(),
        **backend.versions(),
        "system": platform.platform(),
    }


def torch_about():
    """Versions of PyTorch."""
    import torch

    found = {"torch": torch.__version__, "CUDA of torch": torch.version.cuda}
    return found | {"cuDNN of torch": torch.backends.cudnn.version()}


def bandwidths(sizes=SIZES):
    """Bytes/s read and written by copying, {MiB: ...}; the better of two medians, with a kernel and by `memcpy`."""
    gpu = CuPy()
    cp, found = gpu.cp, {}
    for size in sizes:
        a, b = (cp.ones(size * 2**18, np.float32) for _ in range(2))
        ways = (lambda a=a, b=b: cp.copyto(b, a), lambda a=a, b=b: cp.multiply(a, np.float32(2), out=b))
        for way in ways:
            timed(way, gpu, 3)
        found[size] = 2 * a.nbytes / min(timed(way, gpu, 20) for way in ways)
    return found


def product_rate(tf32, n=PRODUCT):
    """Flop/s of a product of two float32 matrices, through CuPy."""
    _set_tf32(tf32)
    gpu = CuPy()
    a, b = (gpu.cp.asarray(np.random.default_rng(k).standard_normal((n, n), np.float32)) for k in range(2))

    def step():
        gpu.cp.matmul(a, b)

    timed(step, gpu, 3)
    return 2 * n**3 / timed(step, gpu, 10)


def torch_product_rate(tf32, n=PRODUCT):
    """The same through PyTorch."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = tf32
    gpu = Torch()
    a, b = (torch.randn(n, n, device="cuda") for _ in range(2))
    timed(lambda: a @ b, gpu, 3)
    return 2 * n**3 / timed(lambda: a @ b, gpu, 10)


def _set_tf32(tf32):
    """CuPy reads this at the first product of a process: a worker is for one or the other."""
    os.environ["CUPY_TF32"] = str(int(tf32))


# ----- networks ------------------------------------------------------------------
def prepare_network(
    key, framework, network, shape, mode, width=64, layout="nchw", compiled=False, tf32=False, amp=False, graph=False
):
    """Put a network into this worker; returns elements of the output, to compare frameworks by (inference only)."""
    worker.drop()
    make, gpu = {"tinyseg": (_tinyseg, CuPy), "torch": (_torch, Torch)}[framework]
    gpu = gpu()
    gpu.release()
    step, host = make(network, tuple(shape), mode, width, layout, compiled, tf32, amp, graph)
    sample = worker.sample(host(step())) if mode == "inference" else None
    put(key, {"time": step}, gpu)
    return sample


def _tinyseg(network, shape, mode, width, layout, compiled, tf32, amp, graph):
    import tinyseg as ts
    from tinyseg.fast.gpu.graphs import capture
    from tinyseg.fast.gpu.graphs.training_step import CapturedStep
    from tinyseg.fast.gpu.mixed_precision import LossScaler, in_float16
    from tinyseg.training.loop import keep_freed_memory

    _set_tf32(tf32)
    keep_freed_memory()
    x, y = (ts.backend.to_device(a, "gpu") for a in models.make_data(shape, 1))
    model = models.build_network(models.Case(network, shape, 1, mode, width)).to("gpu")
    optimizer, scaler = ts.optim.Adam(model.parameters(), lr=1e-4), LossScaler(enabled=amp)
    run = in_float16(model) if amp else model

    def predict():
        with ts.no_grad():
            return run(x).data

    def train():
        optimizer.zero_grad()
        loss = ts.ops.binary_cross_entropy_with_logits(run(x), y)
        with scaler.quiet():
            scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    if mode == "inference":
        model.eval()
    if graph and mode == "inference":
        with ts.no_grad():
            run = capture(lambda x: model(x).data, x)
        return lambda: run(x), ts.backend.to_numpy
    if graph:
        step = CapturedStep(model, optimizer)
        for _ in range(3):
            step(x, y)
        return lambda: step(x, y), ts.backend.to_numpy
    return predict if mode == "inference" else train, ts.backend.to_numpy


def _torch(network, shape, mode, width, layout, compiled, tf32, amp, graph):
    import torch
    from torch.nn import functional as F

    from tests.models.torch_twin import build

    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    memory_format = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}[layout]
    x, y = (torch.from_numpy(a).cuda() for a in models.make_data(shape, 1))
    x = x.contiguous(memory_format=memory_format)
    model = build(network, shape[1], 1, width=width)
    parameters = list(model.parameters())
    for p, w in zip(parameters, models.make_weights([p.shape for p in parameters]), strict=True):
        if w is not None:
            p.data.copy_(torch.from_numpy(w))
    model = model.cuda().to(memory_format=memory_format).train(mode == "training")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True, capturable=graph and not compiled)
    if compiled:
        torch._dynamo.reset()  # otherwise another batch is taken for a reason to compile for any
    run = torch.compile(model, mode="reduce-overhead" if graph else None) if compiled else model
    scaler = torch.amp.GradScaler(x.device.type, enabled=amp)

    def autocast():
        return torch.autocast(x.device.type, torch.float16, enabled=amp)

    def predict():
        with torch.no_grad(), autocast():
            return run(x)

    def train():
        optimizer.zero_grad()
        with autocast():
            loss = F.binary_cross_entropy_with_logits(run(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    step = predict if mode == "inference" else train
    if graph and not compiled:
        step = _torch_graph(torch, step)
    return step, lambda y: y.float().cpu().numpy()


def _torch_graph(torch, step):
    """PyTorch's recipe: a few steps on another stream, then the capture."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()

    def replay():
        graph.replay()
        return result

    return replay


# ----- single ops ----------------------------------------------------------------
def prepare_op(key, op, shape):
    """Put an op of `benchmarks.catalogue` into this worker, tinyseg's, through its public function."""
    import tinyseg as ts

    worker.drop()
    gpu = CuPy()
    gpu.release()
    rng = np.random.default_rng(0)

    def on_gpu(a):
        return gpu.cp.asarray(np.asarray(a))

    if op == ADAM:
        weights = ts.nn.Parameter(on_gpu(np.zeros((shape[1], shape[1], 3, 3), np.float32)))
        optimizer = ts.optim.Adam([weights])
        weights.grad = on_gpu(np.ones(weights.shape, np.float32))
        put(key, {"step": optimizer.step}, gpu)
        return
    entry = OPS[op]
    N, *image = shape
    xs = [gpu.cp.repeat(on_gpu(rng.standard_normal((1, *image), np.float32)), N, axis=0) for _ in range(entry.xs)]
    weights = [on_gpu(rng.standard_normal(s, np.float32).squeeze()) for s in entry.weights(shape[1])]
    constants = [on_gpu(a) for a in entry.constants(rng, tuple(shape))]

    def forward():
        with ts.no_grad():
            return entry.ours(ts.ops, *xs, *weights, *constants).data

    gy = gpu.cp.ones(forward().shape, np.float32)

    def both():
        leaves = [ts.Tensor(a, requires_grad=True) for a in (*xs, *weights)]
        entry.ours(ts.ops, *leaves, *constants).backward(gy)

    put(key, {"forward": forward, "forward + backward": both}, gpu)
