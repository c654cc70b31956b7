"""The six models of the paper by name (Gadosey et al. 2020, Table 1), how to build one, and how to add another."""

import inspect
from typing import Any

from tinyseg.models import size
from tinyseg.models.sd_unet import SDUNet
from tinyseg.models.unet import UNet
from tinyseg.nn import Module

MODELS: dict[str, tuple[type, dict[str, Any]]] = {
    "unet": (UNet, {}),
    "unet_gn": (UNet, {"norm": "group"}),
    "unet_dw_bn": (UNet, {"separable": True, "norm": "batch"}),
    "unet_dw_gn": (UNet, {"separable": True, "norm": "group"}),
    "sdunet_bn": (SDUNet, {"norm": "batch"}),
    "sdunet": (SDUNet, {}),
}


def register(name: str, cls: type[Module], **defaults: Any) -> None:
    """Give a network a name, so that `build` and checkpoints know it.

    Parameters
    ----------
    name : str
    cls : type
        A Module; ``cls(in_channels, num_classes, **options)`` makes it. Options need defaults that JSON can hold.
    **defaults
        Options whose default differs from that of the class.

    Raises
    ------
    ValueError
        If another network has this name.
    """
    if name in MODELS and MODELS[name] != (cls, defaults):
        raise ValueError(f"There is a model {name!r} already ({MODELS[name][0].__name__}): choose another name.")
    MODELS[name] = (cls, defaults)


def build(name: str, in_channels: int = 1, num_classes: int = 1, **options: Any) -> UNet:
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
        Or the registered class, which type checkers take for a UNet too. Its attribute `config` is a dict of all
        options: `build(**config)` makes the same model again.

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


def fewest_weights(name: str, **options: Any) -> int | None:
    """Return how many weights `build` would give the kernels of a `UNet`, without building it.

    None for another network, and for options that are no numbers, which `build` refuses.
    """
    cls, defaults = MODELS.get(name, (None, {}))
    if cls is None or not issubclass(cls, UNet):
        return None
    options = _defaults(UNet) | _defaults(cls) | defaults | {"in_channels": 1, "num_classes": 1} | options
    sizes = [
        options[each] for each in ("in_channels", "num_classes", "width", "levels", "stem_layers", "bottleneck_layers")
    ]
    return size.fewest_weights(**options) if all(type(each) is int for each in sizes) else None


def _defaults(cls):
    """Return the options of a model class with their defaults. If it takes **options, add those of its base class."""
    parameters = inspect.signature(cls).parameters.values()
    inherited = _defaults(cls.__base__) if any(p.kind is p.VAR_KEYWORD for p in parameters) else {}
    own = {p.name: p.default for p in parameters if p.default is not p.empty}
    return inherited | {name: value for name, value in own.items() if name not in ("in_channels", "num_classes")}


__all__ = ["MODELS", "SDUNet", "UNet", "build", "register"]
