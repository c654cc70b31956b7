"""The places of the campaign of `environment` that are settings: variables, streams, Python's options, programs."""

import os
import pathlib
import subprocess
import sys
import time

from tests.campaigns.environment_places import Place

TWO = ("train_isbi", "evaluate")


def variables(expected="works", words=(), close=False, said=True, flags=(), **environment):
    """Set variables of the environment (None: remove it) and options of Python; mended, they are as before."""

    def make(setting, command):
        before = setting.environment
        room = str(setting.room)
        new = {k: v and v.replace("$ROOM", room) for k, v in environment.items()}
        setting.environment, setting.flags = before | new, list(flags)
        setting.expected, setting.words, setting.close, setting.said = expected, words, close, said
        yield
        setting.environment, setting.flags = before, []
        yield

    return make


def file_in_the_way(**environment):
    """Set variables to a file, where folders are expected."""

    def make(setting, command):
        (setting.room / "file").write_text("no folder")
        yield from variables(**environment)(setting, command)

    return make


def matplotlibrc(content, where):
    """Write a file of settings of Matplotlib, into the current folder or into a folder of its own."""

    def make(setting, command):
        folder = setting.room / "settings"
        folder.mkdir()
        if where == "cwd":
            setting.cwd = str(folder)
        else:
            setting.environment[where] = str(folder)
        (folder / "matplotlibrc").write_bytes(content)
        yield

    return make


# ----- streams -----------------------------------------------------------------------
def closed(*numbers):
    def make(setting, command):
        setting.before = lambda: [os.close(number) for number in numbers]
        setting.said = False
        yield

    return make


def full(*names):
    """Let streams end in a full disk."""

    def make(setting, command):
        with open("/dev/full", "wb") as stream:
            setting.streams |= dict.fromkeys(names, stream)
            yield

    return make


def reader_gone(*names):
    def make(setting, command):
        read, write = os.pipe()
        os.close(read)
        setting.streams |= dict.fromkeys(names, write)
        yield
        os.close(write)

    return make


# ----- times -------------------------------------------------------------------------
def touched(when):
    """Give all data a time, such as one to come: the clock was set back."""

    def make(setting, command):
        folder = setting.room.parent
        paths = [p for name in ("isbi", "brains", "inputs", "slices") for p in (folder / name).rglob("*")]
        for path in [*paths, folder / "network.safetensors", *pathlib.Path(setting.out).rglob("*")]:
            os.utime(path, (when, when))
        yield
        for path in paths:
            os.utime(path)

    return make


def mask(number):
    def make(setting, command):
        setting.before = lambda: os.umask(number)
        yield

    return make


# ----- programs ------------------------------------------------------------------------
# Programs that use the library in their own way; each prints "right".
START = """
import sys, threading, concurrent.futures, multiprocessing as mp, numpy as np, tinyseg as ts
model = ts.models.build("sdunet", width=4).eval()
x = np.random.default_rng(0).standard_normal((4, 1, 32, 32)).astype("float32")
def one(k): return ts.prediction.predict(model, x[k : k + 1])
alone = [one(k) for k in range(4)]
def check(found): assert all((a == b).all() for a, b in zip(alone, found, strict=True)); print("right")
"""
PROGRAMS = {
    "a pool that forks after the first use": """
try:
    with mp.get_context("fork").Pool(2) as pool: check(pool.map(one, range(4)))
except RuntimeError as error:
    assert "spawn" in str(error); print("right")
""",
    "a pool that forks, with the reference": """
def one(k):
    with ts.using(kernels="reference"): return ts.prediction.predict(model, x[k : k + 1])
alone = [one(k) for k in range(4)]
with mp.get_context("fork").Pool(2) as pool: check(pool.map(one, range(4)))
""",
    "an executor that forks, and that is asked twice": """
for _ in range(2):
    with concurrent.futures.ProcessPoolExecutor(2, mp.get_context("fork")) as pool:
        try: check(pool.map(one, range(4)))
        except RuntimeError as error: assert "spawn" in str(error); print("right")
""",
    "four threads": "with concurrent.futures.ThreadPoolExecutor(4) as pool: check(pool.map(one, range(4)))",
    "threads, then a fork": """
with concurrent.futures.ThreadPoolExecutor(4) as pool: check(pool.map(one, range(4)))
with mp.get_context("fork").Pool(1) as pool:
    try: check(pool.map(one, range(4)))
    except RuntimeError as error: assert "spawn" in str(error); print("right")
""",
    "a fork while other threads compute": """
stop = threading.Event()
def work():
    while not stop.is_set(): one(0)
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
with mp.get_context("fork").Pool(2) as pool:
    try: check(pool.map(one, range(4)))
    except RuntimeError as error: assert "spawn" in str(error); print("right")
stop.set()
""",
}  # fmt: skip


def program(text, threads):
    """Run a program instead of the command, with so many threads; what it prints is judged here."""

    def make(setting, command):
        environment = setting.environment | {"NUMBA_NUM_THREADS": str(threads)}
        done = subprocess.run(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", START + text], env=environment, timeout=120,
            capture_output=True, text=True, start_new_session=True,
        )  # fmt: skip
        if done.returncode or "right" not in done.stdout or "Terminating" in done.stderr:
            raise AssertionError(f"status {done.returncode}: {done.stderr.strip()[-300:]}")
        setting.prefix = ["true"]
        setting.expected = "program"
        yield

    return make


def all_places():
    """Yield every place."""
    for text in ("0", "-1", "nonsense", "", "1.5"):
        yield Place("threads", f"NUMBA_NUM_THREADS={text}", variables(NUMBA_NUM_THREADS=text, close=True), TWO)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        for text in ("0", "999", "nonsense"):
            yield Place("threads", f"{name}={text}", variables(**{name: text}), TWO)
    yield Place("threads", "NUMBA_NUM_THREADS=99", variables(NUMBA_NUM_THREADS="99", close=True), TWO)
    for text in ("nonsense", "tbb", "workqueue", ""):
        layer = variables("either", ("NUMBA_THREADING_LAYER", "threading layer"), NUMBA_THREADING_LAYER=text)
        yield Place("threads", f"NUMBA_THREADING_LAYER={text}", layer, TWO)
    nojit = variables(NUMBA_DISABLE_JIT="1", close=True)
    yield Place("threads", "NUMBA_DISABLE_JIT=1", nojit, ("train_isbi", "evaluate", "train_brats"))

    for text in ("nonsense", "TkAgg", "module://nothing", "QtAgg", "svg", ""):
        yield Place("pictures", f"MPLBACKEND={text}", variables(MPLBACKEND=text))
    yield Place("pictures", "no display", variables(DISPLAY=":77", WAYLAND_DISPLAY="nothing", MPLBACKEND="TkAgg"), TWO)
    settings = {
        "nonsense": b"backend: nonsense\nfont.size: large\nthere is no such thing\n", "no UTF-8": b"# caf\xe9\n",
        "TeX": b"text.usetex: True\n", "another format": b"savefig.format: pdf\nsavefig.bbox: tight\nfigure.dpi: 9\n",
        "a font that is not there": b"font.family: No Such Font\n",
    }  # fmt: skip
    for number, (name, content) in enumerate(settings.items()):
        where = ("cwd", "MPLCONFIGDIR", "MATPLOTLIBRC")[number % 3]
        yield Place("pictures", f"matplotlibrc: {name}", matplotlibrc(content, where), (*TWO, "tables"))
    yield Place("pictures", "MPLCONFIGDIR is a file", file_in_the_way(MPLCONFIGDIR="$ROOM/file"), (*TWO, "tables"))
    yield Place("pictures", "MATPLOTLIBRC is not there", variables(MATPLOTLIBRC="/no/such/file"), ("evaluate",))

    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "TMPDIR", "HOME", "XDG_CONFIG_HOME"):
        where = file_in_the_way(**{name: "$ROOM/file"})
        yield Place("folders", f"{name} is a file", where, ("train_isbi", "predict", "evaluate"))
    nowhere = dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME", "MPLCONFIGDIR"), "/nonexistent")
    yield Place("folders", "HOME, TMPDIR and so on are not there", variables(**nowhere))
    bare = dict.fromkeys(("HOME", "PATH", "USER", "LOGNAME", "SHELL", "LANG", "TERM"))
    yield Place("folders", "an empty environment", variables(**bare))

    for encoding in ("ascii", "cp1252", "utf-16", "latin-1:strict"):
        yield Place("output", f"PYTHONIOENCODING={encoding}", variables(PYTHONIOENCODING=encoding, said=False))
    old = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    yield Place("output", "LC_ALL=C", variables(**old))
    yield Place("output", "LC_ALL=nonsense", variables(LC_ALL="xx_YY.nonsense", PYTHONUTF8="0"), TWO)
    for text in ("0", "-5", "nonsense", "1"):
        yield Place("output", f"COLUMNS={text}", variables(COLUMNS=text, LINES=text, TERM="nonsense"), TWO)
    for name, numbers in {"stdin": [0], "stdout": [1], "stderr": [2], "all three": [0, 1, 2]}.items():
        yield Place("output", f"{name} closed", closed(*numbers))
    for names in (("stdout",), ("stderr",), ("stdout", "stderr")):
        yield Place("output", f"{' and '.join(names)} on a full disk", full(*names))
        yield Place("output", f"{' and '.join(names)} without a reader", reader_gone(*names))

    for flags in ("-O", "-OO", "-P", "-B", "-u", "-X dev", "-X utf8=0", "-bb"):
        yield Place("Python", flags, variables(flags=flags.split()), TWO if flags != "-OO" else ("predict", "evaluate"))
    yield Place("Python", "-W error", variables("either", ("PYTHONWARNINGS",), flags=["-W", "error"]))
    for name, text in {
        "PYTHONHASHSEED": "7", "PYTHONMALLOC": "debug", "PYTHONTRACEMALLOC": "1", "PYTHONSAFEPATH": "1",
        "PYTHONFAULTHANDLER": "1", "PYTHONNODEBUGRANGES": "1", "PYTHONPYCACHEPREFIX": "/nonexistent",
        "PYTHONDONTWRITEBYTECODE": "",
    }.items():  # fmt: skip
        yield Place("Python", f"{name}={text}", variables(**{name: text}), TWO)

    for zone in ("nonsense", "Pacific/Kiritimati", ":/etc/passwd"):
        yield Place("times", f"TZ={zone}", variables(TZ=zone), ("train_isbi",))
    yield Place(
        "times",
        "SOURCE_DATE_EPOCH=nonsense",
        variables("either", ("could not be loaded",), SOURCE_DATE_EPOCH="nonsense"),
        TWO,
    )
    yield Place("times", "data of tomorrow", touched(time.time() + 10**6))
    yield Place("times", "data of 1970", touched(0))
    yield Place("times", "data of 1901", touched(-2_000_000_000), ("train_brats", "predict"))
    for number in (0o077, 0o000, 0o777):
        yield Place("times", f"umask {number:03o}", mask(number), TWO)

    for name, text in PROGRAMS.items():
        for threads in (1, 2):
            yield Place("forks and threads", f"{name}, {threads}", program(text, threads), ("predict",))
