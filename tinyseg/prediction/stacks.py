"""Images that a network of ``--standardize stack`` takes together: their mean and deviation are those of the stack.

A folder of sections is one stack, as it is for the training and for evaluate.py (`tinyseg.data.load_stack`): the same
sections have the same probabilities, whether they are pages of a TIFF or files of their own. Single sections that are
given one by one are a stack if they lie in one folder. In the challenge's folder train-volume.tif is one, and each
other TIFF is another.
"""

import sys

from tinyseg.data import isbi
from tinyseg.data.images import NIFTI_SUFFIXES
from tinyseg.data.scans import open_scan


def stacks_of(inputs):
    """Put images into stacks.

    Parameters
    ----------
    inputs : dict of Path to list of Scan
        For each path that is given, the scans there. Volumes are always stacks of their own.

    Returns
    -------
    dict of Scan to tuple of Scan
        For each scan the stack that it belongs to.
    """
    stacks = {}
    for path, scans in inputs.items():
        for scan in scans:
            together = path.is_dir() and not isbi.holds_stack(path)
            name = path if together else scan.files[0].parent if _is_single(scan) else scan
            if scan.name.lower().endswith(NIFTI_SUFFIXES):
                name = scan
            stacks.setdefault(name, {})[scan] = None
    return {scan: tuple(stack) for stack in reversed(stacks.values()) for scan in stack}


def _is_single(scan):
    """Return whether a scan is a single section; a file that cannot be read is not."""
    try:
        with open_scan(scan) as image:
            return len(image) == 1
    except (ValueError, OSError):
        return False


def statistics_of(predictor, stack):
    """Return the statistics of a stack of scans, see `Predictor.look_at`, and say over what they were taken.

    Scans that cannot be read, or are for another network, are left out: predicting them says why.
    """
    sections = 0

    def each():
        nonlocal sections
        for scan in stack:
            try:
                with open_scan(scan) as image:
                    if image.channels == predictor.model.in_channels:
                        for section in image:
                            yield section
                            sections += 1
            except (ValueError, OSError):
                print(f"{scan.name} is left out of the mean and deviation of its stack", file=sys.stderr)

    statistics = predictor.preparation.statistics(each())
    folder, what = stack[0].files[0].parent, f"the {sections} sections of {len(stack)} files together"
    if len(stack) > 1:
        print(f"{folder}: standardized over {what}, as the network was trained with --standardize stack")
    elif sections == 1:
        print(
            f"{stack[0].name}: standardized by itself. The network was trained with --standardize stack: give all "
            "sections of the stack together."
        )
    return statistics
