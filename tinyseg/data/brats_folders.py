"""Folders of BraTS's releases: which files belong to which case.

A release has a folder for each case, some in further folders (``HGG``, ``LGG``, ``MICCAI_BraTS2020_TrainingData``), and
names each file after its case and its modality. The endings differ from year to year, and so do capitals.
"""

from tinyseg.data.files import folders_in

# How BraTS names the files of a case: endings of the modalities in the Decathlon's order, ending of the labels, and
# which number each label gets.
NAMINGS = (
    (("_flair", "_t1", "_t1ce", "_t2"), "_seg", {0: 0, 1: 2, 2: 1, 4: 3}),
    (("-t2f", "-t1n", "-t1c", "-t2w"), "-seg", {0: 0, 1: 2, 2: 1, 3: 3}),
)
MODALITIES = ("FLAIR", "T1w", "T1gd", "T2w")
OTHER_ENDINGS = {"_t1gd": "_t1ce", "_t1c": "_t1ce"}  # UPENN-GBM's and UCSF-PDGM's names of T1 with gadolinium
DEPTH = 3  # how many folders may lie within each other


def case_folders(folder, depth=DEPTH):
    """Return the folders below a folder that hold files named as in BraTS, sorted; if there is none, the folder itself.

    What lies in a folder of a case is not looked at: it may hold results of another program.
    """
    return _below(folder, depth, {folder.resolve(): depth}) or [folder]


def _below(folder, depth, seen):
    """Return the folders of cases below a folder. One that many links lead to is not looked into again and again."""
    found = []
    for inner in folders_in(folder):
        if any(_ending(path.name) for path in inner.iterdir()):
            found.append(inner)
        elif depth > seen.get(there := inner.resolve(), 1):
            seen[there] = depth
            found += _below(inner, depth - 1, seen)
    return found


def _ending(name):
    """Return the ending of BraTS's that a file's name has, without .nii.gz, in small letters; None if it has none."""
    stem = name.casefold().removesuffix(".gz").removesuffix(".nii")
    if stem == name.casefold() or name.startswith("."):
        return None
    known = [ending for endings, label, _ in NAMINGS for ending in (*endings, label)]
    return next((ending for ending in (*known, *OTHER_ENDINGS) if stem.endswith(ending)), None)


def brats_files(volumes, endings):
    """Return {case: {ending: path}}, in the order of their names, of the files that have these endings.

    `volumes` are those of a folder (`tinyseg.data.files.find_volumes`). Capitals do not count. Two files of one name
    and ending are a ValueError.
    """
    cases = {}
    for name, path in volumes.items():
        ending = _ending(path.name)
        meant = OTHER_ENDINGS.get(ending, ending)
        if meant in endings:
            files = cases.setdefault(name[: -len(ending)], {})
            if meant in files:
                raise ValueError(f"{files[meant]} and {path} are the same of one case: keep one of them.")
            files[meant] = path
    return dict(sorted(cases.items()))
