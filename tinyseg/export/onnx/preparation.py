"""Preparation of images as nodes of an ONNX graph, and putting the probabilities back into place.

The graph standardizes each channel of each image by itself,

    y = (x - mean) / deviation,     the population's deviation; 0 where a channel has only one value

or, of a brain, over the pixels where any channel is not 0, and sets all others to 0. "unit" scales the range of an
integer type to [0, 1]. Then the middle is cut out, as `tinyseg.data.brain.Preparation` says, and the image is mirrored
at the bottom and right up to a size that the network takes, as `tinyseg.prediction.predict_logits` does.
"""

import numpy as np

from tinyseg.data.brain import Preparation


def check_preparation(preparation, dtype=None):
    """Raise a ValueError unless a preparation can be a part of a graph, which sees one image at a time."""
    how, brain = preparation.standardize, isinstance(preparation, Preparation)
    if how in ("stack", "volume"):
        alone = "slice" if brain else "section"
        raise ValueError(
            f"The network was trained on images with the mean and deviation of a whole {how}, and a graph sees one "
            f"image at a time: export it as ONNX without the preprocessing, or train with --standardize {alone}."
        )
    if brain and preparation.size and preparation.how != "crop":
        raise ValueError(
            "The network was trained on slices resampled after standardization, which the graph does not do: export it "
            "as ONNX without the preprocessing, or train with --how crop."
        )
    if how == "unit" and dtype is None:
        raise ValueError(
            'The network was trained on grey values divided by the range of their type ("unit"): say which type the '
            "images have that it will be given, uint8 or uint16; float for values from 0 to 1."
        )
    if how == "unit" and np.dtype(dtype).kind not in "iuf":
        raise ValueError(f"The type of the images must be integers or floats, such as uint8, but is {np.dtype(dtype)}.")


def prepare_in_graph(graph, x, preparation, dtype, multiple):
    """Add the nodes that make of stored images x (N, C, H, W) what the network takes."""
    if isinstance(preparation, Preparation):
        x = _standardize_brain(graph, x)
        if preparation.size:
            first, last = _middle(graph, x, preparation.size)
            x = graph.add("Slice", "crop", x, first, last, graph.integers("crop/axes", 2, 3))
    elif preparation.standardize == "section":
        x = _standardize(graph, x)
    elif np.dtype(dtype).kind in "iu":
        limits = np.iinfo(dtype)
        x = graph.add("Sub", "unit", x, limits.min) if limits.min else x
        x = graph.add("Div", "unit", x, limits.max - limits.min)
    return _mirror(graph, x, multiple)


def restore_in_graph(graph, image, p, preparation, classes):
    """Add the nodes that cut the mirrored border off probabilities p, and fill in what was cropped: background."""
    size = _size(graph, "restore", image)
    axes = graph.integers("restore/axes", 2, 3)
    cropped = isinstance(preparation, Preparation) and preparation.size
    first, last = _middle(graph, image, preparation.size) if cropped else (graph.integers("restore/start", 0, 0), size)
    inside = graph.add("Sub", "restore", last, first)
    p = graph.add("Slice", "restore", p, graph.integers("restore/start", 0, 0), inside, axes)
    if not cropped:
        return p
    none = graph.integers("restore/none", 0, 0)
    after = graph.add("Sub", "restore", size, last)
    pads = graph.add("Concat", "restore", none, first, none, after, axis=0)
    p = graph.add("Pad", "restore", p, pads, mode="constant")
    if classes == 1:
        return p
    total = graph.add("ReduceSum", "restore", p, graph.integers("restore/classes", 1), keepdims=1)
    background = graph.constant("restore/background", np.eye(1, classes, dtype=np.float32).reshape(1, classes, 1, 1))
    rest = graph.add("Mul", "restore", graph.add("Sub", "restore", 1.0, total), background)
    return graph.add("Add", "restore", p, rest)


def _size(graph, name, x):
    """Height and width of x, int64 (2,)."""
    shape = graph.add("Shape", name, x)
    two, four, zero = (graph.integers(f"{name}/{k}", k) for k in (2, 4, 0))
    return graph.add("Slice", name, shape, two, four, zero)


def _middle(graph, x, size):
    """First row and column of the middle of x, and the row and column after its last: int64 (2,) each."""
    whole = _size(graph, "crop", x)
    inside = graph.add("Min", "crop", whole, graph.integers("crop/size", size))
    first = graph.add("Div", "crop", graph.add("Sub", "crop", whole, inside), graph.integers("crop/two", 2))
    return first, graph.add("Add", "crop", first, inside)


def _mean(graph, name, x):
    """Mean over the columns, then over the rows: a sum of all pixels in one go would lose digits."""
    return graph.reduce("ReduceMean", name, graph.reduce("ReduceMean", name, x, [3]), [2])


def _standardize(graph, x):
    """The least value goes off first, exactly: of large grey values that differ little, a mean would lose digits."""
    name = "standardize"
    x = graph.add("Sub", name, x, graph.reduce("ReduceMin", name, x, [2, 3]))
    centred = graph.add("Sub", name, x, _mean(graph, name, x))
    variance = _mean(graph, name, graph.add("Mul", name, centred, centred))
    return _divide(graph, centred, variance, graph.reduce("ReduceMax", name, x, [2, 3]))


def _standardize_brain(graph, x):
    name = "standardize"
    magnitude = graph.reduce("ReduceMax", name, graph.add("Abs", name, x), [1])
    brain = graph.add("Greater", name, magnitude, 0.0)
    share = _mean(graph, name, graph.add("Where", name, brain, 1.0, 0.0))  # of all pixels
    share = graph.add("Where", name, graph.add("Equal", name, share, 0.0), 1.0, share)
    elsewhere = float(np.finfo(np.float32).max)
    least = graph.reduce("ReduceMin", name, graph.add("Where", name, brain, x, elsewhere), [2, 3])
    x = graph.add("Where", name, brain, graph.add("Sub", name, x, least), 0.0)
    mean = graph.add("Div", name, _mean(graph, name, x), share)
    centred = graph.add("Where", name, brain, graph.add("Sub", name, x, mean), 0.0)
    variance = graph.add("Div", name, _mean(graph, name, graph.add("Mul", name, centred, centred)), share)
    return _divide(graph, centred, variance, graph.reduce("ReduceMax", name, x, [2, 3]))


def _divide(graph, centred, variance, largest):
    """Divide by the deviation; 0 where the largest value is the least, 0: there rounding leaves a variance above 0."""
    name = "standardize"
    blank = graph.add("Equal", name, largest, 0.0)
    y = graph.add("Div", name, centred, graph.add("Sqrt", name, graph.add("Where", name, blank, 1.0, variance)))
    return graph.add("Where", name, blank, 0.0, y)


def _mirror(graph, x, multiple):
    """Mirror images, of any size, about their last row and column until height and width are multiples."""
    for axis in (2, 3):
        name = f"mirror.{axis}"
        zero, one, two, step = (graph.integers(f"{name}/{k}", k) for k in (0, 1, 2, multiple))
        n = graph.add("Gather", name, graph.add("Shape", name, x), graph.integers(f"{name}/axis", axis))
        missing = graph.add("Mod", name, graph.add("Neg", name, n), step)
        scalars = [graph.add("Squeeze", name, k) for k in (zero, graph.add("Add", name, n, missing), one)]
        index = graph.add("Range", name, *scalars)
        last = graph.add("Sub", name, n, one)
        period = graph.add("Max", name, graph.add("Mul", name, last, two), one)
        there = graph.add("Sub", name, graph.add("Mod", name, index, period), last)
        x = graph.add("Gather", name, x, graph.add("Sub", name, last, graph.add("Abs", name, there)), axis=axis)
    return x
