"""Prediction: images of any size in tiles (`tiles`), from a checkpoint (`predictor`), whole volumes (`volumes`),
and the objects in what was predicted (`instances`).

`evaluation` scores a network on images and patients that it was not trained on.
"""

from tinyseg.prediction.tiles import TRANSFORMS, normalizes_over_space, predict, predict_logits, tile_within

__all__ = ["TRANSFORMS", "normalizes_over_space", "predict", "predict_logits", "tile_within"]
