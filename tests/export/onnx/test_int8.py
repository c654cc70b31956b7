"""A quantized ONNX file: what it holds, and that it gives what `tinyseg.export.int8` computes."""

import numpy as np
import pytest

from tests.export.networks import trained_like
from tests.export.test_int8 import KINDS, SDUNET, sections
from tinyseg.backend import using
from tinyseg.data import em_sections
from tinyseg.export.calibration import quantize
from tinyseg.export.describing import describe
from tinyseg.export.onnx.file import make_onnx, metadata_of, write_onnx
from tinyseg.export.onnx.runtime import OnnxFile
from tinyseg.prediction.predictor import Predictor

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def both(folder, options=SDUNET, images=None, float_options=(), **how):
    """Write a network as floats and with 8 bits; return the files, and the network of integers."""
    model = trained_like(**options)
    before, after, network = folder / "model.onnx", folder / "model_int8.onnx", describe(model)
    quantized = quantize(network, sections() if images is None else images, **how)
    for path, written in ((before, network), (after, quantized)):
        write_onnx(path, written, metadata=metadata_of(model), **dict(float_options))
    return before, after, quantized


def tensors(path):
    file = onnx.load(path)
    return file, {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in file.graph.initializer}


@pytest.mark.parametrize("opset", [17, 21])
@pytest.mark.parametrize("options", KINDS, ids=lambda o: "-".join(map(str, o.values())))
def test_the_quantized_network_gives_about_what_the_float_one_gives(options, opset, tmp_path):
    before, after, quantized = both(tmp_path, options, float_options={"opset": opset})
    onnx.checker.check_model(onnx.load(after), full_check=True)
    x = np.stack(sections(3, seed=7))
    y, q = OnnxFile(before)(x), OnnxFile(after)(x)
    spread = y.max() - y.min()
    assert 0 < np.abs(q - y).mean() < 0.02 * spread  # rounding to 255 steps a layer; a wrong scale gives 0.2
    convolutions = [node for node in onnx.load(after).graph.node if node.op_type == "Conv"]
    assert len(quantized.convolutions) == len(convolutions) - 1


@pytest.mark.parametrize("options", KINDS, ids=lambda o: "-".join(map(str, o.values())))
def test_onnxruntime_gives_what_the_integers_give(options):
    """All integers are the same. Where a GroupNorm is rounded otherwise, one half way between two may be the other."""
    quantized = quantize(describe(trained_like(**options)), sections())
    x = np.stack(sections(3, seed=7))
    q = OnnxFile("a network", content=make_onnx(quantized))(x)
    with using(kernels="reference"):
        y = quantized(x)
    off = np.abs(q - y) / (y.max() - y.min())
    assert off.mean() < 2e-3 if options["name"] == "sdunet" else off.max() < 1e-6


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


def test_blank_images_make_a_file_that_runs(tmp_path):
    _, after, _ = both(tmp_path, images=[np.zeros((1, 16, 24), np.float32)])
    assert np.isfinite(OnnxFile(after)(np.stack(sections(1)))).all()


def test_a_relu_is_the_range_of_its_output(tmp_path):
    before, after, _ = both(tmp_path)
    assert any(node.op_type == "Relu" for node in onnx.load(before).graph.node)
    file, integers = tensors(after)
    pairs = [node for node in file.graph.node if node.op_type == "QuantizeLinear"]
    assert not any(node.op_type == "Relu" for node in file.graph.node)
    after_relu = [node for node in pairs if node.input[0].endswith("/Conv") and "depthwise" not in node.input[0]]
    assert after_relu and all(integers[node.input[2]] == 0 for node in after_relu)
    assert any(integers[node.input[2]] > 0 for node in pairs)


def test_onnxruntime_computes_all_but_the_last_convolution_with_integers(tmp_path):
    _, after, quantized = both(tmp_path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 3, str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(after, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("QLinearConv") == len(quantized.convolutions) and kinds.count("Conv") == 1


def test_a_wide_network_becomes_a_quarter_of_its_size(tmp_path):
    before, after, _ = both(tmp_path, {"name": "sdunet", "width": 32, "levels": 4}, images=sections(1))
    assert 0.24 < after.stat().st_size / before.stat().st_size < 0.35


def test_a_file_may_prepare_images_itself(tmp_path):
    model = trained_like(**SDUNET)
    model.meta = {"preprocessing": {"scale": 1, "standardize": "section"}}
    predictor, grey = Predictor(model), em_sections(4, size=90, seed=3)[0][:, None, :, :70]
    _, after, _ = both(tmp_path, float_options={"preparation": predictor.preparation})
    y, q = predictor(grey[3]), OnnxFile(after)(grey[3:].astype(np.float32))[0]
    assert q.shape == y.shape and np.abs(q - y).mean() < 0.05
    assert OnnxFile(after).metadata["prepared_in_graph"] and OnnxFile(after).output == "probabilities"


def test_what_the_float_file_says_is_kept(tmp_path):
    before, after, _ = both(tmp_path)
    assert OnnxFile(after).metadata == OnnxFile(before).metadata | {"quantized": True}
