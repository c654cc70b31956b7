"""examples/reproduce_tables.py as a user runs it, on synthetic data."""

import json

import pytest
from scripts import run_example

from reproduction import command
from reproduction.study import Run, RunFailed
from tinyseg.backend.devices import cores

SMALL = ("--quick", "--width", "4", "--epochs", "1", "--networks", "unet", "sdunet", "sdunet_filter")


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (["train-volume.tiff"], "isbi"), (["imgs/0.png"], "isbi"), (["Images/0.tif"], "isbi"),
        (["train-volume.tif", "predictions/0.nii.gz"], "isbi"), (["dataset.json"], "brats"),
        (["A/A_flair.nii.gz"], "brats"), ([], "brats"),
    ],
)  # fmt: skip
def test_folders_of_sections_and_of_brains_are_told_apart(tmp_path, files, kind):
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    assert command.find_data(str(tmp_path), None) == (kind, tmp_path)


def test_a_data_folder_with_a_typing_error_ends_in_a_sentence_before_any_training(tmp_path):
    out = tmp_path / "out"
    _, error = run_example(
        "reproduce_tables.py", "--data", tmp_path / "nope", "--tables", 2, "--out", out, *SMALL, code=1
    )
    assert "nope is not a folder" in error and not list(out.glob("**/command.txt"))


def test_what_cannot_work_is_refused_before_any_training(tmp_path):
    def fails(*arguments, code=1):
        _, error = run_example("reproduce_tables.py", *SMALL, "--out", tmp_path / "out", *arguments, code=code)
        assert not list(tmp_path.glob("**/command.txt")) and "Traceback" not in error
        return error

    assert "--data has two folders of isbi" in fails("--tables", 2, "--data", "isbi", "isbi")
    for option in ("--seeds=0", "--width=0", "--lr=nan", "--epochs=0", "--val-sections=0", "--out="):
        assert f"argument {option.split('=')[0]}: expected" in fails(option, code=2)
    (tmp_path / "file").touch()
    assert "could not be written" in fails("--out", tmp_path / "file")


@pytest.mark.parametrize(
    "content", ["[]", "null", "{", '{"costs": {"networks": {}, "device": "cpu"}}', '{"isbi": {"rows": 1}}']
)
def test_results_of_another_program_are_left_alone(content, tmp_path):
    (tmp_path / "results.json").write_text(content)
    _, error = run_example("reproduce_tables.py", *SMALL, "--tables", 2, "--out", tmp_path, code=1)
    assert "results.json is not the results of a study, so give another --out" in error
    assert (tmp_path / "results.json").read_text() == content


@pytest.mark.parametrize("names", [["tables.md", "isbi_curves.png"], ["costs.png"], ["brats_worst.png"]])
def test_a_user_has_files_of_their_own_in_out(names, tmp_path):
    for name in names:
        (tmp_path / name).write_text("mine")
    _, error = run_example("reproduce_tables.py", *SMALL, "--tables", 2, "--out", tmp_path, code=1)
    assert f"{tmp_path} holds {', '.join(names)}, which the study would write" in error and "another --out" in error
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == dict.fromkeys(names, "mine")


def test_a_study_is_killed_while_it_draws_and_goes_on(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    def fail(run):
        raise RunFailed("no memory")

    monkeypatch.setattr(Run, "carry_out", fail)
    given = ["--quick", "--width", 4, "--networks", "unet", "--tables", 2, "--data", "isbi", "--out", tmp_path / "out"]
    monkeypatch.setattr("sys.argv", ["reproduce_tables.py", *map(str, given)])
    for place in ("draw", "write_atomically"):
        with monkeypatch.context() as patch:
            patch.setattr(command, place, killed)
            with pytest.raises(KeyboardInterrupt):
                command.reproduce()
        (tmp_path / "out" / "isbi_curves.png").touch()
    with pytest.raises(SystemExit, match="Runs that failed"):
        command.reproduce()
    assert {file.name for file in (tmp_path / "out").glob("*.*")} <= set(command.WRITTEN)


def test_a_study_whose_trainings_fail_says_so_at_its_end(tmp_path, monkeypatch, capsys):
    def fail(run):
        raise RunFailed("TrainingDiverged: the loss is nan.")

    monkeypatch.setattr(Run, "carry_out", fail)
    given = ["--quick", "--width", 4, "--epochs", 1, "--networks", "unet", "--tables", 2, "--out", tmp_path / "out"]
    monkeypatch.setattr("sys.argv", ["reproduce_tables.py", *map(str, given)])
    with pytest.raises(SystemExit) as stop:
        command.main()
    assert stop.value.code.startswith("Runs that failed, as said above: isbi, unet, seed 0.")
    printed = capsys.readouterr().out
    assert "unet, seed 0: TrainingDiverged: the loss is nan." in printed and "1 runs failed" in printed
    assert (tmp_path / "out" / "tables.md").is_file()


def test_networks_that_were_trained_one_by_one_stand_in_one_table(tmp_path, monkeypatch):
    """A user has an hour today and an hour tomorrow, and gives --networks in turn."""
    metrics = dict.fromkeys(["accuracy", "dice", "iou", "mean_iou", "membrane_iou", "v_rand", "v_info"], 0.5)
    history = [{"val_loss": 0.1, "train_loss": 0.1, "val_dice": 0.5, "step": 1, "seconds_per_step": 1.0}]
    found = {"summary": {}, "history": history, "scores": {"metrics": metrics, "sections": []}}
    monkeypatch.setattr(Run, "carry_out", lambda run: found)
    monkeypatch.setattr(command, "draw", lambda *_: None)

    def rows_after(*options):
        given = ["--quick", "--tables", 2, "--data", "isbi", "--out", tmp_path / "out", *options]
        monkeypatch.setattr("sys.argv", ["reproduce_tables.py", *map(str, given)])
        command.reproduce()
        return json.loads((tmp_path / "out" / "results.json").read_text())["isbi"]["rows"]

    assert list(rows_after("--networks", "sdunet")) == ["sdunet"]
    found["scores"]["metrics"] = dict.fromkeys(metrics, 0.7)
    rows = rows_after("--networks", "sdunet_filter", "unet")
    assert list(rows) == ["unet", "sdunet", "sdunet_filter"]  # in the paper's order
    assert [row["figures"]["dice"]["mean"] for row in rows.values()] == [0.7, 0.5, 0.7]
    text = (tmp_path / "out" / "tables.md").read_text()
    assert "| U-Net |" in text and "| SD-UNet |" in text
    for other in (["--epochs", 9], ["--seeds", 2], ["--lr", 0.1], ["--protocol", "paper"]):  # no comparison with these
        assert list(rows_after("--networks", "unet", *other)) == ["unet"]
        assert list(rows_after("--networks", "sdunet")) == ["sdunet"]


@pytest.mark.slow
def test_quick_run_of_tables_2_and_3(tmp_path, monkeypatch):
    monkeypatch.setitem(command.QUICK, "isbi", {"--size": 64, "--epochs": 1})
    monkeypatch.setitem(command.QUICK, "brats", {"--size": 48, "--epochs": 1, "--steps-per-epoch": 5})
    arguments = [*SMALL, "--tables", "2", "3", "--out", tmp_path / "out"]
    out, _ = run_example("reproduce_tables.py", *arguments)
    assert "SYNTHETIC" in out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    for kind, figure in (("isbi", "v_rand"), ("brats", "whole tumour")):
        rows = results[kind]["rows"]
        assert list(rows) == ["unet", "sdunet", "sdunet_filter"]
        for row in rows.values():
            assert not row["failed"] and 0 <= row["figures"][figure]["mean"] <= 1
        assert str(tmp_path) not in results[kind]["command"]
        assert results[kind]["measured"].keys() == {"commit", "machine", "date", "command"}
    for name in ("isbi_curves", "isbi_best", "isbi_worst", "brats_curves", "brats_small", "brats_worst"):
        assert (tmp_path / "out" / f"{name}.png").stat().st_size > 5000, name
    assert {file.name for file in (tmp_path / "out").iterdir() if file.is_file()} == {*command.WRITTEN} - {"costs.png"}
    dice, text = results["isbi"]["rows"]["sdunet"]["figures"]["dice"]["mean"], (tmp_path / "out/tables.md").read_text()
    assert f"{dice:.3f}" in text and "*SD-UNet, paper*" in text

    before = (tmp_path / "out" / "results.json").read_bytes()
    runs = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "runs").rglob("*.safetensors")}
    run_example("reproduce_tables.py", *arguments)
    assert (tmp_path / "out" / "results.json").read_bytes() == before  # nothing was trained again
    assert runs == {p: p.stat().st_mtime_ns for p in runs}

    _, err = run_example("reproduce_tables.py", *arguments, "--lr", "0.01", code=1)
    assert "made with other options" in err


def test_a_study_in_parts_and_side_by_side_makes_the_same_table(tmp_path, monkeypatch, capsys):
    """A user has a job array, or a machine with many cores; the table does not show it."""
    carried_out, metrics = [], ["accuracy", "dice", "iou", "mean_iou", "membrane_iou", "v_rand", "v_info"]

    def carry_out(run):
        carried_out.append((run.folder.name, run.threads))
        seconds = {"val_loss": 0.1, "train_loss": 0.1, "val_dice": 0.5, "step": 1, "seconds_per_step": 1.0}
        scores = {"metrics": dict.fromkeys(metrics, len(run.folder.name) / 100), "sections": []}
        return {"summary": {}, "history": [seconds], "scores": scores}

    monkeypatch.setattr(Run, "carry_out", carry_out)
    monkeypatch.setattr(command, "draw", lambda *_: None)

    def study(name, *options):
        carried_out.clear()
        given = ["--quick", "--tables", 2, "--data", "isbi", "--out", tmp_path / name, "--seeds", 2, *options]
        given += ["--networks", "unet", "sdunet", "unet_gn"]
        monkeypatch.setattr("sys.argv", ["reproduce_tables.py", *map(str, given)])
        command.reproduce()
        file = tmp_path / name / "results.json"
        return json.loads(file.read_text())["isbi"]["rows"] if file.exists() else None, sorted(carried_out)

    rows, one = study("one")
    assert len(one) == 6 and {threads for _, threads in one} == {None}
    parts = [study("parts", "--part", f"{k}/2") for k in (2, 1)]
    assert [found for found, _ in parts] == [None, None] and sorted(parts[0][1] + parts[1][1]) == one
    assert len(parts[0][1]) == 3 and "Part 2 of 2 is done. When all are" in capsys.readouterr().out
    assert study("parts")[0] == rows
    together, two = study("together", "--jobs", 2)
    assert together == rows and [name for name, _ in two] == [name for name, _ in one]
    assert {threads for _, threads in two} == {max(1, cores() // 2)}
