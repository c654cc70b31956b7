"""An ONNX file of a trained network: what onnxruntime, OpenVINO, phones, browsers and other programs run.

A GroupNorm is written in steps that runtimes compute exactly, or on demand with ONNX's own operators. N, H and W
are free. The file's metadata say what the network takes, each value as JSON: ``tinyseg.multiple`` (height and width
must be multiples of it, unless the preprocessing is a part of the graph), and what `metadata_of` returns.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tinyseg.backend import to_numpy
from tinyseg.data.fingerprint import fingerprint
from tinyseg.data.writing import FilePath, write_atomically
from tinyseg.export.int8 import Int8Network
from tinyseg.export.network import Network, refuse_undescribed
from tinyseg.export.onnx.graph import IR_VERSIONS, Graph, Steps
from tinyseg.export.onnx.int8 import Int8Steps
from tinyseg.export.onnx.packages import load_package
from tinyseg.export.onnx.preparation import check_preparation, prepare_in_graph, restore_in_graph
from tinyseg.export.onnx.runtime import PROBABILITIES
from tinyseg.models import UNet

IMAGE, LOGITS = "image", "logits"  # names of what goes in and comes out


def make_onnx(
    network: Network | Int8Network,
    *,
    probabilities: bool = False,
    opset: int = 17,
    metadata: Mapping[str, Any] | None = None,
    preparation: Any = None,
    dtype: Any = None,
    exact_norms: bool = True,
) -> bytes:
    """Return the content of an ONNX file of a network.

    Its input is ``image``, float32 (N, C, H, W). Its output is ``logits``, or ``probabilities`` (sigmoid of one class,
    softmax of several), float32 (N, classes, H, W).

    Parameters
    ----------
    network : Network or Int8Network
        Of `tinyseg.export.describing.describe`; or of `tinyseg.export.calibration.quantize`, whose convolutions become
        those of integers, a quarter of the size.
    probabilities : bool
        Whether probabilities come out.
    opset : {17, 21}
        17 is read by more programs. 21 has an operator for a GroupNorm, which is used if `exact_norms` is false.
    metadata : dict, optional
        Kept in the file as ``tinyseg.<name>``, as JSON: what `metadata_of` returns.
    preparation : optional
        The `preparation` of a `tinyseg.prediction.predictor.Predictor`, to make it a part of the graph: grey values go
        in as they are stored, of any height and width, and probabilities come out. Resampling (`scale`) stays outside.
    dtype : dtype, optional
        Integer type of the stored images, such as "uint8". The preparation "unit" divides by its range, and needs it.
    exact_norms : bool
        Write a GroupNorm with means over columns, rows and channels in turn. Otherwise it is written as converters such
        as pnnx recognize it: with 17 as Reshape, InstanceNormalization, Reshape, Mul and Add, with 21 as
        GroupNormalization; onnxruntime adds up a whole group in one go then, so that
        in an image of 1024 × 1024 a probability is off by some thousandths. Both take the same time.

    Raises
    ------
    ValueError
        The network is not what `describe` returns; an unknown opset; metadata that JSON cannot hold; a preparation that
        needs more than the image itself, see `tinyseg.export.onnx.preparation.check_preparation`.
    RuntimeError
        The package onnx is not there.
    """
    quantized = network if isinstance(network, Int8Network) else None
    network = network.network if isinstance(network, Int8Network) else network
    refuse_undescribed(network)
    if opset not in IR_VERSIONS:
        raise ValueError(f"opset must be {' or '.join(map(str, IR_VERSIONS))}, but is {opset!r}.")
    if preparation is not None:
        check_preparation(preparation, dtype)
    graph = Graph(opset, exact_norms)
    x = IMAGE
    if preparation is not None:
        x = prepare_in_graph(graph, x, preparation, dtype, network.multiple)
    x = network.compute(Steps(graph) if quantized is None else Int8Steps(graph, quantized.convolutions), x)
    if probabilities or preparation is not None:
        x = graph.add("Sigmoid", "head", x) if network.num_classes == 1 else graph.add("Softmax", "head", x, axis=1)
    if preparation is not None:
        x = restore_in_graph(graph, IMAGE, x, preparation, network.num_classes)
    output = PROBABILITIES if probabilities or preparation is not None else LOGITS
    graph.nodes[-1].output[0] = output
    kept = {"multiple": 1 if preparation is not None else network.multiple} | dict(metadata or {})
    kept |= {"prepared_in_graph": preparation is not None} | ({"quantized": True} if quantized else {})
    return _model_of(graph, network, output, kept).SerializeToString()


def write_onnx(
    path: FilePath,
    network: Network | Int8Network,
    *,
    probabilities: bool = False,
    opset: int = 17,
    metadata: Mapping[str, Any] | None = None,
    preparation: Any = None,
    dtype: Any = None,
    exact_norms: bool = True,
) -> None:
    """Write an ONNX file of a network; its folder must exist.

    Parameters and errors are those of `make_onnx`; an OSError says why the file cannot be written.
    """
    content = make_onnx(
        network, probabilities=probabilities, opset=opset, metadata=metadata, preparation=preparation, dtype=dtype,
        exact_norms=exact_norms,
    )  # fmt: skip
    write_atomically(path, content)


def fix_size(path: FilePath, size: Sequence[int]) -> None:
    """Give the images of an ONNX file one height and width, and N = 1, for runtimes that want to know them.

    Parameters
    ----------
    path : path-like
        What `write_onnx` has written; it is written again.
    size : (int, int)
        Height and width.

    Raises
    ------
    ValueError
        The network does not take this size.
    RuntimeError
        The package onnx is not there.
    """
    model = load_package("onnx", "An ONNX file is written").load_model(str(path))
    multiple = next(int(each.value) for each in model.metadata_props if each.key == "tinyseg.multiple")
    if size[0] % multiple or size[1] % multiple or min(size) < 1:
        raise ValueError(f"size must be multiples of {multiple}, but is {size[0]} x {size[1]}.")
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        for dim, number in zip((dims[0], dims[2], dims[3]), (1, *size), strict=True):
            dim.dim_value = number
    write_atomically(path, model.SerializeToString())


def metadata_of(model: UNet) -> dict[str, Any]:
    """Return what the user of an exported network must know, for the `metadata` of `write_onnx`.

    Parameters
    ----------
    model : UNet
        With the attribute ``meta`` that `checkpoint.load` sets.

    Returns
    -------
    dict
        ``preprocessing`` (as in the checkpoint), ``classes`` (names), ``receptive_radius`` (pixels), ``model``, the
        options of `tinyseg.models.build`, and ``weights``, their fingerprint. What the checkpoint does not say is left
        out.
    """
    meta = getattr(model, "meta", {})
    found = {name: meta[name] for name in ("preprocessing", "classes") if meta.get(name)}
    found |= {"receptive_radius": model.receptive_radius, "model": dict(model.config)}
    return found | {"weights": fingerprint(*(to_numpy(array) for array in model.state_dict().values()))}


def _model_of(graph, network, output, kept):
    """Return the onnx.ModelProto of a finished graph."""
    onnx = graph.onnx
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info(IMAGE, float32, ["N", network.in_channels, "H", "W"])]
    outputs = [helper.make_tensor_value_info(output, float32, ["N", network.num_classes, "H", "W"])]
    made = helper.make_graph(graph.nodes, "tinyseg", inputs, outputs, graph.constants, value_info=graph.declared)
    opsets = [helper.make_opsetid("", graph.opset)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=IR_VERSIONS[graph.opset], producer_name="tinyseg")
    try:
        texts = {f"tinyseg.{name}": json.dumps(value) for name, value in kept.items()}
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"metadata must be what JSON can hold (numbers, text, lists, dicts), but: {error}.") from None
    helper.set_model_props(model, texts)
    return model
