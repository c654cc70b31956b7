"""Names that README, docs, notebooks and examples have used stay where programs look for them; how scripts begin."""

import importlib
import os
import pathlib
import subprocess
import sys

import pytest

import tinyseg as ts

ROOT = pathlib.Path(__file__).resolve().parents[1]

# What programs have imported from modules that are now elsewhere.
IMPORTED = {
    "tinyseg.checkpoint": ["load", "read", "restore", "save"],
    "tinyseg.command_line": ["add_device_options", "choose_device", "run_script", "settle", "table"],
    "tinyseg.files": ["write_atomically", "write_json"],
    "tinyseg.gradcheck": ["check_grads"],
    "tinyseg.graphs": ["Graph", "Inference", "Slots", "capture"],
    "tinyseg.isbi_metrics": ["isbi_scores", "label_scores", "thin", "v_info", "v_rand"],
    "tinyseg.mixed_precision": ["LossScaler", "in_float16"],
    "tinyseg.patients": [
        "EMPTY", "PatientScores", "as_log", "dice_and_cross_entropy", "examples_of", "score_patients",
    ],
    "tinyseg.plots": ["curves", "error_overlay", "predictions", "tumours"],
    "tinyseg.prediction": ["TRANSFORMS", "normalizes_over_space", "predict", "predict_logits", "tile_within"],
    "tinyseg.predictor": ["Predictor", "labels"],
    "tinyseg.profile": ["compare", "latency", "memory", "summary"],
    "tinyseg.run": ["Interruption", "RunDirectory"],
    "tinyseg.teaching": ["BLUE", "GraphPicture", "animate", "draw_graph", "style", "trace_backward"],
    "tinyseg.training": ["ConstantOutputWarning", "RunDirectory", "TrainingDiverged", "evaluate", "fit"],
    "tinyseg.volumes": ["draw_slices", "held_out", "most_tumour"],
}  # fmt: skip


@pytest.mark.parametrize("module", IMPORTED)
def test_what_a_program_has_imported_is_still_there(module):
    if "graphs" in module or "mixed_precision" in module:
        pytest.importorskip("tinyseg.fast")
    found = importlib.import_module(module)
    assert [name for name in IMPORTED[module] if not hasattr(found, name)] == []


def test_an_old_name_is_the_same_module_not_a_copy():
    assert importlib.import_module("tinyseg.checkpoint") is importlib.import_module("tinyseg.models.checkpoint")
    assert ts.checkpoint is sys.modules["tinyseg.models.checkpoint"]
    assert importlib.import_module("tinyseg.plots").__name__ == "tinyseg.report.plots"


def test_a_module_of_a_package_that_moved_is_not_loaded_twice():
    assert importlib.import_module("tinyseg.profile.timing") is importlib.import_module("tinyseg.report.profile.timing")


def test_a_name_that_never_was_is_refused():
    with pytest.raises(AttributeError, match="module 'tinyseg' has no attribute 'nonsense'"):
        _ = ts.nonsense
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("tinyseg.nonsense")


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_a_script_whose_modules_cannot_be_loaded_ends_with_one_sentence(script, tmp_path):
    """As with too little memory, too few open files, a variable that a library refuses, a broken installation."""
    (tmp_path / "numpy.py").write_text("raise OSError('Too many open files')\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, ROOT / "examples" / script, "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "could not be loaded (OSError: Too many open files)" in done.stderr
