"""Solutions of notebook 5, normalization when batches are small."""

import numpy as np

from tinyseg import nn, no_grad, ops

# %% 1
# G = C = 2 takes the mean out of every channel of every image: nothing is left of the
# level. With G = 1 a channel keeps its place relative to the others of its image: here
# "below" or "above", not how far. BatchNorm keeps the levels, because it sees other
# images; in a batch of one it is G = C.


def solution_1(grey):
    """Means of the first channel of images (3, 1, H, W): a row for each norm."""
    x = np.concatenate([grey, 1 - grey], axis=1)
    normalized = (
        ops.batch_norm(x, None, None, training=True),
        ops.group_norm(x, 1),
        ops.group_norm(x, 2),
    )
    return np.array([y.data[:, 0].mean((1, 2)) for y in normalized])


# %% 2
# A batch has variance s = mean(x²) - μ². Over all batches mean(x²) has the right
# expected value, σ² + M² (M: the mean of all). But E[μ²] = M² + var(μ), and var(μ) is
# V/n. The difference is σ² - V/n: a batch cannot see how far it is itself from the
# others. (The factor m/(m-1) that the layer applies would mend it for independent
# pixels; here m is large, and it does nothing.) In evaluation outputs are divided by
# the root of this variance, so they are too large, most of all after training on single
# images.


def solution_2(images, n):
    sigma2, V = images.var(), images.mean((1, 2, 3)).var()
    return sigma2 - V / n, np.sqrt(sigma2 / (sigma2 - V / n))


# %% 3
# Weights stay as they were, so whatever improves was the fault of the statistics. Plain
# averages over single images are free of noise but not of the variance that is too
# small; batches of 50 are free of both. Some networks are repaired so and others are
# not (how many, only more seeds can say), and on the mean they stay behind those with
# GroupNorm. That is training's share: in a batch of one every channel loses its level,
# and the weights have learned without it.


def solution_3(model, images, batch):
    norms = [x for _, x in model.named_modules() if isinstance(x, nn.BatchNorm2d)]
    model.train()
    with no_grad():
        for k in range(len(images) // batch):
            for norm in norms:
                norm.momentum = 1 / (k + 1)  # the k-th value moves a plain average so
            model(images[k * batch : (k + 1) * batch])
