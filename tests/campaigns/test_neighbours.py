"""Short versions of the campaign: commands that meet."""

from types import SimpleNamespace

import pytest

from tests.campaigns import neighbours
from tests.campaigns.frame import Campaign


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "trainings with other options, one --out", "one run resumed twice", "predictions of two networks, one --out",
        "trainings with one cache", "a fork while a folder is locked",
    ],
)  # fmt: skip
def test_commands_that_meet_never_leave_a_mixture(name):
    campaign = Campaign("neighbours", seed=1)
    neighbours.play(campaign, 1, SimpleNamespace(only=name, seed=1))
    assert campaign.tried == 1
    assert not campaign.lost
