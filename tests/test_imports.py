"""The rules of the house: who may import whom, what `fast/` may be, and how long a file may get."""

import ast
import graphlib
import pathlib

import pytest

import tinyseg

PACKAGE = pathlib.Path(tinyseg.__file__).parent
ROOT = PACKAGE.parent
# A room may import from the rooms that it names, and from those that these may import from.
ROOMS = {
    "autograd": [],
    "backend": ["autograd"],
    "ops": ["backend"],
    "nn": ["ops"],
    "models": ["nn", "data"],
    "optim": ["ops"],
    "data": [],
    "metrics": ["backend"],
    "isbi_metrics": ["metrics"],
    "prediction": ["models", "metrics", "report"],
    "report": ["models", "metrics", "optim"],
    "training": ["prediction", "optim"],
    "learn": ["training"],
    "export": ["training"],
    "commands": ["export", "learn"],
    "fast": ["training"],
}
# Within a room that several rules are about, a file may be held to a stricter one.
FREE_OF_THE_ENGINE = ("data", "metrics", "report/plots.py", "report/profile/picture.py")
LONG = {}  # files of more than 320 lines, and why each is one idea all the same
FILES = sorted(PACKAGE.rglob("*.py"))


def dotted(path):
    """tinyseg/ops/conv2d.py -> "tinyseg.ops.conv2d"; tinyseg/ops/__init__.py -> "tinyseg.ops"."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def short(path):
    return path.relative_to(PACKAGE).as_posix()


MODULES = {dotted(path): path for path in FILES}
every_file = pytest.mark.parametrize("path", FILES, ids=short)


def nodes_of(tree, types):
    """Every node below a node; if `types` is False, without those that only a type checker reads."""
    for node in ast.iter_child_nodes(tree):
        if types or not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from nodes_of(node, types)


def imports(path, types=True):
    """Every absolute module name that a file imports, anywhere in it, with the line."""
    package = dotted(path) if path.name == "__init__.py" else dotted(path).rpartition(".")[0]
    for node in nodes_of(ast.parse(path.read_text(encoding="utf-8")), types):
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


def room(module):
    """ "tinyseg.ops.conv2d" -> "ops"; None for the package itself, which is a command too, and for other packages."""
    parts = module.split(".")
    return parts[1] if parts[0] == "tinyseg" and len(parts) > 1 and parts[1] != "__main__" else None


def reach(name):
    """All rooms that a room may import from."""
    found = {name}
    for other in ROOMS[name]:
        found |= reach(other)
    return found


def test_the_root_has_at_most_fifteen_rooms_and_the_door():
    found = {room(name) for name in MODULES} - {None}
    assert found == set(ROOMS)
    assert len(found - {"isbi_metrics"}) <= 15


@every_file
def test_imports_go_one_way(path):
    mine = room(dotted(path))
    if mine is None:
        pytest.skip("the package itself gathers everything")
    for module, line in imports(path):
        theirs = room(module)
        # A command, and a solution to an exercise, reads as a user's script does; elsewhere `import tinyseg` would
        # reach everything.
        like_a_script = short(path).startswith(("commands/", "learn/solutions/"))
        assert module != "tinyseg" or like_a_script, f"line {line}: import the module itself"
        assert theirs is None or theirs in reach(mine), f"line {line}: {mine} must not import {theirs}"
        outside = ("tests", "examples", "benchmarks", "reproduction", "arrays", "catalogue")
        assert module.split(".")[0] not in outside, f"line {line}"
        if short(path).startswith(FREE_OF_THE_ENGINE):
            free = {"data", "metrics", "backend", "report"}
            assert theirs is None or theirs in free, f"line {line}: {short(path)} must not need {theirs}"


@every_file
def test_nothing_outside_fast_imports_from_it(path):
    """The dispatcher imports by name: ``backend.fast("cpu.arena")``."""
    if room(dotted(path)) != "fast":
        assert [line for module, line in imports(path) if room(module) == "fast"] == []
        strings = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
        modules = [s for s in strings if isinstance(s, str) and "\n" not in s and s.startswith("tinyseg.fast.")]
        # The package's own file lists where modules have moved to; it imports them when somebody asks for one. In the
        # course a student's file takes the place of a kernel.
        assert modules == [] or short(path) in ("backend/dispatch.py", "__init__.py", "learn/course/lessons.py")


@every_file
def test_cpu_and_gpu_do_not_know_each_other(path):
    if short(path).startswith(("fast/cpu/", "fast/gpu/")):
        other = "tinyseg.fast.gpu" if short(path).startswith("fast/cpu/") else "tinyseg.fast.cpu"
        assert [line for module, line in imports(path) if module.startswith(other)] == []


def test_no_module_imports_itself_in_a_circle():
    graph = {
        name: {module for module, _ in imports(path, types=False) if module in MODULES and module != name}
        for name, path in MODULES.items()
        if name != "tinyseg" and path.name != "__init__.py"
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, with the circle


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_examples_import_the_library_and_not_each_other(path):
    siblings = {p.stem for p in path.parent.glob("*.py")} - {"reproduce_tables"}
    assert {module.split(".")[0] for module, _ in imports(path)}.isdisjoint(siblings | {"tests"})


@every_file
def test_a_file_fits_into_a_head(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 320 or short(path) in LONG, f"{lines} lines: is it two ideas? If not, say why in LONG."
    if short(path) == "autograd/engine.py":
        assert lines <= 270


@every_file
def test_text_is_read_and_written_in_an_encoding_that_is_said(path):
    """Without one, Python takes that of the system: on Windows often not UTF-8."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or any(word.arg == "encoding" for word in node.keywords):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        in_file = isinstance(node.func, ast.Attribute) and name in ("read_text", "write_text")
        modes = [word.value for word in node.keywords if word.arg == "mode"] + node.args[1:2]
        opened = isinstance(node.func, ast.Name) and name == "open" and not (modes and "b" in ast.unparse(modes[0]))
        assert not opened and (not in_file or "ome.read_text" in ast.unparse(node)), f"line {node.lineno}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "ops").glob("*.py")), ids=short)
def test_the_maths_knows_no_graphs_and_no_kernels(path):
    text = path.read_text(encoding="utf-8")
    for word in ("recording(", "numba", "cupy.", "CUDA graph"):
        assert word not in text, f"{word!r} belongs into tinyseg/fast"


def test_the_engine_knows_no_float16_and_no_ops():
    for path in (PACKAGE / "autograd").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "float16" not in text and "half" not in text
        assert {room(module) for module, _ in imports(path)} <= {"autograd", None}


def test_the_check_can_see(monkeypatch):
    """Relative imports, imports inside functions, and `from package import module` are all seen."""
    path = PACKAGE / "ops" / "imaginary.py"
    lines = (
        "from ..nn import layers",
        "from tinyseg import optim",
        "from . import loss",
        "def f(): import tinyseg.training.loop",
        "if TYPE_CHECKING: import tinyseg.fast",
    )
    monkeypatch.setattr(pathlib.Path, "read_text", lambda self, **options: "\n".join(lines))
    seen = ["tinyseg.nn.layers", "tinyseg.optim", "tinyseg.ops.loss", "tinyseg.training.loop", "tinyseg.fast"]
    assert [module for module, _ in imports(path)] == seen
    assert [module for module, _ in imports(path, types=False)] == seen[:-1]
    with pytest.raises(AssertionError, match="ops must not import nn"):
        test_imports_go_one_way(path)
