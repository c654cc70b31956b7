"""The stand-in for CuPy refuses what CuPy refuses, and has nothing that CuPy has not."""

import ast
import pathlib
import re

import fake_cupy
import numpy as np
import pytest

import tinyseg

SOURCES = pathlib.Path(tinyseg.__file__).parent


def test_the_stand_in_refuses_what_cupy_refuses():
    a, b = fake_cupy.asarray(np.arange(6.0).reshape(2, 3)), np.ones((2, 3))
    for f in (
        lambda: np.asarray(a),
        lambda: a + b,
        lambda: b + a,
        lambda: np.add(a, b),
        lambda: fake_cupy.maximum(a, b),
        lambda: fake_cupy.concatenate([a, b]),
        lambda: a @ b.T,
        lambda: a[np.array([0, 1])],
        lambda: a.__setitem__(..., b),
        lambda: a.__iadd__(b),
        lambda: b.__iadd__(a),
        lambda: fake_cupy.where(a > 1, a, b),
    ):
        with pytest.raises(TypeError, match="Unsupported type|Implicit conversion"):
            f()
    assert np.full_like(a, 2.0, shape=()).shape == (2, 3)
    assert type(a.sum()) is fake_cupy.ndarray and type(np.exp(a)) is fake_cupy.ndarray
    assert type(2 * a) is type(np.float64(2) * a) is type(np.ones_like(a)) is fake_cupy.ndarray
    assert a.base is None and a[0].base is not None


def test_the_stand_in_has_nothing_that_cupy_has_not():
    cupy = pytest.importorskip("cupy", exc_type=ImportError)
    others = ["asarray", "asnumpy", "copyto", "get_array_module", *(n for n in vars(fake_cupy) if n.endswith("_like"))]
    assert [n for n in fake_cupy.FUNCTIONS + fake_cupy.SAME + others if not hasattr(cupy, n)] == []
    ours = {n for n in vars(fake_cupy.ndarray) if n not in ("_host", "__dict__", "__weakref__")}
    assert ours - set(dir(cupy.ndarray)) == set()
    assert set(vars(fake_cupy.cuda)) - {"runtime"} - set(dir(cupy.cuda)) == set()
    assert set(vars(fake_cupy.cuda.runtime)) - set(dir(cupy.cuda.runtime)) == set()
    for name, own in (("Stream", {"run", "do", "made", "current", "ptr"}), ("Event", set())):  # `own`: the stand-in's
        public = {n for n in vars(getattr(fake_cupy.cuda, name)) if not n.startswith("_")}
        assert public - own - set(dir(getattr(cupy.cuda, name))) == set()


def test_all_array_functions_that_tinyseg_names_are_in_the_stand_in():
    """``xp.name`` anywhere in the library, whether a test reaches the line or not."""
    names, missing = [], []
    for path in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and re.fullmatch(r"xp|xp_of\([\w.*, ]*\)", ast.unparse(node.value)):
                names.append(node.attr)
                if not hasattr(fake_cupy, node.attr):
                    missing.append(f"{path.name}:{node.lineno}: xp.{node.attr}")
    assert len(names) > 30
    assert missing == []
