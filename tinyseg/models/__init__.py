"""The paper's six models by name (Gadosey et al. 2020, Table 1), and how to build one."""

import inspect

from tinyseg.models.sd_unet import SDUNet
from tinyseg.models.unet import UNet

MODELS = {
    "unet": (UNet, {}),
    "unet_gn": (UNet, {"norm": "group"}),
    "unet_dw_bn": (UNet, {"separable": True, "norm": "batch"}),
    "unet_dw_gn": (UNet, {"separable": True, "norm": "group"}),
    "sdunet_bn": (SDUNet, {"norm": "batch"}),
    "sdunet": (SDUNet, {}),
}


def build(name, in_channels=1, num_classes=1, **options):
    """Build one of the paper's models.

    Parameters
    ----------
    name : {"unet", "unet_gn", "unet_dw_bn", "unet_dw_gn", "sdunet_bn", "sdunet"}
        Plain U-Net; with GroupNorm; with separable convolutions and BatchNorm / GroupNorm; SD-UNet with
        BatchNorm / as proposed.
    in_channels, num_classes : int
        Channels of the images, and of the logits.
    **options
        Any further argument of `tinyseg.models.unet.UNet`, such as ``width=16``, ``head="paper"`` or ``seed=1``.

    Returns
    -------
    UNet
        With a `config` attribute, a dict of every option from which `build(**config)` makes the same model again.

    Raises
    ------
    ValueError
        If there is no such model or option.
    """
    if name not in MODELS:
        raise ValueError(f"There is no model {name!r}; choose one of {', '.join(MODELS)}.")
    cls, defaults = MODELS[name]
    known = _defaults(UNet) | _defaults(cls) | defaults
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(f"{name} has no option {', '.join(unknown)}; its options are {', '.join(known)}.")
    options = known | options
    model = cls(in_channels, num_classes, **options)
    model.config = {"name": name, "in_channels": in_channels, "num_classes": num_classes, **options}
    return model


def _defaults(cls):
    """Options of a model class and their defaults."""
    parameters = inspect.signature(cls).parameters.values()
    given = {p.name: p.default for p in parameters if p.default is not p.empty}
    return {name: value for name, value in given.items() if name not in ("in_channels", "num_classes")}


__all__ = ["MODELS", "SDUNet", "UNet", "build"]
