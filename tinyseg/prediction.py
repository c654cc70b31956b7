"""Probabilities from a model, for images of any size."""

import numpy as np

from tinyseg import ops
from tinyseg.autograd import no_grad
from tinyseg.backend import device_of, to_device, to_numpy


def predict_logits(model, images, batch_size=1):
    """Run a model over images of any size: pad to what the network takes, and crop its output back.

    Padding mirrors the image about its border pixels at the bottom and right. The model runs in evaluation mode; all
    its modules are left in the mode they were in.

    Parameters
    ----------
    model : UNet
    images : ndarray, shape (N, C, H, W) or (N, H, W) for one channel
        Preprocessed as for training; converted to the dtype of the model's parameters.
    batch_size : int
        Images that go through the network together.

    Returns
    -------
    float NumPy array, shape (N, num_classes, H, W)
    """
    images = images[:, None] if images.ndim == 3 else images
    weights = model.parameters()[0].data
    H, W = images.shape[2:]
    bottom, right = -H % model.multiple, -W % model.multiple
    modes, logits = [(module, module.training) for _, module in model.named_modules()], []
    model.eval()
    try:
        with no_grad():
            for start in range(0, len(images), batch_size):
                x = np.asarray(to_numpy(images[start : start + batch_size]), weights.dtype)
                x = np.pad(x, ((0, 0), (0, 0), (0, bottom), (0, right)), mode="reflect" if min(H, W) > 1 else "edge")
                y = model(to_device(x, device_of(weights))).data
                logits.append(to_numpy(y)[:, :, :H, :W])
    finally:
        for module, mode in modes:
            module.training = mode
    return np.concatenate(logits)


def predict(model, images, batch_size=1):
    """Return the probability of each class at each pixel: as `predict_logits`, then sigmoid (one class) or softmax.

    Returns
    -------
    float NumPy array, shape (N, num_classes, H, W), in [0, 1]
    """
    logits = predict_logits(model, images, batch_size)
    return (ops.sigmoid(logits) if logits.shape[1] == 1 else ops.softmax(logits)).data
