"""That the GPU's benchmarks count right, and run as far as the stand-in carries them."""

import dataclasses
import inspect
import json
import re

import fake_cuda
import numpy as np
import pytest

from benchmarks import gpu, gpu_tables, gpu_worker, models, worker
from benchmarks.catalogue import ADAM, work
from tinyseg import backend
from tinyseg.backend import devices

pytestmark = pytest.mark.slow


def seconds(*rounds):
    return {"time": {"median": sorted(rounds)[len(rounds) // 2], "min": min(rounds), "rounds": list(rounds)}}


NETWORK = {
    "network": "sdunet", "shape": [4, 1, 256, 256], "mode": "training", "width": 64, "tf32": False, "amp": False,
    "times": {"tinyseg": seconds(0.008, 0.008, 0.009), "NCHW": seconds(0.02, 0.01, 0.01),
              "channels-last": seconds(0.01, 0.016, 0.012)},
    "failed": {"compiled": "no time was left"}, "memory": {"tinyseg": 3 * 2**30, "NCHW": 2**30},
}  # fmt: skip
MACHINE = {
    "about": {"GPU": "H100"}, "bandwidths": {"16": 9e12, "1024": 2e12}, "failed": {"product_rate": "broke | down"},
    "rates": {"CuPy": 4e13, "PyTorch": 5e13, "CuPy, TF32": 3e14},
}  # fmt: skip
OP = {
    "op": "relu", "shape": [16, 64, 256, 256], "failed": None,
    "times": {"forward": {"seconds": 1e-3, "flops": 1e9, "bytes": 1.5e9}},
}  # fmt: skip


# ----- counting --------------------------------------------------------------------
def test_shares_of_the_roof():
    bandwidth, rate = gpu_tables.roofs(MACHINE)
    assert (bandwidth, rate) == (2e12, 5e13)  # of large arrays; without TF32
    assert gpu_tables.share(OP["times"]["forward"], bandwidth, rate) == (0.75, 0.75)
    assert gpu_tables.share({"seconds": 1e-3, "flops": 2.5e10, "bytes": 2e8}, 2e12, 5e13) == (0.1, 0.5)
    assert gpu_tables.share(OP["times"]["forward"], None, None) == (None, None)
    assert gpu_tables.roofs(None) == (None, None)


def test_bytes_of_an_op_are_counted_at_every_scale():
    ops = gpu.the_ops(quick=False)
    assert len(ops) == len(set(ops)) and {shape[1:] for op, shape in ops if op == "relu"} == {
        (64, 256, 256), (128, 128, 128), (256, 64, 64), (512, 32, 32), (1024, 16, 16)
    }  # fmt: skip
    assert all(moved > 0 for op, shape in ops for _, moved in work(op, shape).values())
    assert work("relu", (16, 64, 256, 256))["forward"][1] == 2 * 4 * 16 * 64 * 256 * 256
    assert gpu.the_ops(quick=True)[-1] == (ADAM, (1, 1024, 1, 1))


def test_names_of_files():
    assert gpu.slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"


@pytest.mark.parametrize("part", ["run_networks", "run_graphs"])
def test_each_part_gives_a_record_for_each_case(part, monkeypatch, capsys):
    """With workers that only say what they are asked for."""

    class Stub:
        def __init__(self, framework):
            self.framework = framework

        def call(self, function, *arguments, **options):
            if function.endswith("prepare_network"):
                signature = inspect.signature(gpu_worker.prepare_network)
                assert signature.bind(**options).arguments["framework"] == self.framework
                return None
            return 2**20

    def measure(turns, **options):
        return {name: seconds(0.01) for name in turns}, {}

    monkeypatch.setattr(gpu, "measure", measure)
    *_, found = getattr(gpu, part)(lambda name, framework: Stub(framework), gpu.Clock(9), quick=True)
    assert [record["mode"] for record in found] == ["inference", "training"] * 2
    assert all(record["times"] and not record["failed"] for record in found)
    assert "sdunet 1×1×256×256 inference: tinyseg" in capsys.readouterr().out


# ----- tables ----------------------------------------------------------------------
def test_the_page_has_ratios_memory_reasons_and_shares():
    results = {
        "machine": {"date": "today", "quick": False, "found": MACHINE},
        "networks": {"date": "today", "quick": True, "found": [NETWORK]},
        "tf32": {"date": "today", "quick": False, "found": None},
        "amp": {"date": "today", "quick": False, "found": [NETWORK | {"amp": True}]},
        "kernels": {"date": "today", "quick": False, "found": [OP, OP | {"times": {}, "failed": "illegal address"}]},
    }
    page = gpu_tables.markdown(results, "NVIDIA H100")
    assert page.startswith("# tinyseg beside PyTorch on NVIDIA H100\n") and "with TF32" not in page
    assert page.index("## Networks, in mixed precision") > page.index("## Networks, float32")
    # rounds: 8/10, 8/10, 9/10 of the fastest eager variant
    assert "| sdunet | 4×1×256×256 | training | 8.00 | 10.0 | 12.0 | see below | 0.80 | – |" in page
    assert "| sdunet | 4×1×256×256 | training | 3072 | 1024 | – | – |" in page
    assert "- sdunet 4×1×256×256 training, compiled: failed: no time was left" in page
    assert "| relu | 16×64×256×256 | forward | 1.00 | 1500 | 75% | 75% |" in page
    assert "- relu 16×64×256×256: failed: illegal address" in page
    assert "product_rate failed: broke / down" in page and "| CuPy, TF32 | 300.0 |" in page
    assert "a quick run" in page and not re.search(r"\bnan\b|None", page)


def test_the_page_of_graphs():
    times = {"tinyseg": seconds(0.008), "tinyseg, graph": seconds(0.004), "graph": seconds(0.005)}
    record = NETWORK | {"times": times, "failed": {"compiled, graph": "broke"}, "memory": {"tinyseg, graph": 2**30}}
    page = gpu_tables.markdown({"graphs": {"date": "today", "quick": False, "found": [record]}}, "H100")
    assert "PyTorch compiled, graph | ratio to tinyseg | to PyTorch's graph | to reduce-overhead |" in page
    assert "| sdunet | 4×1×256×256 | training | 4.00 | 8.00 | – | 5.00 | see below | 0.50 | 0.80 | – |" in page
    assert "| sdunet | 4×1×256×256 | training | 1024 | – | – | – | – |" in page
    assert "training, compiled, graph: failed: broke" in page


def test_a_page_without_a_machine():
    page = gpu_tables.markdown({"kernels": {"date": "today", "quick": False, "found": [OP]}}, "H100")
    assert "| relu | 16×64×256×256 | forward | 1.00 | 1500 | – | – |" in page


# ----- without a GPU -----------------------------------------------------------------
def test_without_a_gpu_it_ends_in_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "cp", None)
    with pytest.raises(SystemExit) as stop:
        gpu.main(["--out", str(tmp_path)])
    assert re.match("python -m benchmarks.gpu needs a GPU. .*CuPy is not installed", str(stop.value))
    assert list(tmp_path.iterdir()) == []


def test_a_variant_that_fails_is_reported_and_the_files_are_written(monkeypatch, tmp_path):
    """The workers are real processes, which find no GPU here."""
    try:
        backend.parse_device("gpu")
    except RuntimeError:
        pass
    else:
        pytest.skip("there is a GPU")
    with gpu.Workers(timeout=100) as workers:
        case = {
            "network": "sdunet",
            "shape": (1, 1, 32, 32),
            "mode": "inference",
            "width": 4,
            "tf32": True,
            "amp": True,
        }
        variants = [gpu.OURS, gpu.COMPILED]
        record = gpu.measure_network(workers, gpu.Clock(1), case, variants, rounds=1)
    assert record["times"] == {} and record["failed"]["compiled"] == "no time was left"
    assert "RuntimeError: Device 'gpu' was asked for" in record["failed"]["tinyseg"]
    file = tmp_path / "gpu-x.json"
    gpu.write({"tf32": {"date": "today", "quick": False, "found": [record]}}, file, "X")
    assert json.loads(file.read_text())["tf32"]["found"][0]["failed"] == record["failed"]
    assert "see below" in file.with_suffix(".md").read_text()


# ----- the measuring code, on the stand-in and on a GPU --------------------------------
@pytest.fixture
def cases(stand_in):
    worker.drop()
    yield stand_in
    worker.drop()


@pytest.mark.parametrize("amp", [False, True], ids=["float32", "amp"])
@pytest.mark.parametrize("mode", ["inference", "training"])
def test_networks_are_timed(mode, amp, cases, monkeypatch):
    monkeypatch.setenv("CUPY_TF32", "0")
    monkeypatch.setattr(gpu_worker, "SECONDS", 0)
    given = {"framework": "tinyseg", "network": "sdunet", "shape": [1, 1, 16, 16], "mode": mode, "width": 4}
    given["amp"] = amp
    sample = gpu_worker.prepare_network("case", **given)
    assert (sample is None) == (mode == "training") and (not sample or np.isfinite(sample).all())
    (times,) = worker.run("case", 2).values()
    assert len(times) == 2 and min(times) > 0 and gpu_worker.peak("case") >= 0
    if amp:  # not in a graph
        return
    replayed = gpu_worker.prepare_network("case", **given, graph=True)
    assert (sample is None and replayed is None) or worker.difference([replayed], [sample]) < 1e-5
    assert min(worker.run("case", 1)["time"]) > 0


@pytest.mark.parametrize("op", ["group norm", "concat + separable 3x3 + relu", "BCE", "batch norm", ADAM])
def test_ops_are_timed(op, cases, monkeypatch):
    monkeypatch.setattr(gpu_worker, "SECONDS", 0)
    gpu_worker.prepare_op("op", op, [2, 64, 4, 4])
    assert worker.run("op", 1).keys() == work(op, (2, 64, 4, 4)).keys()


@pytest.mark.parametrize("amp", [False, True], ids=["float32", "amp"])
@pytest.mark.parametrize("mode", ["inference", "training"])
def test_pytorch_is_timed(mode, amp, monkeypatch):
    """On the CPU, with a clock of its own in the place of CUDA's events; the same network as tinyseg's."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    monkeypatch.setattr(torch.nn.Module, "cuda", lambda self: self)
    monkeypatch.setattr(gpu_worker.Torch, "event", lambda self: fake_cuda.Stream().record())
    monkeypatch.setattr(gpu_worker.Torch, "seconds", lambda self, a, b: fake_cuda.get_elapsed_time(a, b) / 1e3)
    monkeypatch.setattr(gpu_worker, "SECONDS", 0)
    case = {"network": "sdunet", "shape": [1, 1, 32, 32], "mode": mode, "width": 4, "layout": "channels_last"}
    case["amp"] = amp
    sample = gpu_worker.prepare_network("case", framework="torch", **case)
    if sample:
        ours = models.Case("sdunet", (1, 1, 32, 32), 1, "inference", width=4), models.OURS
        expected = models.prepare("ours", *map(dataclasses.asdict, ours))["sample"]
        assert worker.difference([sample], [expected]) < (gpu.TOLERANCE[True] if amp else 1e-3)
        gpu_worker.prepare_network("case", framework="torch", **case)  # `models.prepare` is another worker's
    assert min(worker.run("case", 2)["time"]) > 0
    worker.drop()


def test_the_machine_is_measured(cases, monkeypatch):
    monkeypatch.setenv("CUPY_TF32", "0")
    assert "compute capability" in gpu_worker.about()
    assert gpu_worker.bandwidths([1]).keys() == {1} and gpu_worker.product_rate(False, n=16) > 0
