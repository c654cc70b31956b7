"""Run the tests of one lesson in this process, on a student's files: ``python -m tinyseg.learn.course.run``.

    python -m tinyseg.learn.course.run LESSON.TASK RESULTS PICTURE MODULE=FILE …

Each MODULE of tinyseg is replaced by FILE before anything imports it. RESULTS is a file that gets a line of JSON as
each test begins and ends; PICTURE is written if all pass and TASK is left out. Nothing of tinyseg may be imported at
the top of this file that imports what a student writes.
"""

import importlib
import json
import os
import pathlib
import re
import sys
import traceback

from tinyseg.learn.course.lessons import find_lesson
from tinyseg.learn.course.substitute import substitute


class Recorder:
    """A plugin of pytest that writes what comes of each test to a file.

    Parameters
    ----------
    path : str
    lesson : Lesson
    files : dict of str to str
        The student's files, by the modules that they take the place of.
    """

    def __init__(self, path, lesson, files):
        self.path, self.lesson = path, lesson
        self.paths = {os.path.realpath(file): pathlib.Path(file) for file in files.values()}
        self.all_right, self.skipped = True, False

    def write(self, **facts):
        """Append a line."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(facts) + "\n")

    def task_of(self, name):
        """Return the task, "3.2", that a test is of."""
        return f"{self.lesson.number}.{re.match(r'test_([0-9]+)_', name)[1]}"

    def pytest_runtest_logstart(self, nodeid, location):
        """Note which test begins."""
        self.write(begins=self.task_of(location[2]))

    def pytest_exception_interact(self, node, call, report):
        """Note why a test failed."""
        error = call.excinfo.value
        self.all_right = False
        printed = "".join(text for title, text in report.sections if title.startswith("Captured"))
        kind = type(error).__name__
        if kind == "Different":
            state, message = "wrong", str(error)
        elif isinstance(error, NotImplementedError) and "still to be written" in str(error):
            state, message = "to write", str(error)
        else:
            words = [f"{note}: " for note in getattr(error, "__notes__", ())]
            state, message = "wrong", f"{''.join(words)}{kind}: {error}{self.where(error)}"
        self.write(task=self.task_of(node.name), state=state, message=message, printed=printed)

    def pytest_runtest_logreport(self, report):
        """Note that a test passed, or was skipped."""
        if report.outcome == "passed" and report.when == "call":
            self.write(task=self.task_of(report.location[2]), state="right", message="", printed="")
        elif report.outcome == "skipped":
            self.skipped = True
            self.write(task=self.task_of(report.location[2]), state="skipped", message="", printed="")

    def where(self, error):
        """Return the place in the student's files where an error was raised, as the end of a sentence."""
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            path = self.paths.get(os.path.realpath(frame.filename))
            if path:
                earlier = self.lesson and path.parent.name != self.lesson.folder
                other = f" of lesson {path.parent.name.partition('_')[0]}" if earlier else ""
                return f" ({path.name}{other}, line {frame.lineno}: {frame.line})"
        return ""


def broken(files):
    """Import the student's files; return a sentence about one that cannot be imported, or None."""
    for module, path in files.items():
        name = pathlib.Path(path).name
        try:
            importlib.import_module(module)
        except SyntaxError as error:
            place = f"{pathlib.Path(error.filename or name).name}, line {error.lineno}"
            return f"{place}: {error.msg}: {error.text or ''}".strip()
        except Exception as error:
            place = Recorder("", None, files).where(error) or f" (while {name} was imported)"
            return f"{type(error).__name__}: {error}{place}"
    return None


def main():
    """Run the tests of the lesson that `sys.argv` names."""
    number, results, picture, *pairs = sys.argv[1:]
    number, _, task = number.partition(".")
    lesson, files = find_lesson(int(number)), dict(pair.split("=", 1) for pair in pairs)
    importable = {k: v for k, v in files.items() if all(map(importlib.util.find_spec, needs_of(lesson, v)))}
    substitute(files)
    recorder = Recorder(results, lesson, files)
    sentence = broken(importable)
    if sentence:
        recorder.write(broken=sentence)
        return
    import pytest

    options = ["-c", os.devnull, "--rootdir", str(lesson.checks.parent), "-p", "no:cacheprovider", "-p", "no:terminal"]
    chosen = ["-k", f"test_{task}_"] if task else []
    pytest.main([*options, *chosen, "--import-mode=importlib", str(lesson.checks)], plugins=[recorder])
    if recorder.all_right and not task:
        checks = importlib.import_module(f"tinyseg.learn.course.checks.{lesson.checks.stem}")
        try:
            checks.draw(picture)
        except Exception as error:  # of the student's files of earlier lessons
            recorder.write(no_picture=f"{type(error).__name__}: {error}{recorder.where(error)}")
        if hasattr(checks, "measure") and not recorder.skipped:
            recorder.write(measured=checks.measure())


def needs_of(lesson, path):
    """Return the packages that a file of a lesson needs."""
    stem = pathlib.Path(path).stem
    return [name for task in lesson.tasks for name in task.needs if any(b.startswith(f"{stem}.") for b in task.bodies)]


if __name__ == "__main__":
    main()
