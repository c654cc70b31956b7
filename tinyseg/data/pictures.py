"""Pictures: PNG, JPEG and BMP, each one section, read as they are shown."""

import contextlib
import math

import numpy as np
from PIL import Image, ImageMode

from tinyseg.data.image_file import ImageFile, oriented, returned_type
from tinyseg.data.memory import DEFLATE, refuse_impossible

KINDS = ("PNG", "JPEG", "BMP")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I", "I;16", "I;16B", "F")  # Pillow's names of what is read
ORIENTATION = 0x0112  # the number of this tag in EXIF


class PictureImage(ImageFile):
    """A picture, which is one section. `dpi` is (x, y), or None if the file does not say it.

    A picture is read as viewers show it: through its palette, and turned as its EXIF orientation says.
    """

    kind, suffixes = "picture", (".png", ".jpg", ".jpeg", ".bmp")
    expected = f"a picture ({', '.join(suffixes)})"
    _count = 1
    tags: dict[str, object] = {}  # of a TIFF that is made from it
    description = ""

    def _read_header(self):
        with _open(self.path) as picture:
            self._frames, self._mode, self._stored = getattr(picture, "n_frames", 1), picture.mode, _raw_mode(picture)
            self._orientation = _orientation(picture, self.path)
            mode = "RGBA" if picture.mode in ("P", "PA") else picture.mode
            self.shape, self.dpi = picture.size[::-1], picture.info.get("dpi")
        if self._orientation >= 5:  # rows become columns
            self.shape, self.dpi = self.shape[::-1], self.dpi and self.dpi[::-1]
        described = ImageMode.getmode(mode)
        self.dtype, self.samples = returned_type(described.typestr), len(described.bands)
        each = self.samples * self.dtype.itemsize  # bytes of a pixel, for which the file has at least a bit
        refuse_impossible(each * math.prod(self.shape), self.path.stat().st_size, 8 * each * DEFLATE, "it")

    def _check(self):
        name = f"{self.path.name} in {self.path.parent}"
        if self._frames > 1:
            raise ValueError(
                f"{name} has {self._frames} frames: a picture is one section. Save a TIFF stack, or the one to use."
            )
        if self._mode not in MODES:
            raise ValueError(f"{name} is in colour ({self._mode}): expected grey. Convert it to grey.")
        if self._stored.endswith(";16B") and self._stored != "I;16B":
            raise ValueError(
                f"{name} is a PNG of several channels of 16 bits, of which only 8 could be read: expected one channel. "
                "Save it as grey of 16 bits, or as TIFF."
            )

    def _read(self, k):
        with _open(self.path) as picture:
            stored, transparent = _raw_mode(picture), picture.info.get("transparency")
            paletted = picture.mode in ("P", "PA")
            pixels = _through_palette(picture) if paletted else np.array(picture)
            if paletted and self.palette_numbers and _has_colours(picture):
                pixels, paletted = np.atleast_3d(np.array(picture))[..., 0], False
                transparent = None
        self.opacity = paletted or self._mode in ("LA", "RGBA")
        if transparent is not None and not paletted:  # a grey value or a colour whose pixels are not to be seen
            pixels, self.opacity = _with_opacity(pixels, transparent, stored), True
        return oriented(pixels, self._orientation)


def _open(path):
    """Open a picture as PIL.Image.open does, but whatever its size: what fits into memory is checked elsewhere."""
    Image.preinit()
    with open(path, "rb") as file:
        start = file.read(16)
    for kind in KINDS:
        open_file, accept = Image.OPEN[kind]
        if accept(start):
            return open_file(path)
    raise ValueError(f"it does not begin like {', '.join(KINDS)}")


def _raw_mode(picture):
    """Return Pillow's name of how pixels are stored, such as "RGB;16B"; empty if the file does not say it."""
    raw = picture.tile[0][3] if picture.tile else ""
    return raw if isinstance(raw, str) else str(raw[0]) if raw else ""


def _through_palette(picture):
    """Return the colours (H, W, 4) of a picture with a palette. Pillow would show those that it lacks as black."""
    last = int(np.atleast_3d(np.array(picture))[..., 0].max())
    found = len(picture.getpalette() or ()) // 3
    if last >= found:
        raise ValueError(f"its pixels refer to colour {last}, counted from 0, of a palette of {found} colours")
    return np.array(picture.convert("RGBA"))


def _has_colours(picture):
    """Return whether the palette of a picture has colours beside grey."""
    colours = np.array(picture.getpalette("RGB")).reshape(-1, 3)
    return bool((np.ptp(colours, axis=1) > 0).any())


def _with_opacity(pixels, transparent, stored):
    """Append to pixels (H, W) or (H, W, 3) a channel that is 0 where they have the transparent value, else 1."""
    if stored in ("L;2", "L;4"):  # the pixels have been stretched to 8 bits, and this value has not
        transparent *= 255 // (2 ** int(stored[-1]) - 1)
    value = bool(transparent) if pixels.dtype == bool else np.array(transparent)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    seen = (pixels != value).any(axis=-1, keepdims=True)
    return np.concatenate([pixels, seen.astype(pixels.dtype)], axis=-1)


def _orientation(picture, path):
    """Return the orientation, 1 to 8, that EXIF asks for; 1, upright, if there is none or it cannot be read."""
    orientation = 1
    with contextlib.suppress(Exception):  # viewers show a picture whose EXIF is damaged as it lies
        exif = Image.Image.getexif(picture)  # that of a PNG would read all pixels first
        if picture.format == "PNG" and (block := _exif_of_png(path)):
            exif.load(block)
        orientation = exif.get(ORIENTATION, 1)
    return orientation if orientation in range(1, 9) else 1


def _exif_of_png(path):
    """Return the content of a PNG's eXIf chunk, which may come after the pixels, or None."""
    with open(path, "rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            size, kind = int.from_bytes(head[:4]), head[4:]
            if kind == b"eXIf":
                return file.read(size)
            file.seek(size + 4, 1)  # its content and its checksum
    return None
