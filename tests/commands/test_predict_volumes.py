"""predict.py on brain scans: one label volume a case, whatever folder it comes in, on the grid it came on."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import scipy
from brains import AFFINE, SHAPE, as_brats, change_dataset, save_network, small_brains, voxels
from PIL import Image
from scripts import REAL, run_example

import tinyseg as ts
from tinyseg.data.brats import find_cases, read_case
from tinyseg.data.images import open_image, write_like
from tinyseg.prediction.components import drop_small_components
from tinyseg.prediction.predictor import Predictor

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def decathlon(tmp_path_factory):
    return small_brains(tmp_path_factory.mktemp("decathlon"), num_cases=3)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_network(tmp_path_factory.mktemp("network") / "net.safetensors")


def predict(checkpoint, *arguments, code=0):
    arguments = "--checkpoint", checkpoint, "--device", "cpu", *arguments
    return run_example("predict.py", *arguments, code=code)


def names(folder):
    return sorted(path.name for path in folder.glob("*.nii.gz"))


def masks(folder):
    return [voxels(folder / name) for name in names(folder)]


MASKS = [f"SYNTHETIC_{k:03}_mask.nii.gz" for k in range(3)]


@pytest.fixture(scope="module")
def expected(decathlon, checkpoint):
    """Classes of every voxel of the three cases, slice by slice."""
    found = []
    for case in find_cases(decathlon):
        volume, _ = read_case(case)
        predictor = Predictor.load(checkpoint)
        predictor.take_statistics(np.moveaxis(volume, 3, 0))
        found.append(np.stack([predictor(volume[..., z]).argmax(axis=0) for z in range(SHAPE[2])], axis=2))
    assert all(len(np.unique(volume)) > 2 for volume in found)  # or nothing could go wrong below
    return found


def test_a_decathlon_folder_gives_its_test_images_or_its_training_images(decathlon, checkpoint, expected, tmp_path):
    predict(checkpoint, decathlon, "--out", tmp_path / "tr")
    assert names(tmp_path / "tr") == MASKS
    for found, want in zip(masks(tmp_path / "tr"), expected, strict=True):
        np.testing.assert_array_equal(found, want)
    folder = shutil.copytree(decathlon, tmp_path / "copy")
    (folder / "imagesTs").mkdir()
    (folder / "imagesTs" / "._X.nii.gz").write_bytes(b"a Mac was here")
    predict(checkpoint, folder, "--out", tmp_path / "empty")
    assert names(tmp_path / "empty") == MASKS
    shutil.copy(decathlon / "imagesTr" / "SYNTHETIC_001.nii.gz", folder / "imagesTs" / "X.nii.gz")
    predict(checkpoint, folder, "--out", tmp_path / "ts")
    assert names(tmp_path / "ts") == ["X_mask.nii.gz"]
    np.testing.assert_array_equal(voxels(tmp_path / "ts" / "X_mask.nii.gz"), expected[1])


def test_what_is_small_beside_the_largest_component_is_background_as_the_training_or_the_user_says(decathlon, tmp_path):
    """In the mask that is written, in what Python gets, and in the scores."""
    plain = save_network(tmp_path / "plain.safetensors", num_classes=1)
    network = save_network(tmp_path / "net.safetensors", num_classes=1, postprocessing={"min_component": 0.5})
    case = decathlon / "imagesTr" / "SYNTHETIC_000.nii.gz"
    volume, truth = read_case(find_cases(decathlon).cases[0])
    predictor = Predictor.load(plain)
    predictor.take_statistics(np.moveaxis(volume, 3, 0))
    probability = np.stack([predictor(volume[..., z])[0] for z in range(SHAPE[2])], axis=2)
    threshold = np.round(np.quantile(probability, 0.97), 4)
    every = (probability > threshold).astype(np.uint8)
    want = drop_small_components(every, 0.5)
    assert 0 < np.count_nonzero(want) < np.count_nonzero(every)

    common = case, "--threshold", threshold
    predict(network, *common, "--out", tmp_path / "trained")
    predict(plain, *common, "--out", tmp_path / "given", "--min-component", 0.5)
    predict(network, *common, "--out", tmp_path / "all", "--min-component", 0)
    for name, wanted in (("trained", want), ("given", want), ("all", every)):
        np.testing.assert_array_equal(masks(tmp_path / name)[0], wanted)
    np.testing.assert_array_equal(Predictor.load(network).volume(volume, threshold), want)
    for options, mask in (((), want), (("--min-component", 0), every)):
        command = "--checkpoint", network, "--images", decathlon, "--cases", "SYNTHETIC_000", "--worst", 0
        run_example("evaluate.py", *command, "--out", tmp_path / "s.json", "--threshold", threshold, *options)
        dice = 2 * (mask * (truth > 0)).sum() / (mask.sum() + (truth > 0).sum())
        assert json.loads((tmp_path / "s.json").read_text())["metrics"]["whole tumour"] == pytest.approx(dice)
    _, err = predict(network, *common, "--out", tmp_path / "all", "--min-component", 0.2, code=1)
    assert "was made with another min_component" in err
    _, err = predict(network, case, "--out", tmp_path / "p", "--probabilities", "--min-component", 0.2, code=2)
    assert "--min-component is for masks" in err


def test_a_slice_alone_keeps_parts_that_may_be_joined_in_the_volume(tmp_path):
    network = save_network(tmp_path / "net.safetensors", 1, ["FLAIR"], postprocessing={"min_component": 1})
    plain = save_network(tmp_path / "plain.safetensors", 1, ["FLAIR"])
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(1, 255, (24, 24), np.uint8)).save(tmp_path / "slice.png")
    found = []
    for name in (network, plain):
        predict(name, tmp_path / "slice.png", "--out", tmp_path / name.stem, "--threshold", 0.5)
        found.append(np.asarray(Image.open(tmp_path / name.stem / "slice_mask.png")))
    np.testing.assert_array_equal(*found)
    assert scipy.ndimage.label(found[0], np.ones((3, 3)))[1] > 1


def test_components_are_those_of_volumes_of_brains(tmp_path):
    sections = {"scale": [1, 1], "standardize": "section"}
    ts.checkpoint.save(
        tmp_path / "em.safetensors", ts.models.build("sdunet", width=4, levels=3), preprocessing=sections
    )
    _, err = predict(tmp_path / "em.safetensors", tmp_path, "--out", tmp_path / "out", "--min-component", 0.1, code=1)
    assert "--min-component is for networks of brain volumes" in err


@pytest.mark.parametrize(("naming", "flair"), [(0, "_flair"), (1, "-t2f")])
def test_a_brats_folder_gives_a_volume_a_case(decathlon, checkpoint, expected, tmp_path, naming, flair):
    folder = as_brats(decathlon, tmp_path / "brats", naming)
    for path in (folder / "SYNTHETIC_000").glob("*[_-]seg.nii.gz"):
        path.unlink()  # it is not needed
    first = folder / "SYNTHETIC_001" / f"SYNTHETIC_001{flair}.nii.gz"
    image = nib.load(first)
    image.header["descrip"] = b"a scanner's"
    nib.save(nib.Nifti1Image(voxels(first), None, image.header), first)
    predict(checkpoint, folder, "--out", tmp_path / "all")
    assert names(tmp_path / "all") == MASKS
    for found, want in zip(masks(tmp_path / "all"), expected, strict=True):
        np.testing.assert_array_equal(found, want)
    header = nib.load(tmp_path / "all" / MASKS[1]).header
    assert header["descrip"] == b"a scanner's" and header.get_data_dtype() == np.uint8
    predict(checkpoint, folder / "SYNTHETIC_001", folder / "SYNTHETIC_002", "--out", tmp_path / "two")
    assert names(tmp_path / "two") == MASKS[1:]
    np.testing.assert_array_equal(masks(tmp_path / "two")[0], expected[1])
    np.testing.assert_array_equal(nib.load(tmp_path / "two" / MASKS[1]).affine, AFFINE)


def test_cases_that_are_not_whole_get_a_sentence_and_the_others_go_on(decathlon, checkpoint, expected, tmp_path):
    folder = as_brats(decathlon, tmp_path / "brats")
    (folder / "SYNTHETIC_000" / "SYNTHETIC_000_t1ce.nii.gz").unlink()
    path = folder / "SYNTHETIC_002" / "SYNTHETIC_002_t2.nii.gz"
    whole = voxels(path)
    for volume, affine in ((whole[:, :, :-1], AFFINE), (whole, AFFINE + 2 * np.eye(4, k=3))):
        nib.save(nib.Nifti1Image(volume, affine), path)
        _, err = predict(checkpoint, folder, "--out", tmp_path / "out", "--force", code=1)
        assert "SYNTHETIC_000_t1ce.nii.gz is not there" in err and "2 of 3 files" in err
        assert "SYNTHETIC_002_t2.nii.gz and " in err and "do not lie on one grid" in err and "Traceback" not in err
        assert names(tmp_path / "out") == MASKS[1:2]
        np.testing.assert_array_equal(masks(tmp_path / "out")[0], expected[1])


def test_a_network_gets_its_modalities_in_its_order(decathlon, tmp_path):
    """Two of the four, the other way round, and under other names."""
    checkpoint = save_network(tmp_path / "net.safetensors", modalities=["t1ce", "FLAIR"])
    volume, _ = read_case(find_cases(decathlon).cases[0])
    want = Predictor.load(checkpoint).volume(volume[[2, 0]])
    assert len(np.unique(want)) > 2 and (want != Predictor.load(checkpoint).volume(volume[[0, 2]])).any()
    predict(checkpoint, decathlon, "--out", tmp_path / "a")
    np.testing.assert_array_equal(masks(tmp_path / "a")[0], want)
    folder = as_brats(decathlon, tmp_path / "brats", naming=1)
    for path in folder.glob("*/*-t2w.nii.gz"):
        path.unlink()  # the network does not ask for it
    predict(checkpoint, folder, "--out", tmp_path / "b")
    np.testing.assert_array_equal(masks(tmp_path / "b")[0], want)
    other = shutil.copytree(decathlon, tmp_path / "other")
    change_dataset(other, modality={"0": "FLAIR", "1": "T1w", "2": "CT", "3": "T2w"})
    _, err = predict(checkpoint, other, "--out", tmp_path / "c", code=1)
    assert "there is no t1ce" in err and not (tmp_path / "c").exists()


def test_probabilities_of_a_case_in_several_files(decathlon, checkpoint, expected, tmp_path):
    folder = as_brats(decathlon, tmp_path / "brats")
    predict(checkpoint, folder / "SYNTHETIC_000", "--out", tmp_path / "out", "--probabilities")
    found = voxels(tmp_path / "out" / "SYNTHETIC_000_probability.nii.gz")
    assert found.shape == (*SHAPE, 4) and found.dtype == np.float32
    np.testing.assert_array_equal(found.argmax(axis=3), expected[0])


def oblique(zooms=(0.9, 1.1, 3.3)):
    """An affine turned about two axes."""
    a, b = np.deg2rad((20, -35))
    about_z = [[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]
    about_x = [[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]]
    affine = np.eye(4)
    affine[:3, :3] = np.array(about_z) @ about_x @ np.diag(zooms)
    affine[:3, 3] = -71.5, 33.25, 12
    return affine


def stored(path, array, affine, sform, qform):
    """A NIfTI file with these codes, units and a slope; the sform is another than the qform."""
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(affine, qform)
    moved = affine.copy()
    moved[:3, 3] += 5
    image.set_sform(moved, sform)
    nib.save(image, path)
    return path


@pytest.mark.parametrize(("affine", "sform", "qform"), [(oblique(), 2, 1), (oblique(), 0, 1), (AFFINE, 4, 0)])
def test_a_label_volume_comes_back_as_it_was(tmp_path, affine, sform, qform):
    labels = np.random.default_rng(0).integers(0, 4, (11, 9, 6)).astype(np.uint8)
    path = stored(tmp_path / "in.nii.gz", labels, affine, sform, qform)
    with open_image(path) as image, write_like(image, tmp_path / "out.nii.gz") as out:
        for section in image:
            out.write(section)
    np.testing.assert_array_equal(voxels(tmp_path / "out.nii.gz"), labels)
    same_place(tmp_path / "out.nii.gz", path)


def same_place(found, want):
    found, want = nib.load(found), nib.load(want)
    np.testing.assert_array_equal(found.affine, want.affine)
    np.testing.assert_array_equal(found.get_sform(), want.get_sform())
    np.testing.assert_array_equal(found.get_qform(), want.get_qform())
    assert found.header["sform_code"] == want.header["sform_code"]
    assert found.header["qform_code"] == want.header["qform_code"]
    assert found.header.get_zooms()[:3] == want.header.get_zooms()[:3]
    assert found.header["xyzt_units"] == want.header["xyzt_units"] != 0
    assert found.shape == want.shape[:3] and found.get_data_dtype() == np.uint8


@pytest.mark.parametrize(("affine", "sform", "qform"), [(oblique(), 2, 1), (oblique(), 0, 1), (AFFINE, 4, 0)])
def test_a_mask_lies_where_its_images_lay(decathlon, checkpoint, expected, tmp_path, affine, sform, qform):
    """Of a volume with four modalities the mask is 3-D and keeps the part of the header that is about space."""
    volume = voxels(decathlon / "imagesTr" / "SYNTHETIC_000.nii.gz")
    turned = (slice(None), slice(None)) if affine is AFFINE else 2 * (slice(None, None, -1),)  # oblique() is near RAS
    path = stored(tmp_path / "case.nii.gz", volume[turned], affine, sform, qform)
    predict(checkpoint, path, "--out", tmp_path / "out")
    found = tmp_path / "out" / "case_mask.nii.gz"
    np.testing.assert_array_equal(voxels(found), expected[0][turned])
    same_place(found, path)
    assert nib.load(found).header["dim"][0] == 3 and nib.load(found).header.get_slope_inter() == (None, None)


@pytest.mark.parametrize("orientation", ["RAS", "PSL", "IAR"])
def test_a_scan_stored_in_another_order_gets_the_same_mask_in_the_same_places(
    decathlon, checkpoint, expected, tmp_path, orientation
):
    """Of masks and of probabilities, of one file with all modalities and of one file a modality."""

    def store_otherwise(path):
        image = nib.load(path)
        change = nib.orientations.ornt_transform(*map(nib.orientations.axcodes2ornt, ("LPS", orientation)))
        nib.save(image.as_reoriented(change), path)

    def in_lps(path):
        image = nib.load(path)
        assert "".join(nib.aff2axcodes(image.affine)) == orientation
        change = nib.orientations.ornt_transform(*map(nib.orientations.axcodes2ornt, (orientation, "LPS")))
        back = image.as_reoriented(change)
        np.testing.assert_allclose(back.affine, AFFINE, atol=1e-5)
        return np.asarray(back.dataobj)

    case = tmp_path / "case.nii.gz"
    shutil.copy(decathlon / "imagesTr" / "SYNTHETIC_000.nii.gz", case)
    store_otherwise(case)
    folder = as_brats(decathlon, tmp_path / "brats") / "SYNTHETIC_000"
    store_otherwise(folder / "SYNTHETIC_000_flair.nii.gz")
    store_otherwise(folder / "SYNTHETIC_000_t2.nii.gz")
    predict(checkpoint, case, folder, "--out", tmp_path / "out")
    for name in ("case", "SYNTHETIC_000"):
        np.testing.assert_array_equal(in_lps(tmp_path / "out" / f"{name}_mask.nii.gz"), expected[0])
    predict(checkpoint, case, "--out", tmp_path / "p", "--probabilities")
    np.testing.assert_array_equal(in_lps(tmp_path / "p" / "case_probability.nii.gz").argmax(axis=3), expected[0])


@pytest.mark.skipif(not REAL.exists(), reason="the real data are not here")
def test_a_network_for_two_modalities_takes_its_own_of_real_ones(tmp_path):
    checkpoint = save_network(tmp_path / "net.safetensors", modalities=["FLAIR", "t1gd"])
    predict(checkpoint, REAL / "msd_brain_4ch", "--out", tmp_path / "out")
    path = REAL / "msd_brain_4ch" / "imagesTr" / "BRATS_119.nii.gz"
    want = Predictor(ts.checkpoint.load(checkpoint)).volume(np.moveaxis(voxels(path), 3, 0)[[0, 2]])
    np.testing.assert_array_equal(voxels(tmp_path / "out" / "BRATS_119_mask.nii.gz"), want)
    np.testing.assert_array_equal(nib.load(tmp_path / "out" / "BRATS_119_mask.nii.gz").affine, nib.load(path).affine)
