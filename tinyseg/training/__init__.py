"""Training: a step, the loop around it, the folder of a run."""

from tinyseg.prediction.evaluation import ConstantOutputWarning, evaluate
from tinyseg.training.loop import TrainingDiverged, fit
from tinyseg.training.run import RunDirectory

__all__ = ["ConstantOutputWarning", "RunDirectory", "TrainingDiverged", "evaluate", "fit"]
