"""What readers of images share: an open file of sections, and a sentence for what cannot be read."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import numpy as np

from tinyseg.data.files import refuse_missing
from tinyseg.data.memory import refuse_too_large
from tinyseg.data.other_kinds import how_to_convert, kind_by_content
from tinyseg.data.writing import FilePath

LEFTOVER = 1 << 30


def returned_type(stored):
    """Return the type of the sections of a file: float32 for floats, any other type as it is stored."""
    return np.dtype(np.float32) if np.dtype(stored).kind == "f" else np.dtype(stored).newbyteorder("=")


class ImageFile:
    """An open file of sections; `tinyseg.data.images.open_image` lists its attributes.

    A subclass sets `kind`, `suffixes` and `expected`. Its `_read_header` sets `shape`, `dtype` and `_count`, and its
    `_read` returns a section as it is shown, (H, W) or with its channels last. If the last channel is an opacity,
    `opacity` is true.
    """

    channels = 1
    samples = 1  # values that are read for each pixel
    opacity = False
    palette_numbers = (
        False  # whether a palette of colours gives the numbers of its colours instead, as class masks mean
    )
    axes: dict[str, int] = {}  # the names and sizes of the axes that count sections, if the file says them

    path: Path
    kind: str
    expected: str
    shape: tuple[int, int]
    dtype: np.dtype
    _count: int
    _read_header: Callable[[], None]
    _read: Callable[[int], np.ndarray]

    def __init__(self, path: FilePath) -> None:
        self.path = Path(path)
        refuse_missing(self.path, self.expected)
        with contextlib.ExitStack() as self._closing:  # closes the file if one of these steps fails
            with decoding(self.path, self.expected):
                if self.path.stat().st_size == 0:
                    raise EOFError("it is empty, 0 bytes")
                self._read_header()
            self._check()
            self._closing = self._closing.pop_all()

    def _check(self):
        """Raise an error if the file can be read but its headers say that it cannot be used."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._closing.close()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self.section, range(len(self)))

    def name(self, k: int) -> str:
        """Name a section: ``"name.tif[k]"``, or the file's name if it holds only one."""
        return self.path.name if len(self) == 1 else f"{self.path.name}[{k}]"

    def section(self, k: int, two_colours: bool = False) -> np.ndarray:
        """Read section k, counted from 0: (channels, H, W).

        With `two_colours` a picture of two colours, one of them black or white, becomes grey; other colour is refused.
        """
        if not 0 <= k < len(self):
            raise IndexError(f"{self.path} has sections 0 to {len(self) - 1}: there is no section {k}.")
        name = f"{self.name(k)} in {self.path.parent}"
        H, W = self.shape
        refuse_too_large(self.samples * H * W * self.dtype.itemsize, f"{name}, {H} × {W} pixels of {self.dtype},")
        with decoding(self.path, self.expected):
            section = self._read(k)
        section = self._in_grey(section, name, two_colours)
        with np.errstate(over="ignore"):  # a float64 too large for float32 becomes infinity, and is refused
            section = section.astype(returned_type(section.dtype), copy=False)
        if section.dtype.kind == "f" and not np.isfinite(section).all():
            raise ValueError(
                f"{name} holds NaN or infinity: expected finite grey values. Replace them or leave the section out."
            )
        return section

    def _in_grey(self, section, name, two_colours):
        """Return a section, which may be grey saved as RGB(A) with its channels last, as (1, H, W)."""
        if section.dtype.kind not in "biuf":
            raise ValueError(f"{name} has values of type {section.dtype}: expected grey integers or floats.")
        if self.opacity and section.ndim == 3:
            if (section[..., -1] != section[0, 0, -1]).any():
                raise ValueError(
                    f"{name} has an opacity (alpha, transparency) that is not the same everywhere: expected grey. "
                    "Save it without, on the background that is meant."
                )
            section = section[..., :-1]
        if section.ndim == 3 and (section == section[..., :1]).all():
            section = section[..., 0]
        if section.ndim == 3 and two_colours and section.shape[-1] == 3:
            section = _grey_of_two_colours(section)
        if section.ndim != 2:
            if two_colours and section.shape[-1] == 3:
                raise ValueError(
                    f"{name} is in colour: expected a mask of two values, or of two colours of which one is black or "
                    "white. If each colour is a class, save masks of numbers, 0, 1, 2 …, one for each class."
                )
            raise ValueError(
                f"{name} is in colour or has several channels (shape {section.shape}): expected grey. "
                "Convert it to grey (in Fiji: Image > Type > 8-bit; of a lookup table: Image > Lookup Tables > Grays), "
                "save the one channel to use, or, if these are sections, save the stack with axes ZYX."
            )
        return section[None]


def _grey_of_two_colours(section):
    """Return the brightness (H, W) of a section (H, W, 3) of one colour, or two and one is grey; else the section."""
    first, last = section[0, 0], section[-1, -1]
    other = (section != first).any(axis=-1)
    if other.any():
        last = section[other][0]
        if (section[other] != last).any() or not (np.ptp(first) == 0 or np.ptp(last) == 0):
            return section
    bright = [np.rint(colour @ np.array([0.299, 0.587, 0.114])).astype(section.dtype) for colour in (first, last)]
    return section if other.any() and bright[0] == bright[1] else np.where(other, bright[1], bright[0])


def oriented(pixels, orientation):
    """Turn and mirror pixels (H, W) or (H, W, C) as the orientation tag of EXIF and TIFF says, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def read_to_the_end(file):
    """Unpack what is left of a gzip file, at whose end stands a checksum of all of it.

    If more than `LEFTOVER` bytes are left, as no scan leaves behind its voxels, it is a ValueError.
    """
    for _ in range(LEFTOVER >> 20):
        if not file.read(2**20):
            return
    raise ValueError(f"behind its voxels it holds more than {LEFTOVER >> 20} MiB")


@contextlib.contextmanager
def decoding(path, expected):
    """Turn what decoders raise into a ValueError that names the file; `expected` says what it should be."""
    try:
        yield
    except (MemoryError, PermissionError, FileNotFoundError):
        raise
    except Exception as error:  # decoders raise whatever they meet: struct.error, zlib.error, KeyError, ...
        if _decoder_is_missing(error):
            raise ValueError(
                f"{path} is compressed in a way that needs one more package: pip install imagecodecs, or "
                f"save it without compression. ({error})"
            ) from error
        with open(path, "rb") as file:
            other, endings = kind_by_content(file.read(64)) or ("", ())
        found, advice = "a damaged file, one cut short or of another kind", "Copy or export it again."
        if other and not path.name.lower().endswith(endings or ("?",)):
            found = f"{other}, saved under this name,"
            advice = f"Copy or export it again, or give its name the ending {endings[0]}." if endings else advice
        raise ValueError(
            f"{path} cannot be read: expected {expected}, found {found} ({type(error).__name__}: {error})."
            f"{how_to_convert([path]) or f' {advice}'}"
        ) from error


def _decoder_is_missing(error):
    """Return whether an error came from a package that is not installed."""
    while error is not None:
        if isinstance(error, ImportError) or "imagecodecs" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
