"""Fixtures of the whole suite."""

import pytest
from stand_in import stand_in  # noqa: F401 (a fixture)

import tinyseg


@pytest.fixture(params=["reference", "fast"])
def kernels(request):
    """Run the test on the maths files and again on their fast namesakes, if there are any."""
    with tinyseg.using(kernels=request.param):
        yield request.param
