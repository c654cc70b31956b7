"""Fixtures of the whole suite. That this file is here also puts tests/ on the path: `from arrays import rand`."""

import pytest
from stand_in import stand_in  # noqa: F401 (a fixture)

import tinyseg


@pytest.fixture(params=["reference", "fast"])
def kernels(request):
    """Run the test on the maths files and again on their fast siblings, where there are any."""
    with tinyseg.using(kernels=request.param):
        yield request.param
