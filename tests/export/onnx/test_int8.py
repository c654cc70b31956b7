"""A quantized ONNX file: its integers, its ranges, and how near it comes to the float network."""

import numpy as np
import pytest

from tests.export.networks import trained_like
from tinyseg.data import em_sections, standardize
from tinyseg.export.network import describe
from tinyseg.export.onnx.file import metadata_of, write_onnx
from tinyseg.export.onnx.int8 import SIDE, _Histogram, write_onnx_int8
from tinyseg.export.onnx.runtime import OnnxFile
from tinyseg.prediction.predictor import Predictor

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

SDUNET = {"name": "sdunet", "width": 8, "levels": 3}
KINDS = [
    SDUNET, {"name": "unet", "width": 4, "levels": 3}, {"name": "unet_dw_bn", "width": 8, "levels": 2},
    {"name": "sdunet", "width": 6, "levels": 2, "head": "paper", "num_classes": 3},
]  # fmt: skip


def sections(count=6, seed=0):
    return list(standardize(em_sections(count, size=96, seed=seed)[0])[:, None, :, :64])


def both(folder, options=SDUNET, images=None, float_options=(), **how):
    model = trained_like(**options)
    before, after = folder / "model.onnx", folder / "model_int8.onnx"
    write_onnx(before, describe(model), metadata=metadata_of(model), **dict(float_options))
    found = write_onnx_int8(after, before, sections() if images is None else images, **how)
    return before, after, found


def tensors(path):
    file = onnx.load(path)
    return file, {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in file.graph.initializer}


@pytest.mark.parametrize("opset", [17, 21])
@pytest.mark.parametrize("options", KINDS, ids=lambda o: "-".join(map(str, o.values())))
def test_the_quantized_network_gives_about_what_the_float_one_gives(options, opset, tmp_path):
    before, after, found = both(tmp_path, options, float_options={"opset": opset})
    onnx.checker.check_model(onnx.load(after), full_check=True)
    x = np.stack(sections(3, seed=7))
    y, q = OnnxFile(before)(x), OnnxFile(after)(x)
    spread = y.max() - y.min()
    assert 0 < np.abs(q - y).mean() < 0.02 * spread  # rounding to 255 steps a layer; a wrong scale gives 0.2
    assert found["images"] == 6 and found["quantized"] == found["convolutions"] - 1


def test_openvino_runs_it(tmp_path):
    ov = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    _, after, _ = both(tmp_path)
    core = ov.Core()
    compiled = core.compile_model(core.read_model(after), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    x = np.stack(sections(2, seed=7))
    y = OnnxFile(after)(x)
    assert np.abs(compiled(x)[0] - y).mean() < 0.02 * (y.max() - y.min())


@pytest.mark.parametrize("per_channel", [True, False])
def test_kernels_are_integers_of_7_bits_and_stand_for_the_floats(per_channel, tmp_path):
    before, after, _ = both(tmp_path, per_channel=per_channel)
    floats, integers = tensors(before)[1], tensors(after)[1]
    kernels = [name for name, w in floats.items() if w.ndim == 4 and not name.startswith("head")]
    assert len(kernels) > 10
    for name in kernels:
        q, scale = integers[f"{name}/int"], integers[f"{name}/scale"]
        assert q.dtype == np.int8 and np.abs(q.astype(int)).max() == 63
        assert scale.shape == ((len(q),) if per_channel else ())
        scale = scale.reshape(-1, 1, 1, 1)
        assert (np.abs(q * scale - floats[name]) <= 0.5001 * scale).all()
    assert "head.weight" in integers and not {"head.weight/int", *kernels} & set(integers)


def test_biases_have_the_scale_of_the_sums_they_are_added_to(tmp_path):
    before, after, _ = both(tmp_path)
    floats, (file, integers) = tensors(before)[1], tensors(after)
    nodes = {node.output[0]: node for node in file.graph.node}
    convolutions = [node for node in file.graph.node if node.op_type == "Conv" and len(node.input) == 3][:-1]
    for node in convolutions:
        x, w, b = (integers[nodes[name].input[1]] for name in node.input)
        np.testing.assert_allclose(b, x * w, rtol=1e-6)
        name = node.name.removesuffix("/Conv") + ".bias"
        np.testing.assert_allclose(integers[f"{name}/int"] * b, floats[name], rtol=0, atol=0.51 * b.max())


def test_integers_use_the_whole_range_of_a_tensor(tmp_path):
    images = sections()
    _, after, _ = both(tmp_path, images=images, percentile=100)
    integers = tensors(after)[1]
    scale, zero = float(integers["image/scale"]), int(integers["image/zero"])
    assert -zero * scale == pytest.approx(np.min(images), abs=2 * scale)
    assert (255 - zero) * scale == pytest.approx(np.max(images), abs=2 * scale)


def test_a_filter_that_has_died_keeps_its_bias(tmp_path):
    model = trained_like(**SDUNET)
    layer = model.encoder[1].convs[0].pointwise
    layer.weight.data[3], layer.bias.data[3] = 0, 0.7
    write_onnx(tmp_path / "a.onnx", describe(model))
    write_onnx_int8(tmp_path / "b.onnx", tmp_path / "a.onnx", sections())
    integers = tensors(tmp_path / "b.onnx")[1]
    name = "encoder.1.convs.0"
    stands_for = integers[f"{name}.bias/int"].astype(float) * integers[f"{name}.bias/scale"]
    assert stands_for[3] == pytest.approx(0.7, rel=1e-5)
    y, q = (OnnxFile(tmp_path / file)(np.stack(sections(2, seed=7))) for file in ("a.onnx", "b.onnx"))
    assert np.abs(q - y).mean() < 0.02 * (y.max() - y.min())


def test_blank_images_make_a_file_that_runs(tmp_path):
    _, after, _ = both(tmp_path, images=[np.zeros((1, 16, 24), np.float32)])
    assert np.isfinite(OnnxFile(after)(np.stack(sections(1)))).all()


def test_a_relu_is_the_range_of_its_output(tmp_path):
    before, after, _ = both(tmp_path)
    assert any(node.op_type == "Relu" for node in onnx.load(before).graph.node)
    file, integers = tensors(after)
    pairs = [node for node in file.graph.node if node.op_type == "QuantizeLinear"]
    assert not any(node.op_type == "Relu" for node in file.graph.node)
    after_relu = [node for node in pairs if node.input[0].endswith("/Relu")]
    assert after_relu and all(integers[node.input[2]] == 0 for node in after_relu)
    assert any(integers[node.input[2]] > 0 for node in pairs)


def test_onnxruntime_computes_all_but_the_last_convolution_with_integers(tmp_path):
    _, after, found = both(tmp_path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 3, str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(after, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("QLinearConv") == found["quantized"] and kinds.count("Conv") == 1


def test_a_wide_network_becomes_a_quarter_of_its_size(tmp_path):
    _, _, found = both(tmp_path, {"name": "sdunet", "width": 32, "levels": 4}, images=sections(1))
    assert 0.24 < found["bytes"] / found["float_bytes"] < 0.35


def test_a_file_that_prepares_images_is_calibrated_on_grey_values(tmp_path):
    model = trained_like(**SDUNET)
    model.meta = {"preprocessing": {"scale": 1, "standardize": "section"}}
    predictor, grey = Predictor(model), em_sections(4, size=90, seed=3)[0][:, None, :, :70]
    before, after, _ = both(tmp_path, images=grey[:3], float_options={"preparation": predictor.preparation})
    y, q = predictor(grey[3]), OnnxFile(after)(grey[3:].astype(np.float32))[0]
    assert q.shape == y.shape and np.abs(q - y).mean() < 0.05
    assert OnnxFile(after).metadata["prepared_in_graph"] and OnnxFile(after).output == "probabilities"


def test_what_the_float_file_says_is_kept(tmp_path):
    before, after, _ = both(tmp_path)
    assert OnnxFile(after).metadata == OnnxFile(before).metadata | {"quantized": True}


# ----- ranges --------------------------------------------------------------------------
@pytest.mark.parametrize("percentile", [100, 99.99, 99])
@pytest.mark.parametrize("shift", [0, 3])
def test_a_range_holds_its_share_of_the_values(percentile, shift):
    """Of sorted values, whichever part of them comes first: the bins grow with the values."""
    rng = np.random.default_rng(0)
    parts = [rng.normal(shift, scale, n).astype(np.float32) for scale, n in ((0.1, 9000), (1, 5000), (0.5, 9), (9, 40))]
    histogram = _Histogram()
    for part in parts:
        histogram.add(part)
    values = np.sort(np.concatenate(parts))
    left_out = int((100 - percentile) / 200 * values.size)
    low, high = values[left_out], values[-1 - left_out]
    width = 2 * histogram.limit / len(histogram.counts)
    np.testing.assert_allclose(histogram.limits(percentile), (min(low, 0), max(high, 0)), rtol=0, atol=2 * width)
    assert histogram.counts.sum() == 14049


def test_a_range_of_a_relu_begins_at_0_and_one_of_zeros_is_nothing():
    histogram = _Histogram()
    assert histogram.limits(99.99) == (0, 0)
    histogram.add(np.maximum(np.random.default_rng(0).normal(size=1000), 0))
    assert histogram.limits(100)[0] == 0 and histogram.limits(99)[0] == 0


def test_of_large_images_the_middle_is_used_and_of_many_the_first(tmp_path, monkeypatch):
    shapes = []
    run = OnnxFile.run
    monkeypatch.setattr(OnnxFile, "run", lambda self, x, names=None: shapes.append(x.shape) or run(self, x, names))
    monkeypatch.setattr("tinyseg.export.onnx.int8.AT_MOST", 2)
    large = np.zeros((1, SIDE + 20, 8), np.float32)
    assert both(tmp_path, images=[large, *sections()])[2]["images"] == 2
    assert shapes == [(1, 1, SIDE, 8), (1, 1, 96, 64)]


# ----- what cannot be ------------------------------------------------------------------
@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([], "no image to take the ranges.*20 to 50"),
        ([np.zeros((8, 8))], r"arrays \(C, H, W\).*float64 \(8, 8\)"),
        ([np.full((1, 8, 8), np.nan)], "finite numbers"),
        ([np.zeros((2, 8, 8))], r"takes images \(N, 1, H, W\)"),
        ([np.zeros((1, 9, 8))], "multiples of 4"),
    ],
)
def test_images_that_do_not_fit_are_refused(images, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        both(tmp_path, images=images)
    assert not (tmp_path / "model_int8.onnx").exists()


def test_a_quantized_file_is_not_quantized_again(tmp_path):
    _, after, _ = both(tmp_path)
    with pytest.raises(ValueError, match=r"model_int8\.onnx is quantized already"):
        write_onnx_int8(tmp_path / "again.onnx", after, sections(1))


def test_kernels_of_more_bits_than_a_byte_has_are_refused(tmp_path):
    with pytest.raises(ValueError, match="from 2 to 8, but is 16"):
        both(tmp_path, kernel_bits=16)


def test_a_percentile_that_cuts_too_much_is_refused(tmp_path):
    with pytest.raises(ValueError, match="above 90 and at most 100, but is 0.99"):
        both(tmp_path, percentile=0.99)
