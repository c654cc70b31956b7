"""Networks for the tests of export: every kind that `tinyseg.models.build` makes, with weights as after a training."""

import numpy as np

from tinyseg import models

CASES = [
    *({"name": name, "width": 8, "levels": 3} for name in models.MODELS),
    {"name": "sdunet", "width": 6, "levels": 4, "in_channels": 4, "num_classes": 4},
    {"name": "sdunet", "width": 5, "levels": 2, "head": "paper", "num_classes": 3},
    {"name": "unet_gn", "width": 12, "levels": 3, "head": "paper", "stem_layers": 3, "bottleneck_layers": 1},
    {"name": "unet_dw_gn", "width": 20, "levels": 3, "groups": 4, "ws": "filter", "stem_layers": 1},
]


def trained_like(seed=0, **options):
    """Build a network, and change its biases, norms and running statistics: new ones are all 0 or all 1."""
    model = models.build(**options).eval()
    rng = np.random.default_rng(seed)
    state = model.state_dict()
    for name, array in state.items():
        if name.endswith(("bias", "running_mean")):
            state[name] = rng.normal(0, 0.2, array.shape).astype(array.dtype)
        elif "norm" in name:  # weights and running variances
            state[name] = rng.uniform(0.5, 1.5, array.shape).astype(array.dtype)
    model.load_state_dict(state)
    return model
