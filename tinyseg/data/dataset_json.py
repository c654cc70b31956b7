"""The description ``dataset.json`` of a folder of the Medical Segmentation Decathlon.

It names the modalities and the classes and lists the files. MONAI writes ``image`` as a list with a file for each
modality. nnU-Net writes ``channel_names`` for ``modality`` and ``{name: number}`` for the labels, and mostly lists no
files: they are those of its folders (`tinyseg.data.nnunet`).
"""

import collections
import os
from pathlib import Path

import msgspec

from tinyseg.data.json_files import read_json
from tinyseg.data.nnunet import cases_of_folder, channel_files


class _Listed(msgspec.Struct):
    image: str | list[str]
    label: str | list[str]


class _Named(msgspec.Struct):
    images: list[str]
    label: str


class _Description(msgspec.Struct):
    labels: dict[str, str | int | list[int]]
    training: list[_Listed] | None = None
    dataset: dict[str, _Named] | None = None
    modality: dict[str, str] | None = None
    channel_names: dict[str, str] | None = None
    file_ending: str = ".nii.gz"


class _Labels(msgspec.Struct):
    labels: dict[str, str | int | list[int]] | None = None


class _Test(msgspec.Struct):
    image: str | list[str]


class _Tests(msgspec.Struct):
    test: list[str | _Test] = []


def describe(folder):
    """Read ``dataset.json`` of a Decathlon folder.

    Returns
    -------
    modalities, classes : tuple of str
    listed : list of (tuple of Path, Path)
        The files of each training case: its images, which are one file or one for each modality, and its labels. They
        need not exist.

    Raises
    ------
    ValueError
        The file does not describe a Decathlon task.
    """
    path = Path(folder) / "dataset.json"
    about = read_json(path, _Description, 'a description of a Decathlon task, with "modality", "labels" and "training"')
    channels = about.modality or about.channel_names
    if not channels:
        raise ValueError(f'{path} names no modalities: expected "modality": {{"0": "FLAIR", …}}.')
    modalities = _in_order(path, "modalities", channels)
    different = {name.casefold() for name in modalities if name.strip() and name.isprintable()}
    if len(different) < len(modalities):
        raise ValueError(f"{path} names the modalities {list(modalities)}: give each a name of its own.")
    classes = _in_order(path, "labels", _by_number(path, about.labels))
    return modalities, classes, _listed(path, about, len(modalities))


def _listed(path, about, count):
    """Return (images, labels), paths, of each training case; `count` is the number of modalities."""
    folder, entries = path.parent, about.training
    if entries is None and about.dataset is not None:
        entries = [_Listed(case.images, case.label) for case in about.dataset.values()]
    if entries is None:
        if about.file_ending.lower() not in (".nii", ".nii.gz"):
            raise ValueError(
                f'{path} says "file_ending": "{about.file_ending}": expected .nii.gz or .nii. Convert the volumes to '
                "NIfTI. train_isbi.py takes pictures of sections, in imagesTr and labelsTr or otherwise."
            )
        cases = cases_of_folder(folder, count)
        if not cases:
            raise ValueError(
                f'{path} has no "training" and lists no cases, and there is nothing in imagesTr named as nnU-Net names '
                "it (<case>_0000.nii.gz): list the files, or put them there."
            )
        return cases
    listed = []
    for entry in entries:
        images, labels = ([each] if isinstance(each, str) else each for each in (entry.image, entry.label))
        if len(labels) != 1 or len(images) not in (1, count):
            raise ValueError(
                f"{path} lists {len(images)} images and {len(labels)} label files for one case, {images} and {labels}: "
                f"expected one image, or one for each of {count} modalities, and one label file."
            )
        images = tuple(_locate(folder, name) for name in images)
        images = channel_files(images[0], count) if len(images) == 1 else images
        listed.append((images, _locate(folder, labels[0])))
    return listed


def describe_test(folder):
    """Return the paths of the test images that ``dataset.json`` lists; raises as `describe`."""
    about = read_json(Path(folder) / "dataset.json", _Tests, "a description of a Decathlon task")
    images = [test.image if isinstance(test, _Test) else test for test in about.test]
    return [_locate(folder, name) for each in images for name in ([each] if isinstance(each, str) else each)]


def describe_classes(folder):
    """Return the names of the classes in ``dataset.json``; None if it has no labels. Raises as `describe`."""
    path = Path(folder) / "dataset.json"
    labels = read_json(path, _Labels, 'a description of labels: "labels": {"0": "background", …}').labels
    return labels and _in_order(path, "labels", _by_number(path, labels))


def _locate(folder, name):
    """Return the path of a listed file, which must lie in the folder; Windows writes backslashes for slashes.

    What is a link in the folder is followed: it was made on this computer, and not by the list.
    """
    names = [name, name.replace("\\", "/")]
    for path in (Path(folder) / each for each in names):
        if "\0" in name or not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder)):
            raise ValueError(
                f"{Path(folder) / 'dataset.json'} lists {name!r}, which is not in its folder: expected paths like "
                "imagesTr/a.nii.gz. Move the files into the folder, or link them there."
            )
    path, other = (Path(folder) / each for each in names)
    return path if os.path.lexists(path) else other


def _by_number(path, labels):
    """Return labels as {number: name}. Newer descriptions have the names first."""
    if any(isinstance(value, list) for value in labels.values()):
        raise ValueError(f"{path} gives a label several numbers: regions are not read, give each class its number.")
    if all(key.isdecimal() for key in labels) and all(isinstance(value, str) for value in labels.values()):
        return labels
    if "ignore" in map(str.casefold, labels):
        raise ValueError(
            f'{path} has a label "ignore": what is not to be learned from cannot be left out here. Give these voxels '
            "one of the classes, or leave such cases out."
        )
    numbers = [str(value) for value in labels.values()]
    repeated = sorted(number for number, times in collections.Counter(numbers).items() if times > 1)
    if repeated:
        raise ValueError(f"{path} gives several classes the number {', '.join(repeated)}: give each its own.")
    return dict(zip(numbers, labels, strict=True))


def _in_order(path, what, names):
    """Return the names of {"0": name, "1": name …} in the order of their numbers."""
    numbers = {key: int(key) if key.isdecimal() and len(key) < 10 else -1 for key in names}
    if sorted(numbers.values()) != list(range(len(names))):
        raise ValueError(f"{path} numbers its {what} {', '.join(names)}: expected 0, 1, 2 … without gaps.")
    return tuple(names[key] for key in sorted(names, key=numbers.get))
