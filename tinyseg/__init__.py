"""tinyseg: U-Net and SD-UNet from scratch, on NumPy or CuPy arrays.

A small autograd engine (`autograd`), ops with hand-written backward passes (`ops`), layers (`nn`), the six networks of
Gadosey et al. 2020 (`models`), optimizers (`optim`), data (`data`), a training loop (`training`), masks for images of
any size (`prediction`), scores (`metrics`), and networks for others (`export`).
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys

import lazy_loader

__version__ = "0.2.0"

if importlib.util.find_spec("tinyseg.fast"):  # thread pools are prepared before NumPy is loaded
    importlib.import_module("tinyseg.fast.cpu.threads").set_environment()

# What __init__.pyi lists is imported when it is used, so that `tinyseg --help` need not load it all.
_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# Modules that have moved can still be imported by these names.
MOVED = {
    "arena": ["tinyseg.fast.cpu.arena"],
    "checkpoint": ["tinyseg.models.checkpoint"],
    "command_line": [
        "tinyseg.commands.options",
        "tinyseg.commands.settings",
        "tinyseg.commands.script",
        "tinyseg.commands.tables",
    ],  # fmt: skip
    "cublas": ["tinyseg.fast.gpu.graphs.products"],
    "cuda": ["tinyseg.fast.gpu.launch"],
    "files": ["tinyseg.data.files", "tinyseg.data.writing", "tinyseg.data.json_files"],
    "gradcheck": ["tinyseg.ops.gradcheck"],
    "graphs": ["tinyseg.fast.gpu.graphs", "tinyseg.fast.gpu.graphs.graph"],
    "half": ["tinyseg.backend.half"],
    "mixed_precision": ["tinyseg.fast.gpu.mixed_precision"],
    "patients": ["tinyseg.metrics.patients", "tinyseg.training.losses", "tinyseg.prediction.evaluation"],
    "plots": ["tinyseg.report.plots"],
    "plots_profile": ["tinyseg.report.profile.picture"],
    "predictor": ["tinyseg.prediction.predictor"],
    "profile": ["tinyseg.report.profile"],
    "reproduction": ["reproduction"],  # in a clone
    "recording": ["tinyseg.fast.gpu.graphs.recording"],
    "run": ["tinyseg.training.run", "tinyseg.training.interruption"],
    "teaching": ["tinyseg.learn.teaching", "tinyseg.learn.graph_picture"],
    "training_graph": ["tinyseg.fast.gpu.graphs.training_step"],
    "upload": ["tinyseg.fast.gpu.upload"],
    "volumes": ["tinyseg.prediction.volumes"],
}


def _rooms(name):
    """Return the modules that a name stands for; none if it is not one of MOVED, or of a package of MOVED."""
    package, _, rest = name.partition(".")
    module, _, inside = rest.partition(".")
    rooms = MOVED.get(module, []) if package == __name__ else []
    if inside:
        return [f"{rooms[0]}.{inside}"] if len(rooms) == 1 else []
    return rooms


class _Doors(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the modules of MOVED from where they are now."""

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if _rooms(name) else None

    def exec_module(self, module):
        rooms = [importlib.import_module(room) for room in _rooms(module.__name__)]
        if len(rooms) == 1:
            sys.modules[module.__name__] = rooms[0]
        else:
            vars(module).update({k: v for room in rooms for k, v in vars(room).items() if not k.startswith("__")})


sys.meta_path.insert(0, _Doors())  # before the files: a module of a package that has moved is not loaded twice


def __getattr__(name):
    if name in MOVED:
        try:
            return importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            raise AttributeError(f"tinyseg.{name} is not here: {error}") from error
    if name in __all__:
        return _load(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
