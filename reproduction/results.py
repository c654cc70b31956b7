"""The files of a study, and what must be in them: results.json, and the scores and the log of every run."""

import csv
import io
import math
from typing import Any

import msgspec

from reproduction import paper
from tinyseg.data.json_files import check_shape, read_json

Number = int | float | None


class Cost(msgspec.Struct):
    """What a network costs."""

    parameters: int
    multiply_adds: int
    milliseconds: float


class Costs(msgspec.Struct):
    """What `costs.measure_costs` returns."""

    networks: dict[str, Cost]
    device: str

    def __post_init__(self):
        missing = [name for name in paper.ROWS if name not in self.networks]
        if missing:
            raise ValueError(f"there are no costs of {', '.join(missing)}")


class Spread(msgspec.Struct):
    """What `study.spread` returns."""

    mean: float | None
    std: float | None
    values: list[Number]


class Row(msgspec.Struct):
    """A network in a table."""

    title: str
    model: str
    figures: dict[str, Spread]
    failed: list[dict[str, Any]]


class Study(msgspec.Struct):
    """The rows of a table, and how they were made."""

    rows: dict[str, Row]
    command: str
    seeds: int


class Results(msgspec.Struct):
    """results.json: a part for each table that there is."""

    costs: Costs | msgspec.UnsetType = msgspec.UNSET
    isbi: Study | msgspec.UnsetType = msgspec.UNSET
    brats: Study | msgspec.UnsetType = msgspec.UNSET


class Patient(msgspec.Struct, rename={"whole_tumour": "whole tumour"}):
    """A patient in the scores of evaluate.py."""

    name: str
    tumour_mm3: float
    whole_tumour: float | None


class Scores(msgspec.Struct):
    """The scores of evaluate.py, of whatever; the study adds the SHA-1 of the weights that they are of."""

    metrics: dict[str, Number]
    sections: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET
    patients: list[Patient] | msgspec.UnsetType = msgspec.UNSET
    weights: str | msgspec.UnsetType = msgspec.UNSET


class Section(msgspec.Struct):
    """A section in the scores of evaluate.py."""

    v_rand: Number


class SectionMetrics(msgspec.Struct):
    """The scores of all sections that go into Table 2."""

    accuracy: Number
    dice: Number
    iou: Number
    mean_iou: Number
    membrane_iou: Number
    v_rand: Number
    v_info: Number


class SectionScores(msgspec.Struct):
    """What the study needs of the scores of sections."""

    metrics: SectionMetrics
    sections: list[Section]


class TumourMetrics(msgspec.Struct, rename={"whole_tumour": "whole tumour", "tumour_core": "tumour core"}):
    """The scores of all patients that go into Table 3; labels that tell less have no core and nothing enhancing."""

    accuracy: Number
    dice: Number
    whole_tumour: Number
    tumour_core: Number | msgspec.UnsetType = msgspec.UNSET
    enhancing: Number | msgspec.UnsetType = msgspec.UNSET


class TumourScores(msgspec.Struct):
    """What the study needs of the scores of brain tumours."""

    metrics: TumourMetrics
    patients: list[Patient]


SCORES = {"isbi": SectionScores, "brats": TumourScores}  # by the kind of data
METRICS = {"isbi": SectionMetrics, "brats": TumourMetrics}


class Summary(msgspec.Struct):
    """What every summary of a finished training has."""

    steps: int
    best_epoch: int


def metrics_of(kind):
    """Return the names of the metrics in the scores of evaluate.py that go into the table of a kind of data."""
    return [field.encode_name for field in msgspec.structs.fields(METRICS[kind])]


def read(path, shape, what, advice=""):
    """Read a JSON file; return it as dicts and lists, as it is, if it has the shape.

    Else it is a ValueError that ends in `advice`, a sentence that begins with a space.
    """
    try:
        content = read_json(path, dict[str, Any], what)
        check_shape(content, shape, f"{path} is not {what}")
    except ValueError as error:
        raise ValueError(f"{error}{advice}") from None
    return content


TRAIN_AGAIN = " Delete its folder to train again."
# Columns of the log that tables and figures are made of.
COLUMNS = ("epoch", "step", "train_loss", "val_loss", "val_dice", "seconds_per_step")


def read_log(path):
    """Read log.csv: a dict of numbers for each epoch; an empty cell and NaN become None.

    It is a ValueError if the file is not there or was cut, if an epoch or one of `COLUMNS` is missing, or if a cell is
    no number.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        lines = csv.DictReader(io.StringIO(text, newline=""))
        table, columns = list(lines), lines.fieldnames or ()
        if table and not set(COLUMNS).issubset(columns):
            raise ValueError(f"it has no column {', '.join(name for name in COLUMNS if name not in columns)}")
        if any(None in row or None in row.values() for row in table):
            raise ValueError("a line has more or fewer cells than the first")
        rows = [{key: _number(value) for key, value in row.items()} for row in table]
        if not text.endswith("\n"):
            raise ValueError("its last line was cut")
        if [row["epoch"] for row in rows] != list(range(1, len(rows) + 1)) or None in [row["step"] for row in rows]:
            raise ValueError(f"expected the epochs 1 to {len(rows)} with their steps, one a line")
    except FileNotFoundError:
        raise ValueError(f"{path}, the log of a training, is not there.{TRAIN_AGAIN}") from None
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} is not the log of a training: {error}.{TRAIN_AGAIN}") from None
    if not rows:
        raise ValueError(f"{path} has no epochs: delete its folder to train again.")
    return rows


def _number(text):
    value = float(text or math.nan)
    return None if math.isnan(value) else value
