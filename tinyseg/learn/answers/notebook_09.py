"""Answers to notebook 9: one probability for all voxels, nothing scored in five ways, a rim as heavy as a ball."""

from collections.abc import Mapping

import numpy as np

from tinyseg.learn.comparing import Different

SHARE = 0.02  # of the tumour in the slice of exercise 1
WAYS = ["all voxels pooled", "mean over patients"]
WAYS += [f"mean over slices, 0/0 {empty}" for empty in ("left out", "as 0", "as 1")]


def exercise_1(answer):
    """Check the p with the lowest cross-entropy and the one with the lowest soft Dice loss: two numbers."""
    entropy, dice = (float(p) for p in answer)
    for p in (entropy, dice):
        if not 0 <= p <= 1:
            raise Different(f"{p:g} is no probability: give both as numbers from 0 to 1.")
    if abs(entropy - SHARE) > 0.002:  # the pulls on all logits add up to N (p - 0.02)
        down = entropy > SHARE
        raise Different(
            f"the p with the lowest cross-entropy is {entropy:g}, but a {'lower' if down else 'higher'} one is better: "
            f"there the logits of {'the background are pushed down' if down else 'the tumour are pulled up'} harder."
        )
    if dice < 0.95:  # 1 - 2 A p / (N p + A) falls everywhere
        raise Different(f"the p with the lowest soft Dice loss is {dice:g}, but at {(1 + dice) / 2:g} it is lower.")


def exercise_2(answer):
    """Check what `five_ways` returns for the network that never says tumour: five scores, in its order."""
    scores = list(answer.values() if isinstance(answer, Mapping) else answer)
    if len(scores) != len(WAYS):
        raise Different(f"there are {len(scores)} scores, and should be {len(WAYS)}: what five_ways returns.")
    *others, respectable = scores
    for way, score in zip(WAYS, others, strict=False):
        if not score == 0:
            raise Different(f"{way}: {score:.3f}. Can any voxel be right where no tumour is predicted?")
    if not 0 < respectable <= 1:
        raise Different(f"{WAYS[-1]}: {respectable:.3f}. What does a slice score that has no tumour?")


def exercise_3(answer):
    """Check the Dice of the rim and of the ball of its volume, both moved by a voxel along an axis: two numbers."""
    rim, ball = (float(score) for score in answer)
    squares = sum(axis**2 for axis in np.ogrid[(slice(-23, 24),) * 3])
    whole = squares <= 14**2
    hollow = whole & (squares > 11**2)
    alike = squares <= np.partition(squares, hollow.sum() - 1, axis=None)[hollow.sum() - 1]
    right = {"rim": _moved(hollow), "ball": _moved(alike)}
    if np.allclose((rim, ball), (right["ball"], right["rim"]), 0, 0.02):
        raise Different("both numbers are right, but the rim's comes first.")
    other = {"that of the whole ball of radius 14": _moved(whole), "1, so that nothing has moved": 1.0}
    for name, found, tolerance in (("rim", rim, 0.02), ("ball", ball, 0.006)):  # where the surface is, is rounded
        if not abs(found - right[name]) <= tolerance:
            for words, score in other.items():
                if abs(found - score) <= 0.002:
                    raise Different(f"the Dice of the {name} is {words}.")
            off = "large" if found > right[name] else "small"
            raise Different(f"the Dice of the {name} is too {off}, {found:.3f}: a prediction is one voxel aside.")


def _moved(shape):
    """Return the Dice of a shape with the same shape, one voxel aside."""
    return 2 * (shape[1:] & shape[:-1]).sum() / (2 * shape.sum())
