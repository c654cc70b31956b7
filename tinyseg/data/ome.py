"""What the OME-XML text of a TIFF claims, looked at before tifffile believes it.

The text names the files that hold the planes of an image, which may be anywhere, and how many planes there are, which
may be any number (https://docs.openmicroscopy.org/ome-model/latest/ome-tiff/specification.html).
"""

import math
from xml.etree import ElementTree

MOST = 100  # claimed planes for each page: a page may hold several


def read_text(tif):
    """Return the outermost element of the text; an empty one if there is none, or if it is no XML."""
    try:
        return ElementTree.fromstring(tif.ome_metadata or "<none/>")
    except ElementTree.ParseError:  # tifffile leaves it out as well
        return ElementTree.Element("none")


def other_files(tif, root):
    """Return the names of other files that a TIFF names as parts of its image, sorted.

    They are in the text of OME, whose outermost element is `root`; Micro-Manager and NDTiff name them in another file,
    or by a pattern.
    """
    if any(getattr(tif, f"is_{kind}", False) for kind in ("mmstack", "ndtiff")):
        return ["those of Micro-Manager or NDTiff beside it"]
    found = set()
    for element in root.iter():
        if element.tag.endswith("UUID") and element.text != root.get("UUID"):
            found.add(element.get("FileName", "a file without a name"))
    return sorted(name for name in found if name.casefold() != tif.filename.casefold())


def refuse_claims(root, pages):
    """Raise an EOFError if the text of OME claims many more planes than there can be in this number of pages."""
    claims = [1]
    for element in root.iter():
        numbers = element.attrib
        if element.tag.endswith("Pixels"):
            claims.append(math.prod(int(numbers.get(f"Size{axis}", 1)) for axis in "ZCT"))
        elif element.tag.endswith("TiffData"):
            claims += [int(numbers.get(name, 0)) for name in ("PlaneCount", "NumPlanes", "IFD")]
            claims += [int(numbers.get(f"First{axis}", 0)) for axis in "ZCT"]
        elif element.tag[:-1].endswith("Along") and "Start" in numbers:
            start, stop, step = (float(numbers.get(name, 1)) for name in ("Start", "End", "Step"))
            claims.append(abs(stop - start) / abs(step) if step else math.inf)
    if max(claims) > MOST * max(pages, 10):
        raise EOFError(f"its text claims many more planes than its {pages} pages can hold")
