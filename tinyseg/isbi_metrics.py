"""The score of the ISBI-2012 challenge: a door to `tinyseg.metrics.isbi`."""

from tinyseg.metrics.isbi import *  # noqa: F403
