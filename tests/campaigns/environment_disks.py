"""Places of the campaign of `environment` that are disks, folders and names."""

import contextlib
import os
import pathlib
import resource
import shutil
import socket
import subprocess

from tests.campaigns.environment_commands import QUICK
from tests.campaigns.environment_places import Missing, Place, a_program

TRAINING = ("train_isbi", "train_brats")


@contextlib.contextmanager
def mounted(folder, options):
    """Mount a file system in memory."""
    folder.mkdir()
    a_program("mount", "-t", "tmpfs", "-o", options, "tmpfs", folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder])


def move_out(setting, folder):
    """Put --out, with what it holds, into a folder."""
    new = folder / pathlib.Path(setting.out).relative_to(setting.room)
    if os.path.isdir(setting.out):
        shutil.copytree(setting.out, new)
    setting.out = str(new)


# ----- disks -----------------------------------------------------------------------
def disk(options, words=(), larger="size=400m,nr_inodes=10000"):
    def make(setting, command):
        with mounted(setting.room / "disk", options) as folder:
            if command.name == "evaluate":
                (folder / "out").mkdir()
            setting.out = str(folder / pathlib.Path(setting.out).relative_to(setting.room))
            setting.expected, setting.words = "either", words
            yield
            subprocess.run(["mount", "-o", f"remount,{larger}", folder], check=True)
            yield

    return make


def read_only(setting, command):
    with mounted(setting.room / "disk", "size=100m") as folder:
        move_out(setting, folder)
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        setting.expected, setting.words = "refused", (str(folder),)
        yield
        subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
        yield


def largest_file(size):
    def make(setting, command):
        setting.before = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        setting.expected, setting.words = "either", ("could not be written", "could not be drawn")
        yield
        setting.before = None
        yield

    return make


# ----- what --out is ---------------------------------------------------------------
def existing(create, expected="refused", words=()):
    """Make --out be what `create(path)` makes; mended, it is gone."""

    def make(setting, command):
        path = pathlib.Path(setting.out)
        if command.is_file:
            path.parent.mkdir()
        shutil.rmtree(path, ignore_errors=True)  # the study is made from the start
        create(path)
        setting.expected, setting.words = expected, words
        yield
        assert path.is_symlink() or path.exists() or expected != "refused", "it was replaced"
        path.unlink() if path.is_symlink() or not path.is_dir() else path.rmdir()
        yield

    return make


def a_file(path):
    path.write_text('"a letter to a friend"\n')  # which is JSON, and no file of ours


def a_socket(path):
    folder = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/fd/{folder}/{path.name}")  # the name of a socket is short
    os.close(folder)


def a_device(number):
    def create(path):
        try:
            os.mknod(path, 0o666 | 0o020000, os.makedev(1, number))
        except PermissionError:
            raise Missing("devices need root") from None

    return create


def a_link(target, make_target=None):
    def create(path):
        path.symlink_to(path.parent / target)
        if make_target:
            make_target(path.parent / target)

    return create


def below_a_file(setting, command):
    file = setting.room / "file"
    a_file(file)
    setting.out, setting.expected, setting.words = str(file / "out" / "scores.json"), "refused", (str(file),)
    yield


def no_folder_any_more(setting, command):
    gone = setting.room / "gone"
    gone.mkdir()
    setting.before = lambda: (os.chdir(gone), os.rmdir(gone))
    if command.from_study:
        raise Missing("the study is elsewhere")
    setting.out, setting.expected = "out/scores.json" if command.is_file else "out", "refused"
    yield


def here(setting, command):
    setting.made, setting.out = setting.out, "scores.json" if command.is_file else "."
    setting.cwd = os.path.dirname(setting.made) if command.is_file else setting.made
    os.makedirs(setting.cwd, exist_ok=True)
    yield


# ----- names -----------------------------------------------------------------------
def named(name):
    def make(setting, command):
        room = os.fsencode(setting.room)
        folder = os.path.join(room, name if isinstance(name, bytes) else name.encode())
        if command.from_study:
            shutil.copytree(os.fsencode(setting.out), folder)
        setting.out = os.path.join(folder, b"scores.json") if command.is_file else folder
        yield

    return make


def deep(levels):
    def make(setting, command):
        setting.out = str(setting.room / "/".join(["d" * 100] * levels) / ("scores.json" if command.is_file else "out"))
        setting.expected = "works" if levels < 35 else "refused"
        if command.from_study:
            raise Missing("a study cannot be copied there") if levels >= 35 else None
        yield

    return make


NAMES = {
    "spaces": "my  results ", "a newline": "two\nlines", "quotes": "it's \"so\"", "emoji": "🧠 切片 é", "a dash": "-o",
    "a bell and an escape": "\a\x1b[31m", "bytes that are no UTF-8": b"caf\xe9 \xff", "255 letters": "n" * 255,
    "a template": "%s {} $HOME `id` $(id) \\n", "a tilde": "~", "right to left": "\u202eabc", "a wildcard": "*[a]?",
}  # fmt: skip


def all_places():
    """Yield every place."""
    room = ("could not be", "make room", "No space", "full")
    for size in (4, 24, 64, 160, 320, 480, 640):
        yield Place("disks", f"a disk of {size} KiB", disk(f"size={size}k", room), (*TRAINING, "predict", "evaluate"))
    for size in (100, 300, 700, 1200):
        yield Place("disks", f"a disk of {size} KiB", disk(f"size={size}k", room), ("study",))
    for inodes in (2, 3, 5, 8, 12):
        name = f"a disk with room for {inodes} files"
        yield Place("disks", name, disk(f"size=9m,nr_inodes={inodes}", room), (*TRAINING, "predict", "evaluate"))
    yield Place("disks", "a read-only disk", read_only)
    for size in (1 << 10, 20_000, 90_000):
        yield Place("disks", f"files of at most {size} bytes", largest_file(size))

    yield Place(
        "what --out is", "a file", existing(a_file), ("train_isbi", "train_brats", "predict", "tables", "study")
    )
    yield Place("what --out is", "somebody's text", existing(a_file), ("evaluate",))
    yield Place("what --out is", "a pipe", existing(os.mkfifo))
    yield Place("what --out is", "a socket", existing(a_socket))
    yield Place("what --out is", "/dev/null", existing(a_device(3)))
    yield Place("what --out is", "/dev/full", existing(a_device(7)))
    yield Place("what --out is", "a link to nothing", existing(a_link("nothing"), "either"))
    yield Place("what --out is", "a link to itself", existing(a_link("out"), "refused"), QUICK[:3])
    yield Place("what --out is", "a link to a folder", existing(a_link("elsewhere", os.mkdir), "works"), QUICK[:3])
    yield Place("what --out is", "a folder", existing(os.mkdir), ("evaluate",))
    yield Place("what --out is", "an empty folder", existing(os.mkdir, "works"), QUICK[:3])
    yield Place("what --out is", "below a file", below_a_file)
    yield Place("what --out is", "in a folder that was deleted", no_folder_any_more, QUICK[:4])
    yield Place("what --out is", "the current folder", here)

    for number, (name, text) in enumerate(NAMES.items()):  # each with three commands, all together with all
        chosen = [QUICK[(number + k) % len(QUICK)] for k in (0, 1, 3)]
        yield Place("names", name, named(text), tuple(chosen))
    yield Place("names", "ten folders deep", deep(10), QUICK[:4])
    yield Place("names", "fifty folders deep", deep(50), QUICK[:4])
