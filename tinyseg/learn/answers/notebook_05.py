"""Answers to notebook 5: the level that a norm keeps, a variance that is too small, running statistics made anew."""

import itertools
from collections.abc import Mapping

import numpy as np

from tinyseg import nn
from tinyseg.autograd import no_grad
from tinyseg.learn.comparing import Different, case, same

# By hand: the values of a norm's set are the levels and, but for BatchNorm, their counterparts 1 - level.
LEVELS = {
    "BatchNorm": (np.array([-2, -1, 3]) / np.sqrt(14 / 3), "whose mean and whose deviation do all three images share?"),
    "GroupNorm, G = 1": (np.array([-1.0, 1, 1]), "which values of this image, in both channels, make up the mean?"),
    "GroupNorm, G = 2": (np.zeros(3), "which values make up the mean that is subtracted here?"),
}


def exercise_1(answer):
    """Check the means of the first channel of each image after each of the three norms: 3 rows of 3 numbers."""
    rows = answer.values() if isinstance(answer, Mapping) else answer
    found = np.array([np.asarray(row, float) for row in rows])
    if found.shape != (3, 3):
        raise Different(f"the answer has the shape {found.shape}, and should have (3, 3): a row for each norm.")
    if np.allclose(found.T, [expected for expected, _ in LEVELS.values()], 0, 0.1):
        raise Different("all numbers are right, but a row should be a norm and a column an image.")
    for row, (name, (expected, hint)) in zip(found, LEVELS.items(), strict=True):
        for level, number, right in zip((0, 1, 5), row, expected, strict=True):
            if not abs(number - right) <= 0.1:  # the noise belongs to the variance
                off = "large" if number > right else "small"
                raise Different(f"{name}, the image of level {level}: a mean of {number:.2f} is too {off}; {hint}")


def exercise_2(answer):
    """Check the expected variance of a batch, and how many times too large outputs are: of images and n."""
    drawn = np.random.default_rng(2).standard_normal((4, 1, 3, 2))
    unlike = drawn + np.array([0.0, 1, 2, 5])[:, None, None, None]
    for words, images in (("images of unlike means", unlike), ("three images", unlike[1:])):
        for n in (1, 2, 3):
            batches = [images[list(pick)] for pick in itertools.product(range(len(images)), repeat=n)]
            variance = np.mean([batch.var() for batch in batches])  # of all batches that there are
            with case(f"{words}, n = {n}"):
                found, times = (float(number) for number in answer(images.copy(), n))
                same(found, float(variance), "the expected variance of a batch", tolerance=1e-4)
                if np.isclose(times, images.var() / variance):
                    raise Different("the second number is the ratio of two variances: what are outputs divided by?")
                same(times, float(np.sqrt(images.var() / variance)), "the second number", tolerance=1e-4)


def exercise_3(answer):
    """Check the running statistics that are computed again: a function of a model, images and the size of a batch."""
    images = np.random.default_rng(3).standard_normal((6, 1, 16, 16)) * np.linspace(0.5, 2, 6)[:, None, None, None]
    images = (images + np.arange(6)[:, None, None, None]).astype(np.float32)  # (6,1,16,16)
    w = np.array([[1.0, -1.0], [0.5, 2.0]], np.float32)
    for words, batch in (("image by image", 1), ("all images in one batch", 6)):
        first, second = nn.BatchNorm2d(1), nn.BatchNorm2d(2)
        layers = first, nn.PointwiseConv2d(1, 2, rng=0), nn.ReLU(), nn.PointwiseConv2d(2, 2, rng=0), second
        model = nn.Sequential(*layers)
        layers[1].weight.data, layers[3].weight.data = w[:, :1].copy(), w.copy()
        with no_grad():
            for k in range(3):  # running statistics that are there already
                model(3 + images[k : k + 1])
        before = [p.data.copy() for p in model.parameters()]
        old = [norm.running_mean.copy() for norm in (first, second)]
        with case(words):
            answer(model, images.copy(), batch)
            if not all(np.array_equal(a, p.data) for a, p in zip(before, model.parameters(), strict=True)):
                raise Different("the weights have changed, and should be kept.")
            for norm, mean, which in zip((first, second), old, ("first", "second"), strict=True):
                if np.array_equal(norm.running_mean, mean):
                    raise Different(f"the running mean of the {which} norm has not moved: is the model training?")
            _near(first.running_mean, images.mean(), "mean")
            batches = images.reshape(-1, batch * 256)
            _near(first.running_var, batches.var(1).mean(), "variance")
            if batch == 6:
                hidden = np.maximum((images - images.mean()) / images.std() * w[:, :1, None], 0)  # (6,2,16,16)
                inputs = np.einsum("kc,nchw->knhw", w, hidden).reshape(2, -1)
                _near(second.running_mean, inputs.mean(1), "mean", "second")
                _near(second.running_var, inputs.var(1), "variance", "second")


def _near(found, expected, what, which="first"):
    """Raise `Different` unless statistics are right to two parts in a hundred: with m or with m - 1."""
    if not np.allclose(found, expected, 0.02, 0.01):
        found, expected = np.ravel(found)[0], np.ravel(expected)[0]
        raise Different(
            f"the running {what} of the {which} norm is {found:.4g}, and the plain average over the batches "
            f"{expected:.4g}: does every batch count alike, and nothing else?"
        )
