"""segment.html: a network as one page, which runs it in the browser without a server, an installation or a connection.

The page is put together from the files beside this one. The network is in it as data: network.wasm computes any U-Net
that `tinyseg.models.build` makes, and `tinyseg.export.page.weights` gives the weights of this one in few bits. A Web
Worker gets both as texts. The page's Content-Security-Policy allows its own script and style by their hashes and
forbids every connection, so that images cannot leave the computer.
"""

import base64
import gzip
import hashlib
import html
import json
import pathlib
from typing import Any

from tinyseg.backend import versions
from tinyseg.data.brain import Preparation
from tinyseg.data.files import refuse_missing
from tinyseg.data.writing import FilePath, write_atomically
from tinyseg.export.describing import as_predictor, describe
from tinyseg.export.page.facts import collect_facts, write_facts
from tinyseg.export.page.weights import pack_parts
from tinyseg.models import UNet
from tinyseg.prediction import normalizes_over_space
from tinyseg.prediction.predictor import Predictor

FOLDER = pathlib.Path(__file__).parent
READERS = (  # of images, and the writers
    "deflate.js", "images.js", "pictures.js", "png.js", "tiff.js", "tiff_pixels.js", "tiff_writer.js", "nifti.js",
)  # fmt: skip
WORKER = "blobs.js", *READERS, "preparation.js", "segmenter.js", "worker.js"
SCRIPT = "helper.js", "painting.js", "page.js", "running.js", "saving.js", "events.js"
LARGEST_EXAMPLE = 4 << 20  # bytes; what is embedded goes to everybody who gets the page


def write_html(path: FilePath, model: UNet | Predictor, example: FilePath | None = None) -> None:
    """Write a page that segments images with a trained network.

    Parameters
    ----------
    path : path-like
        The page, such as segment.html.
    model : UNet or Predictor
        With the attribute ``meta`` that `checkpoint.load` sets: it says how images are prepared and what the classes
        are, and the page shows what it knows of the training.
    example : path-like, optional
        A PNG that the page holds, to try it with one click. Whoever gets the page gets this image.

    Raises
    ------
    ValueError
        The network takes sections of several channels; the checkpoint does not say how images are prepared; or the
        example is no PNG, or a large one.
    OSError
        A file cannot be read or written.
    """
    predictor = as_predictor(model)
    _refuse_other_images(predictor)
    if example is not None and isinstance(predictor.preparation, Preparation):
        raise ValueError("An example in the page is a PNG, and this network takes volumes: leave the example out.")
    network = describe(predictor.model)
    rows, columns, standardize, brain = 1.0, 1.0, "section", None
    if isinstance(predictor.preparation, Preparation):
        brain = predictor.preparation.as_dict()
    else:
        rows, columns = map(float, predictor.preparation.scale)
        standardize = predictor.preparation.standardize
    parts, table = pack_parts(network, (rows, columns), standardize)
    about = {
        "classes": predictor.classes,
        "channels": network.in_channels,
        "names": predictor.modalities or [f"channel {k}" for k in range(network.in_channels)],
        "brain": brain,
        "scale": [rows, columns],
        "standardize": standardize,
        "multiple": network.multiple,
        "radius": predictor.model.receptive_radius,
        "groupNorm": normalizes_over_space(predictor.model),
        "parts": table,
        "example": None if example is None else pathlib.Path(example).name,
    }
    script, style = _join(SCRIPT), _read("page.css")
    contents = {
        "title": write_title(predictor.classes),
        "generator": f"tinyseg {versions()['tinyseg']}",
        "policy": _policy(script, style),
        "facts": write_facts(collect_facts(predictor)),
        "style": style,
        "about": json.dumps(about).replace("<", "\\u003c"),
        "wasm": _to_base64((FOLDER / "network.wasm").read_bytes()),
        "weights": _to_base64(gzip.compress(parts, 9, mtime=0)),
        "example": "" if example is None else _to_base64(_read_example(example)),
        "worker": _join(WORKER),
        "script": script,
    }
    write_atomically(path, _fill(_read("segment.html"), contents))


def write_title(classes: list[str]) -> str:
    """Return what the page finds, for its heading, as HTML."""
    named = [name for name in classes if name != "background"]
    return _escape(", ".join(named[:4]) + (" …" if len(named) > 4 else ""))


def _refuse_other_images(predictor):
    channels = predictor.model.in_channels
    if not isinstance(predictor.preparation, Preparation) and channels != 1:
        raise ValueError(
            "The page takes grey sections of one channel, or scans of a brain, and this network takes images of "
            f"{channels} channels: export it with --format onnx."
        )


def _policy(script, style):
    """Return the Content-Security-Policy: all is forbidden but what is in the page itself."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style)]
    return (
        f"default-src 'none'; script-src 'sha256-{hashes[0]}' 'wasm-unsafe-eval'; style-src 'sha256-{hashes[1]}'; "
        "worker-src blob:; img-src blob: data:; base-uri 'none'; form-action 'none'"
    )


def _read_example(path):
    path = pathlib.Path(path)
    refuse_missing(path, "a PNG for the page to hold")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, and the page holds one example: name a PNG in it.")
    content = path.read_bytes()
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError(f"{path} is no PNG, and the example in the page must be one: save it as PNG.")
    if len(content) > LARGEST_EXAMPLE:
        raise ValueError(
            f"{path} takes {len(content) / 2**20:.0f} MB, and an example in the page at most "
            f"{LARGEST_EXAMPLE >> 20} MB: cut a part out of it."
        )
    return content


def _join(names):
    """Return scripts as one text that HTML can hold."""
    text = "\n".join(_read(name) for name in names)
    for end in ("</script", "<!--"):
        assert end not in text.lower(), f"{end} would end the script"
    return text


def _fill(template: str, contents: dict[str, str]) -> str:
    """Replace each {{name}} of a template; what is put in is not looked at again."""
    first, *others = template.split("{{")
    parts = [first]
    for other in others:
        name, _, text = other.partition("}}")
        parts += [contents[name], text]
    return "".join(parts)


def _read(name) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _to_base64(content) -> str:
    return base64.b64encode(content).decode()


def _escape(text: Any) -> str:
    return html.escape(str(text))
