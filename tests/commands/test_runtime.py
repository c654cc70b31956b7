"""predict and evaluate with --runtime: the network runs in onnxruntime, and everything else stays as it is."""

import json
import shutil

import numpy as np
import pytest
import tifffile
from brains import save_network, small_brains
from PIL import Image
from scripts import run_command

import tinyseg as ts
from tests.export.networks import trained_like
from tinyseg.commands.quantize import compare, quantize, read_examples
from tinyseg.commands.runtime import INT8
from tinyseg.data import em_sections
from tinyseg.export.calibration import quantize as choose_integers
from tinyseg.export.describing import describe
from tinyseg.export.int8_file import save_int8
from tinyseg.export.onnx.file import metadata_of, write_onnx
from tinyseg.export.onnx.runtime import OnnxFile
from tinyseg.metrics import accuracy, dice, iou
from tinyseg.prediction.predictor import Predictor

pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytestmark = pytest.mark.slow

SECTION = {"scale": [0.5, 0.5], "standardize": "section"}


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint in ``run``, and sections with masks in ``isbi``: train-volume.tif and train-labels.tif."""
    images, labels = em_sections(6, size=80)
    (tmp_path / "isbi").mkdir()
    tifffile.imwrite(tmp_path / "isbi" / "train-volume.tif", images[:, :, :74])
    tifffile.imwrite(tmp_path / "isbi" / "train-labels.tif", np.where(labels, 255, 0).astype(np.uint8)[:, :, :74])
    (tmp_path / "run").mkdir()
    return save(tmp_path / "run" / "best.safetensors")


def save(path, seed=0, **options):
    model = trained_like(seed, name="sdunet", width=6, levels=3, **options)
    ts.checkpoint.save(path, model, preprocessing=SECTION, classes=["inside of a cell"])
    return path


def export(checkpoint, path, int8=False, **options):
    predictor = Predictor.load(checkpoint)
    if options.pop("prepared", False):
        options["preparation"] = predictor.preparation
    path.parent.mkdir(exist_ok=True)
    network = describe(predictor.model)
    if int8:
        network = choose_integers(network, [np.random.default_rng(0).normal(size=(1, 40, 36)).astype(np.float32)])
    if path.suffix == ".safetensors":
        save_int8(path, network, metadata_of(predictor.model)["weights"])
        return path
    write_onnx(path, network, metadata=metadata_of(predictor.model), **options)
    return path


def predict(checkpoint, *options, code=0):
    folder = checkpoint.parents[1]
    stack = folder / "isbi" / "train-volume.tif"
    out, err = run_command("predict", "--checkpoint", checkpoint, stack, "--out", folder / "out", *options, code=code)
    if code:
        return err
    kind = "probability" if "--probabilities" in options else "mask"
    return tifffile.imread(folder / "out" / f"train-volume_{kind}.tif"), out


@pytest.mark.parametrize("transforms", ["none", "flips"])
def test_onnxruntime_gives_the_probabilities_of_tinyseg(checkpoint, transforms):
    given = "--probabilities", "--force", "--transforms", transforms
    expected, _ = predict(checkpoint, *given, "--device", "cpu")
    found, out = predict(checkpoint, *given, "--runtime", "onnx")
    assert "run by onnxruntime (float)" in out
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert len(np.unique(expected)) > 1000


def test_large_images_go_through_it_in_tiles(checkpoint):
    image = np.random.default_rng(0).integers(0, 256, (300, 150)).astype(np.uint8)
    predictor, whole = Predictor.load(checkpoint, memory=1), Predictor.load(checkpoint)
    expected = predictor(image)
    assert predictor.tile == 64 and np.abs(expected - whole(image)).max() > 0.01  # norms over tiles
    network, shapes = OnnxFile(export(checkpoint, checkpoint.parent / "model.onnx")), set()
    predictor.forward = lambda x: shapes.add(x.shape) or network(x)
    np.testing.assert_allclose(predictor(image), expected, rtol=0, atol=1e-4)
    assert shapes == {(1, 1, 64, 64)}


@pytest.mark.parametrize("place", [INT8, f"export/{INT8}", "../elsewhere/small.onnx"])
def test_the_quantized_network_is_found_or_named(checkpoint, place):
    file = export(checkpoint, checkpoint.parent / place, int8=True)
    named = "int8" if file.name == INT8 else file
    expected, _ = predict(checkpoint, "--probabilities", "--force", "--device", "cpu")
    found, out = predict(checkpoint, "--probabilities", "--force", "--runtime", named)
    assert (f", 8 bits ({file})" if named == "int8" else f"run by onnxruntime ({file})") in out
    assert 0 < np.abs(found - expected).mean() < 0.03


def test_a_file_that_gives_probabilities_will_do(checkpoint):
    file = export(checkpoint, checkpoint.parent / "model.onnx", probabilities=True)
    expected, _ = predict(checkpoint, "--device", "cpu")
    found, _ = predict(checkpoint, "--force", "--runtime", file)
    assert (found != expected).mean() < 1e-3 and len(np.unique(expected)) == 2


def test_the_record_says_what_computed(checkpoint):
    record = checkpoint.parents[1] / "out" / "predictions.json"
    predict(checkpoint, "--device", "cpu")
    assert "runtime" not in json.loads(record.read_text())["settings"]["train-volume_mask.tif"]
    assert "was made with another runtime (see" in predict(checkpoint, "--runtime", "onnx", code=1)
    predict(checkpoint, "--runtime", "onnx", "--force")
    assert json.loads(record.read_text())["settings"]["train-volume_mask.tif"]["runtime"] == "onnx"
    assert "is there already" in predict(checkpoint, "--runtime", "onnx")[1]
    file = export(checkpoint, checkpoint.parent / "model_int8.onnx", int8=True)
    predict(checkpoint, "--runtime", file, "--force")
    settings = json.loads(record.read_text())["settings"]["train-volume_mask.tif"]
    assert settings["runtime"] == "model_int8.onnx" and len(settings["runtime_sha1"]) == 40
    assert "is there already" in predict(checkpoint, "--runtime", file)[1]
    export(checkpoint, file, opset=21, int8=True)
    assert "made with another runtime (see" in predict(checkpoint, "--runtime", file, code=1)
    export(checkpoint, checkpoint.parent / INT8, int8=True)
    predict(checkpoint, "--runtime", "int8", "--force")
    assert json.loads(record.read_text())["settings"]["train-volume_mask.tif"]["runtime"] == INT8


def test_a_quantized_network_that_is_not_there_is_a_sentence_with_a_command(checkpoint):
    said = predict(checkpoint, "--runtime", "int8", code=1)
    assert f"there is no {checkpoint.parent / INT8} and no " in said
    assert f"tinyseg export {checkpoint} --out {checkpoint.parent / 'export'} --int8 FOLDER_OF_IMAGES" in said


def test_the_command_quotes_a_folder_with_a_space(checkpoint, tmp_path):
    (tmp_path / "my runs").mkdir()
    moved = checkpoint.rename(tmp_path / "my runs" / checkpoint.name)
    assert f"tinyseg export '{moved}' --out '{moved.parent / 'export'}'" in predict(moved, "--runtime", "int8", code=1)


def test_a_file_of_another_network_is_refused(checkpoint):
    """A user trained again and forgot to export again."""
    onnx = export(checkpoint, checkpoint.parent / "model_int8.onnx", int8=True)
    export(checkpoint, checkpoint.parent / INT8, int8=True)
    save(checkpoint, seed=1)
    for runtime in ("int8", onnx):
        assert "was not exported from" in predict(checkpoint, "--runtime", runtime, code=1)


def test_a_file_that_prepares_images_is_refused(checkpoint):
    file = export(checkpoint, checkpoint.parent / "model.onnx", prepared=True)
    assert "prepares images itself" in predict(checkpoint, "--runtime", file, code=1)


@pytest.mark.parametrize("options", [["--device", "gpu"], ["--cuda-graph"]])
def test_onnxruntime_is_for_the_cpu(checkpoint, options):
    said = predict(checkpoint, "--runtime", "onnx", *options, code=1)
    assert "--runtime onnx computes on the CPU: leave out --device gpu and --cuda-graph" in said


def test_a_runtime_that_is_not_known_is_refused(checkpoint):
    assert "expected tinyseg, onnx, int8, or a file that ends in .onnx, found 'torch'" in predict(
        checkpoint, "--runtime", "torch", code=2
    )


def test_evaluate_scores_what_onnxruntime_computes(checkpoint):
    folder = checkpoint.parents[1]
    given = "--checkpoint", checkpoint, "--images", folder / "isbi", "--worst", 0, "--out", folder / "scores.json"
    found = []
    for runtime in ("tinyseg", "onnx"):
        run_command("evaluate", *given, "--runtime", runtime, "--device", "cpu")
        found.append(json.loads((folder / "scores.json").read_text())["metrics"]["dice"])
    assert found[0] == pytest.approx(found[1], abs=1e-3)
    bare = "--predictions", folder / "isbi" / "train-labels.tif", "--labels", folder / "isbi" / "train-labels.tif"
    _, err = run_command("evaluate", *bare, "--runtime", "onnx", code=1)
    assert "--runtime: this is for a network, and --predictions runs none" in err


# ----- quantize ------------------------------------------------------------------------
def test_with_masks_the_loss_is_that_of_the_scores_of_both(checkpoint, capsys):
    folder, predictor = checkpoint.parents[1] / "isbi", Predictor.load(checkpoint)
    network, found = quantize(predictor, folder)
    truth = tifffile.imread(folder / "train-labels.tif") > 0
    sections = tifffile.imread(folder / "train-volume.tif")
    masks = {"float": np.stack([predictor(section)[0] for section in sections]) > 0.5}
    predictor.forward = network
    masks["int8"] = np.stack([predictor(section)[0] for section in sections]) > 0.5
    assert found["changed"] == np.mean(masks["int8"] != masks["float"]) > 0
    for name, mask in masks.items():
        assert found[name]["accuracy"] == pytest.approx(accuracy(mask, truth), abs=1e-9)
        assert found[name]["dice"] == pytest.approx([dice(mask, truth)], abs=1e-9)
        assert found[name]["iou"] == pytest.approx([iou(mask, truth)], abs=1e-9)
    out = capsys.readouterr().out
    assert "6 images with masks" in out and "Dice, inside of a cell" in out and "8 bits" in out
    assert len(network.convolutions) > 10 and 0 < found["mean"] < found["largest"] < 1


def test_without_masks_both_networks_are_compared(checkpoint, tmp_path, capsys):
    (tmp_path / "pictures").mkdir()
    for k, image in enumerate(em_sections(3, size=70)[0]):
        Image.fromarray(image[:50]).save(tmp_path / "pictures" / f"{k}.png")
    _, found = quantize(Predictor.load(checkpoint), tmp_path / "pictures")
    assert found["images"] == 3 and "float" not in found and 0 < found["changed"] < 0.1
    out = capsys.readouterr().out
    assert "3 images without masks" in out and "Dice" not in out and "of the pixels change their class on 3" in out


def test_a_single_stack_is_spread_over(checkpoint):
    predictor = Predictor.load(checkpoint)
    stack = checkpoint.parents[1] / "isbi" / "train-volume.tif"
    chosen = [example.section[0] for example in read_examples(predictor, stack, at_most=3)]
    np.testing.assert_array_equal(chosen, tifffile.imread(stack)[[0, 2, 5]])


@pytest.mark.parametrize("labelled", [True, False])
def test_brains_are_calibrated_slice_by_slice(tmp_path, labelled, capsys):
    folder = small_brains(tmp_path / "brains", num_cases=2)
    checkpoint = save_network(tmp_path / "best.safetensors")
    if not labelled:
        (tmp_path / "alone").mkdir()
        shutil.move(folder / "imagesTr", tmp_path / "alone" / "images")
        folder = tmp_path / "alone" / "images"
    _, found = quantize(Predictor.load(checkpoint), folder)
    assert 8 < found["images"] <= 50 and ("float" in found) == labelled
    if labelled:
        assert len(found["float"]["dice"]) == 3
        assert "Dice, enhancing" in capsys.readouterr().out


def test_networks_that_agree_change_nothing(checkpoint):
    predictor = Predictor.load(checkpoint)
    examples = read_examples(predictor, checkpoint.parents[1] / "isbi", at_most=2)
    found = compare(predictor, lambda x: predictor.model(x).data, examples)
    assert (found["changed"], found["largest"], found["mean"]) == (0, 0, 0) and found["float"] == found["int8"]
