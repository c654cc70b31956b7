"""Run a command: set up its process, and turn errors into a sentence."""

import sys
import warnings

from tinyseg import backend
from tinyseg.training.loop import keep_freed_memory


def run_script(main, out_of_memory):
    """Run a command; an error that its user can mend ends it with one sentence and a status that is not 0.

    Parameters
    ----------
    main : callable
        Without arguments. What it raises by a fault of the program, such as a TypeError, keeps its traceback.
    out_of_memory : str
        What to try if the memory of the computer or of the GPU does not suffice.
    """
    warnings.formatwarning = lambda message, *_: f"Warning: {message}\n"
    keep_freed_memory()
    try:
        main()
    except (MemoryError, ValueError, OSError, RuntimeError) as error:
        if not backend.is_out_of_memory(error):
            sys.exit(f"{type(error).__name__}: {error}")
        why = str(error).removeprefix("Out of memory ").rstrip(".")
        if "limit set to" in why:  # CuPy's words, where its pool has a limit
            out_of_memory += ", or a larger --gpu-memory"
        sys.exit(f"Out of memory ({why}): {out_of_memory}.")
    except KeyboardInterrupt:
        sys.exit(130)
