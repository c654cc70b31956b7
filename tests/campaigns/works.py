"""The commands that the campaigns disturb, each with small inputs: `WORKS`."""

import contextlib
import functools
import hashlib
import http.server
import io
import shutil
import threading
import time
import zipfile
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import tifffile
from PIL import Image

import tinyseg as ts
from tests import decathlon_site
from tests.brains import save_network
from tests.campaigns.processes import Process
from tinyseg.data import em_sections
from tinyseg.data.synthetic_brain import write_brains

ISBI = ["--size", 32, "--width", 4, "--batch-size", 4, "--workers", 1, "--schedule", "constant"]
TIMED = ("output.txt", "tables.md", "summary.json", "isbi_curves.png")  # of a study: times are in them
BRATS = ["--size", 32, "--width", 4, "--batch-size", 2, "--steps-per-epoch", 4, "--shares", "2:1:1", "--workers", 1]
DOWNLOAD = """
import os, signal
signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # as the scripts of examples/ do
from tinyseg.commands.script import run_script
from tinyseg.data import download, download_brats
download_brats.CHUNK, download_brats.PAUSE = 64, 0
{call}
"""


class Work(NamedTuple):
    """A command that can be interrupted and that goes on.

    Attributes
    ----------
    name : str
    first : list
        Its words, `Process` takes them. ``{material}`` stands for the folder of the inputs.
    resume : list, optional
        The command that goes on, if it is another one.
    begin : str, optional
        A folder of the material that lies there at the beginning.
    aside : tuple of str
        Names of files whose content may vary.
    weight : int
        How often it comes, compared with others.
    """

    name: str
    first: list
    resume: list | None = None
    begin: str | None = None
    aside: tuple = ()
    weight: int = 4


def fill(work, material):
    """Return the words of the first command and of the one that goes on."""
    return [
        each and [word.format(**material) if isinstance(word, str) and "{" in word else word for word in each]
        for each in (work.first, work.resume)
    ]


def _resumed(script, *rest):
    return [script, "--resume", "run", *rest]


NET, BRAIN_NET = ["--checkpoint", "{folder}/net.safetensors"], ["--checkpoint", "{folder}/brains.safetensors"]
SECTIONS = ["--images", "{folder}/stack.tif", "--labels", "{folder}/labels.tif", "--sections", 6]
CACHE = ["--cache", "slices", "--workers", 1]
STUDY = ["reproduce_tables.py", "--quick", "--tables", 2, "--data", "isbi", "--networks", "sdunet", "--width", 4]
WORKS = [
    Work(
        "train_isbi", ["train_isbi.py", *ISBI, "--epochs", 4, "--out", "run"],
        _resumed("train_isbi.py", "--workers", 1), weight=8,
    ),
    Work(
        "train_isbi --resume", _resumed("train_isbi.py", "--workers", 1, "--epochs", 5),
        _resumed("train_isbi.py", "--workers", 1, "--epochs", 5), begin="resumable", weight=6,
    ),
    Work(
        "train_isbi --overwrite", ["train_isbi.py", *ISBI, "--seed", 1, "--epochs", 3, "--overwrite", "--out", "run"],
        begin="resumable",
    ),
    Work(
        "train_brats", ["train_brats.py", "--data", "{folder}/brains", *BRATS, "--epochs", 3, "--out", "run", *CACHE],
        _resumed("train_brats.py", *CACHE), weight=8,
    ),
    Work(
        "train_brats, synthetic",
        ["train_brats.py", *BRATS, "--steps-per-epoch", 2, "--epochs", 1, "--out", "run", *CACHE],
        _resumed("train_brats.py", *CACHE), weight=1,
    ),
    Work("predict, stacks", ["predict.py", *NET, "{folder}/stack.tif", "{folder}/other.tif", "--out", "masks"]),
    Work("predict, folder", ["predict.py", *NET, "{folder}/pictures", "--out", "masks", "--transforms", "flips"]),
    Work(
        "predict --force", ["predict.py", *NET, "{folder}/pictures", "--out", "masks", "--force"], begin="predicted",
    ),
    Work("predict, NIfTI", ["predict.py", *BRAIN_NET, "{folder}/brains", "--out", "masks", "--probabilities"]),
    Work("evaluate", ["evaluate.py", *NET, *SECTIONS, "--out", "scores/isbi.json"], weight=3),
    Work(
        "evaluate, brains",
        ["evaluate.py", *BRAIN_NET, "--images", "{folder}/brains", "--cases", "all", "--out", "scores.json"], weight=2,
    ),
    Work(
        "reproduce_tables",
        [*STUDY, "--epochs", 3, "--out", "study"],
        aside=TIMED, weight=5,
    ),
    Work(
        "download, sections",
        ["-c", DOWNLOAD.format(
            call="run_script(lambda: download.fetch_isbi('data', '{zip}', registry={registry}), '')",
        )],
        weight=3,
    ),
    Work(
        "download, brains",
        ["-c", DOWNLOAD.format(
            call="run_script(lambda: download_brats.fetch_brain_tumours('data', '{tar}', '{md5}', {size}), '')",
        )],
        weight=3,
    ),
]  # fmt: skip


def make_inputs(folder):
    """Write all inputs into a folder."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, labels = em_sections(num_sections=24, size=64, seed=1)
    tifffile.imwrite(folder / "stack.tif", images, photometric="minisblack")
    tifffile.imwrite(folder / "other.tif", images[:8, ::-1], photometric="minisblack")
    tifffile.imwrite(folder / "labels.tif", np.where(labels, np.uint8(255), np.uint8(0)), photometric="minisblack")
    (folder / "pictures").mkdir()
    for k in range(6):
        Image.fromarray(rng.integers(0, 255, (48, 64), np.uint8)).save(folder / "pictures" / f"{k}.png")
    write_brains(folder / "brains", num_cases=4, shape=(40, 36, 16))
    how = {"scale": [1, 1], "standardize": "section"}
    for seed, name in enumerate(("net", "another")):
        network = ts.models.build("sdunet", width=4, seed=seed)
        ts.checkpoint.save(folder / f"{name}.safetensors", network, preprocessing=how, classes=["cell"])
    save_network(folder / "brains.safetensors")
    with zipfile.ZipFile(folder / "sections.zip", "w") as archive:
        for name in ("train-volume", "train-labels", "test-volume"):
            buffer = io.BytesIO()
            tifffile.imwrite(buffer, rng.integers(0, 255, (4, 128, 128), np.uint8), photometric="minisblack")
            archive.writestr(f"challenge/{name}.tif", buffer.getvalue())
    another = ["--checkpoint", folder / "another.safetensors", folder / "pictures"]
    for name, words in (
        ("resumable", ["train_isbi.py", *ISBI, "--epochs", 2, "--out", "run"]),
        ("predicted", ["predict.py", *another, "--out", "masks"]),
    ):
        (folder / name).mkdir()
        done = Process(words, folder / name)
        if done.wait() != 0:
            raise RuntimeError(f"{words[0]} failed without any disturbance: {done.said}")


class _Slowly:
    """A stream of the server that sends a few bytes at a time."""

    def __init__(self, stream, size):
        self.stream, self.size = stream, size

    def write(self, content):
        for k in range(0, len(content), self.size):
            self.stream.write(content[k : k + self.size])
            time.sleep(0.002)

    def __getattr__(self, name):
        return getattr(self.stream, name)


class _Tar(decathlon_site.Handler):
    def setup(self):
        super().setup()
        self.wfile = _Slowly(self.wfile, 128)

    def handle(self):
        with contextlib.suppress(ConnectionError):  # the command was killed
            super().handle()


class _Zip(http.server.SimpleHTTPRequestHandler):
    def copyfile(self, source, target):
        with contextlib.suppress(ConnectionError):
            _Slowly(target, 1024).write(source.read())

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def material(folder):
    """Make the inputs, and serve what is downloaded; the with-block gets what stands in the words of a command."""
    if not folder.exists():
        try:
            make_inputs(folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    site = SimpleNamespace(
        content=decathlon_site.TAR, asked=[], sent=[], cuts=[], statuses=[], ranges=True,
        most=len(decathlon_site.TAR), shift=0, careless=False, tells_length=True, version=("ETag", '"one"'),
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        ports = []
        for handler in (_Tar, functools.partial(_Zip, directory=folder)):
            server = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
            server.site, server.daemon_threads = site, True
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
            stack.callback(server.shutdown)
            ports.append(server.server_port)
        md5 = hashlib.md5(site.content, usedforsecurity=False).hexdigest()
        yield {
            "folder": folder, "tar": f"http://127.0.0.1:{ports[0]}/Task01.tar", "md5": md5, "size": len(site.content),
            "zip": f"http://127.0.0.1:{ports[1]}/sections.zip",
            "registry": dict.fromkeys(("train-volume.tif", "train-labels.tif", "test-volume.tif")),
        }  # fmt: skip
