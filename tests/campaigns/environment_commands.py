"""What the campaign of `environment` runs: the commands, the data that they are given, and a setting to run them in."""

import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys
from dataclasses import dataclass, field

import numpy as np
import safetensors.numpy
import tifffile
from PIL import Image

from tests.campaigns.processes import ROOT

THREADS = dict.fromkeys(("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
LEFT_OUT = ("PYTHON", "MPL", "NUMBA_", "LC_", "LANG", "DISPLAY", "WAYLAND")
SECONDS = 240  # a command that takes longer hangs


@dataclass
class Setting:
    """How a command is run; a place changes some of it."""

    room: pathlib.Path  # an empty folder for this case alone
    out: str | bytes  # what is given to --out
    cwd: str | bytes
    environment: dict
    made: str | None = None  # where what is made is found, if `out` does not say it
    package: pathlib.Path = ROOT  # where examples/ and tinyseg/ are
    prefix: list = field(default_factory=list)  # such as ["nice"]
    flags: list = field(default_factory=list)  # of Python
    before: object = None  # called in the process before the command starts
    streams: dict = field(default_factory=dict)  # stdin, stdout, stderr of subprocess.Popen
    expected: str = "works"  # or "refused", or "either"
    words: tuple = ()  # one of these is in the sentence of a refusal
    close: bool = False  # whether numbers may differ a little
    said: bool = True  # whether what the command prints can be seen
    killed: bool = False  # whether the system may end the process


class Base:
    """The data that commands are given, and what came of each in an ordinary place; `commands` are their names."""

    def __init__(self, folder, commands):
        from tinyseg.data import em_sections
        from tinyseg.data.synthetic_brain import write_brains

        self.folder, self.results = folder, {}
        self.isbi, self.inputs, self.study = folder / "isbi", folder / "inputs", folder / "study"
        self.checkpoint = folder / "network.safetensors"
        self.isbi.mkdir()
        self.inputs.mkdir()
        images, labels = em_sections(num_sections=4, size=64)
        for name, stack in (("volume", images), ("labels", labels.astype(np.uint8) * 255)):
            tifffile.imwrite(self.isbi / f"train-{name}.tif", stack[:, :32, :32], photometric="minisblack")
        tifffile.imwrite(self.inputs / "stack.tif", images[:2, :48, :40], photometric="minisblack")
        Image.fromarray(images[2, :40, :56]).save(self.inputs / "section.png")
        self.brains = write_brains(folder / "brains", num_cases=3, shape=(36, 40, 16))
        for command in map(COMMANDS.get, commands):
            setting = self.ordinary(folder / "ordinary" / command.name)
            done = run(command, setting, self)
            if done.status:
                sys.exit(f"{command.name} does not work in an ordinary place: {done.text}")
            self.results[command.name] = command.result(setting.out)
            if command.name == "train_isbi":
                shutil.copy(pathlib.Path(setting.out) / "best.safetensors", self.checkpoint)
            if command.from_study:
                shutil.copytree(setting.out, self.study)

    def ordinary(self, room):
        """Return the setting of an ordinary place."""
        room.mkdir(parents=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(LEFT_OUT)}
        environment |= THREADS | {"LANG": "C.UTF-8", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        return Setting(room, str(room / "out"), str(room), environment)


# ----- commands ----------------------------------------------------------------------
@dataclass
class Command:
    """A command; `arguments(base)` are its options but --out, `result(out)` what it has made."""

    name: str
    arguments: object
    result: object
    pictures: tuple = ()  # that it draws
    is_file: bool = False  # whether --out is a file
    from_study: bool = False  # whether --out holds a finished study


def of_training(out):
    out = pathlib.Path(os.fsdecode(out))
    weights = safetensors.numpy.load_file(out / "best.safetensors")
    history = list(csv.DictReader((out / "log.csv").open()))
    loss = float(json.loads((out / "summary.json").read_text())["steps"]), float(history[-1]["val_loss"])
    return {f"weights {k}": v for k, v in weights.items()} | {"scores": np.array(loss)}


def of_prediction(out):
    out = pathlib.Path(os.fsdecode(out))
    json.loads((out / "predictions.json").read_text())
    return {"scores": tifffile.imread(out / "stack_mask.tif"), "png": np.array(Image.open(out / "section_mask.png"))}


def of_evaluation(out):
    out = pathlib.Path(os.fsdecode(out))
    return {"scores": np.array(list(json.loads(out.read_text())["metrics"].values()))}


def of_study(out):
    out = pathlib.Path(os.fsdecode(out))
    assert "Table 2" in (out / "tables.md").read_text(encoding="utf-8")
    figures = json.loads((out / "results.json").read_text())["isbi"]["rows"]["sdunet"]["figures"]
    return {"scores": np.array([figures[key]["mean"] for key in ("loss", "dice", "v_rand")])}


CPU = ["--device", "cpu"]
SMALL = ["--size", 32, "--width", 4, "--epochs", 1, "--batch-size", 2, *CPU]
TABLE = ["reproduce_tables.py", "--quick", "--tables", 2, "--networks", "sdunet", "--width", 4, "--epochs", 1, *CPU]


def train_isbi(base):
    return ["train_isbi.py", "--data", base.isbi, "--val-sections", 1, *SMALL]


def train_brats(base):
    cases = ["--data", base.brains, "--shares", "1:1:1"]
    return ["train_brats.py", *cases, "--steps-per-epoch", 1, *SMALL, "--cache", base.folder / "slices"]


def predict(base):
    return ["predict.py", "--checkpoint", base.checkpoint, base.inputs, *CPU]


def evaluate(base):
    return ["evaluate.py", "--checkpoint", base.checkpoint, "--images", base.isbi, "--worst", 1, *CPU]


def tables(base):
    return [*TABLE, "--data", base.isbi, "--val-sections", 1]


COMMANDS = {
    command.name: command
    for command in (
        Command("train_isbi", train_isbi, of_training, ("curves.png", "predictions.png")),
        Command("train_brats", train_brats, of_training, ("curves.png", "predictions.png")),
        Command("predict", predict, of_prediction),
        Command("evaluate", evaluate, of_evaluation, ("scores.worst.png",), is_file=True),
        Command("tables", tables, of_study, ("isbi_curves.png",), from_study=True),
        Command("study", lambda base: [*TABLE, "--data", "isbi"], of_study, ("isbi_curves.png",)),
    )
}
QUICK = ("train_isbi", "train_brats", "predict", "evaluate", "tables")  # all but the study, which takes long


@dataclass
class Done:
    """How a command ended."""

    status: int
    text: str  # all that it printed

    @property
    def sentence(self):
        """The last line, where a progress bar does not count."""
        lines = [line for line in self.text.replace("\r", "\n").split("\n") if line.strip()]
        return lines[-1].strip() if lines else ""


def run(command, setting, base):
    """Run a command in a setting."""
    words = command.arguments(base)
    out = [] if "--resume" in words else [b"--out", os.fsencode(setting.out)]
    line = [*setting.prefix, sys.executable, *setting.flags, setting.package / "examples" / words[0], *words[1:]]
    environment = {key: value for key, value in setting.environment.items() if value is not None}
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | setting.streams
    process = subprocess.Popen(
        [*(os.fsencode(str(word)) for word in line), *out], env=environment, cwd=setting.cwd, preexec_fn=setting.before,
        start_new_session=True, **streams,
    )  # fmt: skip
    try:
        said = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        return Done(-9, f"it hangs: no end after {SECONDS} s")
    return Done(process.returncode, b"".join(part or b"" for part in said).decode(errors="replace"))
