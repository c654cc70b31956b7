"""Logits and every parameter gradient of all six models against an independent PyTorch twin."""

import numpy as np
import pytest

import tinyseg as ts
from tinyseg import models, ops

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from tests.models import torch_twin  # noqa: E402


@pytest.mark.parametrize("head", ["direct", "paper"])
@pytest.mark.parametrize("name", models.MODELS)
def test_logits_and_all_gradients_equal_pytorchs(name, head):
    """In float64, where no ReLU or max-pool choice can flip by rounding; dropout off (its masks are not PyTorch's)."""
    check(name, head=head, options={})


@pytest.mark.parametrize(
    "options", [{"ws": "filter"}, {"ws_gain": False}, {"stem_layers": 2}, {"bottleneck_layers": 1}]
)
def test_sdunets_options_equal_pytorchs(options):
    check("sdunet", head="direct", options=options)


def check(name, head, options):
    ours = models.build(name, in_channels=2, num_classes=3, width=4, head=head, dropout=0.0, **options).astype(
        "float64"
    )
    twin = torch_twin.build(name, in_channels=2, num_classes=3, width=4, head=head, dropout=0.0, **options).double()
    rng = np.random.default_rng(0)
    pairs = list(zip(ours.named_parameters(), twin.parameters(), strict=True))
    for (_, p), q in pairs:
        value = rng.standard_normal(p.shape) * 0.3 + (p.data if p.ndim == 1 else 0)
        p.data[...] = value
        q.data = torch.from_numpy(value.copy()).reshape(q.shape)
    x, y = rng.standard_normal((2, 2, 32, 48)), (rng.random((2, 3, 32, 48)) > 0.4).astype(np.float64)

    logits = ours(x)
    ops.binary_cross_entropy_with_logits(logits, y).backward()
    expected = twin(torch.from_numpy(x))
    torch.nn.functional.binary_cross_entropy_with_logits(expected, torch.from_numpy(y)).backward()

    assert relative_error(logits.data, expected.detach().numpy()) < 1e-4
    for (parameter, p), q in pairs:
        assert relative_error(p.grad, q.grad.numpy().reshape(p.shape)) < 1e-4, parameter
    ours.eval(), twin.eval()
    with ts.no_grad(), torch.no_grad():
        assert relative_error(ours(x).data, twin(torch.from_numpy(x)).numpy()) < 1e-4


def relative_error(a, b):
    return abs(a - b).max() / max(abs(b).max(), 1e-12)
