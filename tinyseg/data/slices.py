"""Prepared slices of many volumes, kept on disk: made once and read through memory maps.

A case has three files (`tinyseg.data.slice_files`). Their names hold a digest of what the slices were made from: the
contents of the sources, the options, and the version of the format. Slices that were made from something else have
another name, so two trainings with different options or data never read or replace each other's.

    slices = SliceCache.build(find_cases("Task01_BrainTumour"), default_folder(), Preparation())
    x, y = slices.images("BRATS_001")[77], slices.labels("BRATS_001")[77]       # (M, h, w) and (h, w)
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed, wait
from pathlib import Path
from typing import Any, Self

import numpy as np
import platformdirs

from tinyseg.data.brain import Preparation
from tinyseg.data.brats import Cases, grid_of_case
from tinyseg.data.fingerprint import fingerprint
from tinyseg.data.load_tqdm import tqdm
from tinyseg.data.slice_files import make_once, read_entry, stem_of
from tinyseg.data.sources import Sources
from tinyseg.data.writing import FilePath, remove_stale

HINT = "skip_bad (--skip-bad) leaves such cases out and lists them."


def default_folder() -> Path:
    """Return the folder for prepared slices among the user's caches, such as ``~/.cache/tinyseg/slices``."""
    return platformdirs.user_cache_path("tinyseg", appauthor=False) / "slices"


class SliceCache:
    """Slices of several cases; `build` makes them.

    Attributes
    ----------
    folder : Path
    modalities, classes : tuple of str
    entries : dict of str to Entry
        In the order of the cases.
    skipped : dict of str to str
        Cases that cannot be used, with the reason.
    """

    def __init__(
        self,
        folder: FilePath,
        modalities: Sequence[str],
        classes: Sequence[str],
        entries: dict[str, Any],
        skipped: dict[str, str],
        make_again: Callable[[str], object],
    ) -> None:
        self.folder, self.modalities, self.classes = Path(folder), modalities, classes
        self.entries, self.skipped, self._make_again = entries, skipped, make_again

    @classmethod
    def build(
        cls,
        cases: Cases,
        folder: FilePath,
        preparation: Preparation,
        workers: int = 2,
        skip_bad: bool = False,
        progress: bool = True,
        check_shape: Callable[[int, int], object] | None = None,
        executor: Executor | None = None,
    ) -> Self:
        """Prepare the cases that are not in the folder yet.

        Parameters
        ----------
        cases : Cases
        folder : str or Path
            Made if it does not exist.
        preparation : Preparation
        workers : int
            Cases prepared at the same time, 0 as 1; each takes about 0.5 GiB for 240 × 240 × 155 × 4 voxels.
        skip_bad : bool
            Leave out cases that cannot be used and list them in `skipped`, instead of raising an error.
        progress : bool
            Show a progress bar.
        check_shape : callable, optional
            ``check_shape(h, w)`` raises a ValueError if the network does not take slices of this shape. It is called
            before any case is prepared.
        executor : concurrent.futures.Executor, optional
            What prepares the cases, instead of `workers` threads: processes, the workers of a Dask cluster
            (``Client.get_executor()``) or of MPI (``mpi4py.futures.MPIPoolExecutor``), which read and write the same
            files under the same names.

        Returns
        -------
        SliceCache

        Raises
        ------
        ValueError
            A case cannot be read, the slices of two cases get different shapes, or two cases hold the same scan; the
            message names the files.
        OSError
            The disk has too little room, or the folder cannot be written to.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            remove_stale(folder)
        except OSError as error:
            raise OSError(
                f"cannot keep slices in {folder} ({error.strerror or error}): choose another cache folder (--cache)."
            ) from None
        skipped = {}

        def leave_out(name, sentence):
            if not skip_bad:
                raise ValueError(f"{sentence} {HINT}")
            skipped[name] = sentence

        for name, sentence in cases.skipped.items():
            leave_out(name, sentence)
        grids = _read_headers(cases, leave_out)
        _check_shapes([(case, grids[case.name]) for case in cases if case.name in grids], preparation, check_shape)
        stems: dict[str, tuple[str, tuple[str, ...]]] = {}
        by_name = {case.name: case for case in cases}

        def job(name):
            return make_once, folder, by_name[name], *stems[name], preparation, len(cases.classes)

        def make_again(name):
            make, *arguments = job(name)
            make(*arguments)

        with Sources(folder) as sources:
            for case in tqdm(cases, desc="looking for changes", unit="case", disable=not progress, delay=2):
                if case.name in grids:
                    sha1 = tuple(sources.sha1(path) for path in case.files)
                    stems[case.name] = stem_of(case, sha1, preparation, len(cases.classes)), sha1
            for name, sentence in _find_duplicates([case for case in cases if case.name in stems], stems).items():
                leave_out(name, sentence)
                del stems[name]
            entries = {name: read_entry(folder, *stem, len(cases.classes), sources) for name, stem in stems.items()}
            missing = [case for case in cases if case.name in stems and entries[case.name] is None]
            _check_room(folder, [(case, grids[case.name]) for case in missing], preparation, len(cases.modalities))
            pool = executor or ThreadPoolExecutor(max(1, workers), thread_name_prefix="tinyseg-cases")
            bar = tqdm(total=len(missing), desc="preparing", unit="case", disable=not progress or not missing)
            work = {}
            try:
                for case in missing:
                    work[pool.submit(*job(case.name), *(() if executor else [sources]))] = case
                for future in as_completed(work):
                    case = work[future]
                    try:
                        entries[case.name] = future.result()
                    except (ValueError, FileNotFoundError) as error:
                        entries.pop(case.name, None)
                        leave_out(case.name, str(error))
                    bar.update()
            except (KeyboardInterrupt, SystemExit):
                print("Waiting for the cases that are being prepared.", file=sys.stderr, flush=True)
                raise
            finally:  # after an error, the cases that are waiting are not prepared
                for future in work:
                    future.cancel()
                wait(work)
                if pool is not executor:
                    pool.shutdown()
                bar.close()
        if not entries:
            raise ValueError(f"none of {len(cases)} cases can be used: {'; '.join(list(skipped.values())[:3])}")
        return cls(folder, cases.modalities, cases.classes, entries, skipped, make_again)

    def images(self, name: str) -> np.ndarray:
        """Return the slices of a case, float16 (Z, M, h, w), mapped from the file."""
        return self._map(name, "images")

    def labels(self, name: str) -> np.ndarray:
        """Return the labels of a case, uint8 (Z, h, w), mapped from the file."""
        return self._map(name, "labels")

    def _map(self, name, part):
        """Map a file; if somebody has emptied the folder during the training, the case is prepared again."""
        file = self.folder / f"{self.entries[name].stem}.{part}.npy"
        if not file.exists():
            self._make_again(name)
        return np.load(file, mmap_mode="r")

    def fingerprints(self, **parts: Sequence[str]) -> dict[str, str]:
        """Return fingerprints of the cases of each part, for `tinyseg.data.fingerprint.refuse_changed`.

        ``fingerprints(training=train, validation=val)`` has the names of the cases, their images and their labels
        apart, and the modalities and the classes in order.
        """
        found = {"modalities": fingerprint(*self.modalities), "classes": fingerprint(*self.classes)}
        for part, names in parts.items():
            hashes = [self.entries[name].sha1 for name in names]
            found[f"the list of the cases for {part}"] = fingerprint(*names)
            found[f"images for {part}"] = fingerprint(*(sha1 for each in hashes for sha1 in each[:-1]))
            found[f"labels for {part}"] = fingerprint(*(each[-1] for each in hashes))
        return found


def _read_headers(cases, leave_out):
    """Return the grid of each case that can be used, by name, from headers alone."""
    grids = {}
    for case in cases:
        try:
            grids[case.name] = grid_of_case(case, len(cases.modalities))
        except (ValueError, OSError) as error:
            leave_out(case.name, str(error))
    return grids


def _check_shapes(found, preparation, check_shape):
    """Refuse slices of several shapes, which cannot be in one batch, and a shape that the network does not take."""
    shapes = {}
    for case, grid in found:
        shapes.setdefault(preparation.target(grid.shape[:2]), (case, grid))
    if len(shapes) > 1:
        (_, (one, grid)), (_, (other, other_grid)) = list(shapes.items())[:2]
        smallest = min(side for shape in shapes for side in shape)
        raise ValueError(
            f"{one.images[0]} has slices of {grid.shape[0]} × {grid.shape[1]}, and {other.images[0]} of "
            f"{other_grid.shape[0]} × {other_grid.shape[1]}: with --size {preparation.size} --how {preparation.how} "
            f"they do not come to one size. Give --how resize, or a --size of at most {smallest}."
        )
    for shape, (case, _) in shapes.items():
        try:
            if check_shape is not None:
                check_shape(*shape)
        except ValueError as error:
            raise ValueError(
                f"with --size {preparation.size} --how {preparation.how} the slices of {case.images[0]} come to "
                f"{shape[0]} × {shape[1]}. {error} Choose another --size, or --how resize."
            ) from None


def _find_duplicates(cases, stems):
    """Return a sentence for each case whose first image file has the hash of that of an earlier case, by name."""
    first, found = {}, {}
    for case in cases:
        other = first.setdefault(stems[case.name][1][0], case)
        if other is not case:
            found[case.name] = f"{case.images[0]} and {other.images[0]} are the same scan: leave one of them out."
    return found


def _check_room(folder, missing, preparation, num_modalities):
    """Raise an error before the work begins if the slices will not fit on the disk."""
    needed = 0
    for _, grid in missing:
        h, w = preparation.target(grid.shape[:2])
        needed += grid.shape[2] * h * w * (2 * num_modalities + 1)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"the slices of {len(missing)} cases take {needed / 2**30:.1f} GiB, and {folder} has {free / 2**30:.1f} "
            "GiB free: choose another cache folder (--cache), or a smaller size."
        )
