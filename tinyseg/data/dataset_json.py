"""The description ``dataset.json`` of a folder of the Medical Segmentation Decathlon.

It names the modalities and the classes and lists the files. MONAI writes ``image`` as a list with a file for each
modality, and newer tools write ``channel_names`` for ``modality`` and ``{name: number}`` for the labels.
"""

from pathlib import Path

import msgspec

from tinyseg.data.json_files import read_json


class _Listed(msgspec.Struct):
    image: str | list[str]
    label: str | list[str]


class _Description(msgspec.Struct):
    labels: dict[str, str | int | list[int]]
    training: list[_Listed]
    modality: dict[str, str] | None = None
    channel_names: dict[str, str] | None = None


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
    repeated = [name for name in modalities if [n.casefold() for n in modalities].count(name.casefold()) > 1]
    if repeated or not all(name.strip() and name.isprintable() for name in modalities):
        raise ValueError(f"{path} names the modalities {list(modalities)}: give each a name of its own.")
    classes = _in_order(path, "labels", _by_number(path, about.labels))
    listed = []
    for entry in about.training:
        images, labels = ([each] if isinstance(each, str) else each for each in (entry.image, entry.label))
        if len(labels) != 1 or len(images) not in (1, len(modalities)):
            raise ValueError(
                f"{path} lists {len(images)} images and {len(labels)} label files for one case, {images} and {labels}: "
                f"expected one image, or one for each of {len(modalities)} modalities, and one label file."
            )
        listed.append((tuple(_locate(folder, name) for name in images), _locate(folder, labels[0])))
    return modalities, classes, listed


def describe_test(folder):
    """Return the paths of the test images that ``dataset.json`` lists; raises as `describe`."""
    about = read_json(Path(folder) / "dataset.json", _Tests, "a description of a Decathlon task")
    images = [test.image if isinstance(test, _Test) else test for test in about.test]
    return [_locate(folder, name) for each in images for name in ([each] if isinstance(each, str) else each)]


def _locate(folder, name):
    """Return the path of a listed file; Windows writes backslashes for slashes."""
    path = Path(folder) / name
    return path if path.exists() else Path(folder) / name.replace("\\", "/")


def _by_number(path, labels):
    """Return labels as {number: name}. Newer descriptions have the names first."""
    if any(isinstance(value, list) for value in labels.values()):
        raise ValueError(f"{path} gives a label several numbers: regions are not read, give each class its number.")
    if all(key.isdecimal() for key in labels) and all(isinstance(value, str) for value in labels.values()):
        return labels
    numbers = [str(value) for value in labels.values()]
    repeated = sorted({number for number in numbers if numbers.count(number) > 1})
    if repeated:
        raise ValueError(f"{path} gives several classes the number {', '.join(repeated)}: give each its own.")
    return dict(zip(numbers, labels, strict=True))


def _in_order(path, what, names):
    """Return the names of {"0": name, "1": name …} in the order of their numbers."""
    if not all(key.isdecimal() for key in names) or sorted(map(int, names)) != list(range(len(names))):
        raise ValueError(f"{path} numbers its {what} {', '.join(names)}: expected 0, 1, 2 … without gaps.")
    return tuple(names[key] for key in sorted(names, key=int))
