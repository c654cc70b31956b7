"""A trained network as C: `network.c`, which is the same for every network, beside the weights of this one.

    cc -O3 network.c main.c -lm -o segment
    ./segment weights.bin image.pgm mask.pgm

`main.c` reads and writes PGM files; `network.h` and `image.h` are what a program of one's own includes instead.
"""

import importlib.resources
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np

from tinyseg.data.files import refuse_missing
from tinyseg.data.writing import FilePath, write_atomically
from tinyseg.export.c.weights import pack
from tinyseg.export.checking import NotRunError
from tinyseg.export.describing import as_predictor, describe
from tinyseg.models import UNet
from tinyseg.prediction.predictor import Predictor

SOURCES = ("network.h", "network.c", "image.h", "main.c")


def write_c(folder: FilePath, model: UNet | Predictor) -> list[pathlib.Path]:
    """Write the sources and weights.bin into a folder, which is made.

    Parameters
    ----------
    folder : path-like
    model : UNet or Predictor
        Of grey sections: its scale and standardization go into weights.bin. A UNet has the attribute ``meta`` that
        `checkpoint.load` sets.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    ValueError
        The network has no such shape, see `tinyseg.export.c.weights.pack`, or its images are no grey sections.
    """
    predictor = as_predictor(model)
    scale, standardize = grey_preparation(predictor)
    weights = pack(describe(predictor.model), scale, standardize)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sources = importlib.resources.files("tinyseg.export.c")
    files = {name: (sources / name).read_bytes() for name in SOURCES} | {"weights.bin": weights}
    for name, content in files.items():
        write_atomically(folder / name, content)
    return [folder / name for name in files]


def grey_preparation(predictor: Predictor) -> tuple[tuple[float, float], str]:
    """Return scale and standardization of a predictor's grey sections; a ValueError if it is for volumes."""
    preparation = predictor.preparation
    if not hasattr(preparation, "scale"):
        raise ValueError(
            f"{predictor.name} was trained on volumes of {predictor.model.in_channels} modalities, and the C program "
            "and the page take pictures: give --format onnx, which takes any array."
        )
    rows, columns = map(float, preparation.scale)
    return (rows, columns), preparation.standardize


def find_compiler() -> list[str]:
    """Return the command of a C compiler of this machine; a NotRunError if there is none."""
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            return [path]
    try:
        import ziglang  # noqa: F401
    except ImportError:
        raise NotRunError("there is no C compiler here: install gcc, or pip install ziglang") from None
    return [sys.executable, "-m", "ziglang", "cc"]


def compile_c(folder: FilePath, program: FilePath, *options: str) -> None:
    """Compile what `write_c` has written to a program; a RuntimeError with the compiler's words if that fails."""
    folder = pathlib.Path(folder)
    sources = [str(folder / name) for name in ("network.c", "main.c")]
    done = subprocess.run([*find_compiler(), "-O3", *options, *sources, "-lm", "-o", str(program)], capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{folder} could not be compiled: {done.stderr.decode(errors='replace')[-1000:]}")


def run_c(folder: FilePath, sections: np.ndarray) -> np.ndarray:
    """Compile the program with this machine's compiler, and run it.

    Parameters
    ----------
    folder : path-like
        What `write_c` made.
    sections : uint8 or uint16 ndarray, shape (S, C, H, W)
        As stored.

    Returns
    -------
    float32 ndarray, shape (S, classes, H, W)
        Probabilities.

    Raises
    ------
    FileNotFoundError
        There is no such folder.
    ValueError
        The sections are not such an array.
    NotRunError
        There is no compiler.
    RuntimeError
        It could not be compiled or run.
    """
    refuse_missing(pathlib.Path(folder), "a folder that write_c has written")
    if sections.ndim != 4 or sections.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"sections must be uint8 or uint16, (S, C, H, W), but are {sections.dtype}, {sections.shape}: a single "
            "grey image is image[None, None]."
        )
    with tempfile.TemporaryDirectory() as temporary:
        place = pathlib.Path(temporary)
        compile_c(folder, place / "segment")
        write_pgm(place / "image.pgm", sections.reshape(-1, *sections.shape[2:]))
        names = "segment", pathlib.Path(folder).absolute() / "weights.bin", "image.pgm", "mask.pgm"
        words = [*(str(place / name) for name in names), "0.5", str(place / "probabilities.raw")]
        done = subprocess.run(words, capture_output=True)
        if done.returncode:
            raise RuntimeError(f"the compiled program ended with: {done.stderr.decode(errors='replace')[-1000:]}")
        numbers = np.fromfile(place / "probabilities.raw", np.float32)
    return numbers.reshape(len(sections), -1, *sections.shape[2:])


def write_pgm(path: FilePath, images: np.ndarray) -> None:
    """Write images, uint8 or uint16 (N, H, W), one after another as PGM."""
    largest = np.iinfo(images.dtype).max
    head = f"P5\n{images.shape[2]} {images.shape[1]}\n{largest}\n".encode()
    pathlib.Path(path).write_bytes(
        b"".join(head + image.astype(image.dtype.newbyteorder(">")).tobytes() for image in images)
    )


def read_pgm(path: FilePath) -> np.ndarray:
    """Return all images of a PGM file of 8 bits, as `main.c` writes it: uint8 (N, H, W)."""
    content, images = pathlib.Path(path).read_bytes(), []
    while content:
        kind, size, largest, rest = content.split(b"\n", 3)
        width, height = map(int, size.split())
        images.append(np.frombuffer(rest, np.uint8, width * height).reshape(height, width))
        content = rest[width * height :]
    return np.stack(images)
