"""A student's copy of the course: write its folder, and remember in course.json what came of it.

In the folder are README.md, how to go about it; course.json; and a folder for each lesson, such as 1_engine, with
lesson.md, what to read; with the files to work on, which are tinyseg's own without the bodies of the lesson's functions
(engine.py); and with picture.png, what the code drew when it was right.
"""

import pathlib

import msgspec

from tinyseg.data.fingerprint import fingerprint_of_file
from tinyseg.data.json_files import read_json, write_json
from tinyseg.data.writing import write_atomically
from tinyseg.learn.course.lessons import HERE, LESSONS, TASKS, find_lesson
from tinyseg.learn.course.skeleton import take_out
from tinyseg.learn.course.substitute import source_of

RECORD, README = "course.json", "README.md"
DONE = "right", "left out"  # states of a task that leave nothing to do


class Record(msgspec.Struct):
    """What course.json holds.

    Attributes
    ----------
    tinyseg : str
        The version that the course was laid out by.
    left_out : list of str
        Tasks whose functions came written: "3.7".
    passed : dict of str to dict
        For the number of each lesson that is right, the fingerprints of its files then.
    failed : dict of str to int
        How often the test of a task has failed since it was right, with files that had changed.
    seen : dict of str to dict
        For the number of each lesson, the fingerprints of its files when they were checked last.
    """

    tinyseg: str
    left_out: list[str] = []
    passed: dict[str, dict[str, str]] = {}
    failed: dict[str, int] = {}
    seen: dict[str, dict[str, str]] = {}


class Copy:
    """A student's folder.

    Parameters
    ----------
    folder : path-like
    version : str
        Of tinyseg, now.

    Raises ValueError if the folder is not one that `lay_out` has written, or another version of tinyseg has.
    """

    def __init__(self, folder, version):
        self.folder = pathlib.Path(folder)
        if not (self.folder / RECORD).is_file():
            raise ValueError(
                f"{self.folder} is no folder of the course, there is no {RECORD} in it: lay one out by "
                "`tinyseg course DIR`, and check it in DIR, or with --dir DIR."
            )
        self.record = read_json(self.folder / RECORD, Record, "a record of the course")
        if self.record.tinyseg != version:
            raise ValueError(
                f"{self.folder} was laid out by tinyseg {self.record.tinyseg}, and this is {version}, whose files may "
                f"not fit: install that one (pip install tinyseg=={self.record.tinyseg}), or lay out another folder."
            )

    def files(self, lesson):
        """Return {module: path} of a lesson; a lesson that is not there is a ValueError."""
        paths = {module: self.folder / lesson.folder / name for name, module in lesson.files.items()}
        missing = [str(path) for path in paths.values() if not path.is_file()]
        if missing:
            raise ValueError(
                f"expected {', '.join(missing)}, found nothing: `tinyseg course {self.folder} --lessons "
                f"{lesson.number}` writes what is not there."
            )
        return paths

    def fingerprints(self, lesson):
        """Return the fingerprint of each file of a lesson, by its name."""
        return {path.name: fingerprint_of_file(path) for path in self.files(lesson).values()}

    def passed(self, lesson):
        """Whether a lesson was right when it was checked, and has not been changed since."""
        before = self.record.passed.get(str(lesson.number))
        return before is not None and before == self.fingerprints(lesson)

    def note(self, lesson, results):
        """Remember the results of a check, a list of `check.Result`; all of a lesson's can pass it."""
        number, now = str(lesson.number), self.fingerprints(lesson)
        for result in results:
            if result.state == "right":
                self.record.failed.pop(result.task, None)
            elif result.state == "wrong" and (
                self.record.seen.get(number) != now or result.task not in self.record.failed
            ):
                self.record.failed[result.task] = self.record.failed.get(result.task, 0) + 1
        self.record.seen[number] = now
        if any(result.state not in DONE for result in results):
            self.record.passed.pop(number, None)
        elif len(results) == len(lesson.tasks):
            self.record.passed[number] = now
        write_record(self.folder, self.record)


def write_record(folder, record):
    """Write course.json."""
    write_json(folder / RECORD, msgspec.to_builtins(record))


def lay_out(folder, version, lessons=None, left_out=()):
    """Write a student's folder, or what is missing in one. Nothing that is there is changed.

    Parameters
    ----------
    folder : path-like
        A new folder, an empty one, or one that this function has written.
    version : str
        Of tinyseg.
    lessons : iterable of int, optional
        All if left out.
    left_out : iterable of str
        Tasks whose functions stay as tinyseg has them: "3.7".

    Returns
    -------
    list of Path
        The files that were written.

    Raises
    ------
    ValueError
        If there is no such lesson or task, or the folder holds something else.
    """
    folder, left_out = pathlib.Path(folder), list(left_out)
    chosen = [find_lesson(number) for number in lessons or range(1, len(LESSONS) + 1)]
    unknown = [task for task in left_out if task not in TASKS]
    if unknown:
        raise ValueError(f"expected tasks such as 3.7, found {', '.join(unknown)}: the last is {max(TASKS)}.")
    if (folder / RECORD).exists():
        record = Copy(folder, version).record
        late = [TASKS[task].folder for task in left_out if (folder / TASKS[task].folder).exists()]
        if late:
            raise ValueError(f"{folder / late[0]} is there already: leave tasks out when you lay it out, in a new one.")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} holds something else: expected a new folder for the course, or an empty one.")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        record = Record(version)
    record.left_out = sorted({*record.left_out, *left_out})
    write_record(folder, record)
    written = []
    for lesson in chosen:
        (folder / lesson.folder).mkdir(exist_ok=True)
        for name, module in lesson.files.items():
            sentences = {
                body.partition(".")[2]: f"task {task}: {body} is still to be written"
                for body, task in lesson.bodies().items()
                if body.partition(".")[0] == pathlib.Path(name).stem and task not in left_out
            }  # fmt: skip
            source = source_of(lesson.sources.get(name, module)).read_text(encoding="utf-8")
            _write(folder / lesson.folder / name, take_out(source, sentences), written)
        _write(folder / lesson.folder / "lesson.md", lesson.page.read_text(encoding="utf-8"), written)
    _write(folder / README, (HERE / "pages" / "start.md").read_text(encoding="utf-8"), written)
    return written


def _write(path, text, written):
    """Write a file that is not there, and put it on a list."""
    if not path.exists():
        write_atomically(path, text)
        written.append(path)
