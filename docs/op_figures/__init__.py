"""One figure for each page of docs/ops: `python docs/op_figures` writes them all to docs/images/ops.

A function here bears the name of its page; its docstring says what the figure shows. Numbers in a figure are computed
by tinyseg's ops when it is drawn.
"""

import pathlib

from . import convolutions, norms, pixels, values
from .drawing import svg

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "images" / "ops"
FIGURES = {
    draw.__name__: draw
    for draw in (
        convolutions.depthwise_conv, convolutions.pointwise_conv, convolutions.separable_conv, convolutions.conv2d,
        convolutions.conv_transpose, convolutions.winograd, norms.weight_standardization, norms.batch_norm,
        norms.group_norm, values.activation, values.cast, pixels.pool, pixels.upsample, values.dropout, pixels.shape,
        values.arithmetic, values.loss,
    )
}  # fmt: skip


def write(folder=FOLDER):
    """Draw every figure and write it to ``folder``, as <page>.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    for page, draw in FIGURES.items():
        (folder / f"{page}.svg").write_text(svg(draw), encoding="utf-8")
