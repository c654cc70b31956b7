"""The files of a study, and what must be in them: results.json, and the scores and the log of every run."""

import csv
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
    """What the study needs of the scores of evaluate.py."""

    metrics: dict[str, Number]
    sections: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET
    patients: list[Patient] | msgspec.UnsetType = msgspec.UNSET


def read(path, shape, what):
    """Read a JSON file; return it as dicts and lists, as it is, if it has the shape (else a ValueError)."""
    content = read_json(path, dict[str, Any], what)
    check_shape(content, shape, f"{path} is not {what}")
    return content


def read_log(path):
    """Read log.csv: a dict of numbers for each epoch; an empty cell and NaN become None.

    Without rows, or with a cell that is no number, it is a ValueError.
    """
    with open(path, newline="", encoding="utf-8") as file:
        try:
            rows = [{key: _number(value) for key, value in row.items()} for row in csv.DictReader(file)]
        except (ValueError, TypeError, csv.Error) as error:
            raise ValueError(
                f"{path} is not the log of a training: {error}. Delete its folder to train again."
            ) from None
    if not rows:
        raise ValueError(f"{path} has no epochs: delete its folder to train again.")
    return rows


def _number(text):
    value = float(text or math.nan)
    return None if math.isnan(value) else value
