"""That the benchmarks run and count right. How fast anything is, no test says."""

import dataclasses
import importlib.util
import itertools
import json
import math
import os
import shutil

import numpy as np
import pytest

import tinyseg as ts
from benchmarks import kernels, machine, models, run, scaling, steps, tables, worker
from benchmarks.catalogue import ADAM, OPS, work
from benchmarks.worker import Worker, WorkerError, difference, measure

pytestmark = pytest.mark.slow

TINY = models.Case("sdunet", (1, 1, 32, 32), 1, "inference", width=4)
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch")


# ----- workers ---------------------------------------------------------------------
@pytest.fixture(scope="module")
def process():
    with Worker("tinyseg", timeout=250) as process:
        yield process


def test_a_worker_runs_a_case_as_often_as_it_is_told(process):
    found = models.prepare_in(process, "tiny", TINY, models.OURS)
    assert len(found["sample"]) == 64 and all(map(math.isfinite, found["sample"])) and len(set(found["sample"])) > 30
    (times,) = process.call("benchmarks.worker:run", key="tiny", k=3).values()
    assert len(times) == 3 and min(times) > 0
    memory = process.call("benchmarks.worker:memory")
    assert 10 < memory["now"] <= memory["peak"] * 1.01 and 10 < found["imported"] <= memory["peak"] * 1.01


def test_an_error_comes_back_and_the_worker_goes_on(process):
    with pytest.raises(WorkerError, match="ValueError: There is no model 'nope'"):
        models.prepare_in(process, "bad", models.Case("nope", (1, 1, 32, 32), 1, "training"), models.OURS)
    process.call("benchmarks.worker:drop")
    with pytest.raises(WorkerError, match="KeyError: 'tiny'"):
        process.call("benchmarks.worker:run", key="tiny", k=1)
    assert process.alive


def test_what_is_printed_stays_out_of_the_answers(process):
    assert process.call("os:system", command="echo in the way") == 0


def test_the_death_of_a_worker_is_an_error_with_its_last_words():
    with Worker("tinyseg") as process:
        with pytest.raises(WorkerError, match=r"status 3 \(farewell\)"):
            process.call("timeit:timeit", number=1, stmt="import os; os.write(2, b'farewell\\n'); os._exit(3)")
        assert not process.alive
        with pytest.raises(WorkerError, match="status 3"):
            process.call("benchmarks.worker:memory")


def test_a_worker_that_takes_too_long_is_ended():
    with Worker("tinyseg") as process:
        process.call("benchmarks.worker:memory")  # it has started
        process.timeout = 0.2
        with pytest.raises(WorkerError, match="ended with status"):
            process.call("timeit:timeit", number=1, stmt="import time; time.sleep(60)")


def test_workers_do_not_inherit_settings_of_threads_and_allocators(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.setenv("MALLOC_TOP_PAD_", "1")
    with Worker("tinyseg", tuned=True) as process:
        assert process.call("os:getenv", key="OMP_WAIT_POLICY") != "active"
        assert process.call("os:getenv", key="MALLOC_TOP_PAD_") == worker.TUNED["MALLOC_TOP_PAD_"]
    assert os.environ["OMP_WAIT_POLICY"] == "active"


def test_a_worker_without_numba():
    with Worker("tinyseg", numba=False) as process:
        found = process.call("benchmarks.machine:versions")
        assert "numba" not in found and found["kernels"].startswith("NumPy (")
        assert len(models.prepare_in(process, "tiny", TINY, models.REFERENCE)["sample"]) == 64


# ----- rounds ----------------------------------------------------------------------
class Scripted:
    """A worker whose case takes the seconds that it is given, one after the other."""

    def __init__(self, name, seconds, log, dies_after=math.inf):
        self.name, self.seconds, self.log, self.left = name, itertools.cycle(seconds), log, dies_after

    def call(self, function, key, k):
        assert (function, key) == ("benchmarks.worker:run", "case")
        self.left -= 1
        if self.left < 0:
            raise WorkerError("it died")
        self.log.append((self.name, k))
        return {"time": [next(self.seconds) for _ in range(k)]}


def measured(rounds=4, **options):
    log = []
    names = {"a": [0.3, 0.3, 0.1, 0.2], "b": [0.6], "c": [1.0, 2.0]}
    turns = {name: (Scripted(name, seconds, log), "case") for name, seconds in names.items()}
    turns["d"] = Scripted("d", [1.0], log, dies_after=3), "case"
    return *measure(turns, rounds=rounds, turn=0.6, **options), log


def test_measure_goes_round_in_an_order_drawn_anew(monkeypatch):
    monkeypatch.setattr(worker, "PAUSE", 0)
    times, failed, log = measured(rounds=12)
    assert failed == {"d": "it died"} and times.keys() == {"a", "b", "c"}
    assert [name for name, _ in log[:4]] == ["a", "b", "c", "d"] and {k for _, k in log[:4]} == {2}  # the warm-up
    rest = [entry for entry in log[4:] if entry[0] != "d"]
    orders = [tuple(name for name, _ in rest[i : i + 3]) for i in range(0, len(rest), 3)]
    assert len(orders) == 12 and {frozenset(order) for order in orders} == {frozenset("abc")} and len(set(orders)) > 3
    assert dict(rest) == {"a": 2, "b": 1, "c": 1}  # 0.6 s hold two repetitions of 0.3 s, one of 0.6 s, and none of 2 s
    assert log == measured(rounds=12)[2]  # the seed decides


def test_measure_sums_up(monkeypatch):
    monkeypatch.setattr(worker, "PAUSE", 0)
    times, _, _ = measured(rounds=2)
    assert times["a"]["time"] == {
        "median": pytest.approx(0.25),  # of 0.1, 0.2 and, in the second round, 0.3, 0.3
        "min": 0.1,
        "rounds": [pytest.approx(0.15), 0.3],
        "repetitions": 4,
    }
    assert len(measured(rounds=9, budget=0)[0]["b"]["time"]["rounds"]) == 3  # three rounds whatever the budget


def times_of(**rounds):
    """{variant: {"time": ...}} with one repetition a round."""
    return {v: {"time": worker._summary([[t] for t in seconds])} for v, seconds in rounds.items()}


def test_ratios():
    times = times_of(ours=[2.0, 3.0, 4.0], p=[1.0, 6.0, 2.0], q=[4.0, 3.0, 1.5])
    found = tables.ratios(times, "ours", ["p", "q", "absent"], "time")
    assert found == {
        "rounds": 2.0,  # the median of 2 / 1, 3 / 3 and 4 / 1.5
        "median": 3.0 / 2.0,
        "min": 2.0 / 1.0,
        "best": "p",
    }
    assert tables.ratios(times, "ours", ["absent"], "time") is None
    assert tables.ratios(times, "absent", ["p"], "time") is None


def test_difference_of_samples():
    assert difference([[3.0, 4.0]], [[3.0, 4.0]]) == 0
    assert difference([[0.0], [3.0, 4.5]], [[0.0], [3.0, 4.0]]) == pytest.approx(0.1)
    assert difference([[3.0, math.nan]], [[3.0, 4.0]]) == math.inf
    assert difference([[3.0]], [[3.0, 4.0]]) == math.inf


def test_samples_are_elements_in_the_order_of_the_shape():
    a = np.arange(60.0).reshape(3, 4, 5)
    assert worker.sample(a) == worker.sample(np.asfortranarray(a)) != worker.sample(a + 1)
    assert set(worker.sample(a)) <= set(range(60)) and worker.sample(np.array(2.0)) == [2.0]


# ----- text ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.23456, "1230"), (0.0123456, "12.3"), (12.3456e-6, "0.0123"), (9.996e-3, "10.0"), (0.1, "100"), (0, "0")],
)
def test_milliseconds_have_three_digits(seconds, text):
    assert tables.milliseconds(seconds) == text


def test_a_table():
    text = tables.table(["op", "ms"], [["relu", "1.00"], ["add", None]])
    assert text == "| op | ms |\n| --- | ---: |\n| relu | 1.00 |\n| add | – |\n"
    assert "\n" not in tables.reason("a\nb | c") and len(tables.reason("x" * 1000)) < 140


def test_the_summary_counts():
    assert tables.summary([0.5, 1.0, 2.0]) == (
        "tinyseg is at least as fast in 2 of 3 rows; geometric mean of the ratios 1.00, largest 2.00.\n"
    )


# ----- the roofline ----------------------------------------------------------------
MACHINE = {
    "about": {"processor": "abacus"},
    "rates": {"BLAS": {"1024": 1e11, "2048": 2e11}, "tinyseg": {"1024": 1.5e11, "2048": 1e11}},
    "bandwidths": {"8": {"copy": 1e11, "triad": 5e10}, "256": {"copy": 1e10, "triad": 2e10}},
    "failed": {},
}


def test_the_roof_is_the_longer_of_computing_and_moving():
    assert machine.roof(2e11, 1e6, MACHINE) == (1.0, "compute")
    assert machine.roof(1e6, 1e7, MACHINE) == (1e-4, "cache")
    assert machine.roof(1e6, 1e9, MACHINE) == (0.05, "memory")


def test_work_counts_each_array_once():
    x = 2 * 64 * 8 * 8
    assert work("relu", (2, 64, 8, 8)) == {"forward": (x, 8 * x), "forward + backward": (3 * x, 20 * x)}
    flops, moved = work("conv 3x3", (2, 64, 8, 8))["forward"]
    assert flops == 2 * 9 * 64 * x and moved == 4 * (2 * x + 9 * 64 * 64 + 64)
    assert work("concat", (2, 64, 8, 8))["forward + backward"] == (0, 4 * (4 * x + 4 * x))
    assert work("max pool", (2, 64, 8, 8))["forward"] == (x, 4 * (x + x // 4))
    assert work(ADAM, (1, 64, 8, 8)) == {"step": (12 * 36864, 28 * 36864)}


# ----- ops -------------------------------------------------------------------------
@pytest.mark.parametrize("name", [*OPS, ADAM])
def test_both_frameworks_compute_the_same(name, monkeypatch):
    pytest.importorskip("torch")
    if name != ADAM and OPS[name].name not in kernels.available():
        pytest.skip("tinyseg does not have it")
    monkeypatch.setattr(worker, "cases", {})
    found = {
        (framework, variant): kernels.prepare(f"{framework} {variant}", framework, name, (2, 64, 8, 6), variant)
        for framework, kind in (("torch", "torch"), ("tinyseg", "tinyseg"))
        for variant in kernels._variants(name, kind)
    }
    expected = next(iter(found.values()))
    assert max(difference(samples, expected) for samples in found.values()) < 1e-3
    for case in worker.cases.values():
        assert set(case()) == set(kernels._directions({"op": name})) and min(case().values()) > 0


@needs_torch
def test_an_op_that_fails_is_reported_and_the_others_are_timed():
    with kernels.Workers() as workers:
        workers["tinyseg"].call("timeit:timeit", number=1, stmt="import tinyseg; tinyseg.ops.relu = lambda x: x")
        record = kernels.measure_op("relu", (1, 8, 4, 4), workers, rounds=2, turn=0.001)
        assert record["times"].keys() == {"torch nchw", "torch channels_last"}
        assert record["failed"].keys() == {"tinyseg nchw", "tinyseg channels_last"}
        text = kernels.markdown([json.loads(json.dumps(record))])
        assert text.count("failed: ") == 4 and "Nothing could be compared" in text
        record = kernels.measure_op("average pool", (1, 8, 4, 4), workers, rounds=2, turn=0.001)
    assert not record["failed"] and len(record["times"]) == 4
    records = [json.loads(json.dumps(record))]
    assert "failed" not in kernels.markdown(records) and kernels.roofline(records, MACHINE).count("| cache |") == 2


def test_cases_of_ops():
    cases = kernels.the_cases(batch=2, ops=["relu", "BCE", ADAM], scales=[0, 4])
    names = [name for name, _ in cases]
    assert names == ["relu", "relu", "BCE", ADAM, ADAM]
    assert cases[1] == ("relu", (2, 1024, 16, 16)) and cases[2] == ("BCE", (2, 1, 256, 256))
    assert "relu" not in [name for name, _ in kernels.the_cases(available=["conv2d"])]


# ----- networks ----------------------------------------------------------------------
@pytest.mark.slow
@needs_torch
@pytest.mark.parametrize("mode", models.MODES)
def test_a_network_is_timed_and_weighed_in_both_frameworks(mode):
    case = models.Case("sdunet", (2, 3, 32, 32), 4, mode, width=4)
    record = models.measure_case(case, [models.TORCH[0], models.TORCH[3], models.OURS], rounds=2, turn=0.01)
    record = json.loads(json.dumps(record))
    assert not record["failed"] and record["times"].keys() == record["memory"].keys()
    assert record["times"].keys() == {"NCHW", "channels-last, tuned", "tinyseg"}
    assert {len(times["time"]["rounds"]) for times in record["times"].values()} == {2}
    assert all(10 < memory["imported"] < 1.01 * memory["peak"] < 2000 for memory in record["memory"].values())
    assert "failed" not in models.markdown([record])


@pytest.mark.parametrize(
    "variant", [models.OURS_INT8, *models.RUNTIMES, *models.EIGHT_BITS, *models.PROGRAMS], ids=lambda v: v.name
)
def test_another_runtime_computes_the_same_network(variant, monkeypatch):
    if variant.framework == "c":
        if not (shutil.which("gcc") or shutil.which("clang")):
            pytest.skip("there is neither gcc nor clang here")
    elif variant.framework != "tinyseg":
        for package in ("onnx", variant.framework):
            pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.setattr(worker, "cases", {})
    case = dataclasses.replace(TINY, shape=(1, 2, 32, 48), classes=3)
    samples = [
        models.prepare(each.name, dataclasses.asdict(case), dataclasses.asdict(each))["sample"]
        for each in (models.OURS, variant)
    ]
    error = difference(samples[1:], samples[:1])
    assert error < (models.TOLERANCE["int8"] if variant.dtype == "int8" else 1e-5)
    assert worker.run(variant.name, 1)["time"][0] > 0


def test_a_variant_runs_what_it_can():
    training = dataclasses.replace(TINY, mode="training")
    four = dataclasses.replace(TINY, shape=(4, 1, 32, 32))
    able = {case: {v.name for v in [*models.the_variants(), *models.PROGRAMS] if models.can_run(v, case)}
            for case in (TINY, training, four)}  # fmt: skip
    files = {v.name for v in (*models.RUNTIMES, *models.EIGHT_BITS, models.OURS_INT8)}
    torch, programs = {v.name for v in models.TORCH}, {v.name for v in models.PROGRAMS}
    autocast = {v.name for v in models.AUTOCAST}
    assert able[training] == torch | autocast | {"tinyseg"}
    assert able[four] == torch | files | {"tinyseg"} and able[TINY] == able[four] | programs


RECORD = {
    "network": "unet",
    "shape": [1, 1, 256, 256],
    "classes": 1,
    "mode": "training",
    "width": 64,
    "times": times_of(tinyseg=[0.5, 0.5], NCHW=[1.0, 1.0], OpenVINO=[0.4, 0.4])
    | {"compiled, tuned": times_of(c=[0.25, 0.25])["c"]},
    "failed": {"NCHW, tuned": "RuntimeError: no"},
    "memory": {v: {"imported": 100, "peak": 300 + k} for k, v in enumerate(["tinyseg", "NCHW", "compiled, tuned"])},
}


def test_the_tables_of_networks():
    text = models.markdown([RECORD])
    times, memory = [line for line in text.splitlines() if line.startswith("| unet")]
    cells = [cell.strip() for cell in times.strip("|").split("|")]
    assert cells[:5] == ["unet", "1×1×256×256", "training", "500", "1000"]
    assert cells[5:] == ["failed: RuntimeError: no", "250", "400", "2.00", "2.00", "0.50", "2.00", "2.00"]
    assert memory.endswith("| 300 / 200 | 301 / 201 | – | 302 / 202 | 1.00 | 1.00 |")


# ----- the ops of a step ---------------------------------------------------------------
def test_the_ops_of_a_training_step_sum_up_to_it():
    case = dataclasses.replace(TINY, mode="training", width=8)
    found = steps.measure(case, steps=3)
    seconds = {tuple(row["name"]): row["seconds"] for row in found["rows"]}
    assert sum(seconds.values()) == pytest.approx(found["seconds"]) and min(seconds.values()) > 0
    calls = {tuple(row["name"][:2]): 0 for row in found["rows"]}
    for row in found["rows"]:
        calls[tuple(row["name"][:2])] += row["calls"]
    assert calls["Adam", ""] == calls["BinaryCrossEntropy", "backward"] == 1
    assert calls["GroupNorm", "forward"] == calls["GroupNorm", "backward"] == 9
    assert calls["MaxPool2d", "forward"] == 4 and ("Dropout", "backward") in calls
    text = steps.markdown([dataclasses.asdict(case) | found], MACHINE)
    assert "sdunet 1×1×32×32 training" in text and steps.BETWEEN in text and text.count("\n| ") > 20


def test_a_step_is_timed_without_its_warm_up_and_the_engine_is_as_before():
    before = steps.Function.__call__, steps.Function.gradients, steps.HalfFunction.gradients, steps.Adam.step
    found = steps.measure(TINY, steps=2)
    assert before == (steps.Function.__call__, steps.Function.gradients, steps.HalfFunction.gradients, steps.Adam.step)
    names = {row["name"][0] for row in found["rows"]}
    assert "SeparableConv2d" in names and "Adam" not in names
    # The work of a forward pass is what the profile counts: two operations a multiply-add.
    model = models.build_network(TINY)
    flops = sum(row["flops"] for row in found["rows"])
    assert flops == 2 * ts.profile.summary(model, TINY.shape, show=False).multiply_adds


# ----- all of it -----------------------------------------------------------------------
POINTS = [
    {"axis": "size", "value": size, "network": network, "mode": mode, "shape": [1, 1, size, size], "width": 64}
    | {"times": times_of(tinyseg=[size / 1e3], PyTorch=[size / 2e3]), "failed": {}}
    for size in (64, 128)
    for network in scaling.NETWORKS
    for mode in models.MODES
]


def test_scaling_is_plotted_and_tabulated(tmp_path):
    scaling.write([*POINTS, {**POINTS[0], "times": {}, "failed": {"tinyseg": "out of memory"}}], tmp_path)
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((tmp_path / "scaling.json").read_text())) == len(POINTS) + 1
    text = scaling.markdown(POINTS)
    assert text.count("| 2.00 |") == len(POINTS) and "| 15.6 | 7.81 |" in text  # 64 ms for 4096 pixels


def test_each_case_is_measured_once_for_all_axes():
    cases = scaling.the_cases("unet")
    assert len({case for case, _ in cases}) == len(cases)
    places = {(case.mode, place) for case, places in cases for place in places}
    assert len(places) == (5 + 4 + 3) + (4 + 4 + 3)  # training has no images of 1024
    assert ("training", ("size", 1024)) not in places and ("inference", ("size", 1024)) in places


def test_an_interrupted_run_keeps_what_was_measured(tmp_path, monkeypatch, capsys):
    def measure_part(part, *options):
        if part == "scaling":
            yield POINTS
            raise KeyboardInterrupt
        yield {"machine": MACHINE, "models": [RECORD], "kernels": []}[part]

    monkeypatch.setattr(run, "measure_part", measure_part)
    monkeypatch.setattr(worker, "busy", lambda seconds=0.1: 1.5)
    run.main(["--quick", "--out", str(tmp_path)])
    assert "Stopped" in capsys.readouterr().out
    text = (tmp_path / "cpu.md").read_text()
    for words in (
        "abacus",
        "quick run",
        "kept 1.5 cores busy",
        "## Networks",
        "## Scaling",
        "scaling.png",
        "median over the rounds",
    ):
        assert words in text
    results = json.loads((tmp_path / "cpu.json").read_text())
    assert results["models"]["found"] == [RECORD] and len(results["scaling"]["found"]) == len(POINTS)
    run.main(["--parts", "machine", "--out", str(tmp_path)])  # anew, beside the others
    assert json.loads((tmp_path / "cpu.json").read_text())["models"] == results["models"]
    assert not list(tmp_path.glob(".*"))


def test_busy_counts_cores():
    assert 0 <= worker.busy(0.05) <= os.cpu_count()
