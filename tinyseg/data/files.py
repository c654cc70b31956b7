"""Writing files so that nothing already written is lost."""

import json
import math
import os
import pathlib


def write_atomically(path, content):
    """Write bytes or text to `path` so that a crash or a full disk leaves the old file or the new one, never a part.

    The content goes to a hidden file in the same folder, is flushed to disk and then renamed.

    Parameters
    ----------
    path : path-like
        Its folder must exist.
    content : bytes or str
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path, content, indent=1):
    """Write dicts and lists as JSON, atomically; NaN and infinities, which JSON does not have, become null."""
    write_atomically(path, json.dumps(_finite(content), indent=indent) + "\n")


def _finite(value):
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
