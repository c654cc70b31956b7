"""Training: one step (`step`), the loop around it (`loop`), Ctrl-C (`interruption`), a run's folder and its log (`run`, `log`)."""

from tinyseg.prediction.evaluation import ConstantOutputWarning, evaluate
from tinyseg.training.divergence import TrainingDiverged
from tinyseg.training.loop import fit
from tinyseg.training.run import RunDirectory
from tinyseg.training.step import Step

__all__ = ["ConstantOutputWarning", "RunDirectory", "Step", "TrainingDiverged", "evaluate", "fit"]
