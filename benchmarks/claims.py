"""Measure what README and docs say beyond benchmarks/results/cpu.json, into benchmarks/results/claims.json.

    python -m benchmarks.claims --data ISBI_DIR                  # everything, on a machine that does nothing else
    python -m benchmarks.claims --parts arithmetic memory        # these anew, beside the others in the file

Each part is kept with the commit, the machine, the date and the command. `make numbers` puts them into the pages.
"""

import argparse
import compileall
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
import tifffile
from PIL import Image

import tinyseg as ts
from benchmarks import machine, models, tables, worker
from tinyseg.data import em_sections
from tinyseg.data.json_files import write_json

FILE = worker.ROOT / "benchmarks" / "results" / "claims.json"
SQUARE = (1, 1, 256, 256)


# ----- the parts ------------------------------------------------------------------
def arithmetic(data):
    """Share of U-Net's multiply-adds that is in 3x3 convolutions; SD-UNet's beside it."""
    found = {}
    for name in ("unet", "sdunet"):
        model = ts.models.build(name, head="paper")
        rows = ts.profile.summary(model, SQUARE, show=False).rows
        three = sum(row.multiply_adds for row in rows if _kernel(model, row.name) == (3, 3))
        total = sum(row.multiply_adds for row in rows)
        found[name] = {"multiply-adds": total, "share of 3x3": three / total}
    return found


def _kernel(model, path):
    """Height and width of the weights of a standard convolution; None for other layers."""
    for name in filter(None, path.split(".")):
        model = model[int(name)] if name.isdigit() else getattr(model, name)
    return model.weight.shape[2:] if isinstance(model, ts.nn.Conv2d) else None


def winograd(data):
    """Largest error over largest value of a 3x3 convolution and its gradients, by Winograd's method and directly."""
    (x, w, gy), rows = _convolution(), {}
    exact = _convolve(*(a.astype(np.float64) for a in (x, w, gy)))
    for title, on in (("F(4×4, 3×3)", True), ("direct", False)):
        with ts.using(winograd=on):
            errors = [np.abs(a - b).max() / np.abs(b).max() for a, b in zip(_convolve(x, w, gy), exact, strict=True)]
        rows[title] = dict(zip(("forward", "input gradient", "weight gradient"), map(float, errors), strict=True))
    return {"columns": dict.fromkeys(rows["direct"], ".0e"), "rows": rows}


def winograd_time(data):
    """Milliseconds of the same convolution."""
    (x, w, _), found = _convolution(), {}
    for name, on in (("winograd", True), ("direct", False)):
        with ts.using(winograd=on), ts.no_grad():
            found[name] = 1e3 * machine.shortest(lambda: ts.ops.conv2d(x, w, padding="same"), 2.0)
    return found


def _convolution():
    """Image, with channels last in memory, weights and the gradient of the output: 64 channels at 256 x 256."""
    rng = np.random.default_rng(0)
    x, gy = rng.standard_normal((2, 1, 256, 256, 64), np.float32).transpose(0, 1, 4, 2, 3)
    return x, rng.standard_normal((64, 64, 3, 3), np.float32) / 24, gy


def _convolve(x, w, gy):
    """Result of a convolution and its two gradients."""
    x, w = (ts.Tensor(a, requires_grad=True) for a in (x, w))
    y = ts.ops.conv2d(x, w, padding="same")
    y.backward(gy)
    return y.data, x.grad, w.grad


def start(data):
    """Seconds from the shell's Enter to a first prediction and to a first step of training, cold and warm.

    Cold: no kernel is compiled, in a copy of the package as after its installation. SD-UNet at full width, in
    prediction on a section of 512 × 512, in training as `tinyseg train-isbi` begins with 24 of them.
    """
    first_step = (
        "import os, sys; sys.argv = ['tinyseg', 'train-isbi', '--data', 'isbi', '--out', 'run', '--device', 'cpu']\n"
        "from tinyseg.commands.main import main; from tinyseg.training.loop import Bar\n"
        "Bar.advance = lambda *_: os._exit(0)\n"
        "main()\n"
    )
    commands = {
        "predict": ["-m", "tinyseg", "predict", "--checkpoint", "network", "section.png", "--device", "cpu", "--force"],
        "first step": ["-c", first_step], "help": ["-m", "tinyseg", "--help"],
        "all kernels": ["-m", "tinyseg", "warm"],
    }  # fmt: skip
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        shutil.copytree(ts.__path__[0], folder / "tinyseg", ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(folder / "tinyseg", quiet=1)  # pip does
        preprocessing = {"scale": [1, 1], "standardize": "section"}
        ts.checkpoint.save(folder / "network", ts.models.build("sdunet"), preprocessing=preprocessing)
        images, labels = em_sections(num_sections=24, size=512)
        Image.fromarray(images[0]).save(folder / "section.png")
        (folder / "isbi").mkdir()
        tifffile.imwrite(folder / "isbi" / "train-volume.tif", images)
        tifffile.imwrite(folder / "isbi" / "train-labels.tif", np.where(labels, 255, 0).astype(np.uint8))
        options = {"env": os.environ | {"NUMBA_CACHE_DIR": str(folder / "kernels")}, "cwd": folder, "check": True}
        for name, words in commands.items():
            shutil.rmtree(folder / "kernels", ignore_errors=True)
            for temperature in ("cold", "warm"):
                shutil.rmtree(folder / "run", ignore_errors=True)
                begin = time.perf_counter()
                subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, **options)
                found[f"{name}, {temperature}"] = time.perf_counter() - begin
    return found


def processors(data):
    """Ratios to the fastest of PyTorch's variants, of time, where both may use no more than older processors have.

    The instructions are left out in software: the clock, the caches and the memory are those of this machine.
    """
    rows, before = {}, dict(os.environ)
    for title, settings in PROCESSORS.items():
        os.environ.update(settings)
        for network, mode, _, ratio in _beside_pytorch(models.TORCH):
            rows.setdefault(f"{title}, {network}", {})[mode] = ratio
        os.environ.clear()
        os.environ.update(before)
    return {"columns": {"inference": ".2f", "training": ".2f"}, "rows": rows}


PROCESSORS = {
    "AVX2": {
        "NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+sse4.2", "ATEN_CPU_CAPABILITY": "avx2",
        "DNNL_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
    "SSE4.2": {
        "NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": "+sse4.2", "ATEN_CPU_CAPABILITY": "default",
        "DNNL_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    },
}  # fmt: skip
NAMES = {"sdunet": "SD-UNet", "unet": "U-Net"}


def _beside_pytorch(variants):
    """Yield network, mode, tinyseg's seconds and the ratio to the fastest variant, batch 1 at 256 × 256."""
    cases = models.the_cases(batches=(1,), brain=False)
    for record in models.run(cases, [*variants, models.OURS], budget=40):
        found = tables.ratios(record["times"], models.OURS.name, models.PYTORCH, "time")
        yield (
            NAMES[record["network"]],
            record["mode"],
            record["times"][models.OURS.name]["time"]["median"],
            found["rounds"],
        )


def neighbour(data):
    """Ratios to the faster of PyTorch's tuned variants while another process keeps a core busy, and alone.

    And how many times as long tinyseg takes beside that process. Of two cores three threads get two thirds each, which
    would be 1.5 times as long.
    """
    rows, alone, variants = {}, {}, [variant for variant in models.TORCH if variant.tuned]
    for network, mode, seconds, ratio in _beside_pytorch(variants):
        alone[network, mode] = seconds
        rows.setdefault(f"{network}, alone", {})[mode] = ratio
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        try:
            for network, mode, seconds, ratio in _beside_pytorch(variants):
                longer = seconds / alone[network, mode]
                rows.setdefault(f"{network}, beside it", {}).update({mode: ratio, f"{mode}, as long": longer})
        finally:
            other.kill()
    columns = {"inference": ".2f", "training": ".2f", "inference, as long": ".1f", "training, as long": ".1f"}
    return {"columns": columns, "rows": rows}


def memory(data):
    """GiB at the peak of a process: in all, as an operating system counts it."""
    found = {}
    for name, width, shape, training in (
        ("sdunet", 64, (1, 1, 256, 256), True), ("sdunet", 64, (2, 1, 256, 256), True),
        ("sdunet", 64, (4, 1, 256, 256), True), ("sdunet", 32, (2, 1, 256, 256), True),
        ("sdunet", 16, (2, 1, 256, 256), True), ("sdunet", 64, (2, 1, 128, 128), True),
        ("unet", 64, (1, 1, 256, 256), True), ("unet", 64, (2, 1, 256, 256), True),
        ("unet", 32, (2, 1, 256, 256), True), ("sdunet", 64, (1, 1, 256, 256), False),
        ("unet", 64, (1, 1, 256, 256), False),
    ):  # fmt: skip
        key = f"{name} {width} {shape[0]}×{shape[2]} {'training' if training else 'inference'}"
        peaks = [_peak(name, width, shape, training) for _ in range(2)]  # the first may compile
        found[key] = peaks[1]
    found["python alone"] = _peak()
    return found


def _peak(*step):
    """GiB of a process that imports tinyseg and makes three steps."""
    code = (
        "import re, numpy as np, tinyseg as ts\n"
        "from tinyseg.training.loop import keep_freed_memory\n"
        f"step = {step!r}\n"
        "keep_freed_memory()\n"
        "if step:\n"
        "    name, width, shape, training = step\n"
        "    model = ts.models.build(name, width=width)\n"
        "    x, y = np.zeros(shape, np.float32), np.ones(shape, np.float32)\n"
        "    optimizer = ts.optim.Adam(model.parameters()) if training else None\n"  # its state would count
        "    for _ in range(3):\n"
        "        if training:\n"
        "            loss = ts.ops.binary_cross_entropy_with_logits(model(x), y)\n"
        "            optimizer.zero_grad(); loss.backward(); optimizer.step()\n"
        "        else:\n"
        "            ts.prediction.predict(model, x)\n"
        "peak = re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]\n"  # of this process alone
        "print(int(peak) / 2**20)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=worker.ROOT, check=True, capture_output=True, text=True)
    return float(done.stdout)


def weight_standardization(data):
    """How SD-UNet learns with each reading of weight standardization: `benchmarks.weight_standardization`."""
    from benchmarks import weight_standardization

    rows = {}
    for title, row in weight_standardization.run(data):
        print(title, row, flush=True)
        rows[title] = row
    return {"columns": weight_standardization.COLUMNS, "rows": rows}


def isbi_score(data):
    """The ISBI-2012 score beside scikit-image's, on small label images and on real ones: `benchmarks.score_tables`."""
    from benchmarks import score_tables

    found = {}
    for name, rows, form in (("small", score_tables.small(), ".4f"), ("real", score_tables.real(data), ".6f")):
        found[name] = {"columns": dict.fromkeys(next(iter(rows.values())), form), "rows": rows}
    return found | {"first pair": score_tables.swapped()}


def quantization(data):
    """What 8 and 4 bits cost networks with and without weight standardization: `benchmarks.quantization`."""
    from benchmarks import quantization

    rows = {}
    for title, row in quantization.run(data):
        print(title, row, flush=True)
        rows[title] = row
    return {"columns": quantization.COLUMNS, "rows": rows}


def saturation(data):
    """What integer convolutions give on older processors, which qemu emulates: `benchmarks.saturation`."""
    from benchmarks import saturation

    return saturation.run(data)


def runtimes(data):
    """Milliseconds of a section of 256 × 256: tinyseg, PyTorch, an ONNX file in two runtimes, and C on one core."""
    others = [models.OURS_INT8, *models.RUNTIMES, *models.EIGHT_BITS, *models.PROGRAMS]
    cases = [models.Case(network, (1, 1, 256, 256), 1, "inference") for network in NAMES]
    rows, left_out = {}, {}
    for record in models.run(cases, [models.OURS, *models.TORCH, *others], budget=60):
        medians = {name: 1e3 * found["time"]["median"] for name, found in record["times"].items()}
        torch = [medians.pop(variant.name) for variant in models.TORCH if variant.name in medians]
        rows[NAMES[record["network"]]] = medians | ({"PyTorch": min(torch)} if torch else {})
        left_out |= record["failed"]
    columns = dict.fromkeys(["tinyseg", "PyTorch", *(variant.name for variant in others)], ".0f")
    return {"columns": columns, "rows": rows, "left out": left_out}


def fastest(data):
    """Milliseconds and ratios to the fastest of all that could be found: `benchmarks.fastest`."""
    from benchmarks import fastest

    return fastest.measure()


def together(data):
    """Seconds of a step in several processes, and what follows for clusters: `benchmarks.together`."""
    from benchmarks import together

    return together.measure()


PARTS = {
    f.__name__: f
    for f in (
        arithmetic, winograd, winograd_time, start, processors, neighbour, memory, weight_standardization, isbi_score,
        quantization, saturation, runtimes, fastest, together,
    )
}  # fmt: skip
NEED_DATA = {"weight_standardization", "isbi_score", "quantization", "saturation"}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="(default: all)")
    parser.add_argument("--data", type=pathlib.Path, metavar="DIR", help="the ISBI 2012 files, as for train_isbi.py")
    parser.add_argument("--out", type=pathlib.Path, default=FILE, help="(default: benchmarks/results/claims.json)")
    args = parser.parse_args(arguments)
    without_data = sorted(NEED_DATA.intersection(args.parts)) if args.data is None else []
    if without_data:
        parser.error(f"{', '.join(without_data)} needs the sections of ISBI 2012: give their folder to --data.")
    worker.warn_if_busy()
    for part in args.parts:
        print(f"----- {part}", flush=True)
        data = " --data ISBI_DIR" if part in NEED_DATA else ""
        measured = machine.how_measured(f"python -m benchmarks.claims --parts {part}{data}")
        found = PARTS[part](args.data)
        results = json.loads(args.out.read_text(encoding="utf-8")) if args.out.is_file() else {}
        results[part] = {"measured": measured} | found
        write_json(args.out, results)
    print(f"Written to {args.out}; `make numbers` puts it into the pages.")


if __name__ == "__main__":
    main()
