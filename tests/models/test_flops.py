"""The profile's FLOPs of all six models against those that PyTorch counts."""

import pytest

from tinyseg import models
from tinyseg.report import profile

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from tests.models import torch_twin  # noqa: E402


@pytest.mark.parametrize("head", ["direct", "paper"])
@pytest.mark.parametrize("name", models.MODELS)
def test_flops_equal_pytorchs(name, head):
    from torch.utils.flop_counter import FlopCounterMode

    options = {"in_channels": 3, "num_classes": 2, "width": 4, "head": head}
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        torch_twin.build(name, **options)(torch.zeros(2, 3, 48, 32))
    found = profile.summary(models.build(name, **options), (2, 3, 48, 32), show=False)
    assert found.flops == counter.get_total_flops() > 1e6
