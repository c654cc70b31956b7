"""What only a person can say of a network that is given away as a package of bioimage.io, checked."""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LICENSES = (
    "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "CC-BY-ND-4.0", "CC-BY-NC-ND-4.0",
    "CC-BY-3.0", "CC-BY-SA-3.0", "ODbL-1.0", "MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MPL-2.0",
    "EUPL-1.2", "GPL-2.0-only", "GPL-2.0-or-later", "GPL-3.0-only", "GPL-3.0-or-later", "LGPL-2.1-only",
    "LGPL-2.1-or-later", "LGPL-3.0-only", "LGPL-3.0-or-later", "AGPL-3.0-only", "AGPL-3.0-or-later", "Unlicense",
)  # fmt: skip
OF_AUTHORS = ("name", "affiliation", "email", "github_user", "orcid")
OF_CITATIONS = ("text", "doi", "url")


@dataclass(frozen=True)
class Given:
    """What only a person can say; see `write_bioimageio`. Each is checked."""

    license: str
    authors: Sequence[str | Mapping[str, str]]
    name: str | None
    description: str | None
    cite: Sequence[Mapping[str, str]]
    tags: Sequence[str]
    pixel_size: float | tuple[float, float] | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "license", check_license(self.license))
        several = [self.authors] if isinstance(self.authors, str | Mapping) else self.authors
        authors = [{"name": author} if isinstance(author, str) else dict(author) for author in several]
        for author in authors:
            _check_entry("An author", author, OF_AUTHORS, "name")
            if not author["name"].strip() or set(author["name"]) & set("/\\"):
                raise ValueError(f"The name of an author must be a name without slashes, but is {author['name']!r}.")
        if not authors:
            raise ValueError("A package of bioimage.io needs at least one author: name yourself.")
        object.__setattr__(self, "authors", authors)
        cite = [dict(entry) for entry in self.cite]
        for entry in cite:
            _check_entry("A citation", entry, OF_CITATIONS, "text")
            if not {"doi", "url"} & entry.keys():
                raise ValueError(f"A citation needs a doi or a url, but has none: {entry}.")
        object.__setattr__(self, "cite", cite)
        if self.name is not None and not re.fullmatch(r"[A-Za-z0-9_+\- ()]{5,128}", self.name):
            raise ValueError(
                "name must be 5 to 128 characters out of the letters A to Z, digits, spaces and _+-(), but is "
                f"{self.name!r}."
            )
        for text, limit in ((self.description or "", 1024), *((tag, 128) for tag in self.tags)):
            _check_text("description and tags", text, limit)
        if self.pixel_size is not None:
            size = np.asarray(self.pixel_size, float)
            if size.shape not in ((), (2,)) or not (np.isfinite(size) & (size > 0)).all():
                raise ValueError(f"pixel_size must be micrometres, one number or two, but is {self.pixel_size!r}.")
            object.__setattr__(self, "pixel_size", tuple(np.broadcast_to(size, 2).tolist()))


def check_license(license: str) -> str:
    """Return an SPDX identifier as SPDX spells it; of one that is not among the common ones, warn.

    Raises
    ------
    ValueError
        It cannot be an SPDX identifier.
    """
    known = {each.lower(): each for each in LICENSES}
    if license.lower() in known:
        return known[license.lower()]
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", license):
        raise ValueError(
            f"license must be an SPDX identifier, such as {', '.join(LICENSES[:2])} or MIT, but is {license!r}: see "
            "https://spdx.org/licenses."
        )
    warnings.warn(
        f"The license {license} is none of the common ones, and was taken as it is: see https://spdx.org/licenses "
        "whether it is spelled like this.",
        stacklevel=5,
    )
    return license


def _check_entry(what, entry, allowed, needed):
    if needed not in entry or not entry.keys() <= set(allowed):
        raise ValueError(f"{what} is a dict with {needed} and any of {', '.join(allowed)}, but found {entry}.")
    for text in entry.values():
        if not isinstance(text, str):
            raise ValueError(f"{what} is a dict of texts, but found {entry}.")
        _check_text(what, text, 1024)


def _check_text(what, text, limit):
    if len(text) > limit or not text.isprintable():
        raise ValueError(
            f"{what}: expected printable text in one line of at most {limit} characters, but found {text[:200]!r}."
        )
