"""GroupNorms of an ONNX file that add up a group in three steps, not in one go."""

import numpy as np
import pytest

from tests.export.networks import CASES, trained_like
from tinyseg import no_grad
from tinyseg.export.describing import describe
from tinyseg.export.onnx.file import write_onnx
from tinyseg.export.onnx.runtime import run_onnx

onnx = pytest.importorskip("onnx", reason="ONNX files are written with onnx")
pytest.importorskip("onnxruntime", reason="ONNX files are run with onnxruntime")


@pytest.mark.parametrize("opset", [17, 21])
@pytest.mark.parametrize("options", CASES, ids=lambda o: "-".join(map(str, o.values())))
def test_onnxruntime_gives_what_the_model_gives(tmp_path, options, opset):
    model, path = trained_like(**options), tmp_path / "model.onnx"
    network = describe(model)
    write_onnx(path, network, opset=opset, exact_norms=True)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    shape = 3, network.in_channels, 5 * network.multiple, 7 * network.multiple
    x = 3 + np.random.default_rng(0).normal(size=shape).astype(np.float32)
    exact = model.astype("float64")
    with no_grad():
        expected = exact(x.astype(float)).data
    np.testing.assert_allclose(run_onnx(path, x), expected, rtol=0, atol=1e-5 * abs(expected).max())
    assert not {"InstanceNormalization", "GroupNormalization"} & {node.op_type for node in onnx.load(path).graph.node}


def test_large_images_keep_their_digits(tmp_path):
    model, errors = trained_like(name="sdunet", width=4, levels=2), []
    x = 3 + np.random.default_rng(0).normal(size=(1, 1, 640, 704)).astype(np.float32)
    network = describe(model)
    exact = model.astype("float64")
    with no_grad():
        expected = exact(x.astype(float)).data
    for exact_norms in (False, True):
        write_onnx(tmp_path / "model.onnx", network, exact_norms=exact_norms)
        errors.append(abs(run_onnx(tmp_path / "model.onnx", x) - expected).max() / abs(expected).max())
    assert errors[1] < 2e-6 and errors[0] > 5 * errors[1]
