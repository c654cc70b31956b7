"""The course, as students and lecturers use it: what is laid out fails every task, tinyseg's own files pass every one,
and the mistakes that people make are caught by the task that they belong to, in words that help."""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest
from scripts import run_command

import tinyseg
from tinyseg.data.fingerprint import fingerprint_of_file
from tinyseg.learn.course.layout import lay_out
from tinyseg.learn.course.lessons import LESSONS
from tinyseg.learn.course.skeleton import take_out
from tinyseg.learn.course.substitute import source_of

# Of a task: the file, what is there, what a student writes instead, and words of what is said about it.
MISTAKES = {
    # the reused buffer: two leaves share an array
    "1.3": ("engine.py", "gx.copy() if shared else gx", "gx", "a shared array was kept"),
    # the second use of a node replaces the first
    "1.4": (
        "engine.py", "_sum(grads[parent], gx) if parent in grads else gx", "gx", "a node that two others use",
    ),
    "2.1": ("arithmetic.py", "extra + kept, keepdims", "extra, keepdims", "an array of shape (3, 1)"),
    "2.2": ("arithmetic.py", "self.to_inputs(ga, -ga * y)", "self.to_inputs(ga, ga * y)", "They have the wrong sign."),
    "2.3": (
        "arithmetic.py", "backward(gy / gy.dtype.type(max(self.count, 1)))", "backward(gy)",
        "All are 24 times what they should be.",
    ),
    "2.4": ("activation.py", "where(y > 0, gy", "where(y >= 0, gy", "gx[0, 0] is 1, and should be 0"),
    "2.5": (
        "activation.py", "xp.where(x >= 0, x.dtype.type(1), e) / (1 + e)", "1 / (1 + xp.exp(-x))",
        "numbers of any size, in float32: FloatingPointError: overflow encountered in exp (activation.py, line",
    ),
    "2.6": ("gradcheck.py", "u = _like(y.data, rng)", "u = y.data * 0 + 1", "right for a cotangent of ones alone"),
    # padding off by one side
    "3.1": (
        "depthwise_conv.py", "    X = pad2d(x, pads)\n    y =", "    X = pad2d(x, (pads[0][::-1], pads[1]))\n    y =",
        "a border of 1 row above and 2 columns to the right",
    ),
    "3.2": (
        "depthwise_conv.py", "sum_over(window * gy, (0, 2, 3))", "sum_over((window * gy)[0], (1, 2))",
        "two images of three channels: gw[0, 0, 0] is",
    ),
    "3.3": ("depthwise_conv.py", "window += gy * w", "window[...] = gy * w", "numbers differ"),
    "3.5": ("pointwise_conv.py", "forward(gy, w.T)", "forward(gy, w)", "the gradient of the image: gx[0, 0, 0, 0] is"),
    "3.8": ("conv2d.py", "gW += rows_of", "gW = rows_of", "two images of three channels, the gradient of the weights"),
    # the mean over a channel instead of a group: right where each group has one channel
    "4.1": ("group_norm.py", "G, x.shape[1] // G * x", "x.shape[1], x", "one group of two channels: y[0, 0, 0, 0] is"),
    # γ comes too late
    "4.2": ("group_norm.py", "gy_xhat *= gamma[:, None, None]", "pass", "gx[0, 0, 0, 0] is"),
    "4.3": ("weight_standardization.py", "(std + eps), std", "xp_of(v).sqrt(std**2 + eps), std", "w[0, 0, 0] is"),
    "4.4": ("weight_standardization.py", "(std + eps) - scaling", "(std + eps)", "gv[0, 0, 0] is"),
    "5.1": ("pool.py", "X = xp_of(x), pad2d(x, pads, value=-np.inf)", "X = xp_of(x), pad2d(x, pads)", "a border of 1"),
    "5.2": ("pool.py", "window += xp_of", "window[...] = xp_of", "windows of 3 × 3 that overlap: gx["),
    "5.3": ("upsample.py", "gx = gy[:, :, ::fh, ::fw].copy()", "gx = gy[:, :, ::fh, ::fw]", "gy, which was handed"),
    "5.5": ("unet.py", "self.block(skip, self.conv(x))", "self.block(self.conv(x), skip)", "first input, the skip["),
    "5.6": ("unet.py", "        skips.pop()  # the", "        # the", "the skip that decoder 0 gets has the shape"),
    "6.1": ("loss.py", "return sum_over(loss * weight)", "return (loss * weight).mean()", "all weights 1: the sum is"),
    "6.2": ("loss.py", "((1 - t) - (1 + (pos_weight - 1) * t) * s", "((1 - t) - s", "pos_weight 3: gz[0, 0, 0, 0] is"),
    "6.3": ("optim.py", "        v *= self.momentum\n", "", "without momentum: w after 2 steps"),
    "6.4": ("optim.py", "self.lr * root / (1 - b1**t)", "self.lr * root", "w after one step"),
    "6.5": ("step.py", "            self.optimizer.zero_grad()\n", "", "step 2 of three: the norm of the gradient is"),
    "7.2": ("separable_conv.py", "        gy = relu_grad(gy, y)", "        pass", "with ReLU: gw"),
    "7.4": ("pool_kernel.py", "value > largest", "value >= largest", "a window in which all are equal"),
}  # fmt: skip
# Those that a second look found, and that the first checks had let through.
MORE = {
    "1.1": (
        "engine.py", "        arrays = [t.data for t in tensors]\n",
        "        arrays = [t.data for t in tensors]\n        self.apply(*arrays)\n",
        "needs is not set yet when self.apply runs",
    ),
    "1.4": (
        "engine.py", "_sum(grads[parent], gx) if parent in grads else gx",
        "np.add(grads[parent], gx, out=grads[parent]) if parent in grads else gx", "the gradient of b[0] is",
    ),
    "2.4": (
        "activation.py", "return xp_of(x).maximum(x, x.dtype.type(0))", "x[x < 0] = 0\n    return x",
        "x, which was handed over, was changed",
    ),
    "2.6": ("gradcheck.py", "if not error < tol:", "if error >= tol:", "a gradient is NaN, and check_grads did not"),
    "3.1": (
        "depthwise_conv.py", "zeros((*x.shape[:2], *out), x.dtype)", "zeros((*x.shape[:2], *out))",
        "float32 arrays go in, and float64 comes out",
    ),
    "3.7": (
        "conv2d.py", "w.shape[2:], ys.shape[1:], stride)).reshape", "w.shape[2:], out, stride)).reshape", "strips()",
    ),
    "3.8": (
        "conv2d.py", "        gcols = (rows_of(w).T", "        gXs[...] = 0\n        gcols = (rows_of(w).T",
        "strips() cuts into several, the gradient of the image",
    ),
    "4.4": (
        "weight_standardization.py", "(std + eps) - scaling", "(std + eps) - (scaling if (std > 0).all() else 0)",
        "so that σ = 0: gv[0][0, 0] is",
    ),
    "5.4": ("shape.py", "split(gy, cuts, axis=axis)", "split(gy, cuts, axis=1)", "rows 3 and 4"),
    "6.4": (
        "optim.py", "(b1, b2), t = self.betas, self.counts[k]", "(b1, b2), t = self.betas, self.steps",
        "its t is 1 then",
    ),
    "6.5": (
        "step.py", "figures = Figures(loss.item())", "figures = Figures(loss.data)", "and should be a float of Python",
    ),
}  # fmt: skip


def solve(folder, lesson, mistakes=()):
    """Put tinyseg's own files into a lesson of a student's folder, with the mistakes of some tasks."""
    mistakes = {task: MISTAKES[task] for task in mistakes} if isinstance(mistakes, list) else dict(mistakes)
    for name, module in lesson.files.items():
        text = source_of(lesson.sources.get(name, module)).read_text(encoding="utf-8")
        for file, right, wrong, _ in mistakes.values():
            if file == name:
                assert text.count(right) == 1, right
                text = text.replace(right, wrong)
        (folder / lesson.folder / name).write_text(text, encoding="utf-8")


def states(folder, what, code):
    """Check a lesson or a task; return what was printed, and the state and message of each task."""
    out, _ = run_command("course", "check", what, "--dir", folder, "--json", folder / "report.json", code=code)
    report = json.loads((folder / "report.json").read_text())
    tasks = [task for lesson in report["lessons"] for task in lesson["tasks"]]
    return out, {task["task"]: (task["state"], task["message"]) for task in tasks}


@pytest.fixture
def copy(tmp_path):
    run_command("course", tmp_path / "mine")
    return tmp_path / "mine"


def test_what_is_laid_out_is_tinysegs_own_but_for_the_bodies(copy):
    for lesson in LESSONS:
        assert (copy / lesson.folder / "lesson.md").read_text(encoding="utf-8").startswith(f"# {lesson.number}. ")
        for name, module in lesson.files.items():
            given = (copy / lesson.folder / name).read_text(encoding="utf-8").splitlines()
            whole = source_of(lesson.sources.get(name, module)).read_text(encoding="utf-8").splitlines()
            raised = [line for line in given if "raise NotImplementedError('task " in line]
            bodies = [body for body in lesson.bodies() if body.startswith(f"{pathlib.Path(name).stem}.")]
            assert len(raised) == len(bodies) > 0
            assert not set(given) - set(whole) - set(raised)
        checks = lesson.checks.read_text(encoding="utf-8")
        found = [line.partition("(")[0] for line in checks.splitlines() if line.startswith("def test_")]
        assert [int(name.split("_")[1]) for name in found] == list(range(1, len(lesson.tasks) + 1))


def test_every_task_that_can_be_done_wrong_has_a_mistake():
    tasks = {f"{lesson.number}.{k}" for lesson in LESSONS for k in range(1, len(lesson.tasks) + 1)}
    assert set(MISTAKES) < tasks and len(MISTAKES) >= 24


@pytest.mark.parametrize("lesson", [pytest.param(m, marks=[pytest.mark.slow] * (m.number != 3)) for m in LESSONS])
def test_what_is_laid_out_fails_every_task(copy, lesson):
    out, found = states(copy, lesson.number, code=1)
    assert len(found) == len(lesson.tasks) and {state for state, _ in found.values()} == {"to write"}, out
    assert "Hint" not in out and not (copy / lesson.folder / "picture.png").exists()


@pytest.mark.parametrize("lesson", [pytest.param(m, marks=[pytest.mark.slow] * (m.number != 3)) for m in LESSONS])
def test_tinysegs_own_files_pass_every_task_and_draw(copy, lesson):
    solve(copy, lesson)
    out, found = states(copy, lesson.number, code=0)
    assert set(found.values()) == {("right", "")}, out
    assert "All right. Look at" in out and (copy / lesson.folder / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert ("times as fast" in out) == (lesson.number == 7)


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("all_mistakes", [MISTAKES, MORE], ids=["first", "more"])
def test_typical_mistakes_are_caught_by_their_tasks(copy, number, all_mistakes):
    mistakes = {task: mistake for task, mistake in all_mistakes.items() if task.startswith(f"{number}.")}
    solve(copy, LESSONS[number - 1], mistakes)
    out, found = states(copy, number, code=1)
    for task, (state, message) in found.items():
        assert state == ("wrong" if task in mistakes else "right"), out
        assert task not in mistakes or mistakes[task][3] in message


@pytest.mark.slow
def test_the_network_trains_before_the_kernel_is_written(copy):
    name = "separable_conv.py"
    shutil.copy(source_of("tinyseg.ops.separable_conv"), copy / "7_sd_unet" / name)
    _, found = states(copy, 7, code=1)
    assert [state for state, _ in found.values()] == ["right", "right", "right", "to write"]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["7.2", "7.4"])
def test_one_task_is_checked_alone(copy, task):
    solve(copy, LESSONS[6], [task])
    out, found = states(copy, task, code=1)
    assert list(found) == [task] and found[task][0] == "wrong" and MISTAKES[task][3] in found[task][1], out


@pytest.mark.slow
def test_the_third_failure_brings_a_hint_and_what_the_code_printed(copy):
    solve(copy, LESSONS[2], ["3.5"])
    path = copy / "3_convolution" / "pointwise_conv.py"
    path.write_text(
        path.read_text(encoding="utf-8").replace("def grad_x(gy, w):", "def grad_x(gy, w):\n    print(w.shape)")
    )
    for attempt in (1, 2, 3):
        path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
        states(copy, "3.5", code=1)
        out, _ = states(copy, "3.5", code=1)  # without a change: not counted
        assert ("Hint: Y = W X has GX = Wᵀ GY" in out) == (attempt == 3)
        assert "your code printed:\n         | (2, 2)" in out
    assert json.loads((copy / "course.json").read_text())["failed"] == {"3.5": 3}
    solve(copy, LESSONS[2])
    states(copy, "3.5", code=0)
    assert json.loads((copy / "course.json").read_text())["failed"] == {}


def test_a_process_that_ends_at_once_says_so(copy):
    path = copy / "3_convolution" / "conv2d.py"
    path.write_text("import os\nos._exit(3)\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    out, found = states(copy, 3, code=1)
    assert {state for state, _ in found.values()} == {"not checked"} and "the process ended with status 3" in out


def test_a_file_that_cannot_be_imported_is_named_with_its_line(copy):
    path = copy / "3_convolution" / "conv2d.py"
    path.write_text(
        path.read_text(encoding="utf-8").replace("def forward(x, w", "def forward(x w", 1), encoding="utf-8"
    )
    out, found = states(copy, 3, code=1)
    assert all("conv2d.py, line " in message and "invalid syntax" in message for _, message in found.values())


def test_a_loop_without_an_end_is_stopped(copy, monkeypatch):
    solve(copy, LESSONS[2])
    path = copy / "3_convolution" / "conv2d.py"
    text = path.read_text(encoding="utf-8")
    path.write_text(
        text.replace("    C = X.shape[1]\n", "    while True:\n        C = X.shape[1]\n", 1), encoding="utf-8"
    )
    lessons = tuple(m._replace(seconds=4) for m in LESSONS)
    monkeypatch.setattr("tinyseg.learn.course.lessons.LESSONS", lessons)
    _, found = states(copy, "3.6", code=1)
    assert "more than 4 seconds" in found["3.6"][1] and "a loop without an end?" in found["3.6"][1]


def test_a_result_of_another_kind_is_named(copy):
    solve(copy, LESSONS[2])
    path = copy / "3_convolution" / "pointwise_conv.py"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("return Y.reshape(N, len(w), H, W)", "Y.reshape(N, len(w), H, W)"), encoding="utf-8")
    _, found = states(copy, "3.4", code=1)
    assert "y is None: does the function return it?" in found["3.4"][1]


PROBE = """
import sys
from tinyseg.learn.course.substitute import substitute
substitute({"tinyseg.ops.group_norm": sys.argv[1]})
import numpy as np
from tinyseg import backend, models
network = models.build("sdunet", in_channels=1, num_classes=1, width=4, levels=2)
try:
    network(np.zeros((1, 1, 4, 4), np.float32))
except NotImplementedError as error:
    print(error)
print(backend.fast("cpu.group_norm"), backend.kernels("tinyseg.ops.pool", np.zeros(1, np.float32)).__name__)
"""


def test_a_network_computes_with_the_students_files_and_without_kernels(copy):
    path = copy / "4_normalization" / "group_norm.py"
    done = subprocess.run([sys.executable, "-c", PROBE, path], capture_output=True, text=True, check=True)
    sentence = "task 4.1: group_norm.forward is still to be written"
    assert done.stdout.splitlines() == [sentence, "None tinyseg.ops.pool"]


@pytest.mark.slow
def test_earlier_lessons_are_yours_while_they_are_right_and_unchanged(copy):
    def yours():
        states(copy, "3.1", code=0)
        return json.loads((copy / "report.json").read_text())["lessons"][0]["yours"]

    solve(copy, LESSONS[0])
    solve(copy, LESSONS[2])
    assert yours() == [3]
    out, _ = states(copy, 1, code=0)
    assert yours() == [1, 3]
    path = copy / "1_engine" / "engine.py"
    path.write_text(path.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
    out, _ = run_command("course", "check", "3.1", "--dir", copy)
    assert "Your files of lesson 1 have changed since they were right: tinyseg course check 1" in out


def test_in_a_session_of_python_the_students_files_are_used(copy):
    code = "from tinyseg.learn import course; course.use('4_normalization'); import tinyseg.ops.group_norm as g"
    code += "; import sys; print(sys.modules['tinyseg.ops.group_norm'].__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(copy / "4_normalization" / "group_norm.py")
    code = "import tinyseg.ops; from tinyseg.learn import course; course.use()"
    done = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True)
    assert "were imported before the student's files could take their place" in done.stderr
    done = subprocess.run([sys.executable, "-c", code], cwd=copy.parent, capture_output=True, text=True)
    assert "expected a folder of the course, found none of its files" in done.stderr


def test_a_lesson_is_checked_in_its_own_folder_too(copy, monkeypatch):
    monkeypatch.chdir(copy / "3_convolution")
    out, _ = run_command("course", "check", "3.4", code=1)
    assert "3.4  to write" in out


def test_a_lesson_may_be_named_before_options_or_behind_them(copy):
    for words in (("3.4", "--dir", copy), ("--dir", copy, "3.4")):
        out, _ = run_command("course", "check", *words, code=1)
        assert "3.4  to write" in out


def test_a_misspelt_check_does_not_lay_out_a_course_in_the_course(copy, monkeypatch):
    monkeypatch.chdir(copy)
    _, err = run_command("course", "cheek", code=2)
    assert "this is a folder of the course: to check it" in err and not (copy / "cheek").exists()


@pytest.mark.slow
def test_a_picture_that_fails_says_so(copy):
    solve(copy, LESSONS[0])
    states(copy, 1, code=0)
    path = copy / "1_engine" / "engine.py"
    text = path.read_text(encoding="utf-8").replace(
        "        if not any(self.needs):\n",
        "        if not is_grad_enabled():\n            raise ValueError('mine')\n        if not any(self.needs):\n",
        1,
    )
    path.write_text(text, encoding="utf-8")
    record = json.loads((copy / "course.json").read_text())
    record["passed"]["1"] = {"engine.py": fingerprint_of_file(path)}
    (copy / "course.json").write_text(json.dumps(record))
    solve(copy, LESSONS[2])
    out, _ = states(copy, 3, code=0)
    assert "But the picture could not be drawn: ValueError: mine (engine.py of lesson 1, line" in out


def test_a_shorter_course(tmp_path):
    out, _ = run_command("course", tmp_path / "short", "--lessons", 1, 3, "--leave-out", "3.6", "3.7", "3.8")
    assert sorted(p.name for p in (tmp_path / "short").iterdir() if p.is_dir()) == ["1_engine", "3_convolution"]
    own = source_of("tinyseg.ops.conv2d").read_text(encoding="utf-8")
    assert (tmp_path / "short" / "3_convolution" / "conv2d.py").read_text(encoding="utf-8") == own
    run_command("course", tmp_path / "short", "--lessons", 2)
    assert (tmp_path / "short" / "2_arithmetic" / "gradcheck.py").exists()


def test_laying_out_again_changes_nothing_that_is_there(copy):
    path = copy / "2_arithmetic" / "gradcheck.py"
    path.write_text("mine", encoding="utf-8")
    (copy / "2_arithmetic" / "activation.py").unlink()
    out, _ = run_command("course", copy)
    assert out.startswith("1 file written") and path.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("course", "check"), "is no folder of the course, there is no course.json in it: lay one out"),
        (("course", "check", "8"), "expected a lesson from 1 to 7 or one of its tasks, such as 3.2, found '8'"),
        (("course", "check", "3.9"), "found '3.9'"),
        (("course", "check", "--lessons", "1"), "--lessons is for laying out: leave it out"),
        (("course", "new", "3"), "a lesson, --dir and --json are for `tinyseg course check`"),
        (("course", "new", "--leave-out", "3.9"), "expected tasks such as 3.7, found 3.9"),
        (("course", "full"), "full holds something else: expected a new folder for the course, or an empty one"),
    ],
)
def test_what_cannot_be_is_said(tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("")
    with pytest.raises(AssertionError) as failed:
        run_command(*words)
    assert sentence in " ".join(str(failed.value).split())
    assert not (tmp_path / "new").exists()


def test_a_copy_of_another_version_is_refused(tmp_path):
    lay_out(tmp_path / "old", "0.1.0", [1])
    _, err = run_command("course", "check", "--dir", tmp_path / "old", code=1)
    assert f"laid out by tinyseg 0.1.0, and this is {tinyseg.__version__}" in err


def test_bodies_are_taken_out_and_all_else_is_kept():
    source = '''"""About."""

import math


class A:
    @property
    def area(self):
        """The area."""
        # a comment

        return math.pi  # another


def f(x):
    # why
    y = x
    return y


g = 3
'''
    assert (
        take_out(source, {"A.area": "one", "f": "two"})
        == '''"""About."""

import math


class A:
    @property
    def area(self):
        """The area."""
        raise NotImplementedError('one')


def f(x):
    raise NotImplementedError('two')


g = 3
'''
    )
    for name in ("A.volume", "h"):
        with pytest.raises(ValueError, match=f"found none of the name {name}"):
            take_out(source, {name: ""})
    with pytest.raises(ValueError, match="found a docstring alone in f"):
        take_out('def f():\n    """Nothing."""\n', {"f": ""})
