"""CUDA graphs: a forward pass (`graph`) or a training step (`training_step`) captured once and launched at once."""

from tinyseg.fast.gpu.graphs.graph import SHAPES, WARM_UP, Inference, bytes_in_pools, capture

__all__ = ["SHAPES", "WARM_UP", "Inference", "bytes_in_pools", "capture"]
