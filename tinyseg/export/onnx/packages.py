"""Packages that only some of the exports need, loaded when they are needed."""

import importlib
from types import ModuleType


def load_package(name: str, purpose: str) -> ModuleType:
    """Import a package of the extra "export".

    Parameters
    ----------
    name : str
        Such as "onnx" or "onnxruntime.quantization".
    purpose : str
        How the sentence begins if it is not there: "An ONNX file is written".

    Returns
    -------
    module

    Raises
    ------
    RuntimeError
        It is not installed, or cannot be loaded.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise RuntimeError(
            f"{purpose} with the package {package}, which cannot be loaded ({error}): pip install 'tinyseg[export]'."
        ) from error
