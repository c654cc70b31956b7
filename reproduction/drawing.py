"""Draw the figures of a study: training curves, and predictions of U-Net and SD-UNet side by side."""

import json

import numpy as np

from reproduction import figures, paper
from reproduction.study import run_folder
from tinyseg.data import isbi
from tinyseg.data.brats import find_cases, read_case
from tinyseg.prediction.predictor import Predictor
from tinyseg.prediction.predictor import labels as labels_of


def draw(kind, folder, histories, args):
    """Training curves of all networks; U-Net and SD-UNet side by side, on typical and on SD-UNet's worst images."""
    histories = {title: of_seeds for title, of_seeds in histories.items() if of_seeds}
    if histories:
        figures.curves(histories, args.out / f"{kind}_curves.png")
    if kind == "isbi":
        draw_sections(folder, args)
    else:
        draw_tumours(folder, args)


def scores_of(kind, seed, args):
    """What U-Net and SD-UNet scored with one seed, by their titles; empty if one of them has not been trained."""
    files = {name: run_folder(args.out, kind, name, seed) / "scores.json" for name in ("unet", "sdunet")}
    if not all(file.is_file() for file in files.values()):
        return {}
    return {paper.ROWS[name]: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items()}


def predictors(kind, seed, args):
    """Both networks, ready to predict."""
    files = {name: run_folder(args.out, kind, name, seed) / "checkpoint.safetensors" for name in ("unet", "sdunet")}
    return {paper.ROWS[name]: Predictor.load(file) for name, file in files.items()}


def draw_sections(folder, args):
    """The two sections where SD-UNet does best, and the two where it does worst, by V^Rand; seed 0."""
    scores = scores_of("isbi", 0, args)
    if not scores:
        return
    everything = isbi.load(folder, labels="required")
    held_out = everything.split(str(args.val_sections))[1]
    each = {name: [s["v_rand"] for s in found["sections"]] for name, found in scores.items()}
    order = np.argsort(each[paper.ROWS["sdunet"]], kind="stable")
    networks = predictors("isbi", 0, args)
    for network in networks.values():
        network.take_statistics(everything.images[:, None])
    for name, chosen in (("best", order[::-1][:2]), ("worst", order[:2])):
        found = {title: [network(held_out.images[k])[0] for k in chosen] for title, network in networks.items()}
        captions = {"": [held_out.names[k] for k in chosen]}
        captions |= {title: [f"V^Rand {values[k]:.3f}" for k in chosen] for title, values in each.items()}
        path = args.out / f"isbi_{name}.png"
        figures.sections_side_by_side(held_out.images[chosen], held_out.labels[chosen], found, captions, path)


def draw_tumours(folder, args):
    """Three slices through the smallest tumour that was held out, and through SD-UNet's worst."""
    title = paper.ROWS["sdunet"]
    of_seeds = {seed: scores_of("brats", seed, args) for seed in range(args.seeds)}
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
        for network, predictor in predictors("brats", seed, args).items():
            predictor.take_statistics(planes)
            predicted[network] = [labels_of(predictor(planes[z])) for z in shown]
            dice = {p["name"]: p["whole tumour"] for p in of_seeds[seed][network]["patients"]}[patient["name"]]
            captions[network] = [f"Dice of the whole tumour {dice:.3f}"] * len(shown)
        path = args.out / f"brats_{name}.png"
        figures.tumours_side_by_side(planes[shown, 0], truth[shown], predicted, captions, path, cases.classes)
