"""Matplotlib, loaded when the first picture is drawn, and whatever its settings are.

Pictures are written to files. They need neither a display nor a backend, and none of pyplot. But Matplotlib cannot be
imported where the variable MPLBACKEND names no backend, or where a file matplotlibrc is damaged.
"""

import contextlib
import functools
import logging
import os
import sys
import tempfile
import types

LOG = logging.getLogger("tinyseg")


@functools.cache
def load_matplotlib():
    """Import Matplotlib; settings that it does not take are left out, and a line in the log says so.

    Returns
    -------
    types.SimpleNamespace
        What pictures are made of: ``Figure``, ``Line2D``, ``MaxNLocator``, ``Patch``, ``Text``.

    Raises
    ------
    ImportError
        It is not installed.
    OSError
        There is no folder at all where Matplotlib could write its list of fonts.
    """
    if "matplotlib" not in sys.modules:
        _import_without_backend()
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.text import Text
    from matplotlib.ticker import MaxNLocator

    return types.SimpleNamespace(Figure=Figure, Line2D=Line2D, MaxNLocator=MaxNLocator, Patch=Patch, Text=Text)


def _import_without_backend():
    """Import Matplotlib, and then choose the backend that MPLBACKEND names, for those who use pyplot as well."""
    with _variables(MPLBACKEND=None):
        try:
            import matplotlib
        except ImportError:
            raise
        except Exception as error:
            LOG.warning(f"Matplotlib's settings could not be read ({error}): pictures are drawn without them.")
            for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
                del sys.modules[name]  # half of it has been imported
            with _empty_folder() as folder, _variables(MATPLOTLIBRC=None, MPLCONFIGDIR=folder):
                import matplotlib
    backend = os.environ.get("MPLBACKEND")
    try:
        if backend:
            matplotlib.rcParams["backend"] = backend
    except ValueError:
        LOG.warning(f"MPLBACKEND is {backend!r}, which is no backend of Matplotlib: it is left out.")


@contextlib.contextmanager
def _empty_folder():
    """Make an empty folder the current one for a moment: settings are read from there, too."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        yield folder


@contextlib.contextmanager
def _variables(**values):
    """Set variables of the environment for a moment; None removes one."""
    before = {name: os.environ.get(name) for name in values}
    try:
        _set_variables(values)
        yield
    finally:
        _set_variables(before)


def _set_variables(values):
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextlib.contextmanager
def default_style():
    """Draw in Matplotlib's own style, whatever the user's is: pictures of a run look alike everywhere."""
    load_matplotlib()
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield
