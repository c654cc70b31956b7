"""Imports go one way, and no file outgrows its reader."""

import ast
import graphlib
import pathlib

import pytest

import tinyseg

PACKAGE = pathlib.Path(tinyseg.__file__).parent
ROOT = PACKAGE.parent
LAYERS = [  # a module may import from its own layer and from those before it
    {"autograd", "environment", "files", "half"},
    {"arena", "backend", "cublas", "cuda", "recording", "upload"},
    {"gradcheck", "ops"},
    {"nn"},
    {"models", "optim", "optim_numba", "optim_cuda"},
    {
        "checkpoint",
        "graphs",
        "prediction",
        "metrics",
        "isbi_metrics",
        "isbi_metrics_numba",
        "plots",
        "plots_profile",
        "data",
    },
    {"mixed_precision", "profile", "run"},
    {"command_line", "patients", "predictor", "volumes"},
    {"training", "training_graph"},
    {"reproduction"},
    {"teaching"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
FREE_OF_THE_ENGINE = {"data", "metrics", "isbi_metrics", "isbi_metrics_numba", "plots", "plots_profile", "files"}
LONG = {"autograd.py": "the whole engine"}  # files of more than 320 lines, and why each is one idea all the same
FILES = sorted(PACKAGE.rglob("*.py"))


def dotted(path):
    """tinyseg/ops/conv2d.py -> "tinyseg.ops.conv2d"; tinyseg/ops/__init__.py -> "tinyseg.ops"."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {dotted(path): path for path in FILES}


def imports(path):
    """Every absolute module name that a file imports, anywhere in it, with the line."""
    package = dotted(path) if path.name == "__init__.py" else dotted(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*anchor, base]) if base else ".".join(anchor)
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield (name if name in MODULES else base), node.lineno


def layer(module):
    """ "tinyseg.ops.conv2d" -> "ops"; None for the package itself and for other packages."""
    parts = module.split(".")
    return parts[1] if parts[0] == "tinyseg" and len(parts) > 1 else None


def test_every_module_has_a_layer():
    assert {layer(name) for name in MODULES} - {None} - set(RANK) == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_go_one_way(path):
    mine = layer(dotted(path))
    if mine is None:
        pytest.skip("the package itself gathers everything")
    for module, line in imports(path):
        theirs = layer(module)
        assert module != "tinyseg", f"line {line}: `import tinyseg` reaches everything; import the module itself"
        assert theirs is None or RANK[theirs] <= RANK[mine], f"line {line}: {mine} must not import {theirs}"
        assert module.split(".")[0] not in ("tests", "examples", "benchmarks", "arrays", "catalogue"), f"line {line}"
        if mine in FREE_OF_THE_ENGINE:
            assert theirs is None or theirs in FREE_OF_THE_ENGINE, f"line {line}: {mine} must not need {theirs}"


def test_no_module_imports_itself_in_a_circle():
    graph = {
        name: {module for module, _ in imports(path) if module in MODULES and module != name}
        for name, path in MODULES.items()
        if name != "tinyseg" and path.name != "__init__.py"
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, with the circle


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_examples_import_the_library_and_not_each_other(path):
    siblings = {p.stem for p in path.parent.glob("*.py")}
    assert {module.split(".")[0] for module, _ in imports(path)}.isdisjoint(siblings | {"tests"})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_file_fits_into_a_head(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    name = path.relative_to(PACKAGE).as_posix()
    assert lines <= 320 or name in LONG, f"{lines} lines: is it two ideas? If not, say why in LONG."
    assert lines <= 500


def test_the_check_can_see(tmp_path, monkeypatch):
    """Relative imports, imports inside functions, and `from package import module` are all seen."""
    path = PACKAGE / "ops" / "imaginary.py"
    lines = (
        "from ..nn import layers",
        "from tinyseg import optim",
        "from . import loss",
        "def f(): import tinyseg.training",
    )
    monkeypatch.setattr(pathlib.Path, "read_text", lambda self, **options: "\n".join(lines))
    assert [module for module, _ in imports(path)] == [
        "tinyseg.nn.layers",
        "tinyseg.optim",
        "tinyseg.ops.loss",
        "tinyseg.training",
    ]
