"""What `tinyseg.export` gives, and where it is."""

from .bioimageio.package import write_bioimageio
from .c.program import write_c
from .network import describe
from .onnx.file import metadata_of, write_onnx
from .onnx.int8 import write_onnx_int8
from .onnx.runtime import OnnxFile
from .page.html import write_html

__all__ = [
    "OnnxFile",
    "describe",
    "metadata_of",
    "write_bioimageio",
    "write_c",
    "write_html",
    "write_onnx",
    "write_onnx_int8",
]
