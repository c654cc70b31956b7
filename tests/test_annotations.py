"""Public functions say the types of their parameters and of what they return, and the types are those that come."""

import importlib
import inspect
import pathlib
import subprocess
import sys

import pytest
import user_program

import tinyseg

ROOT = pathlib.Path(__file__).resolve().parents[1]
# What a user reaches: the names in __all__, or else what the module itself defines under a public name.
PUBLIC = (
    "tinyseg", "tinyseg.autograd", "tinyseg.backend", "tinyseg.ops", "tinyseg.ops.gradcheck", "tinyseg.nn",
    "tinyseg.models", "tinyseg.models.checkpoint", "tinyseg.optim", "tinyseg.data", "tinyseg.data.isbi",
    "tinyseg.data.brain", "tinyseg.data.class_masks", "tinyseg.data.classes", "tinyseg.data.resample",
    "tinyseg.data.slices", "tinyseg.data.slice_sampler", "tinyseg.data.split", "tinyseg.data.synthetic",
    "tinyseg.data.synthetic_brain", "tinyseg.metrics", "tinyseg.metrics.instances", "tinyseg.metrics.isbi",
    "tinyseg.metrics.patients", "tinyseg.prediction", "tinyseg.prediction.evaluation", "tinyseg.prediction.instances",
    "tinyseg.prediction.components", "tinyseg.prediction.predictor", "tinyseg.training", "tinyseg.training.averaging",
    "tinyseg.training.step", "tinyseg.training.losses", "tinyseg.training.microbatches", "tinyseg.training.parallel",
    "tinyseg.export", "tinyseg.export.calibration", "tinyseg.export.describing",
    "tinyseg.export.int8", "tinyseg.export.int8_file", "tinyseg.export.network",
    "tinyseg.report.class_plots", "tinyseg.report.colours", "tinyseg.report.learning_curves", "tinyseg.report.plots",
    "tinyseg.report.profile",
    "tinyseg.learn.teaching", "tinyseg.learn.graph_picture", "tinyseg.learn.answers", "tinyseg.learn.course",
)  # fmt: skip
CALLED = ("__init__", "__call__", "__len__", "__getitem__", "__enter__")  # methods of such names are public, too
HERE = ("count_foreground",)  # helpers without an underscore that the modules above keep to themselves


def public_names(module):
    """Return the public names of a module and what they stand for, without modules."""
    own = [name for name, found in vars(module).items() if getattr(found, "__module__", None) == module.__name__]
    names = getattr(module, "__all__", None) or [name for name in own if not name.startswith("_") and name not in HERE]
    found = {name: getattr(module, name) for name in names}
    return {name: each for name, each in found.items() if callable(each)}


def functions_of(name, found):
    """Yield the functions behind a public name: itself, or the public methods and properties that a class defines."""
    if not inspect.isclass(found):
        yield name, inspect.unwrap(found)
        return
    for cls in found.__mro__:  # the base classes are public if the class is
        for attribute, value in vars(cls).items() if cls.__module__.startswith("tinyseg") else ():
            value = getattr(value, "fget", None) or getattr(value, "__func__", value)
            own = inspect.isfunction(value) and value.__module__ == cls.__module__  # not what Python made, as _replace
            if own and (not attribute.startswith("_") or attribute in CALLED):
                yield f"{name}.{attribute}", value


def what_lacks(name, function):
    """Return what has no annotation: "name(parameter)" and "name() ->"."""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    if "." in name and parameters and parameters[0].name in ("self", "cls"):
        parameters = parameters[1:]
    lacking = [f"{name}({p.name})" for p in parameters if p.annotation is p.empty]
    return lacking + ([f"{name}() ->"] if signature.return_annotation is inspect.Signature.empty else [])


@pytest.mark.parametrize("module", PUBLIC)
def test_public_functions_have_annotations(module):
    found = public_names(importlib.import_module(module))
    functions = [pair for name, each in found.items() for pair in functions_of(name, each)]
    assert functions
    assert [lack for pair in functions for lack in what_lacks(*pair)] == []


def test_the_check_can_see():
    class Some:
        def __init__(self, a):
            pass

        @property
        def size(self):
            return 0

        @classmethod
        def load(cls, path: str, *more) -> "Some":
            return cls(path)

        def _hidden(self, a):
            pass

    Some.__module__ = Some.__init__.__module__ = Some.size.fget.__module__ = Some.load.__func__.__module__ = "tinyseg.x"
    lacking = [lack for pair in functions_of("Some", Some) for lack in what_lacks(*pair)]
    assert lacking == ["Some.__init__(a)", "Some.__init__() ->", "Some.size() ->", "Some.load(more)"]

    def function(a: int, b):
        pass

    assert [what_lacks(*pair) for pair in functions_of("function", function)] == [["function(b)", "function() ->"]]


def test_the_stub_of_the_package_lists_its_names():
    """Editors read __init__.pyi; Python does, too, when a name is asked for."""
    assert (pathlib.Path(tinyseg.__file__).parent / "py.typed").is_file()
    assert [name for name in tinyseg.__all__ if not hasattr(tinyseg, name)] == []


def test_a_program_whose_types_are_checked_runs(tmp_path):
    user_program.main(tmp_path)


def mypy(*words, cwd=ROOT):
    pytest.importorskip("mypy", reason="a part of the extra dev")
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=250)


def test_a_type_checker_sees_a_mistake(tmp_path):
    program = tmp_path / "mistakes.py"
    program.write_text(
        "import tinyseg as ts\n"
        "model = ts.models.build('unet')\n"
        "model.breadth\n"  # line 3
        "ts.ops.upsample(model(ts.Tensor(1.0)), mode='linear')\n"  # 4
        "ts.metrics.dice(True, False) + 'text'\n"  # 5
        "len(ts.checkpoint.load(3))\n"  # 6
    )
    done = mypy("--cache-dir", tmp_path / "cache", program)
    assert {line.split(":")[1] for line in done.stdout.splitlines() if ": error: " in line} == {"3", "4", "5", "6"}
