"""Draw the figures of a study: training curves, and predictions of U-Net and SD-UNet side by side."""

import numpy as np

from reproduction import figures, paper, results
from reproduction.study import run_folder
from tinyseg.data import isbi
from tinyseg.data.brats import find_cases, read_case
from tinyseg.prediction.predictor import Predictor
from tinyseg.prediction.predictor import labels as labels_of


def draw(kind, folder, histories, args):
    """Draw the training curves of all networks, and predictions of U-Net and SD-UNet side by side."""
    histories = {title: of_seeds for title, of_seeds in histories.items() if of_seeds}
    if histories:
        figures.curves(histories, args.out / f"{kind}_curves.png")
    if kind == "isbi":
        draw_sections(folder, args)
    else:
        draw_tumours(folder, args)


def load_scores(kind, seed, args):
    """Load the scores of U-Net and SD-UNet with one seed, by their titles; an empty dict if one was not scored."""
    files = {name: run_folder(args.out, kind, name, seed) / "scores.json" for name in ("unet", "sdunet")}
    if not all(file.is_file() for file in files.values()):
        return {}
    what = "a file of scores of evaluate.py"
    return {paper.ROWS[name]: results.read(file, results.SCORES[kind], what) for name, file in files.items()}


def load_predictors(kind, seed, args):
    """Load U-Net and SD-UNet as they were trained with one seed, by their titles."""
    files = {name: run_folder(args.out, kind, name, seed) / "checkpoint.safetensors" for name in ("unet", "sdunet")}
    return {paper.ROWS[name]: Predictor.load(file) for name, file in files.items()}


def draw_sections(folder, args):
    """Draw the two sections where SD-UNet with seed 0 has the best V^Rand, and the two where it has the worst."""
    scores = load_scores("isbi", 0, args)
    if not scores:
        return
    everything = isbi.load(folder, labels="required")
    held_out = everything.split(str(args.val_sections))[1]
    each = {name: [s["v_rand"] for s in found["sections"]] for name, found in scores.items()}
    order = np.argsort(each[paper.ROWS["sdunet"]], kind="stable")
    networks = load_predictors("isbi", 0, args)
    for network in networks.values():
        network.take_statistics(everything.images[:, None])
    for name, chosen in (("best", order[::-1][:2]), ("worst", order[:2])):
        found = {title: [network(held_out.images[k])[0] for k in chosen] for title, network in networks.items()}
        captions = {"": [held_out.names[k] for k in chosen]}
        captions |= {title: [f"V^Rand {values[k]:.3f}" for k in chosen] for title, values in each.items()}
        path = args.out / f"isbi_{name}.png"
        figures.sections_side_by_side(held_out.images[chosen], held_out.labels[chosen], found, captions, path)


def draw_tumours(folder, args):
    """Draw three slices through the smallest held-out tumour, and through the one with SD-UNet's worst Dice."""
    title = paper.ROWS["sdunet"]
    of_seeds = {seed: load_scores("brats", seed, args) for seed in range(args.seeds)}
    patients = [(patient, k) for k, scores in of_seeds.items() if scores for patient in scores[title]["patients"]]
    if not patients:
        return
    cases = find_cases(folder)
    for name, key in (("small", "tumour_mm3"), ("worst", "whole tumour")):
        patient, seed = min(patients, key=lambda found, key=key: found[0][key])
        volume, label = read_case(next(case for case in cases if case.name == patient["name"]))
        planes, truth = np.moveaxis(volume, 3, 0), np.moveaxis(label, 2, 0)  # (Z, M, X, Y), (Z, X, Y)
        with_tumour = np.flatnonzero(truth.any(axis=(1, 2)))
        shown = with_tumour[[len(with_tumour) * quarter // 4 for quarter in (1, 2, 3)]]
        predicted, captions = {}, {"": [f"{patient['name']}\nslice {z}" for z in shown]}
        for network, predictor in load_predictors("brats", seed, args).items():
            predictor.take_statistics(planes)
            predicted[network] = [labels_of(predictor(planes[z])) for z in shown]
            dice = {p["name"]: p["whole tumour"] for p in of_seeds[seed][network]["patients"]}[patient["name"]]
            captions[network] = [f"Dice of the whole tumour {dice:.3f}"] * len(shown)
        path = args.out / f"brats_{name}.png"
        figures.tumours_side_by_side(planes[shown, 0], truth[shown], predicted, captions, path, cases.classes)
