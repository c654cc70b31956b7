"""The paper's six models by name (Gadosey et al. 2020, Table 1), how to build one, and how to add another."""

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


def register(name, cls, **defaults):
    """Make a network known by name to `build`, and so to checkpoints.

    Parameters
    ----------
    name : str
    cls : type
        A Module; ``cls(in_channels, num_classes, **options)`` makes it. Options need defaults that JSON can hold.
    **defaults
        Options with another default than the class's own.

    Raises
    ------
    ValueError
        If another network has that name.
    """
    if MODELS.get(name, (cls, defaults)) != (cls, defaults):
        raise ValueError(f"There is a model {name!r} already ({MODELS[name][0].__name__}): choose another name.")
    MODELS[name] = (cls, defaults)


def build(name, in_channels=1, num_classes=1, **options):
    """Build one of the paper's models, or one that was registered.

    Parameters
    ----------
    name : {"unet", "unet_gn", "unet_dw_bn", "unet_dw_gn", "sdunet_bn", "sdunet"}
        Plain U-Net; with GroupNorm; with separable convolutions and BatchNorm / GroupNorm; SD-UNet with
        BatchNorm / as proposed. Or the name of a network of your own, see `register`.
    in_channels, num_classes : int
        Channels of the images, and of the logits.
    **options
        Any further argument of `tinyseg.models.unet.UNet`, such as ``width=16``, ``head="paper"`` or ``seed=1``.

    Returns
    -------
    UNet
        Or what was registered; with a `config` attribute, a dict of every option from which `build(**config)` makes
        the same model again.

    Raises
    ------
    ValueError
        If there is no such model or option.
    """
    if name not in MODELS:
        raise ValueError(
            f"There is no model {name!r}; choose one of {', '.join(MODELS)}. A network of your own is known once the "
            "module that registers it (tinyseg.models.register) has been imported."
        )
    cls, defaults = MODELS[name]
    known = _defaults(cls) | defaults
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(f"{name} has no option {', '.join(unknown)}; its options are {', '.join(known)}.")
    options = known | options
    model = cls(in_channels, num_classes, **options)
    model.config = {"name": name, "in_channels": in_channels, "num_classes": num_classes, **options}
    return model


def _defaults(cls):
    """Options of a model class and their defaults; what it hands on as **options, the class above it names."""
    parameters = inspect.signature(cls).parameters.values()
    given = {p.name: p.default for p in parameters if p.default is not p.empty}
    above = _defaults(cls.__base__) if any(p.kind is p.VAR_KEYWORD for p in parameters) else {}
    return above | {name: value for name, value in given.items() if name not in ("in_channels", "num_classes")}


__all__ = ["MODELS", "SDUNet", "UNet", "build", "register"]
