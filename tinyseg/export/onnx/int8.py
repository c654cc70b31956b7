"""The nodes of a network with 8 bits: convolutions between pairs of QuantizeLinear and DequantizeLinear ("QDQ").

A runtime makes integer convolutions of them. The scales and integers are those of `tinyseg.export.int8`.
"""

import numpy as np

from tinyseg.export.onnx.graph import Steps, names_of, window


class Int8Steps(Steps):
    """The steps of a network whose `convolutions` are integers, as nodes of a graph; see `Steps`."""

    def __init__(self, graph, convolutions):
        super().__init__(graph)
        self.convolutions, self._quantizers = convolutions, {}  # of results that stand for integers

    def convolve(self, part, x):
        integers = self.convolutions.get(part.name)
        if integers is None:
            return super().convolve(part, x)
        if self._quantizers.get(x) != integers.x:
            x = self._pair(x, integers.x)
        scales = integers.scale, integers.scale * integers.x.scale
        weights = map(self._weights, names_of(part), (integers.kernel, integers.bias), scales)
        y = self.graph.add("Conv", part.name, x, *weights, **window(part))
        return self._pair(y, integers.y)

    def _pair(self, x, quantizer):
        """Round a result to integers, and back to what they stand for."""
        numbers = (
            self.graph.constant(f"{x}/scale", np.array(quantizer.scale)),
            self.graph.constant(f"{x}/zero", np.array(quantizer.zero_point, np.uint8)),
        )
        back = self.graph.add("DequantizeLinear", x, self.graph.add("QuantizeLinear", x, x, *numbers), *numbers)
        self._quantizers[back] = quantizer
        return back

    def _weights(self, name, q, scale):
        """Add integers; return the name of what they stand for. One scale for all is written as one."""
        one = (scale == scale[0]).all()
        scale = scale[0] if one else scale
        numbers = (
            self.graph.constant(f"{name}/int", q),
            self.graph.constant(f"{name}/scale", np.array(scale)),
            self.graph.constant(f"{name}/zero", np.zeros(np.shape(scale), q.dtype)),
        )
        return self.graph.add("DequantizeLinear", name, *numbers, **({} if one else {"axis": 0}))
