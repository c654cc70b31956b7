"""Training: a step (`step`), the loop (`loop`), the mean of the weights (`averaging`), Ctrl-C (`interruption`), the
folder and log of a run (`run`, `log`).
"""

from tinyseg.prediction.evaluation import ConstantOutputWarning, evaluate
from tinyseg.training.averaging import WeightAverage
from tinyseg.training.divergence import TrainingDiverged
from tinyseg.training.loop import fit
from tinyseg.training.run import RunDirectory
from tinyseg.training.step import Step

__all__ = ["ConstantOutputWarning", "RunDirectory", "Step", "TrainingDiverged", "WeightAverage", "evaluate", "fit"]
