"""The network that the options of a training ask for, its windows of sections, and whether the memory suffices."""

import math

from tinyseg import backend, models
from tinyseg.data.memory import refuse_beyond_memory
from tinyseg.models.size import least_memory


def build_network(args, in_channels, num_classes, device):
    """Build the network that the options of `add_training_options` ask for, and check that it takes such windows."""
    options = {"width": args.width, "head": args.head, "dropout": args.dropout, "seed": args.seed}
    if args.ws != "default":
        options["ws"] = None if args.ws == "none" else args.ws
    try:
        model = models.build(args.model, in_channels, num_classes, **options).to(device)
    except ValueError as error:
        raise ValueError(f"--model {args.model} cannot be had with --ws {args.ws}: {error} Leave out --ws.") from None
    step = model.multiple
    below = args.crop // step * step
    if args.crop != below:
        sizes = " or ".join(str(size) for size in (below, below + step) if size)
        raise ValueError(
            f"--crop {args.crop} does not fit: {args.model} takes multiples of {step}, so give --crop {sizes}."
        )
    return model


def fit_crop(args, model, shape, advice=""):
    """Return the height and width of the windows that are trained on: --crop, where an image has as much.

    Parameters
    ----------
    args : argparse.Namespace
    model : UNet
    shape : (int, int)
        Height and width of the sections or slices.
    advice : str
        What to do if they are too small: a sentence, after a space.

    Returns
    -------
    tuple of int
        Multiples of ``model.multiple``.

    Raises
    ------
    ValueError
        An image is too small for the network, or a step of training would take more than the memory.
    """
    sides = [min(args.crop, n // model.multiple * model.multiple) for n in shape]
    if not all(sides):
        raise ValueError(
            f"images of {shape[0]} x {shape[1]} pixels are too small: {args.model} takes at least {model.multiple} x "
            f"{model.multiple}.{advice}"
        )
    refuse_too_costly(args, math.prod(sides))
    return tuple(sides)


def refuse_too_costly(args, pixels=None):
    """Raise a ValueError if a training step on the CPU would take more than its memory; nothing is built to know it.

    What a network costs that is no `tinyseg.models.UNet` is not known. `pixels` is how many an image of a batch has; if
    neither it nor the options say that, the weights alone are counted.
    """
    if args.device == "gpu" or backend.parse_device(args.device or "auto") == "gpu":  # which says at once what it lacks
        return
    weights = models.fewest_weights(args.model, width=args.width)
    if weights is None:
        return
    if pixels is None:
        size_is_known = args.size and getattr(args, "how", "resize") == "resize"  # not of slices cut out of volumes
        pixels = min(args.size, args.crop) ** 2 if size_is_known else 0
    refuse_beyond_memory(
        least_memory(weights, args.width, args.batch_size * pixels, training=True),
        f"a training step of {args.model} with --width {args.width} and {args.batch_size} images of {pixels:,} pixels "
        "would take at least", "memory", "give a smaller one, or fewer or smaller images",
    )  # fmt: skip
