"""Lay out the course, in which you write tinyseg yourself, or check what you have written.

    tinyseg course my-course             # seven lessons, a folder each: begin with my-course/README.md
    tinyseg course check 1               # in my-course: what is right, what is wrong, and by how much
    tinyseg course check 1.2             # one task
    tinyseg course check                 # all lessons
    tinyseg course check --dir submissions/ada --json ada.json              # for lecturers
    tinyseg course my-course --lessons 1 2 3 --leave-out 3.7 3.8            # a shorter course

Checking runs the code in the folder: check what others have written where it can do no harm. A folder that is called
check is given as ./check.
"""

import pathlib
import sys
import textwrap

import tinyseg
from tinyseg.commands.numbers import Number, Text, make_parser
from tinyseg.commands.options import a_path
from tinyseg.commands.script import run_script
from tinyseg.data.json_files import write_json
from tinyseg.data.load_tqdm import tqdm
from tinyseg.learn.course.check import check_lesson, hint_for
from tinyseg.learn.course.layout import RECORD, Copy, lay_out
from tinyseg.learn.course.lessons import LESSONS, TASKS, find_lesson


def main():
    run_script(begin_or_check, out_of_memory="close other programs")


def begin_or_check():
    parser = build_parser()
    args = parser.parse_args(intermixed=True)
    if args.folder == "check":
        misplaced = sorted(args.given & {"lessons", "leave_out"})
        if misplaced:
            parser.error(f"--{misplaced[0].replace('_', '-')} is for laying out: leave it out")
        sys.exit(0 if check(args) else 1)
    if args.lesson is not None or args.given & {"dir", "json"}:
        parser.error("a lesson, --dir and --json are for `tinyseg course check`")
    folder = a_path(args.folder)
    inside = next((here for here in (pathlib.Path(), pathlib.Path("..")) if (here / RECORD).is_file()), None)
    if inside is not None and not folder.exists():
        parser.error(f"this is a folder of the course: to check it, `tinyseg course check`; found {args.folder!r}")
    written = lay_out(folder, tinyseg.__version__, args.lessons, args.leave_out)
    if not written:
        print(f"All is in {folder} already: nothing was written.")
        return
    files = f"{len(written)} file{'s' if len(written) != 1 else ''}"
    print(f"{files} written to {folder}. Begin with {folder / 'README.md'}; then:")
    print(f"  cd {folder}\n  tinyseg course check 1")


def check(args):
    """Check a lesson, or all that are there; return whether all is right."""
    above = "dir" not in args.given and not (args.dir / RECORD).exists() and (args.dir / ".." / RECORD).exists()
    copy = Copy(args.dir / ".." if above else args.dir, tinyseg.__version__)  # a lesson's folder is the current one
    chosen, _, task = (args.lesson or "").partition(".")
    lessons = [find_lesson(int(chosen))] if chosen else [m for m in LESSONS if (copy.folder / m.folder).is_dir()]
    reports = []
    for lesson in tqdm(lessons, "checking", unit="lesson", leave=False, disable=None):
        reports.append(check_lesson(copy, lesson, int(task) if task else None))
        tqdm.write("\n".join(lines_of(copy, reports[-1])))
    right = sum(result.state == "right" for report in reports for result in report.results)
    of = sum(result.state != "left out" for report in reports for result in report.results)
    if len(reports) > 1:
        print(f"\n{right} of {of} tasks are right.")
    if args.json:
        keys = ("task", "title", "state", "message")
        found = [
            {
                "lesson": report.lesson.number,
                "title": report.lesson.title,
                "yours": report.yours,
                "tasks": [{key: getattr(result, key) for key in keys} for result in report.results],
            }
            for report in reports
        ]
        write_json(args.json, {"tinyseg": tinyseg.__version__, "right": right, "of": of, "lessons": found})
        print(f"wrote {args.json}")
    return all(report.all_right for report in reports)


def lines_of(copy, report):
    """Return what to print of a lesson, a list of lines."""
    others = [m.number for m in LESSONS[: report.lesson.number - 1] if m.number not in report.yours]
    lines = [f"\nLesson {report.lesson.number}: {report.lesson.title}"]
    if others:
        plural = "s" if len(others) > 1 else ""
        lines.append(f"(with tinyseg's own files of lesson{plural} {', '.join(map(str, others))}, until yours pass)")
    lines += [
        f"Your files of lesson {k} have changed since they were right: tinyseg course check {k}"
        for k in others if str(k) in copy.record.passed
    ]  # fmt: skip
    for result in report.results:
        lines.append(f"  {result.task}  {result.state:11} {result.title}")
        if result.state in ("wrong", "skipped", "not checked") or (
            result.state == "to write" and result.task not in result.message
        ):
            lines += _indented(result.message)
        if result.printed.strip() and result.state != "right":
            lines += [*_indented("your code printed:"), *_first(result.printed.splitlines(), 20)]
        hint = hint_for(copy, report, result)
        if hint:
            lines += _indented(f"Hint: {hint}")
    if report.measured:
        lines.append(report.measured)
    if report.all_right and len(report.results) == len(report.lesson.tasks):
        lines.append(f"All right. {f'Look at {report.picture}.' if report.picture else ''}".rstrip())
        if report.no_picture:
            lines.append(f"But the picture could not be drawn: {report.no_picture}")
        if report.lesson.number < len(LESSONS):
            lines.append(f"Next: {LESSONS[report.lesson.number].folder}/lesson.md")
    return lines


def check_task(text):
    """Raise a ValueError unless a text names a lesson, or one of its tasks."""
    if text not in TASKS and text not in {str(lesson.number) for lesson in LESSONS}:
        raise ValueError(f"expected a lesson from 1 to {len(LESSONS)} or one of its tasks, such as 3.2, found {text!r}")


def _first(printed, most):
    """Return the first lines of what a student's code printed."""
    more = [f"         … and {len(printed) - most} more lines"] if len(printed) > most else []
    return [f"         | {line}" for line in printed[:most]] + more


def _indented(text):
    spaces = {"initial_indent": " " * 7, "subsequent_indent": " " * 7, "break_on_hyphens": False}
    return [line for part in text.splitlines() for line in textwrap.wrap(part, 110, **spaces)]


def build_parser():
    parser = make_parser(__doc__, "DIR | check [LESSON | TASK]")
    add = parser.add_argument
    add("folder", metavar="DIR | check", help="a new folder for the course; or the word check")
    add("lesson", nargs="?", type=Text(check_task), help="to check, or one of its tasks: 3 or 3.2 (default: all)")
    add("--lessons", nargs="+", type=Number(int, 1, len(LESSONS)), help="to lay out (default: all)")
    add("--leave-out", nargs="+", default=[], metavar="TASK", help="tasks to leave out, such as 3.7: they come written")
    add("--dir", type=a_path, default=pathlib.Path(), help="folder of the course that is checked (default: this one)")
    add("--json", type=a_path, metavar="FILE", help="write what came of each task")
    return parser
