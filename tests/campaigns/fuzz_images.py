"""The kinds of cases of images, volumes, archives and options; see `fuzz_kinds`."""

import gzip
import pathlib

from tests.campaigns import fuzz_changes as change
from tests.campaigns import fuzz_formats as formats
from tests.campaigns.fuzz_base import BRATS, ISBI, brain_commands, command, copied, kind, library, predict, volumes
from tests.campaigns.fuzz_changes import pick


# ----- images and volumes --------------------------------------------------------------------
def volume_kind(name, weight, damage):
    @kind(name, weight)
    def volume(rng, base, place):
        (folder,) = copied(base, place, "brains")
        file = pick(rng, volumes(place))
        content = damage(rng, file.read_bytes())
        if rng.random() < 0.3 and damage is formats.change_nifti:
            other = place / "one.nii"
            other.write_bytes(gzip.decompress(content))
            return predict(place, base / "brats/best.safetensors", other), ["one.nii"]
        file.write_bytes(content)
        return pick(rng, brain_commands(base, place, folder)), [file.name, str(file.parent)]


def _gzip_stream(rng, content):
    if rng.random() < 0.3:
        return content + pick(rng, (b"x", content, b"\0" * 1000, gzip.compress(b"x")))
    return change.change_bytes(rng, content, 32)


volume_kind("NIfTI: header", 8, formats.change_nifti)
volume_kind("NIfTI: gzip stream", 3, _gzip_stream)


def section_kind(name, weight, files, damage):
    @kind(name, weight)
    def section(rng, base, place):
        source = base / pick(rng, files)
        content = damage(rng, source.read_bytes())
        if source.suffix == ".tif" and rng.random() < 0.3:
            (folder,) = copied(base, place, "stack")
            file = folder / pick(rng, ("train-volume.tif", "train-labels.tif"))
            file.write_bytes(content)
            if rng.random() < 0.5:
                given = "--data", folder, "--val-sections", 1, "--epochs", 1, "--out", place / "run"
                return command("train_isbi", *ISBI, *given), [file.name, str(folder)]
            best, given = base / "isbi/best.safetensors", ("--images", folder, "--sections", "all", "--worst", 0)
            return command("evaluate", "--checkpoint", best, *given), [file.name, str(folder)]
        file = place / f"image{source.suffix}"
        file.write_bytes(content)
        return predict(place, base / "isbi/best.safetensors", file), [file.name]


TIFFS = ("stack/train-volume.tif", "stack/train-labels.tif", "lzw.tif", "tiled.tif", "imagej.tif", "float.tif")
section_kind("TIFF: tags", 8, TIFFS, formats.change_tiff)
section_kind("TIFF: bytes", 3, TIFFS, change.change_bytes)
section_kind("PNG: chunks", 5, ("a.png", "deep.png", "palette.png"), formats.change_png)
section_kind("PNG, JPEG and BMP: bytes", 5, ("a.png", "a.jpg", "a.bmp", "deep.png"), change.change_bytes)


# ----- archives -----------------------------------------------------------------------------
@kind("archive: ZIP", 4)
def archive_zip(rng, base, place):
    from tinyseg.data import download

    names = ("train-volume.tif", "train-labels.tif")
    content = formats.change_zip(rng, {f"isbi/{name}": (base / "stack" / name).read_bytes() for name in names})

    def fetch():
        download._download = lambda url, path, *_: pathlib.Path(path).write_bytes(content)
        download.fetch_isbi(place / "isbi_cache", "http://localhost/x.zip", False, dict.fromkeys(names))

    return library(fetch), ["x.zip"]


@kind("archive: TAR", 4)
def archive_tar(rng, base, place):
    import hashlib

    from tinyseg.data import download_brats

    files = [base / "brains/dataset.json", *volumes(base)]
    content = formats.change_tar(rng, {str(file.relative_to(base / "brains")): file.read_bytes() for file in files})
    folder = place / "brains_cache"  # what was unpacked before the damage stays there: the next call goes on
    folder.mkdir()
    (folder / download_brats.ARCHIVE).write_bytes(content)
    md5 = hashlib.md5(content).hexdigest()
    given = {"md5": md5, "size": len(content), "progress": False}
    return library(lambda: download_brats.fetch_brain_tumours(folder, **given)), [str(folder)]


# ----- options ------------------------------------------------------------------------------
ODD = (
    "0", "-1", "1", "2", "1e308", "-1e308", "1e-308", "nan", "inf", "-inf", "99999999999999999999", "9" * 5000, "", " ",
    "x", "é\u202e", "\ud800", "0x10", "1,5", "1:2", "2:1", "0:0:0", "1:1", "1" * 400, "all", "--", "-", "./", "1e5",
    "4096", "65536", "1_0", "+1", "٣", "1.0", "[1]", "\n", "a,b", ",", ":", "=", "none", "rotation=1e308", "zoom=0",
    "elastic=1e9", "shift=nan", "hflip,hflip", "4294967295",
)  # fmt: skip


@kind("options", 9)
def options(rng, base, place):
    best, out = base / "isbi/best.safetensors", ("--out", place / "out")
    given, names = pick(
        rng,
        (
            (
                ("train_isbi", *ISBI, "--data", base / "stack", "--val-sections", 1, "--epochs", 1, *out),
                "--augment --model --width --head --ws --dropout --protocol --epochs --batch-size --lr --schedule "
                "--warmup --clip --seed --gpu-memory --workers --foreground --size --val-sections --standardize --out "
                "--resume --data",
            ),
            (
                ("train_brats", *BRATS, "--data", base / "brains", "--cache", base / "cache", "--epochs", 1, *out),
                "--shares --val-cases --size --how --standardize --mode --dice-weight --ce-weight --class-weights "
                "--empty-share --steps-per-epoch --width --batch-size --epochs --seed --lr --clip --warmup",
            ),
            (
                ("predict", "--checkpoint", best, base / "a.png", *out),
                "--scale --threshold --transforms --memory --suffix --gpu-memory --checkpoint --out",
            ),
            (
                ("evaluate", "--checkpoint", best, "--images", base / "stack", "--sections", "all", "--worst", 0),
                "--threshold --memory --sections --small --foreground --empty --degenerate --worst --cases --out "
                "--images",
            ),
        ),
    )  # fmt: skip
    more = [f"{pick(rng, names.split())}={pick(rng, ODD)}" for _ in range(rng.integers(1, 3))]
    if any(option.startswith(("--epochs=", "--steps-per-epoch=")) for option in more):  # a long training is no fault
        more = [option for option in more if option.split("=")[1] not in ("65536", "4096", "1e5", "1" * 400)]
    return command(*given, *more), [option.split("=")[0] for option in more] + [
        str(place),
        *(o.split("=")[1] for o in more),
    ]
