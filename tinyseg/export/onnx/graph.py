"""A graph of ONNX nodes while it is built, and the nodes of which a U-Net is made.

Each method adds nodes and returns the name of their result. Nodes and weights bear the names of the network's layers,
such as ``encoder.0.convs.1/Conv``: that is what viewers show.
"""

import numpy as np

from tinyseg.export.onnx.packages import load_package

IR_VERSIONS = {17: 8, 21: 10}  # of the file's format, the least for each opset


class Graph:
    """Nodes and constants, in the order in which they were added.

    Parameters
    ----------
    opset : {17, 21}
    exact_norms : bool
        See `tinyseg.export.onnx.file.write_onnx`.
    """

    def __init__(self, opset, exact_norms=True):
        self.onnx = load_package("onnx", "An ONNX file is written")
        self.exact_norms = exact_norms
        self.opset, self.nodes, self.constants, self.declared, self._names = opset, [], [], [], set()

    def constant(self, name, array):
        """Add an array, such as the weights of a layer."""
        name = self._free(name)
        self.constants.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name))
        return name

    def integers(self, name, *values):
        """Add whole numbers, (n,)."""
        return self.constant(name, np.array(values, np.int64))

    def add(self, op, name, *inputs, **attributes):
        """Add one node; an input that is a number becomes a constant, float32 ()."""
        operands = [
            x if isinstance(x, str) else self.constant(f"{name}/{x:g}", np.array(x, np.float32)) for x in inputs
        ]
        name = self._free(f"{name}/{op}")
        self.nodes.append(self.onnx.helper.make_node(op, operands, [name], name=name, **attributes))
        return name

    def reduce(self, op, name, x, axes):
        """Add ReduceMean, ReduceMax or ReduceMin, which keeps the axes. They became an input with opset 18."""
        if self.opset < 18:
            return self.add(op, name, x, axes=axes, keepdims=1)
        return self.add(op, name, x, self.integers(f"{name}/axes", *axes), keepdims=1)

    def declare(self, name, channels):
        """Say that a result is float32 (N, C, H, W): ONNX does not infer it of all nodes. Return its name."""
        shape = [None, channels, None, None]
        self.declared.append(self.onnx.helper.make_tensor_value_info(name, self.onnx.TensorProto.FLOAT, shape))
        return name

    def _free(self, name):
        """Return the name, with a number behind it if there is one of this name already."""
        found, k = name, 2
        while found in self._names:
            found, k = f"{name}_{k}", k + 1
        self._names.add(found)
        return found


class Steps:
    """The steps of a network as nodes of a graph: what `tinyseg.export.network.Network.compute` takes.

    x are the names of results.
    """

    def __init__(self, graph):
        self.graph = graph

    def pool(self, name, x):
        return self.graph.add("MaxPool", name, x, kernel_shape=[2, 2], strides=[2, 2])

    def join(self, name, skip, x):
        return self.graph.add("Concat", name, skip, x, axis=1)

    def upsample(self, name, x, factor):
        scales = self.graph.constant(f"{name}.scales", np.array([1, 1, factor, factor], np.float32))
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.graph.add("Resize", name, x, "", scales, **how)

    def convolve(self, part, x):
        weights = map(self.graph.constant, names_of(part), (part.kernel, part.bias))
        y = self.graph.add("Conv", part.name, x, *weights, **window(part))
        return self.graph.add("Relu", part.name, y) if part.relu else y

    def normalize(self, norm, x):
        return _add_norm(self.graph, norm, x)


def names_of(part):
    """Return the names of a kernel and its bias; a depthwise part has no bias."""
    return [part.name] if part.depthwise else [f"{part.name}.weight", f"{part.name}.bias"]


def window(part):
    """Return the attributes of a convolution that keeps the size: the padding before, (k-1)//2, and after, k//2."""
    size = part.kernel.shape[-1]
    before, after = (size - 1) // 2, size // 2
    groups = {"group": len(part.kernel)} if part.depthwise else {}
    return {"kernel_shape": [size, size], "pads": [before, before, after, after]} | groups


def _add_norm(graph, norm, x):
    name = norm.name
    if norm.groups and graph.exact_norms:
        return _add_exact_norm(graph, norm, x)
    if norm.groups and graph.opset >= 21:
        weight, bias = graph.constant(f"{name}.weight", norm.weight), graph.constant(f"{name}.bias", norm.bias)
        how = {"num_groups": norm.groups, "epsilon": float(norm.eps)}
        return graph.declare(graph.add("GroupNormalization", name, x, weight, bias, **how), len(norm.weight))
    if norm.groups:  # each group becomes one channel of one long row
        shape = graph.add("Shape", name, x)
        x = graph.add("Reshape", name, x, graph.integers(f"{name}.groups", 0, norm.groups, -1))
        one = graph.constant(f"{name}.one", np.ones(norm.groups, np.float32))
        zero = graph.constant(f"{name}.zero", np.zeros(norm.groups, np.float32))
        x = graph.add("InstanceNormalization", name, x, one, zero, epsilon=float(norm.eps))
        x = graph.add("Reshape", name, x, shape)
    x = graph.add("Mul", name, x, graph.constant(f"{name}.weight", norm.weight[:, None, None]))
    return graph.add("Add", name, x, graph.constant(f"{name}.bias", norm.bias[:, None, None]))


def _add_exact_norm(graph, norm, x):
    """Add a GroupNorm whose sums are taken in three steps, as `_add_group_mean` says."""
    name, channels = norm.name, len(norm.weight)
    shape, groups = graph.add("Shape", name, x), graph.integers(f"{name}.groups", 0, norm.groups, -1)
    mean = _add_group_mean(graph, name, x, groups)
    centred = graph.add("Sub", name, graph.add("Reshape", name, x, groups), mean)
    centred = graph.add("Reshape", name, centred, shape)
    variance = _add_group_mean(graph, name, graph.add("Mul", name, centred, centred), groups)
    deviation = graph.add("Sqrt", name, graph.add("Add", name, variance, float(norm.eps)))
    weight = graph.constant(f"{name}.weight", norm.weight.reshape(1, norm.groups, channels // norm.groups))
    factor = graph.add("Div", name, weight, deviation)  # of each channel
    factor = graph.add("Reshape", name, factor, graph.integers(f"{name}.channels", 0, channels, 1, 1))
    bias = graph.constant(f"{name}.bias", norm.bias[:, None, None])
    return graph.add("Add", name, graph.add("Mul", name, centred, factor), bias)


def _add_group_mean(graph, name, x, groups):
    """Add the mean of each group of channels, (N, groups, 1): over columns, then rows, then the group's channels."""
    for axis in (3, 2):
        x = graph.reduce("ReduceMean", name, x, [axis])
    return graph.reduce("ReduceMean", name, graph.add("Reshape", name, x, groups), [2])
