"""The study of quantization: what it draws, and what it says of kernels."""

import numpy as np
import pytest

import tinyseg as ts
from benchmarks import quantization
from tests.export.networks import trained_like
from tinyseg.export.describing import describe
from tinyseg.export.onnx.file import make_onnx
from tinyseg.export.onnx.runtime import OnnxFile

pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def test_a_section_and_its_mask_are_turned_and_flipped_alike():
    images = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32)
    rng, drawn = np.random.default_rng(1), set()
    for _ in range(40):
        x, y = quantization.draw(images, images > 0, rng)
        np.testing.assert_array_equal(x > 0, y)
        assert x.shape == (1, 8, 8) and y.dtype == np.float32
        drawn.add(x.tobytes())
    assert len(drawn) > 15  # of 24


def test_the_spread_of_kernels_is_that_of_their_largest_weights():
    model = ts.models.build("sdunet", width=4, levels=2)
    for _, layer in model.named_modules():
        if isinstance(layer, ts.nn.DepthwiseConv2d):
            layer.ws = None
            layer.weight.data[:] = 0.1
            layer.weight.data[:, 1, 0] = -1
            layer.weight.data[0] *= 4
    assert quantization.spread(describe(model)) == pytest.approx(4)


def test_a_network_whose_kernels_are_made_uneven_computes_the_same():
    model = trained_like(name="sdunet", width=6, levels=3)
    network = describe(model)
    uneven = quantization.make_uneven(network, 0)
    assert quantization.spread(uneven) > 2 * quantization.spread(network)
    x = np.random.default_rng(0).normal(size=(1, 1, 16, 24)).astype(np.float32)
    y, z = (OnnxFile(__file__, content=make_onnx(each))(x) for each in (network, uneven))
    np.testing.assert_allclose(z, y, rtol=0, atol=2e-5 * abs(y).max())


def test_the_networks_of_the_study_differ_in_what_their_names_say():
    built = {title: ts.models.build(width=4, **options) for title, options in quantization.NETWORKS.items()}
    standardized = {title for title, model in built.items() if model.config["ws"]}
    assert standardized == {"SD-UNet", "U-Net, separable, GroupNorm, standardized weights"}
    assert all(model.config["norm"] == "group" for model in built.values())
