"""Writing files so that nothing already written is lost."""

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
