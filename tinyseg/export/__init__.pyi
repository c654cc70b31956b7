"""What `tinyseg.export` gives, and where it is."""

from .bioimageio.package import run_bioimageio, write_bioimageio
from .c.program import run_c, write_c
from .calibration import quantize
from .describing import describe
from .int8_file import load_int8, save_int8
from .onnx.file import metadata_of, write_onnx
from .onnx.runtime import OnnxFile, run_onnx
from .page.html import write_html
from .page.run import run_html

__all__ = [
    "OnnxFile",
    "describe",
    "load_int8",
    "metadata_of",
    "quantize",
    "run_bioimageio",
    "run_c",
    "run_html",
    "run_onnx",
    "save_int8",
    "write_bioimageio",
    "write_c",
    "write_html",
    "write_onnx",
]
