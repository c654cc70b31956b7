"""The size of a pixel, where a file says it in a unit of length.

- OME-TIFF: ``PhysicalSizeX`` and ``PhysicalSizeY`` of the first image, in their units (µm without one)
- TIFF that ImageJ wrote: its ``unit``, and the tags of the resolution
- other TIFF: the tags of the resolution if they count pixels in a centimetre

Pixels in an inch are left out, in a TIFF as in a PNG or JPEG: cameras and programs write 72, 96 or 300 there, which is
about paper and not about what was seen.
"""

import contextlib
import math
from xml.etree import ElementTree

from tinyseg.data.image_file import ImageFile

CENTIMETRE = 3  # value of the tag ResolutionUnit
MICROMETRES = {
    "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0,
    "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3, "å": 1e-4, "angstrom": 1e-4,
    "mm": 1e3, "millimeter": 1e3, "millimetre": 1e3, "cm": 1e4, "centimeter": 1e4, "m": 1e6, "meter": 1e6,
}  # fmt: skip


def pixel_size(image: ImageFile) -> tuple[float, float] | None:
    """Return height and width of a pixel of an image of `open_image` in micrometres; None if its file says none."""
    text, tags = getattr(image, "description", ""), getattr(image, "tags", {})
    if image.kind != "tiff":
        return None
    if text.startswith("ImageJ="):
        lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        unit_x = _micrometres(lines.get("unit", ""))
        unit_y = _micrometres(lines["yunit"]) if "yunit" in lines else unit_x
        found = _of_tags(tags, unit_y, unit_x)
    else:
        found = _of_ome(text)
        if found is None and tags.get("ResolutionUnit") == CENTIMETRE:
            found = _of_tags(tags, 1e4, 1e4)
    return found if found and all(math.isfinite(size) and size > 0 for size in found) else None


def _micrometres(unit):
    r"""Return how many micrometres a unit has, None if it is no unit of length. ImageJ writes µ as \u00B5."""
    unit = unit.strip().replace(r"\u00B5", "µ").replace(r"\u00C5", "å")
    return MICROMETRES.get(unit.casefold().replace("μ", "µ"))


def _of_tags(tags, unit_y, unit_x):
    """Return the size by the tags YResolution and XResolution, fractions that count pixels in a unit."""
    with contextlib.suppress(KeyError, TypeError, ValueError, ZeroDivisionError):
        (rows, of_y), (columns, of_x) = tags["YResolution"], tags["XResolution"]
        return unit_y * of_y / rows, unit_x * of_x / columns
    return None


def _of_ome(text):
    """Return the size by a text of OME."""
    with contextlib.suppress(ElementTree.ParseError, KeyError, TypeError, ValueError):
        for element in ElementTree.fromstring(text).iter():
            if element.tag.endswith("Pixels"):
                units = (_micrometres(element.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "YX")
                return tuple(float(element.attrib[f"PhysicalSize{a}"]) * u for a, u in zip("YX", units, strict=True))
    return None
