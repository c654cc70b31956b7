"""Let files of a student take the place of tinyseg's modules, in this process.

Whoever imports ``tinyseg.ops.pool`` then gets the student's file under that name: tinyseg's own networks, optimizers
and training loop call what the student wrote.
"""

import importlib.abc
import importlib.util
import pathlib
import sys

PACKAGE = pathlib.Path(__file__).parents[2]


def source_of(module):
    """Return the path of the file of one of tinyseg's modules, such as "tinyseg.ops.pool"."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


class Substitute(importlib.abc.MetaPathFinder):
    """Finds the modules that are replaced, and hides the kernels of `tinyseg.fast`, so that the maths computes.

    Parameters
    ----------
    files : dict of str to Path
        The file of each module that is replaced.
    """

    def __init__(self, files):
        self.files = files

    def find_spec(self, name, path=None, target=None):
        if name in self.files:
            own = source_of(name)
            inside = [str(own.parent)] if own.name == "__init__.py" else None
            return importlib.util.spec_from_file_location(
                name, self.files[name], submodule_search_locations=inside
            )  # fmt: skip
        # The packages that a student's kernel is in are needed to import it.
        kernels = name.split(".")[:2] == [PACKAGE.name, "fast"] and name.count(".") > 1
        if kernels and not any(module.startswith(f"{name}.") for module in self.files):
            raise ModuleNotFoundError(f"{name} is hidden: the course computes without tinyseg's kernels.", name=name)
        return None


def substitute(files):
    """Begin to replace modules, before anything that imports them is imported.

    Parameters
    ----------
    files : dict of str to Path

    Raises RuntimeError if one of the modules has been imported already.
    """
    early = [name for name in files if name in sys.modules]
    if early:
        raise RuntimeError(f"{', '.join(early)} were imported before the student's files could take their place.")
    sys.meta_path.insert(0, Substitute(files))
