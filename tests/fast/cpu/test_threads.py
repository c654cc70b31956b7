"""What is set before NumPy is loaded, and that the user's own settings stand."""

import os
import subprocess
import sys

import pytest

from tinyseg.fast.cpu.threads import _is_amd_with_avx512

FLAGS = "fpu avx2 avx512f avx512dq avx512cd avx512bw avx512vl"


def cpuinfo(vendor="AuthenticAMD", family=26, flags=FLAGS):
    return f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel name\t: X: Y\nflags\t\t: {flags}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (cpuinfo(), True),
        (cpuinfo(family=25), False),
        (cpuinfo(vendor="GenuineIntel"), False),
        (cpuinfo(flags="fpu avx2 avx512f"), False),
        ("", False),
        ("processor : 0\nBogoMIPS : 100.00\nFeatures : fp asimd", False),
    ],
)
def test_amd_processors_with_avx512_are_told_from_others(text, expected):
    assert _is_amd_with_avx512(text) is expected


def run(code, **environment):
    """Run code in a new process without settings for threads but `environment`; return the words that it prints."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("GOMP_", "OPENBLAS_"))}
    return subprocess.run(
        [sys.executable, "-c", code], env=inherited | environment, capture_output=True, text=True, check=True
    ).stdout.split()


def test_idle_threads_go_to_sleep_unless_the_user_says_otherwise():
    code = "import os, tinyseg; print(os.environ['GOMP_SPINCOUNT'], os.environ['OPENBLAS_THREAD_TIMEOUT'])"
    assert run(code) == ["10000", "4"]
    assert run(code, GOMP_SPINCOUNT="77") == ["77", "4"]


def test_settings_are_made_before_numpy_is_loaded():
    """They are read when its libraries are loaded: later they change nothing."""
    code = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            print(os.environ.get("OPENBLAS_THREAD_TIMEOUT"))
sys.meta_path.insert(0, Watch())
from tinyseg import data
"""
    assert run(code) == ["4"]


@pytest.mark.parametrize("text", ["0", "-1", "nonsense", "", "1.5"])
def test_a_number_of_threads_that_is_none_is_left_out_with_a_line(text):
    code = "import numpy as np, tinyseg as ts; print(ts.ops.relu(np.ones((1, 8, 9, 9), np.float32)).data.sum())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"NUMBA_NUM_THREADS": text}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "648.0\n"), done.stderr
    assert done.stderr == f"NUMBA_NUM_THREADS is {text!r}, which is no number of threads: it is left out.\n"


def test_a_threading_layer_that_numba_does_not_know_is_left_out_with_a_line():
    code = "import os, tinyseg; print(os.environ.get('NUMBA_THREADING_LAYER'))"
    assert run(code, NUMBA_THREADING_LAYER="nonsense") == ["None"]
    assert run(code, NUMBA_THREADING_LAYER="workqueue") == ["workqueue"]


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_threads_that_cannot_be_started_are_a_sentence_and_not_the_end_of_the_process():
    code = """
import threading, numpy as np, tinyseg as ts
started, start = [], threading.Thread.start
def refuse(thread):
    if len(started) == 2:
        raise RuntimeError("can't start new thread")
    started.append(thread)
    start(thread)
threading.Thread.start = refuse
for _ in range(2):
    try:
        ts.ops.relu(np.ones((1, 8, 64, 64), np.float32))
    except RuntimeError as error:
        print("NUMBA_NUM_THREADS" in str(error) and "only 2 more" in str(error), sum(t.is_alive() for t in started))
    threading.Thread.start, started = start, started
print(threading.active_count())
"""
    assert run(code, NUMBA_NUM_THREADS="5") == ["True", "0", "1"]


@pytest.mark.parametrize("layer", ["workqueue", "omp"])
def test_threads_can_predict_at_the_same_time_whatever_numbas_threads_are_made_of(layer):
    code = """
import concurrent.futures, numba, numpy as np, tinyseg as ts
x = np.random.default_rng(0).standard_normal((8, 4, 16, 64, 64)).astype("float32")
def compute(k): return ts.ops.relu(ts.ops.avg_pool2d(x[k], 2)).data
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    found = list(pool.map(compute, list(range(8)) * 5))
print(numba.threading_layer(), all((y == compute(k % 8)).all() for k, y in enumerate(found)))
"""
    assert run(code, NUMBA_NUM_THREADS="2", NUMBA_THREADING_LAYER=layer) == [layer, "True"]
