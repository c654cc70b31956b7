"""Small brains and untrained networks for them, for the tests of predict.py and evaluate.py."""

import json

import nibabel as nib
import numpy as np

import tinyseg as ts
from tinyseg.data.brats import MODALITIES, NAMINGS
from tinyseg.data.classes import DECATHLON
from tinyseg.data.synthetic_brain import write_brains

SHAPE = (36, 40, 16)
AFFINE = np.diag([-1.0, -1.25, 2.0, 1.0])  # 2.5 mm³ a voxel
AFFINE[:3, 3] = 20, -30, 7


def small_brains(folder, num_cases=4):
    """A Decathlon folder of small brains with voxels that are no cubes."""
    write_brains(folder, num_cases, SHAPE)
    for path in folder.glob("*/*.nii.gz"):
        nib.save(nib.Nifti1Image(np.asarray(nib.load(path).dataobj), AFFINE), path)
    return folder


def as_brats(decathlon, folder, naming=0):
    """The cases of a Decathlon folder as BraTS has them: a folder a case, a file a modality, its label numbers."""
    endings, seg, recode = NAMINGS[naming]
    back = np.array([k for k, _ in sorted(recode.items(), key=lambda pair: pair[1])], np.uint8)
    for path in sorted((decathlon / "imagesTr").glob("*.nii.gz")):
        name = path.name.removesuffix(".nii.gz")
        (folder / name).mkdir(parents=True)
        for ending, volume in zip(endings, np.moveaxis(voxels(path), 3, 0), strict=True):
            nib.save(nib.Nifti1Image(volume, AFFINE), folder / name / f"{name}{ending}.nii.gz")
        label = back[voxels(decathlon / "labelsTr" / path.name)]
        nib.save(nib.Nifti1Image(label, AFFINE), folder / name / f"{name}{seg}.nii.gz")
    return folder


def voxels(path):
    return np.asarray(nib.load(path).dataobj)


def change_dataset(folder, **fields):
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def save_network(path, num_classes=4, modalities=MODALITIES, seed=1, **meta):
    """A checkpoint such as train_brats.py writes, of a network that has learned nothing."""
    model = ts.models.build("sdunet", len(modalities), num_classes, width=4, levels=3, seed=seed)
    how = {"kind": "brain", "modalities": list(modalities), "size": 24, "how": "crop", "standardize": "volume"}
    classes = list(DECATHLON) if num_classes == 4 else ["whole tumour"]
    ts.checkpoint.save(path, model, preprocessing=how, **({"classes": classes} | meta))
    return path
