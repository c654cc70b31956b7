"""Check a lesson of a student's copy: run its tests in a process of its own, and say what came of each task."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import NamedTuple

from tinyseg.learn.course.layout import DONE
from tinyseg.learn.course.lessons import LESSONS
from tinyseg.learn.course.substitute import PACKAGE

HINT_AFTER = 3  # failures


class Result(NamedTuple):
    """What came of a task.

    Attributes
    ----------
    task : str
        "3.2".
    title : str
    state : {"right", "wrong", "to write", "not checked", "skipped", "left out"}
    message : str
        What is wrong: where the first number that differs is, and what it should be.
    printed : str
        What the student's code printed.
    """

    task: str
    title: str
    state: str
    message: str = ""
    printed: str = ""


class Report(NamedTuple):
    """What came of a lesson.

    Attributes
    ----------
    lesson : Lesson
    results : list of Result
    yours : list of int
        The lessons whose files took the place of tinyseg's.
    measured : str
        What was measured with them, a sentence; empty if nothing was.
    picture : Path or None
        What they drew.
    no_picture : str
        Why there is none although all is right; empty if there is one.
    """

    lesson: NamedTuple
    results: list[Result]
    yours: list[int]
    measured: str
    picture: pathlib.Path | None
    no_picture: str = ""

    @property
    def all_right(self):
        """Whether no task is left to do."""
        return all(result.state in DONE for result in self.results)


def check_lesson(copy, lesson, task=None):
    """Check a lesson with its own files and those of earlier lessons that are right, and remember the results.

    Parameters
    ----------
    copy : layout.Copy
    lesson : Lesson
    task : int, optional
        The only one of its tasks to check.

    Returns
    -------
    Report

    Raises ValueError if a file of the lesson is missing, RuntimeError if pytest is.
    """
    if importlib.util.find_spec("pytest") is None:
        raise RuntimeError("the checks need pytest, which is not installed: pip install 'tinyseg[course]'.")
    files, yours = {}, []
    for earlier in LESSONS[: lesson.number - 1]:
        there = all((copy.folder / earlier.folder / name).is_file() for name in earlier.files)
        if there and copy.passed(earlier):
            files |= copy.files(earlier)
            yours.append(earlier.number)
    files |= copy.files(lesson)
    picture = copy.folder / lesson.folder / "picture.png"
    lines, ended = _run(lesson, task, files, picture)
    results = [
        _result_of(number, each, lines, ended, copy.record.left_out)
        for number, each in lesson.numbered.items()
        if task is None or number == f"{lesson.number}.{task}"
    ]
    copy.note(lesson, results)
    said = {name: next((line[name] for line in lines if name in line), "") for name in ("measured", "no_picture")}
    report = Report(lesson, results, [*yours, lesson.number], said["measured"], picture, said["no_picture"])
    drawn = report.all_right and task is None and not report.no_picture and picture.exists()
    return report if drawn else report._replace(picture=None)


def _run(lesson, task, files, picture):
    """Run the tests in a process of their own; return the lines that it wrote, and how it ended if not as it should."""
    with tempfile.TemporaryDirectory() as folder:
        results = pathlib.Path(folder) / "results.jsonl"
        pairs = [f"{module}={pathlib.Path(path).resolve()}" for module, path in files.items()]
        words = [f"{lesson.number}.{task or ''}", str(results), str(picture.resolve()), *pairs]
        paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(paths), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "MPLBACKEND": "agg",
            "PYTHONIOENCODING": "utf-8", "PYTHONBREAKPOINT": "0", "PYTEST_ADDOPTS": "", "PYTEST_PLUGINS": "",
        }  # fmt: skip
        command = [sys.executable, "-B", "-P", "-m", "tinyseg.learn.course.run", *words]
        try:
            streams = {"capture_output": True, "encoding": "utf-8", "errors": "replace"}
            done = subprocess.run(command, env=environment, timeout=lesson.seconds, **streams)
            why = f"the process ended with status {done.returncode}. {done.stderr[-1500:]}"
            ended = why if done.returncode else ""
        except subprocess.TimeoutExpired:
            ended = f"it took more than {lesson.seconds} seconds and was stopped: is there a loop without an end?"
        text = results.read_text(encoding="utf-8") if results.exists() else ""
        return [json.loads(line) for line in text.splitlines()], ended


def _result_of(number, task, lines, ended, left_out):
    """Return what the lines say of a task."""
    if number in left_out:
        return Result(number, task.title, "left out")
    broken = next((line["broken"] for line in lines if "broken" in line), None)
    if broken:
        return Result(number, task.title, "wrong", broken)
    found = next((line for line in lines if line.get("task") == number), None)
    if found is None:
        began = any(line.get("begins") == number for line in lines)
        if began:
            return Result(number, task.title, "wrong", ended)
        return Result(number, task.title, "not checked", "" if lines else ended or "no test ran")
    if found["state"] == "skipped":
        needs = ", ".join(task.needs)
        return Result(number, task.title, "skipped", f"it needs {needs}, which is not installed: pip install {needs}")
    return Result(number, task.title, found["state"], found["message"], found["printed"])


def hint_for(copy, report, result):
    """Return the hint of a task that has failed often enough, or an empty text."""
    if result.state != "wrong" or copy.record.failed.get(result.task, 0) < HINT_AFTER:
        return ""
    return report.lesson.numbered[result.task].hint
