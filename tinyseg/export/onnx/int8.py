"""Quantization to 8 bits: an ONNX file whose convolutions compute with integers, a quarter of the size.

Each tensor x that a convolution reads or gives is replaced by integers q of 8 bits,

    x ≈ s (q - z),    q = round(x / s) + z, clipped,    s = (high - low) / 255,

with the range [low, high] that x takes on the user's images, without the rarest values at both ends. Kernels have z = 0
and a scale for each output channel; biases are integers of 32 bits. Norms, which divide by small deviations, and the
last convolution, whose output is compared with a threshold, stay float. The file says all this by pairs of
QuantizeLinear and DequantizeLinear ("QDQ"), and a runtime makes integer convolutions of them. A ReLU before such a pair
is left out: its range begins at 0, and what is below becomes the least integer.
"""

import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from tinyseg.data.writing import FilePath, write_atomically
from tinyseg.export.onnx.packages import load_package
from tinyseg.export.onnx.runtime import OnnxFile

AT_MOST = 50  # images of which ranges are taken
SIDE = 512  # of larger ones the middle is taken: all tensors of one image are in memory together
BINS = 8192
TINY = 1e-12  # a tensor with a smaller range is 0
LARGEST_BIAS = 2**30  # which leaves room in 32 bits for the sum that it is added to
COUNTED = 2**20  # values of a tensor; of larger ones every n-th, n odd, so that all rows and columns are met


def write_onnx_int8(
    path: FilePath,
    float_path: FilePath,
    images: Iterable[np.ndarray],
    *,
    per_channel: bool = True,
    percentile: float = 99.99,
    kernel_bits: int = 7,
    signed: bool = False,
) -> dict[str, Any]:
    """Write the quantized version of an ONNX file.

    Parameters
    ----------
    path : path-like
        Its folder must exist.
    float_path : path-like
        What `write_onnx` has written.
    images : iterable of float32 ndarray, shape (C, H, W)
        Images as the network will be given them, 20 to 50 of them: prepared as for training, unless the file has the
        preparation in its graph; H and W multiples of what the network takes. The first 50 are used, and the middle
        512 × 512 pixels of larger ones.
    per_channel : bool
        A scale for each channel of a kernel instead of one for the kernel.
    percentile : float
        How many of a tensor's values, in per cent, its range holds.
    kernel_bits : int
        Of the integers in kernels, from 2 to 8. With 8, onnxruntime's sums overflow on x86 processors that have AVX2
        and no VNNI.
    signed : bool
        Activations are from -128 to 127 instead of 0 to 255. That is as exact; onnxruntime is slower with it on x86.

    Returns
    -------
    dict
        ``images`` (how many were used), ``convolutions`` and ``quantized`` (how many there are, and are quantized),
        ``bytes`` and ``float_bytes`` (of the files).

    Raises
    ------
    ValueError
        There is no image, or one does not fit; the file is none that `write_onnx` has written, or is quantized already.
    RuntimeError
        The packages onnx and onnxruntime are not there.
    """
    if not 90 < percentile <= 100:
        raise ValueError(f"percentile must be above 90 and at most 100, but is {percentile}.")
    if kernel_bits not in range(2, 9):
        raise ValueError(f"kernel_bits must be from 2 to 8, but is {kernel_bits!r}.")
    onnx = load_package("onnx", "A quantized ONNX file is written")
    network = OnnxFile(float_path)  # which says what is wrong with the file
    model = onnx.load_model_from_string(pathlib.Path(float_path).read_bytes())
    points = _points(model, float_path)
    ranges, count = _measure(model, sorted({name for of_node in points.values() for name in of_node}), images, network)
    limits = {name: histogram.limits(percentile) for name, histogram in ranges.items()}
    _quantize(onnx, model, points, limits, per_channel, kernel_bits, signed)
    onnx.helper.set_model_props(model, {p.key: p.value for p in model.metadata_props} | {"tinyseg.quantized": "true"})
    content = model.SerializeToString()
    write_atomically(path, content)
    convolutions = sum(node.op_type == "Conv" for node in model.graph.node)
    about = {"images": count, "convolutions": convolutions, "quantized": len(points)}
    return about | {"bytes": len(content), "float_bytes": pathlib.Path(float_path).stat().st_size}


def _points(model, path):
    """Return what is quantized: for each convolution but the last its input and its output, that of the ReLU if any."""
    nodes = list(model.graph.node)
    if any(node.op_type == "QuantizeLinear" for node in nodes):
        raise ValueError(f"{path} is quantized already: give the float file that it was made from.")
    readers = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    if len(convolutions) < 2:
        raise ValueError(f"{path} has no convolutions that could be quantized: expected what tinyseg export writes.")
    points = {}
    for node in convolutions[:-1]:
        after = readers.get(node.output[0], [])
        relu = len(after) == 1 and after[0].op_type == "Relu"
        points[node.name] = node.input[0], after[0].output[0] if relu else node.output[0]
    return points


def _measure(model, names, images, network):
    """Run the images, and return a histogram of each tensor and how many images there were."""
    onnx = load_package("onnx", "A quantized ONNX file is written")
    with_all = onnx.ModelProto()
    with_all.CopyFrom(model)
    given = with_all.graph.input[0].name
    inside = [name for name in names if name != given]
    with_all.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in inside)
    watched = OnnxFile(network.path, content=with_all.SerializeToString())
    histograms, count = {name: _Histogram() for name in names}, 0
    for image in images:
        if count == AT_MOST:
            break
        image = np.asarray(image)
        multiple = network.metadata.get("multiple", 1)
        if image.ndim != 3 or image.dtype.kind not in "biuf" or not np.isfinite(image).all():
            raise ValueError(
                f"images must be arrays (C, H, W) of finite numbers, but one is {image.dtype} {image.shape}."
            )
        x = image[(None, slice(None), *(_middle(n, multiple) for n in image.shape[1:]))].astype(np.float32)
        values = dict(zip(inside, watched.run(x, inside), strict=True)) | {given: x}
        for name in names:
            histograms[name].add(values[name])
        count += 1
    if not count:
        raise ValueError("There is no image to take the ranges of 8-bit numbers from: give 20 to 50 of your images.")
    return histograms, count


def _middle(n, multiple):
    side = min(n, SIDE // multiple * multiple)
    start = (n - side) // 2
    return slice(start, start + side)


class _Histogram:
    """How often values occur, in equal bins from -limit to limit; the limit is doubled when a value is beyond it."""

    def __init__(self):
        self.counts, self.limit = np.zeros(BINS, np.int64), 0.0

    def add(self, values):
        largest = float(max(values.max(), -values.min()))
        values = values.reshape(-1)[:: values.size // COUNTED | 1]
        if self.limit == 0:
            self.limit = largest
        while self.limit < largest:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([np.zeros(BINS // 4, np.int64), merged, np.zeros(BINS // 4, np.int64)])
            self.limit *= 2
        if self.limit:
            self.counts += np.histogram(values, BINS, (-self.limit, self.limit))[0]

    def limits(self, percentile):
        """Return the range that holds `percentile` of the values, widened to contain 0."""
        if self.limit == 0:
            return 0.0, 0.0
        below, tail = np.cumsum(self.counts), (100 - percentile) / 200 * self.counts.sum()
        edges = np.linspace(-self.limit, self.limit, BINS + 1)
        low = edges[np.searchsorted(below, tail, side="right")]
        high = edges[np.searchsorted(below, below[-1] - tail) + 1]
        return min(float(low), 0.0), max(float(high), 0.0)


def _quantize(onnx, model, points, limits, per_channel, kernel_bits, signed):
    """Change the model: put pairs of QuantizeLinear and DequantizeLinear at the points, and integers into kernels."""
    graph, least = model.graph, -128 if signed else 0
    weights = {tensor.name: tensor for tensor in graph.initializer}
    scales, added = {}, []

    def constant(name, array):
        graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        return name

    def pair(name):
        low, high = limits[name]
        scale = np.float32((high - low if high - low > TINY else 1) / 255)
        zero = np.clip(np.rint(least - low / scale), least, least + 255).astype(np.int8 if signed else np.uint8)
        scales[name] = scale
        numbers = constant(f"{name}/scale", np.array(scale)), constant(f"{name}/zero", np.array(zero))
        quantized, back = f"{name}/QuantizeLinear", f"{name}/DequantizeLinear"
        added.append(onnx.helper.make_node("QuantizeLinear", [name, *numbers], [quantized], name=quantized))
        added.append(onnx.helper.make_node("DequantizeLinear", [quantized, *numbers], [back], name=back))

    def integers(name, scale, largest, dtype):
        """Replace a weight by integers; return the name of what it is as floats again."""
        w = onnx.numpy_helper.to_array(weights[name]).astype(np.float64)
        q = np.rint(w / scale.reshape(-1, *(1,) * (w.ndim - 1))).clip(-largest, largest).astype(dtype)
        numbers = constant(f"{name}/int", q), constant(f"{name}/scale", scale if scale.size > 1 else scale.reshape(()))
        zero = constant(f"{name}/zero", np.zeros(scale.shape if scale.size > 1 else (), dtype))
        axis = {"axis": 0} if scale.size > 1 else {}
        back = f"{name}/DequantizeLinear"
        added.append(onnx.helper.make_node("DequantizeLinear", [*numbers, zero], [back], name=back, **axis))
        return back

    outputs = {output for _, output in points.values()}
    for relu in [node for node in graph.node if node.op_type == "Relu" and node.output[0] in outputs]:
        before = next(node for node in graph.node if node.output[0] == relu.input[0])
        before.output[0] = relu.output[0]
        graph.node.remove(relu)
    for name in dict.fromkeys(name for of_node in points.values() for name in of_node):
        pair(name)
    for node in graph.node:
        quantized = node.name in points
        for k, name in enumerate(node.input):
            if name in outputs or (quantized and k == 0):
                node.input[k] = f"{name}/DequantizeLinear"
        if quantized:
            used, of_input = list(node.input[1:]), scales[points[node.name][0]]
            w, *b = (onnx.numpy_helper.to_array(weights[name]) for name in used)
            most = 2 ** (kernel_bits - 1) - 1
            scale = np.maximum(np.abs(w).reshape(len(w), -1).max(axis=1) / most, TINY)
            if b:  # of a kernel that is all but 0 the bias must fit too
                scale = np.maximum(scale, np.abs(b[0]) / (of_input * LARGEST_BIAS))
            scale = (scale if per_channel else scale.max(keepdims=True)).astype(np.float32)
            node.input[1] = integers(used[0], scale, most, np.int8)
            if b:
                node.input[2] = integers(used[1], scale * of_input, 2**31 - 1, np.int32)
            for name in used:
                graph.initializer.remove(weights.pop(name))
    made = [*graph.node, *added]
    del graph.node[:]
    graph.node.extend(_in_order(made, {tensor.name for tensor in graph.initializer} | {graph.input[0].name, ""}))


def _in_order(nodes, known):
    """Return nodes such that each comes after those whose results it reads."""
    ordered, waiting = [], list(nodes)
    while waiting:
        ready = [node for node in waiting if known.issuperset(node.input)]
        known.update(name for node in ready for name in node.output)
        ordered += ready
        waiting = [node for node in waiting if not known.issuperset(node.output)]
    return ordered
