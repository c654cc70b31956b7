"""tinyseg export as a user meets it: what it writes is run beside tinyseg, and what differs is not left behind."""

import shutil
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image
from scripts import run_command

import tinyseg as ts
from tinyseg import nn
from tinyseg.commands import export
from tinyseg.data import em_sections
from tinyseg.export.c import program as c_program

NEEDS_CC = pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("clang")), reason="there is no C compiler here")
GREY = {"scale": [1, 1], "standardize": "section"}


def save(path, name="sdunet", preprocessing=GREY, **options):
    """Save a network that was never trained, on data that nobody has: an image must be given with --check."""
    model = ts.models.build(name, width=8, levels=3, **options)
    ts.checkpoint.save(path, model, preprocessing=preprocessing)
    return path


@pytest.fixture
def checkpoint(tmp_path):
    return save(tmp_path / "net.safetensors")


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A network that has learned a little: one that has not is in doubt everywhere, and 8 bits flip its mask."""
    images, labels = em_sections(num_sections=4, size=64, seed=2)
    x, y = ts.data.standardize(images)[:, None], labels[:, None]
    model = ts.models.build("sdunet", width=8, levels=3)
    optimizer = ts.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(40):
        loss = ts.ops.binary_cross_entropy_with_logits(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    path = tmp_path_factory.mktemp("trained") / "net.safetensors"
    ts.checkpoint.save(path, model, preprocessing=GREY)
    return path


@pytest.fixture
def section(tmp_path):
    Image.fromarray(em_sections(num_sections=1, size=96, seed=3)[0][0, :70]).save(tmp_path / "section.png")
    return tmp_path / "section.png"


@NEEDS_CC
def test_a_run_is_exported_and_run_beside_tinyseg(isbi_run, tmp_path):
    out, err = run_command("export", isbi_run / "best.safetensors", "--out", tmp_path, "--format", "c")
    assert {file.name for file in (tmp_path / "c").iterdir()} == {*c_program.SOURCES, "weights.bin"}
    assert "Run beside tinyseg on new synthetic sections" in out and "0 of 2048" in out
    assert {path.name for path in tmp_path.iterdir()} == {"c"} and "Traceback" not in err


def test_every_format_at_once(trained, section, tmp_path):
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    if not (shutil.which("node") and shutil.which("gcc")):
        pytest.skip("there is neither Node.js nor gcc here")
    images = tmp_path / "images"
    images.mkdir()
    for k, image in enumerate(em_sections(num_sections=3, size=64, seed=5)[0]):
        Image.fromarray(image).save(images / f"{k}.png")
    out, _ = run_command(
        "export", trained, "--out", tmp_path / "out", "--check", section, "--format", "bioimageio,html,c,onnx",
        "--license", "CC-BY-4.0", "--author", "A. Name", "--int8", images,
    )  # fmt: skip
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(export.FILES.values())
    assert "images: 3 images without masks" in out and "section 0 of section.png" in out
    assert all(f"\n{name} " in out for name in export.FILES), out
    assert "holds a part of the first image that it is checked on" in out


@NEEDS_CC
def test_what_is_there_is_not_replaced_without_force(checkpoint, section, tmp_path):
    words = "export", checkpoint, "--out", tmp_path / "out", "--format", "c", "--check", section
    run_command(*words)
    (tmp_path / "out" / "c" / "main.c").write_text("mine")
    _, err = run_command(*words, code=1)
    assert "has c already: give another --out, or --force" in err
    assert (tmp_path / "out" / "c" / "main.c").read_text() == "mine"
    run_command(*words, "--force")
    assert "int main" in (tmp_path / "out" / "c" / "main.c").read_text()


@NEEDS_CC
def test_an_export_that_differs_leaves_nothing(checkpoint, section, tmp_path, monkeypatch):
    right = c_program.pack

    def wrong(*arguments):
        content = bytearray(right(*arguments))
        content[-4:] = np.float32(0.3).tobytes()  # the last bias
        return bytes(content)

    monkeypatch.setattr(c_program, "pack", wrong)
    words = "export", checkpoint, "--out", tmp_path / "out", "--format", "c", "--check", section
    _, err = run_command(*words, code=1)
    assert "exported as c differs from tinyseg" in err and "Nothing is left behind" in err
    assert not (tmp_path / "out").exists()


@NEEDS_CC
def test_an_earlier_export_survives_one_that_differs(checkpoint, section, tmp_path, monkeypatch):
    words = "export", checkpoint, "--out", tmp_path / "out", "--format", "c", "--check", section
    run_command(*words)
    before = (tmp_path / "out" / "c" / "weights.bin").read_bytes()
    monkeypatch.setattr(c_program, "pack", lambda *arguments: b"nothing")
    run_command(*words, "--force", code=1)
    assert (tmp_path / "out" / "c" / "weights.bin").read_bytes() == before


def test_what_a_killed_export_left_is_cleared_away(checkpoint, section, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "WRITERS", {"c": lambda *_: pytest.fail("nothing is written")})
    left = tmp_path / "out" / f"{export.UNFINISHED}abc"
    left.mkdir(parents=True)
    (left / "weights.bin").write_bytes(b"0")
    monkeypatch.setattr(export, "write_and_check", lambda name, *_: (_ for _ in ()).throw(ValueError("stopped")))
    run_command("export", checkpoint, "--out", tmp_path / "out", "--format", "c", "--check", section, code=1)
    assert not list((tmp_path / "out").iterdir())


def test_a_tool_that_is_missing_is_said_and_the_file_kept(checkpoint, section, tmp_path, monkeypatch):
    monkeypatch.setattr(c_program, "find_compiler", lambda: (_ for _ in ()).throw(export.NotRunError("install gcc")))
    words = "export", checkpoint, "--out", tmp_path / "out", "--format", "c", "--check", section
    out, _ = run_command(*words)
    assert "c: written, and not run here: install gcc" in out and "not run" in out
    assert (tmp_path / "out" / "c" / "network.c").is_file()


def test_what_cannot_be_written_is_left_out_unless_it_is_asked_for(checkpoint, section, tmp_path, monkeypatch):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(export, "write_and_check", lambda name, args, predictor, sections, place: (
        (place / export.FILES[name]).write_text(name), (name, ["", "", ""])
    )[1])  # fmt: skip
    out, _ = run_command("export", checkpoint, "--out", tmp_path / "out", "--check", section)
    assert "onnx is left out: it needs pip install 'tinyseg[export]'" in out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"segment.html", "c"}


def test_training_data_that_is_gone_asks_for_an_image(checkpoint, tmp_path):
    _, err = run_command("export", checkpoint, "--out", tmp_path / "out", code=1)
    assert "does not know the place: give an image with --check IMAGE" in err and not (tmp_path / "out").exists()
    model = ts.models.build("sdunet", width=4, levels=2)
    config = {"data": str(tmp_path / "gone"), "seed": 0}
    ts.checkpoint.save(tmp_path / "moved.safetensors", model, preprocessing=GREY, config=config)
    _, err = run_command("export", tmp_path / "moved.safetensors", "--out", tmp_path / "out", code=1)
    assert "gone, which is not there: give an image with --check IMAGE" in err


def test_an_image_to_check_with_that_is_not_there(checkpoint, tmp_path):
    _, err = run_command("export", checkpoint, "--out", tmp_path / "out", "--check", tmp_path / "typo.png", code=1)
    assert "typo.png does not exist: expected an image to check with" in err and "training" not in err


@pytest.mark.parametrize(
    ("example", "sentence"),
    [("typo.png", "does not exist: expected a PNG"), (".", "is a folder"), ("photo.jpg", "is no PNG")],
)
def test_an_example_that_is_no_png(checkpoint, section, tmp_path, example, sentence):
    Image.open(section).save(tmp_path / "photo.jpg")
    words = "export", checkpoint, "--out", tmp_path / "out", "--check", section, "--format", "html"
    _, err = run_command(*words, "--example", tmp_path / example, code=1)
    assert sentence in err and "Errno" not in err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["html", "c"])
def test_a_folder_where_a_file_should_be_is_not_replaced_even_with_force(checkpoint, section, tmp_path, format):
    target = tmp_path / "out" / export.FILES[format]
    target.parent.mkdir()
    if format == "html":
        target.mkdir()
    else:
        target.write_text("mine")
    words = "export", checkpoint, "--out", tmp_path / "out", "--check", section, "--format", format, "--force"
    _, err = run_command(*words, code=1)
    assert "is to be written there: move it away" in err
    assert [path.name for path in target.parent.iterdir()] == [target.name]


@NEEDS_CC
def test_8_bits_need_no_other_package(trained, section, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    images = tmp_path / "images.tif"
    tifffile.imwrite(images, em_sections(num_sections=3, size=64, seed=5)[0], photometric="minisblack")
    out, _ = run_command(
        "export", trained, "--out", trained.parent / "export", "--check", section, "--format", "c", "--int8", images
    )
    assert "3 images without masks" in out and "\nint8 " in out
    out, _ = run_command("predict", "--checkpoint", trained, images, "--out", tmp_path / "masks", "--runtime", "int8")
    assert f", 8 bits ({trained.parent / 'export' / 'model_int8.safetensors'})" in out
    assert tifffile.imread(tmp_path / "masks" / "images_mask.tif").shape == (3, 64, 64)


def test_calibrating_with_a_blank_image_says_what_to_give(trained, section, tmp_path):
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    Image.fromarray(np.full((64, 64), 7, np.uint8)).save(tmp_path / "blank.png")
    words = "export", trained, "--out", tmp_path / "out", "--check", section, "--format", "onnx"
    out, err = run_command(*words, "--int8", tmp_path / "blank.png", code=1)
    assert "1 image without masks" in out and "Give --int8 more images" in err and not (tmp_path / "out").exists()


@NEEDS_CC
def test_the_training_data_are_found_again(tmp_path):
    stack, masks = em_sections(num_sections=6, size=40, seed=1)
    tifffile.imwrite(tmp_path / "train-volume.tif", stack)
    tifffile.imwrite(tmp_path / "train-labels.tif", masks.astype(np.uint8) * 255)
    config = {"data": str(tmp_path), "seed": 0, "val_sections": "3"}
    model = ts.models.build("sdunet", width=4, levels=2)
    ts.checkpoint.save(tmp_path / "net.safetensors", model, preprocessing=GREY, config=config)
    out, _ = run_command("export", tmp_path / "net.safetensors", "--out", tmp_path / "out", "--format", "c")
    assert "sections 3, 4 of train-volume.tif" in out


@NEEDS_CC
def test_masks_beside_the_images_are_no_images_to_check_with(checkpoint, tmp_path):
    (tmp_path / "mixed").mkdir()
    for k, (image, mask) in enumerate(zip(*em_sections(num_sections=2, size=40, seed=1), strict=True)):
        Image.fromarray(image).save(tmp_path / "mixed" / f"cell{k}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "mixed" / f"cell{k}_mask.png")
    for name in ("cell1.png", "cell1_mask.png"):
        (tmp_path / "mixed" / name).unlink()
    out, _ = run_command("export", checkpoint, "--out", tmp_path / "c", "--format", "c", "--check", tmp_path / "mixed")
    assert "section 0 of cell0.png" in out


@NEEDS_CC
def test_float_images_are_checked_too(checkpoint, tmp_path):
    tifffile.imwrite(tmp_path / "float.tif", np.random.default_rng(0).normal(size=(50, 40)).astype(np.float32))
    words = "--out", tmp_path / "out", "--format", "c", "--check", tmp_path / "float.tif"
    out, _ = run_command("export", checkpoint, *words)
    assert "section 0 of float.tif" in out


def test_onnx_with_preprocessing_and_of_a_fixed_size(checkpoint, section, tmp_path):
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    import onnx

    words = "export", checkpoint, "--format", "onnx", "--check", section
    run_command(*words, "--out", tmp_path / "grey", "--with-preprocessing", "--opset", 21)
    half = save(tmp_path / "half.safetensors", preprocessing={"scale": [0.5, 0.5], "standardize": "section"})
    out, _ = run_command("export", half, *words[2:], "--out", tmp_path / "half", "--with-preprocessing")
    assert "does not resample: resize images by 0.5 × 0.5 (rows, columns)" in out
    run_command(*words, "--out", tmp_path / "fixed", "--size", 48, 64)
    grey, fixed = (onnx.load(tmp_path / name / "model.onnx") for name in ("grey", "fixed"))
    assert grey.graph.output[0].name == "probabilities" and grey.opset_import[0].version == 21
    sides = [d.dim_value for d in fixed.graph.input[0].type.tensor_type.shape.dim]
    assert sides == [1, 1, 48, 64] and fixed.graph.output[0].name == "logits"
    _, err = run_command(*words, "--out", tmp_path / "odd", "--size", 50, 64, code=1)
    assert "size must be multiples of 4, but is 50 x 64" in err


def test_eight_bits_of_masked_images_print_their_scores(trained, section, tmp_path):
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    images, masks = em_sections(num_sections=4, size=64, seed=5)
    for name, stack in (("images", images), ("labels", masks.astype(np.uint8) * 255)):
        (tmp_path / name).mkdir()
        for k, each in enumerate(stack):
            Image.fromarray(each).save(tmp_path / name / f"{k}.png")
    words = "export", trained, "--format", "onnx", "--check", section, "--out", tmp_path / "out"
    out, _ = run_command(*words, "--int8", tmp_path)
    assert "4 images with masks" in out and "Dice" in out and "8 bits  " in out
    run_command(*words, "--force", "--int8", tmp_path, "--with-preprocessing", "--size", 96, 64)


def test_a_network_of_brains_is_exported_as_a_page_and_not_as_a_program(brats_run, tmp_path):
    pytest.importorskip("onnxruntime")
    if not shutil.which("node"):
        pytest.skip("there is no Node.js here")
    best = brats_run[0] / "best.safetensors"
    out, _ = run_command("export", best, "--out", tmp_path / "out")
    assert "sections 7, 8 of " in out and "c is left out: the program takes pictures" in out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"segment.html", "model.onnx"}
    _, err = run_command("export", best, "--out", tmp_path / "c", "--format", "c", code=1)
    assert "4 modalities" in err and "--format onnx" in err and not (tmp_path / "c").exists()


@NEEDS_CC
def test_a_network_of_two_channels_is_a_program_and_no_page(tmp_path):
    pytest.importorskip("onnxruntime")
    checkpoint = save(tmp_path / "two.safetensors", in_channels=2)
    voxels = np.random.default_rng(0).integers(0, 900, (40, 36, 3, 2)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "two.nii")
    out, _ = run_command("export", checkpoint, "--out", tmp_path / "out", "--check", tmp_path / "two.nii")
    assert "html is left out: the page takes grey pictures, and this network 2 channels" in out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"c", "model.onnx"}


def test_a_network_of_ones_own_is_refused_by_its_layer(tmp_path, section):
    class Attention(nn.Module):
        def forward(self, x):
            return x

    class Own(ts.models.UNet):
        def __init__(self, in_channels=1, num_classes=1, **options):
            super().__init__(in_channels, num_classes, **options)
            self.encoder[0].norm = Attention()

    ts.models.register("with_attention", Own)
    try:
        model = ts.models.build("with_attention", width=4, levels=2)
        ts.checkpoint.save(tmp_path / "own.safetensors", model, preprocessing=GREY)
        words = "export", tmp_path / "own.safetensors", "--out", tmp_path / "out", "--check", section, "--format", "c"
        _, err = run_command(*words, code=1)
    finally:
        del ts.models.MODELS["with_attention"]
    assert "encoder.0.norm is a Attention" in err and "GroupNorm" in err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--format", "c,pdf"], "expected some of html, c, onnx, bioimageio with commas, found 'pdf'"),
        (["--format", "bioimageio"], "needs --license SPDX and --author NAME"),
        (["--format", "c", "--opset", "21"], "--opset: this is for --format onnx"),
        (["--format", "onnx", "--example", "a.png"], "--example: this is for --format html"),
        (["--license", "MIT"], "--license: this is for --format bioimageio"),
        (["--dtype", "uint8"], "--dtype is for --with-preprocessing"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_options_that_do_not_go_together(checkpoint, tmp_path, options, sentence):
    code = 1 if "this is for" in sentence else 2
    _, err = run_command("export", checkpoint, "--out", tmp_path / "out", *options, code=code)
    assert sentence in err and not (tmp_path / "out").exists()


@pytest.mark.slow
@NEEDS_CC
def test_an_export_that_is_killed_leaves_no_part_of_a_file(checkpoint, section, tmp_path):
    if not shutil.which("node"):
        pytest.skip("there is no Node.js here")
    out = tmp_path / "out"
    words = [
        sys.executable,
        "-m",
        "tinyseg",
        "export",
        checkpoint,
        "--out",
        out,
        "--check",
        section,
        "--format",
        "html,c",
    ]
    for wait in (0, 0.3, 0.8, 1.5):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (out.is_dir() and list(out.glob(f"{export.UNFINISHED}*"))):
            time.sleep(0.01)
        time.sleep(wait)
        process.kill()
        process.wait()
        for path in out.glob("segment.html"):
            assert path.read_text().rstrip().endswith("</html>")
    subprocess.run([*words, "--force"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert {path.name for path in out.iterdir()} == {"segment.html", "c"}
    assert (out / "segment.html").read_text().rstrip().endswith("</html>")
