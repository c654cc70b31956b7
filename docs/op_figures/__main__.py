"""Writes the figures of docs/ops: `python docs/op_figures`."""

import pathlib
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[folders]) for folders in (1, 2)]
import op_figures  # noqa: E402

op_figures.write()
