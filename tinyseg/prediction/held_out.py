"""Which of some sections are scored: those that are asked for, or those that a network was not trained on."""

import numpy as np

from tinyseg.data.json_files import check_shape


def choose_sections(sections, which):
    """Return the sections to score.

    Parameters
    ----------
    sections : Sections
    which : str or None
        "all" or None, a number k for the last k, or "a:b" for a to b-1.

    Raises
    ------
    ValueError
        There are fewer sections.
    """
    n = len(sections)
    if which in (None, "all"):
        return sections
    start, colon, stop = which.rpartition(":")
    start, stop = (int(start), int(stop)) if colon else (n - int(stop), n)
    if not 0 <= start < stop <= n:
        there = "there is 1 section" if n == 1 else f"there are {n} sections"
        raise ValueError(
            f"--sections {which} does not fit: {there}. Give a number from 1 to {n} (the last ones), a:b with 0 <= a < "
            f"b <= {n} (a to b-1), or all."
        )
    return sections.take(np.arange(start, stop))


def leave_out_trained(sections, config, asked_for):
    """Leave out the sections that a network was trained on, unless they are asked for.

    They are known by their grey values, not by their names: also in a stack that was saved again, reordered, mirrored
    or turned, but not where they were resized, cropped or saved as JPEG.

    Parameters
    ----------
    sections : Sections
    config : dict or None
        The checkpoint's, in which ``sections`` has the fingerprints of the "train" and "val" sections.
    asked_for : bool
        Whether the user chose exactly these.

    Returns
    -------
    Sections
        Those to score.
    str
        A sentence that says what they are.
    """
    n = len(sections)
    known = (config or {}).get("sections", {})
    check_shape(known, dict[str, list[str]], 'the checkpoint\'s "sections" do not fit')
    if not known:
        return sections, f"{n} sections; the checkpoint does not say which sections it was trained on"
    trained, validated = (np.isin(sections.fingerprints(), known.get(name, [])) for name in ("train", "val"))
    of_val = "of the validation, on which the best epoch was chosen"
    if not trained.any():
        return sections, f"{n} sections, none known from the training{f' but {of_val}' if validated.any() else ''}"
    if asked_for or trained.all():
        return sections, (
            f"{n} sections. WARNING: the network was trained on {trained.sum()} of them, so expect too good a score."
        )
    what = f"those {of_val}" if validated[~trained].all() else "those that the network was not trained on"
    return sections.take(
        np.flatnonzero(~trained)
    ), f"{(~trained).sum()} of {n} sections: {what} (--sections all takes all)"
