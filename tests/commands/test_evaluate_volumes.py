"""evaluate.py on brain tumours: the scores of whole volumes, by plain NumPy, whichever way they come."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from brains import AFFINE, SHAPE, as_brats, change_dataset, save_network, small_brains, voxels
from PIL import Image
from scripts import REAL, run_example

from tinyseg.report import plots

pytestmark = pytest.mark.slow
NAMES = [f"SYNTHETIC_{k:03}" for k in range(4)]
REGIONS = {"whole tumour": (1, 2, 3), "tumour core": (2, 3), "enhancing": (3,)}
CLASSES = {"edema": (1,), "non-enhancing tumour": (2,), "enhancing tumour": (3,)}


def evaluate(folder, *arguments, code=0):
    """What it printed, and the report."""
    out = folder / "scores.json"
    out.unlink(missing_ok=True)
    said, err = run_example("evaluate.py", *arguments, "--out", out, code=code)
    return (said, json.loads(out.read_text())) if code == 0 else err


@pytest.fixture(scope="module")
def decathlon(tmp_path_factory):
    return small_brains(tmp_path_factory.mktemp("decathlon"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    patients = {"train": NAMES[:2], "val": NAMES[2:3], "test": NAMES[3:]}
    return save_network(tmp_path_factory.mktemp("net") / "net.safetensors", config={"patients": patients})


@pytest.fixture
def masks(decathlon, tmp_path):
    """Labels with errors that can be counted."""
    folder = tmp_path / "masks"
    folder.mkdir()
    for k, name in enumerate(NAMES):
        label = voxels(decathlon / "labelsTr" / f"{name}.nii.gz").copy()
        label[: 10 + 2 * k] = 0
        label[20:, :, : 3 + k] = 3
        label[label == 2] = 1 + k % 2
        nib.save(nib.Nifti1Image(label, AFFINE), folder / f"{name}_mask.nii.gz")
    return folder


def plain_dice(predicted, truth, members, empty=1.0):
    p, t = np.isin(predicted, members), np.isin(truth, members)
    return 2 * np.sum(p & t) / (p.sum() + t.sum()) if p.any() or t.any() else empty


def check(report, names, predicted, truths, groups=REGIONS | CLASSES, voxel=2.5):
    """The report's figures are those of whole volumes, by NumPy."""
    assert [patient["name"] for patient in report["patients"]] == list(names)
    for name, members in groups.items():
        each = [plain_dice(p, t, members) for p, t in zip(predicted, truths, strict=True)]
        assert [patient[name] for patient in report["patients"]] == pytest.approx(each, abs=1e-12)
        assert report["metrics"][name] == pytest.approx(np.mean(each))
        low, high = report["mean_over_patients"][name]["interval"] if len(each) > 1 else (min(each), max(each))
        assert min(each) <= low <= np.mean(each) <= high <= max(each)
    whole = [(p > 0, t > 0) for p, t in zip(predicted, truths, strict=True)]
    volumes = np.array([voxel * t.sum() for _, t in whole])
    assert [patient["tumour_mm3"] for patient in report["patients"]] == pytest.approx(volumes)
    for patient, (p, t) in zip(report["patients"], whole, strict=True):
        assert patient["sensitivity"] == pytest.approx(np.sum(p & t) / t.sum())
        assert patient["specificity"] == pytest.approx(np.sum(~p & ~t) / np.sum(~t))
    small = volumes < np.median(volumes)
    dice = np.array([plain_dice(p, t, (True,)) for p, t in whole])
    assert report["large"] == {"dice": pytest.approx(dice[~small].mean()), "patients": int(np.sum(~small))}
    assert report["small"]["patients"] == small.sum()
    if small.any():
        assert report["small"]["dice"] == pytest.approx(dice[small].mean())


def truths_of(decathlon, names):
    return [voxels(decathlon / "labelsTr" / f"{name}.nii.gz") for name in names]


@pytest.mark.parametrize("classes", [4, 1])
def test_a_network_and_its_written_predictions_get_the_same_scores(decathlon, tmp_path, no_pictures, classes):
    checkpoint = save_network(tmp_path / "net.safetensors", classes, ["T2w", "FLAIR", "t1ce"], seed=3)
    given = "--checkpoint", checkpoint, "--threshold", "0.52"
    run_example("predict.py", *given, decathlon, "--out", tmp_path / "masks")
    said, live = evaluate(tmp_path, *given, "--images", decathlon)
    assert "does not say which it was trained on" in said
    predicted = [voxels(tmp_path / "masks" / f"{name}_mask.nii.gz") for name in NAMES]
    assert all(len(np.unique(p)) > 1 and not p[:6].any() for p in predicted)  # cropped from 36 to 24
    truths = truths_of(decathlon, NAMES)
    if classes == 1:
        check(live, NAMES, predicted, [t > 0 for t in truths], {"whole tumour": (1,)})
        assert live["regions"] == {"whole tumour": [1]} and "edema" not in live["metrics"]
    else:
        check(live, NAMES, predicted, truths)
    _, written = evaluate(tmp_path, "--predictions", tmp_path / "masks", "--labels", decathlon)
    live.pop("settings"), written.pop("settings")
    assert live == written


def test_the_table_says_what_the_report_says(decathlon, masks, tmp_path):
    said, report = evaluate(tmp_path, "--predictions", masks, "--labels", decathlon)
    predicted = [voxels(masks / f"{name}_mask.nii.gz") for name in NAMES]
    check(report, NAMES, predicted, truths_of(decathlon, NAMES))
    lines = {line.split("  ")[0]: line.split() for line in said.splitlines()}
    patient, columns = report["patients"][1], [*REGIONS, "edema", "non-enhancing tumour", "sensitivity", "specificity"]
    assert lines[NAMES[1]] == [NAMES[1], *(f"{patient[c]:.4f}" for c in columns), f"{patient['tumour_mm3']:,.0f}"]
    assert lines["mean over patients"][3:] == [f"{report['metrics'][c]:.4f}" for c in columns]
    assert f"{report['small']['dice']:.4f} of 2 small, {report['large']['dice']:.4f} of 2 large" in said
    assert "0 background, 1 edema, 2 non-enhancing tumour, 3 enhancing tumour" in said
    with Image.open(tmp_path / "scores.worst.png") as picture:
        assert min(picture.size) > 300
    _, report = evaluate(tmp_path, "--predictions", masks, "--labels", decathlon, "--small", "1")
    assert report["small"] == {"dice": None, "patients": 0} and report["small_below_mm3"] == 1


def test_cases_given_one_by_one_are_scored_together(decathlon, masks, tmp_path, no_pictures):
    given = "--predictions", masks, "--labels", decathlon, "--cases", NAMES[2], "--cases", NAMES[0]
    assert {patient["name"] for patient in evaluate(tmp_path, *given)[1]["patients"]} == {NAMES[0], NAMES[2]}


def test_the_worst_are_pictured(decathlon, masks, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "tumours", lambda *arguments: drawn.extend(arguments[3]))
    given = "--predictions", masks, "--labels", decathlon, "--worst", "2"
    _, report = evaluate(tmp_path, *given)
    scores = sorted((patient["whole tumour"], patient["name"]) for patient in report["patients"])
    assert [caption.split("\n")[0] for caption in drawn] == [name for _, name in scores[:2]]


def test_patients_of_the_training_are_left_out_unless_asked_for(decathlon, checkpoint, tmp_path, no_pictures):
    given = "--checkpoint", checkpoint, "--images", decathlon, "--device", "cpu"
    said, report = evaluate(tmp_path, *given)
    assert [p["name"] for p in report["patients"]] == NAMES[3:] and "1 of 4 patients" in said and "of the test" in said
    said, report = evaluate(tmp_path, *given, "--cases", NAMES[1], NAMES[2])
    assert [p["name"] for p in report["patients"]] == NAMES[
        1:3
    ] and f"trained on 1 of these 2 patients ({NAMES[1]})" in said
    said, report = evaluate(tmp_path, *given, "--cases", "all")
    assert [p["name"] for p in report["patients"]] == NAMES and "trained on 2 of these 4" in said
    assert "no case Nobody" in evaluate(tmp_path, *given, "--cases", "Nobody", code=1)


@pytest.mark.parametrize("naming", [0, 1])
def test_brats_folders_and_bare_labels_get_the_same_scores(decathlon, checkpoint, masks, tmp_path, no_pictures, naming):
    brats = as_brats(decathlon, tmp_path / "brats", naming)
    seg = sorted(brats.glob("*/*seg.nii.gz"))
    (tmp_path / "seg").mkdir()
    for path in seg:
        shutil.copy(path, tmp_path / "seg")
    _, want = evaluate(tmp_path, "--predictions", masks, "--labels", decathlon)
    for labels in (brats, decathlon / "labelsTr", tmp_path / "seg"):
        _, report = evaluate(tmp_path, "--predictions", masks, "--labels", labels)
        assert report["patients"] == want["patients"] and report["metrics"] == want["metrics"], labels
    for labels in (seg[1], decathlon / "labelsTr" / f"{NAMES[1]}.nii.gz"):
        mask = masks / f"{NAMES[1]}_mask.nii.gz"
        _, report = evaluate(tmp_path, "--predictions", mask, "--labels", labels)
        assert report["patients"] == want["patients"][1:2]
    given = "--checkpoint", checkpoint, "--cases", "all", "--images"
    (_, one), (_, other) = (evaluate(tmp_path, *given, folder) for folder in (brats, decathlon))
    assert one["patients"] == other["patients"]


def test_predictions_named_and_numbered_as_brats_does(decathlon, tmp_path, no_pictures):
    """The true labels handed in as predictions are without fault: 1 and 2 are not the other way round."""
    brats = as_brats(decathlon, tmp_path / "brats", 1)
    (tmp_path / "seg").mkdir()
    for path in brats.glob("*/*-seg.nii.gz"):
        shutil.copy(path, tmp_path / "seg")
    _, report = evaluate(tmp_path, "--predictions", tmp_path / "seg", "--labels", brats)
    assert report["metrics"]["dice"] == report["metrics"]["edema"] == 1


def test_masks_of_the_whole_tumour(decathlon, masks, tmp_path, no_pictures):
    wholes = [voxels(masks / f"{name}_mask.nii.gz") > 0 for name in NAMES]
    truths = [t > 0 for t in truths_of(decathlon, NAMES)]
    _, report = evaluate(tmp_path, "--predictions", masks, "--labels", decathlon, "--whole")
    check(report, NAMES, wholes, truths, {"whole tumour": (True,)})
    for name, whole in zip(NAMES, wholes, strict=True):
        nib.save(nib.Nifti1Image(whole.astype(np.uint8), AFFINE), masks / f"{name}_mask.nii.gz")
    _, again = evaluate(tmp_path, "--predictions", masks, "--labels", decathlon, "--whole")
    assert again["patients"] == report["patients"]


def test_what_dice_is_where_there_is_nothing(decathlon, tmp_path, no_pictures):
    """Nothing enhances in two patients: it is found in neither in the first, falsely in the second."""
    folder, masks = tmp_path / "labels", tmp_path / "masks"
    folder.mkdir(), masks.mkdir()
    for k, label in enumerate(truths_of(decathlon, NAMES[:3])):
        label = np.where((label == 3) & (k < 2), 2, label).astype(np.uint8)
        nib.save(nib.Nifti1Image(label, AFFINE), folder / f"{k}.nii.gz")
        nib.save(nib.Nifti1Image(np.where(label == 2, 2 + (k == 1), label), AFFINE), masks / f"{k}_mask.nii.gz")
    for policy, first, mean in (("one", 1, 2 / 3), ("zero", 0, 1 / 3), ("nan", None, 1 / 2)):
        said, report = evaluate(tmp_path, "--predictions", masks, "--labels", folder, "--empty", policy)
        assert [p["enhancing"] for p in report["patients"]] == [first, 0, 1] and report["empty"] == policy
        assert report["metrics"]["enhancing"] == pytest.approx(mean)
        assert report["mean_over_patients"]["enhancing"]["empty"] == 1
        assert f"(--empty {policy}): enhancing in 1 of 3 patients" in said
    _, report = evaluate(tmp_path, "--predictions", masks, "--labels", folder)
    assert report["empty"] == "one"  # of volumes, by default


def test_what_cannot_be_compared_gets_a_sentence(decathlon, checkpoint, masks, tmp_path):
    mask = masks / f"{NAMES[1]}_mask.nii.gz"
    good, moved = voxels(mask).copy(), AFFINE + 2 * np.eye(4, k=3)

    def fails(words, predictions=masks, labels=decathlon, *more):
        err = evaluate(tmp_path, "--predictions", predictions, "--labels", labels, *more, code=1)
        assert words in err and "Traceback" not in err, err

    for volume, affine, words in (
        (good[:-1], AFFINE, f"their shape is {(35, *SHAPE[1:])} and {SHAPE}"), (good, moved, "their origin differs by"),
        (good + 3, AFFINE, "holds the labels [4, 5, 6]: expected only [0, 1, 2, 3]"),
        (good / 4, AFFINE, "holds the labels [0.25"),
    ):  # fmt: skip
        nib.save(nib.Nifti1Image(volume, affine), mask)
        fails(words)
        fails(mask.name)
    mask.unlink()
    fails(f"there is no prediction of {NAMES[1]}: looked for {NAMES[1]}_mask.nii.gz")
    fails("one volume, and there are 4 cases", masks / f"{NAMES[0]}_mask.nii.gz")
    fails("does not exist", tmp_path / "nowhere")
    fails("not --sections", masks, decathlon, "--sections", "2")
    fails("--degenerate: this is for sections", masks, decathlon, "--degenerate", "one")
    nib.save(nib.Nifti1Image(good, AFFINE), mask)
    record = {"classes": ["background", "liver", "tumour"], "files": {}, "settings": {}}
    (masks / "predictions.json").write_text(json.dumps(record))
    fails("they cannot be compared")
    other = shutil.copytree(decathlon, tmp_path / "other")
    change_dataset(other, labels={"0": "background", "1": "necrosis", "2": "edema", "3": "enhancing tumour"})
    assert "they cannot be compared" in evaluate(tmp_path, "--checkpoint", checkpoint, "--images", other, code=1)


def test_masks_in_another_order_of_axes_get_the_same_scores(decathlon, masks, tmp_path, no_pictures):
    _, want = evaluate(tmp_path, "--predictions", masks, "--labels", decathlon)
    for path, orientation in zip(sorted(masks.glob("*.nii.gz")), ("RAS", "PSL", "IAR", "LPS"), strict=True):
        change = nib.orientations.ornt_transform(*map(nib.orientations.axcodes2ornt, ("LPS", orientation)))
        nib.save(nib.load(path).as_reoriented(change), path)
    _, report = evaluate(tmp_path, "--predictions", masks, "--labels", decathlon)
    assert report["patients"] == want["patients"]


def test_two_predictions_of_one_patient_are_refused_and_those_of_nobody_are_named(decathlon, masks, tmp_path):
    shutil.copy(masks / f"{NAMES[0]}_mask.nii.gz", masks / "Nobody_mask.nii.gz")
    (masks / f"{NAMES[3]}_mask.nii.gz").rename(masks / f"{NAMES[3]}_pred.nii.gz")
    said, report = evaluate(tmp_path, "--predictions", masks, "--labels", decathlon)
    assert "no labels for Nobody_mask.nii.gz" in said and len(report["patients"]) == 4
    said, report = evaluate(
        tmp_path, "--predictions", masks, "--labels", decathlon, "--cases", f"{NAMES[0]},{NAMES[0]}"
    )
    assert len(report["patients"]) == 1 and "Nobody" not in said
    shutil.copy(masks / f"{NAMES[1]}_mask.nii.gz", masks / f"{NAMES[1]}.nii.gz")
    err = evaluate(tmp_path, "--predictions", masks, "--labels", decathlon, code=1)
    assert f"{NAMES[1]}_mask.nii.gz and {NAMES[1]}.nii.gz" in err and "keep one" in err


def test_probabilities_beside_masks_or_without_them(decathlon, masks, tmp_path, no_pictures):
    given = "--predictions", masks, "--labels", decathlon
    _, want = evaluate(tmp_path, *given)
    for name in NAMES:
        nib.save(nib.Nifti1Image(np.zeros((*SHAPE, 4), np.float32), AFFINE), masks / f"{name}_probability.nii.gz")
    said, report = evaluate(tmp_path, *given)
    assert report == want and "not scored" not in said
    (masks / f"{NAMES[1]}_mask.nii.gz").unlink()
    assert "Predict it without --probabilities, because labels are scored" in evaluate(tmp_path, *given, code=1)


def test_labels_that_are_not_there_or_of_another_kind(decathlon, masks, tmp_path):
    err = evaluate(tmp_path, "--predictions", masks, "--labels", tmp_path / "none", code=1)
    assert "none does not exist: expected labels" in err
    (tmp_path / "png").mkdir()
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / "png" / "a.png")
    err = evaluate(tmp_path, "--predictions", masks, "--labels", tmp_path / "png", code=1)
    assert "masks holds NIfTI volumes and" in err and "png does not: give labels of one kind" in err


@pytest.mark.parametrize("option", [["--foreground", "white"], ["--degenerate", "one"]])
def test_options_of_sections_with_volumes(decathlon, masks, tmp_path, option):
    err = evaluate(tmp_path, "--predictions", masks, "--labels", decathlon, *option, code=1)
    assert f"{option[0]}: this is for sections, not for volumes of brain tumours" in err


def test_a_folder_of_labels_is_named_by_the_dataset_json_beside_it(decathlon, masks, tmp_path, no_pictures):
    data = shutil.copytree(decathlon, tmp_path / "data")
    change_dataset(data, labels={"0": "background", "1": "cyst", "2": "tumour", "3": "vessel"})
    _, want = evaluate(tmp_path, "--predictions", masks, "--labels", data)
    said, report = evaluate(tmp_path, "--predictions", masks, "--labels", data / "labelsTr")
    assert "labels: 0 background, 1 cyst, 2 tumour, 3 vessel" in said and report["patients"] == want["patients"]
    only = "--predictions", masks / f"{NAMES[0]}_mask.nii.gz", "--labels", data / "labelsTr" / f"{NAMES[0]}.nii.gz"
    assert evaluate(tmp_path, *only)[1]["patients"] == want["patients"][:1]
    for other in ('{"labels": {"background": 0, "cyst": 1, "tumour": 2, "vessel": 3}}', '{"rows": 5}'):
        (data / "dataset.json").write_text(other)  # nnU-Net's; and that of another program
        said, _ = evaluate(tmp_path, "--predictions", masks, "--labels", data / "labelsTr")
        assert f"labels: 0 background, 1 {'cyst' if 'cyst' in other else 'edema'}" in said


def test_classes_that_no_volume_has(decathlon, masks, tmp_path, no_pictures):
    labels = tmp_path / "labels"
    labels.mkdir()
    for name in NAMES:
        for place, file in (
            (decathlon / "labelsTr" / f"{name}.nii.gz", labels / f"{name}.nii.gz"),
            2 * [masks / f"{name}_mask.nii.gz"],
        ):
            nib.save(nib.Nifti1Image((voxels(place) > 0).astype(np.uint8), AFFINE), file)
    words = "WARNING: no volume has tumour core, enhancing, non-enhancing tumour, which counts as Dice 1. Give --whole"
    said, report = evaluate(tmp_path, "--predictions", masks, "--labels", labels)
    assert words in said and report["metrics"]["tumour core"] == 1
    said, report = evaluate(tmp_path, "--predictions", masks, "--labels", labels, "--whole")
    assert "WARNING" not in said and report["metrics"]["dice"] == report["metrics"]["whole tumour"] < 1
    assert "WARNING" not in evaluate(tmp_path, "--predictions", masks, "--labels", labels, "--empty", "nan")[0]


def test_label_volumes_have_no_use_for_a_threshold(decathlon, masks, tmp_path, no_pictures):
    _, want = evaluate(tmp_path, "--predictions", masks, "--labels", decathlon)
    said, report = evaluate(tmp_path, "--predictions", masks, "--labels", decathlon, "--threshold", "0.9")
    assert "have no use for --threshold" in said and report["patients"] == want["patients"]


@pytest.mark.skipif(not REAL.exists(), reason="the real data are not here")
def test_the_real_labels_against_themselves(tmp_path, no_pictures):
    folder = REAL / "msd_brain_4ch"
    _, report = evaluate(tmp_path, "--predictions", folder / "labelsTr", "--labels", folder)
    assert set(report["metrics"].values()) == {1.0}
    volumes = [np.count_nonzero(voxels(path)) for path in sorted((folder / "labelsTr").glob("*.nii.gz"))]
    assert [patient["tumour_mm3"] for patient in report["patients"]] == volumes  # voxels of 1 mm³
