"""An ONNX file gives what the model gives, in onnxruntime, in OpenVINO and by ONNX's own definition in NumPy."""

import json
import sys

import numpy as np
import pytest

from tests.export.networks import CASES, trained_like
from tinyseg import no_grad
from tinyseg.export.describing import describe
from tinyseg.export.onnx.file import fix_size, make_onnx, metadata_of, write_onnx
from tinyseg.export.onnx.runtime import OnnxFile, run_onnx
from tinyseg.prediction import predict
from tinyseg.prediction.predictor import Predictor

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

# Of the largest logit. Rounding of float32 in another order of sums; small images lose no more in either norm.
ROUNDING = 2e-5
SMALL = {"name": "sdunet", "width": 6, "levels": 3}
each_case = pytest.mark.parametrize("options", CASES, ids=lambda o: "-".join(map(str, o.values())))
each_opset = pytest.mark.parametrize("opset", [17, 21])


def images(network, batch=2, rows=3, columns=2, seed=0):
    shape = batch, network.in_channels, rows * network.multiple, columns * network.multiple
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def logits(model, x):
    with no_grad():
        return model(x).data


def assert_close(y, expected, tolerance=ROUNDING):
    np.testing.assert_allclose(y, expected, rtol=0, atol=tolerance * abs(expected).max())


def openvino(path, x):
    ov = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    core = ov.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled(x)[0]


@pytest.mark.parametrize("exact_norms", [True, False], ids=["exact", "operators"])
@each_opset
@each_case
def test_onnxruntime_gives_what_the_model_gives_in_any_size_and_batch(options, opset, exact_norms, tmp_path):
    model = trained_like(**options)
    network = describe(model)
    write_onnx(tmp_path / "model.onnx", network, opset=opset, exact_norms=exact_norms)
    runtime = OnnxFile(tmp_path / "model.onnx")
    for size in ({}, {"batch": 1, "rows": 2, "columns": 5}, {"batch": 3, "rows": 4, "columns": 1}):
        x = images(network, **size)
        assert_close(runtime(x), logits(model, x))


@each_opset
@each_case
def test_openvino_gives_what_the_model_gives(options, opset, tmp_path):
    model = trained_like(**options)
    network = describe(model)
    write_onnx(tmp_path / "model.onnx", network, opset=opset)
    x = images(network)
    assert_close(openvino(tmp_path / "model.onnx", x), logits(model, x), 5e-5)


@each_opset
@each_case
def test_the_file_is_valid_and_its_shapes_can_be_inferred(options, opset):
    network = describe(trained_like(**options))
    file = onnx.load_from_string(make_onnx(network, opset=opset))
    onnx.checker.check_model(file, full_check=True)
    assert (file.opset_import[0].version, file.ir_version) == (opset, {17: 8, 21: 10}[opset])
    inferred = onnx.shape_inference.infer_shapes(file, strict_mode=True, data_prop=True).graph
    dims = {value.name: value.type.tensor_type.shape.dim for value in inferred.value_info}
    outputs = {node.output[0]: node for node in file.graph.node if node.op_type == "Conv"}
    weights = {tensor.name: tensor.dims for tensor in file.graph.initializer}
    found = {name: dims[name][1].dim_value for name in outputs if name in dims}
    assert found == {name: weights[outputs[name].input[1]][0] for name in found} and len(found) >= len(outputs) - 1


@pytest.mark.parametrize("options", [{**SMALL, "num_classes": 3, "head": "paper"}, {"name": "sdunet_bn", "width": 4}])
def test_the_definition_of_onnx_gives_what_the_model_gives(options):
    from onnx.reference import ReferenceEvaluator

    model = trained_like(levels=2, **{k: v for k, v in options.items() if k != "levels"})
    network = describe(model)
    x = images(network, batch=1)
    y = ReferenceEvaluator(onnx.load_from_string(make_onnx(network))).run(None, {"image": x})[0]
    assert_close(y, logits(model, x))


@pytest.mark.slow
@pytest.mark.parametrize(("opset", "tolerance"), [(17, 3e-4), (21, 3e-5)])
def test_on_large_images_the_norm_of_opset_17_loses_a_digit(opset, tolerance, tmp_path):
    """onnxruntime sums all pixels of an InstanceNormalization in one go."""
    model = trained_like(name="sdunet")
    write_onnx(tmp_path / "model.onnx", describe(model), opset=opset)
    x = np.random.default_rng(0).normal(size=(1, 1, 256, 320)).astype(np.float32)
    assert_close(run_onnx(tmp_path / "model.onnx", x), logits(model, x), tolerance)


@pytest.mark.parametrize("classes", [1, 4])
def test_probabilities_are_those_of_predict(classes, tmp_path):
    model = trained_like(**SMALL, num_classes=classes)
    network = describe(model)
    write_onnx(tmp_path / "model.onnx", network, probabilities=True)
    x = images(network)
    runtime = OnnxFile(tmp_path / "model.onnx")
    assert runtime.output == "probabilities"
    np.testing.assert_allclose(runtime(x), predict(model, x), rtol=0, atol=1e-5)
    np.testing.assert_allclose(predict(model, x, forward=runtime.logits), predict(model, x), rtol=0, atol=1e-5)


def test_a_probability_of_1_has_a_logit():
    model = trained_like(**SMALL)
    model.head.bias.data[:] = 200
    network = describe(model)
    x = images(network)
    runtime = OnnxFile(__file__, content=make_onnx(network, probabilities=True))
    assert runtime(x).min() == 1
    assert np.isfinite(runtime.logits(x)).all() and runtime.logits(x).min() > 15


def test_the_file_says_what_it_takes(tmp_path):
    model = trained_like(**SMALL)
    model.meta = {"preprocessing": {"scale": [0.5, 0.5], "standardize": "section"}, "classes": ["cell"]}
    write_onnx(tmp_path / "model.onnx", describe(model), metadata=metadata_of(model))
    kept = {p.key: json.loads(p.value) for p in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert kept["tinyseg.preprocessing"] == model.meta["preprocessing"] and kept["tinyseg.classes"] == ["cell"]
    assert kept["tinyseg.multiple"] == 4 and kept["tinyseg.receptive_radius"] == model.receptive_radius
    assert kept["tinyseg.model"]["width"] == 6 and kept["tinyseg.prepared_in_graph"] is False
    assert OnnxFile(tmp_path / "model.onnx").metadata == {k.removeprefix("tinyseg."): v for k, v in kept.items()}


def test_a_convolution_pads_by_itself_and_nothing_is_computed_that_is_known():
    file = onnx.load_from_string(make_onnx(describe(trained_like(**SMALL)), exact_norms=False))
    assert {node.op_type for node in file.graph.node} == {
        "Conv", "Relu", "MaxPool", "Resize", "Concat", "Shape", "Reshape", "InstanceNormalization", "Mul", "Add",
    }  # fmt: skip
    names = [node.name for node in file.graph.node]
    assert len(set(names)) == len(names) and "encoder.1.convs.0.depthwise/Conv" in names
    even = [node for node in file.graph.node if node.name == "decoder.0.conv.depthwise/Conv"]
    assert [list(a.ints) for a in even[0].attribute if a.name == "pads"] == [[0, 0, 1, 1]]


# ----- the preparation in the graph --------------------------------------------------
def noisy(*shape, low=0, high=256, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def brain(H, W, channels=4):
    """A slice of a skull-stripped scan; one modality is 0 in a part of the brain, too."""
    rng = np.random.default_rng(0)
    x = rng.normal(400, 150, (channels, H, W)).clip(1).astype(np.float32)
    x[1] *= rng.random((H, W)) < 0.7
    x[:, :5], x[:, -4:], x[:, :, :3], x[:, :, -9:] = 0, 0, 0, 0
    return x


SECTIONS = {
    "multiples": noisy(1, 64, 48), "not multiples": noisy(1, 33, 50), "smaller than the padding": noisy(1, 3, 40),
    "smallest": noisy(1, 2, 5), "blank": np.full((1, 20, 31), 7, np.uint8),
    "16 bits that differ little": noisy(1, 33, 50, low=60000, high=60100, dtype=np.uint16),
    "blank, 16 bits": np.full((1, 20, 31), 60001, np.uint16), "floats": noisy(1, 21, 30) / 255,
}  # fmt: skip


def in_graph(options, preprocessing, dtype=None, opset=17):
    model = trained_like(**options)
    model.meta = {"preprocessing": preprocessing}
    predictor = Predictor(model)
    content = make_onnx(describe(model), opset=opset, preparation=predictor.preparation, dtype=dtype)
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    return predictor, content


def assert_prepared_alike(predictor, content, image, tmp_path, tolerance=5e-5):
    """As the Predictor prepares it: to float32, in which the graph computes."""
    expected, given = predictor(image), image[None].astype(np.float32)
    assert_close(OnnxFile(__file__, content=content)(given)[0], expected, tolerance)
    (tmp_path / "model.onnx").write_bytes(content)
    assert_close(openvino(tmp_path / "model.onnx", given)[0], expected, tolerance)


@each_opset
@pytest.mark.parametrize("image", SECTIONS.values(), ids=SECTIONS)
def test_sections_go_in_as_they_are_stored(image, opset, tmp_path):
    predictor, content = in_graph({**SMALL, "levels": 4}, {"scale": 1, "standardize": "section"}, opset=opset)
    blank = image.min() == image.max()  # a norm divides by how little its channels vary, which makes rounding large
    assert_prepared_alike(predictor, content, image, tmp_path, 2e-4 if blank else 5e-5)


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [("uint8", 0, 256), ("uint16", 0, 65536), ("int8", -128, 128), ("float32", 0, 2)]
)
def test_unit_divides_by_the_range_of_the_type(dtype, low, high, tmp_path):
    predictor, content = in_graph(SMALL, {"scale": 1, "standardize": "unit"}, dtype)
    assert_prepared_alike(predictor, content, noisy(1, 19, 30, low=low, high=high, dtype=dtype), tmp_path)


@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("size", [0, 32])
@pytest.mark.parametrize(
    "image", [brain(61, 50), brain(31, 45), 0 * brain(40, 33), 7.5 * (brain(40, 51) != 0).any(0) * np.ones((4, 1, 1))],
    ids=["larger", "smaller and larger", "no brain", "constant"],
)  # fmt: skip
def test_slices_of_a_brain_go_in_whole_and_come_out_whole(image, size, classes, tmp_path):
    options = {**SMALL, "in_channels": 4, "num_classes": classes}
    predictor, content = in_graph(options, {"kind": "brain", "size": size, "how": "crop", "standardize": "slice"})
    assert_prepared_alike(predictor, content, image.astype(np.float32), tmp_path, 2e-3)  # no brain: a norm divides by ε


def test_images_of_a_batch_are_standardized_each_by_itself():
    predictor, content = in_graph(SMALL, {"scale": 1, "standardize": "section"})
    x = np.stack([noisy(1, 20, 28), noisy(1, 20, 28, low=100, high=120, seed=1)])
    y = OnnxFile(__file__, content=content)(x.astype(np.float32))
    for k in range(2):
        np.testing.assert_allclose(y[k], predictor(x[k]), rtol=0, atol=5e-5)


# ----- what cannot be ------------------------------------------------------------------
@pytest.mark.parametrize(
    ("preprocessing", "dtype", "words"),
    [
        ({"scale": 1, "standardize": "stack"}, None, "whole stack.*one image at a time.*--standardize section"),
        ({"kind": "brain", "standardize": "volume"}, None, "whole volume.*--standardize slice"),
        ({"kind": "brain", "standardize": "slice", "how": "resize"}, None, "resampled after.*--how crop"),
        ({"scale": 1, "standardize": "unit"}, None, "say which type.*uint8"),
        ({"scale": 1, "standardize": "unit"}, "complex64", "integers or floats.*complex64"),
    ],
)
def test_a_preparation_that_needs_more_than_the_image_is_refused(preprocessing, dtype, words):
    with pytest.raises(ValueError, match=words):
        in_graph({**SMALL, "in_channels": 4 if "kind" in preprocessing else 1}, preprocessing, dtype)


def test_an_opset_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="opset must be 17 or 21, but is 11"):
        make_onnx(describe(trained_like(**SMALL)), opset=11)


def test_metadata_that_json_cannot_hold_are_refused():
    with pytest.raises(ValueError, match="metadata must be what JSON can hold"):
        make_onnx(describe(trained_like(**SMALL)), metadata={"seed": np.int64(3)})


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_package_that_is_missing_is_named(package, monkeypatch, tmp_path):
    write_onnx(tmp_path / "model.onnx", describe(trained_like(**SMALL)))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RuntimeError, match=rf"package {package}, which.*pip install 'tinyseg\[export\]'"):
        make_onnx(describe(trained_like(**SMALL)))
        OnnxFile(tmp_path / "model.onnx")


def test_what_is_no_onnx_file_or_no_image_for_it_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.onnx does not exist"):
        OnnxFile(tmp_path / "missing.onnx")
    (tmp_path / "text.onnx").write_text("text")
    with pytest.raises(ValueError, match=r"text\.onnx cannot be run by onnxruntime"):
        OnnxFile(tmp_path / "text.onnx")
    write_onnx(tmp_path / "model.onnx", describe(trained_like(**SMALL)))
    with pytest.raises(ValueError, match=r"takes images \(N, 1, H, W\), but found \(1, 2, 8, 12\)"):
        run_onnx(tmp_path / "model.onnx", np.zeros((1, 2, 8, 12)))
    with pytest.raises(ValueError, match=r"could not be run on images \(1, 1, 9, 12\).*multiples of 4"):
        run_onnx(tmp_path / "model.onnx", np.zeros((1, 1, 9, 12)))


def test_a_model_that_was_not_described_is_refused_by_a_sentence(tmp_path):
    model = trained_like(name="sdunet", width=4, levels=2)
    with pytest.raises(ValueError, match=r"found a SDUNet: give tinyseg\.export\.describe\(model\)"):
        write_onnx(tmp_path / "model.onnx", model)


def test_an_image_of_another_size_than_the_file_was_fixed_to(tmp_path):
    model = trained_like(name="sdunet", width=4, levels=2)
    write_onnx(tmp_path / "model.onnx", describe(model))
    fix_size(tmp_path / "model.onnx", (8, 12))
    assert run_onnx(tmp_path / "model.onnx", np.zeros((1, 1, 8, 12), np.float32)).shape == (1, 1, 8, 12)
    with pytest.raises(ValueError, match=r"exported with --size 8 12.*found 8 x 8: export it without --size"):
        run_onnx(tmp_path / "model.onnx", np.zeros((1, 1, 8, 8), np.float32))
