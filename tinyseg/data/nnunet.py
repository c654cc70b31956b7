"""nnU-Net's names: a file for each case and channel, ``imagesTr/<case>_0000.nii.gz``, and ``labelsTr/<case>.nii.gz``.

Its ``dataset.json`` lists no cases (version 2), lists them without the numbers of the channels (version 1), or gives
them under "dataset" by name.
"""

import re

from tinyseg.data.files import find_volumes, volume_name

NAMES = ("imagesTr", "labelsTr")


def channel_files(path, count):
    """Return the files of the channels of a case: (path,), or ``<case>_0000.nii.gz`` … if there are such instead."""
    name = volume_name(path)
    files = tuple(path.with_name(f"{name}_{m:04d}{path.name.removeprefix(name)}") for m in range(count))
    return files if files[0].exists() and not path.exists() else (path,)


def cases_of_folder(folder, count):
    """Return [(paths of its channels, path of its labels)] of the cases in ``imagesTr`` and ``labelsTr``.

    A case is what has a first channel or labels; its files need not exist. Its image may also be one file that has its
    name. A ValueError is raised if a case has more than `count` channels.
    """
    images, labels = (find_volumes(folder / name) if (folder / name).is_dir() else {} for name in NAMES)
    ending = _ending(images | labels)
    names = {name.removesuffix("_0000") for name in images if name.endswith("_0000")} | set(labels)
    more = [path for name, path in images.items() if name[:-5] in names and _channel(name) >= count]
    if more:
        raise ValueError(
            f"{more[0]} is a channel that dataset.json in {folder} does not name: it names {count}, from 0 on. Name "
            "them all, or move the files away."
        )
    found = []
    for name in sorted(names):
        files = _channels(images, folder / NAMES[0], name, ending, count)
        if name in images and not files[0].exists():
            files = (images[name],)
        found.append((files, labels.get(name, folder / NAMES[1] / f"{name}{ending}")))
    return found


def cases_to_predict(folder, count):
    """Return {case: paths of its channels} of a folder such as ``imagesTs``; they need not exist."""
    files = find_volumes(folder)
    names = sorted({name[:-5] for name in files if _channel(name) >= 0})
    return {name: _channels(files, folder, name, _ending(files), count) for name in names}


def numbered_by_channel(images, label):
    """Return whether the files of a case have the name of its labels, and ``_0000``, ``_0001`` … after it."""
    name = volume_name(label)
    return all(volume_name(image) == f"{name}_{m:04d}" for m, image in enumerate(images))


def _channel(name):
    """Return the number of the channel at the end of a name, or -1."""
    found = re.search(r"_(\d{4})$", name)
    return int(found[1]) if found else -1


def _channels(files, folder, name, ending, count):
    names = [f"{name}_{m:04d}" for m in range(count)]
    return tuple(files.get(each, folder / f"{each}{ending}") for each in names)


def _ending(files):
    return next((path.name.removeprefix(name) for name, path in files.items()), "")
