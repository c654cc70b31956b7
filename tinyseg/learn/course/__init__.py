"""The course: seven lessons in which students write the engine, the ops, the networks and the training themselves.

- `lessons` lists the lessons and their tasks: which functions of which files of tinyseg are to be written.
- `skeleton` takes the bodies of these functions out of tinyseg's own sources, `layout` writes a student's folder.
- `checks` has a file of tests for each lesson, and the picture that a student's code draws when they all pass.
- `check` runs a lesson's tests in a process of its own (`run`), in which the student's files take the place of
  tinyseg's (`substitute`), and says what is right, what is wrong and by how much (`tinyseg.learn.comparing`).
- `pages` has what a student reads.

The solutions are tinyseg itself. `use` lets a student try the files in a session of Python.
"""

import pathlib

from tinyseg.learn.course.lessons import LESSONS
from tinyseg.learn.course.substitute import substitute


def use(folder: str = ".") -> list[str]:
    """Let a student's files take the place of tinyseg's, in this session of Python.

    Parameters
    ----------
    folder : path-like
        Of the course, or of one of its lessons: the files of all lessons, or of that one.

    Returns
    -------
    list of str
        The modules that the files replace.

    Raises
    ------
    RuntimeError
        If one of them has been imported already: call `use` first.
    ValueError
        If there are no such files.
    """
    here = pathlib.Path(folder).resolve()
    files = {
        module: path
        for lesson in LESSONS
        for name, module in lesson.files.items()
        for path in (here / lesson.folder / name, here / name)
        if path.is_file() and path.parent.name == lesson.folder
    }
    if not files:
        raise ValueError(f"expected a folder of the course, found none of its files in {here}.")
    substitute(files)
    return list(files)
