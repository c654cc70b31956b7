"""CUDA graphs: a forward pass (`graph`) or a training step (`training_step`) captured once and launched at once."""

from tinyseg.fast.gpu.graphs.graph import Inference, capture

__all__ = ["Inference", "capture"]
