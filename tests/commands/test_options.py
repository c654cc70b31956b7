"""--device, --gpu-memory, --tf32, --cuda-graph, --amp and --resume: what the commands make of them."""

import argparse
import re
import types

import fake_cupy
import pytest
from scripts import run_example

from tinyseg import backend, models, ops, optim
from tinyseg.backend import devices, dispatch
from tinyseg.commands import predict, train_isbi
from tinyseg.commands.numbers import CHOSEN_SECTIONS, CLASS_WEIGHTS, SECTIONS, SHARES, read_class_weights
from tinyseg.commands.options import (
    REST,
    add_device_options,
    build_schedule,
    choose_device,
    make_average,
    make_step,
    note_computer,
    report_network,
)
from tinyseg.commands.settings import settle
from tinyseg.data import memory
from tinyseg.fast.gpu.mixed_precision import MixedPrecisionStep
from tinyseg.models import checkpoint
from tinyseg.training import Step


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(devices, "cp", fake_cupy)
    monkeypatch.setenv("CUPY_TF32", "0")
    yield
    fake_cupy.get_default_memory_pool().set_limit(size=0)


def options(*given):
    parser = argparse.ArgumentParser()
    add_device_options(parser)
    return parser.parse_args(given)


def test_defaults_leave_the_gpu_as_it_is(gpu):
    assert vars(options()) == dict.fromkeys(["device", "gpu_memory", "tf32", "cuda_graph"])  # `settle` needs None
    assert choose_device(options()) == "gpu"
    assert fake_cupy.get_default_memory_pool().get_limit() == 0
    assert backend.kernels_in_use("gpu") == "CuPy + CUDA"


def test_a_limit_and_tf32(gpu):
    assert choose_device(options("--device", "gpu", "--gpu-memory", "1.5", "--tf32")) == "gpu"
    assert fake_cupy.get_default_memory_pool().get_limit() == 3 * 2**29
    assert backend.kernels_in_use("gpu") == "CuPy + CUDA, TF32"


@pytest.mark.parametrize("limit", ["0", "-1", "nan", "inf", "1e308", "much"])
def test_a_limit_is_positive(limit, capsys):
    with pytest.raises(SystemExit):
        options(f"--gpu-memory={limit}")
    assert f"--gpu-memory: expected a number above 0 to 1048576, found '{limit}'" in capsys.readouterr().err


@pytest.mark.parametrize("given", [["--tf32"], ["--gpu-memory", "4"], ["--cuda-graph"]])
def test_options_of_the_gpu_are_refused_on_the_cpu(given, monkeypatch):
    monkeypatch.setattr(devices, "cp", None)
    for device in ("cpu", "auto"):
        with pytest.raises(ValueError, match=f"{given[0]} is for a GPU, and this runs on the CPU"):
            choose_device(options("--device", device, *given))
    with pytest.raises(RuntimeError, match="CuPy is not installed"):
        choose_device(options("--device", "gpu", *given))


# ----- the training step -----------------------------------------------------------
def training_options(**given):
    options = {"clip": 1.0, "amp": False, "cuda_graph": False, "batch_size": 1, "microbatches": 1}
    return argparse.Namespace(**(options | given))


def test_the_step_is_the_one_that_is_asked_for():
    model = models.build("sdunet", width=4, levels=2)
    optimizer = optim.Adam(model.parameters())
    for given, kind in (({}, Step), ({"amp": True}, MixedPrecisionStep)):
        step = make_step(training_options(**given), model, optimizer, ops.soft_dice_loss, 48)
        assert type(step) is kind and step.model is model and step.optimizer is optimizer and step.clip == 1
        assert step.loss is ops.soft_dice_loss
    assert make_step(training_options(clip=0), model, optimizer, ops.soft_dice_loss, 48).clip == float("inf")


def test_the_mean_of_the_weights_is_kept_if_it_is_asked_for():
    model = models.build("sdunet", width=4, levels=2)
    assert make_average(argparse.Namespace(ema=0.0), model) is None
    assert make_average(argparse.Namespace(ema=0.99), model).decay == 0.99


def settled(monkeypatch, *given):
    """What a training script makes of these words at the shell."""
    monkeypatch.setattr("sys.argv", ["script", *map(str, given)])
    parser = train_isbi.build_parser(out="runs")
    return settle(parser, train_isbi.DEFAULTS, train_isbi.PAPER, {"fingerprints": {}})


def test_a_graph_and_mixed_precision_are_not_had_together(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        settled(monkeypatch, "--amp", "--cuda-graph")
    assert "--amp and --cuda-graph cannot be had together" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["amp", "cuda_graph"])
def test_without_the_fast_folder_what_needs_it_is_refused(option, monkeypatch):
    monkeypatch.setattr(dispatch, "fast", lambda name: None)
    with pytest.raises(ValueError, match=f"--{option.replace('_', '-')} needs the folder tinyseg/fast"):
        make_step(training_options(**{option: True}), None, None, None, 48)


@pytest.mark.parametrize(
    ("model", "batch_size", "said"), [("unet_dw_bn", 1, 1), ("unet_dw_bn", 2, 0), ("sdunet", 1, 0)]
)
def test_batch_normalization_over_one_image(model, batch_size, said, capsys):
    args = training_options(model=model, batch_size=batch_size, data=None)
    report_network(args, models.build(model, width=2), "cpu")
    out = capsys.readouterr().out
    assert out.count(f"Note: {model} normalizes over the batch, which is one image: --batch-size 4 is") == said


@pytest.mark.slow
@pytest.mark.parametrize("script", ["train_isbi.py", "train_brats.py"])
def test_mixed_precision_works_on_the_cpu_and_is_said_to_be_slow(script, brains, tmp_path, no_pictures):
    few = ["--width", 4, "--size", 32, "--epochs", 1, "--workers", 1, "--device", "cpu", "--out", tmp_path / "run"]
    if script == "train_brats.py":
        few += ["--steps-per-epoch", 2, "--batch-size", 2, "--shares", "2:1:1"]
        few += ["--data", brains, "--cache", tmp_path / "slices"]
    out, _ = run_example(script, *few, "--amp")
    assert ", mixed precision (slower than float32 here: only useful on a GPU)" in out
    arrays, meta = checkpoint.read(tmp_path / "run" / "checkpoint.safetensors")
    assert meta["config"]["amp"] is True and meta["training"]["scaler"]["factor"] <= 2.0**16
    assert "loss_scale" in meta["training"]["state"]["history"][0]
    _, err = run_example(script, "--resume", tmp_path / "run", "--amp", "--lr", 1, code=2)
    assert "leave out lr" in err and "amp" not in err.split("leave out")[1]


# ----- resuming --------------------------------------------------------------------
def begun(folder, change=None, **meta):
    """A checkpoint of a run that was begun; ``change`` gives other options."""
    config = train_isbi.DEFAULTS | {"lr": 0.1, "fingerprints": {"training images": "12"}} | (change or {})
    model = models.build("sdunet", width=4, levels=2)
    checkpoint.save(folder / "checkpoint.safetensors", model, **{"training": {"state": 1}, "config": config} | meta)
    return folder


def test_a_run_is_taken_up_with_its_own_options(tmp_path, monkeypatch, capsys):
    args = settled(monkeypatch, "--resume", begun(tmp_path, {"seed": 0, "clip": 0.5, "amp": True}))
    assert (args.lr, args.seed, args.clip, args.amp, args.data) == (0.1, 0, 0.5, True, None)  # the run's
    assert args.fingerprints == {"training images": "12"} and args.resume == args.out == str(tmp_path)
    config = train_isbi.DEFAULTS | {"lr": 0.1}
    config.pop("clip")
    with pytest.raises(SystemExit):
        settled(monkeypatch, "--resume", begun(tmp_path, config=config))
    assert "was not written by this script" in capsys.readouterr().err


def test_only_the_options_of_the_script_are_taken_from_a_strangers_checkpoint(tmp_path, monkeypatch):
    args = settled(monkeypatch, "--resume", begun(tmp_path, {"workers": 99, "download": True, "cache": "/elsewhere"}))
    assert args.workers == REST["workers"] and not args.download and not hasattr(args, "cache")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 0}, "--width: expected a whole number from 1 to 4096, found '0'"),
        ({"seed": []}, "--seed: expected"), ({"seed": None}, "--seed: expected"), ({"head": False}, "--head: expected"),
        ({"augment": 1}, "--augment: augmentation '1' is not known"), ({"model": "net"}, "--model: invalid choice"),
        ({"lr": float("nan")}, "--lr: expected"), ({"fingerprints": [1]}, "fingerprints in its metadata does not fit"),
    ],
)  # fmt: skip
def test_a_run_whose_options_were_damaged_is_refused(change, words, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=f"checkpoint.safetensors is damaged.*{re.escape(words)}"):
        settled(monkeypatch, "--resume", begun(tmp_path, change))


def test_a_run_whose_latest_checkpoint_is_cut_short_gets_advice_that_helps(tmp_path, monkeypatch):
    latest = begun(tmp_path) / "checkpoint.safetensors"
    latest.write_bytes(latest.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"\(500 bytes\).*begin it again, with --out .* --overwrite\.$"):
        settled(monkeypatch, "--resume", tmp_path)
    best = tmp_path / "best.safetensors"
    checkpoint.save(best, models.build("sdunet", width=4, levels=2))
    with pytest.raises(ValueError, match="predict.py and evaluate.py take .*best.safetensors"):
        settled(monkeypatch, "--resume", tmp_path)
    with pytest.raises(ValueError, match="and not from best.safetensors: give the run's folder"):
        settled(monkeypatch, "--resume", best)


def test_a_run_of_a_newer_version_is_not_advised_to_be_overwritten(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", 99)
        begun(tmp_path)
    with pytest.raises(ValueError, match=r"newer tinyseg \(format 99\)\. Update tinyseg\.$"):
        settled(monkeypatch, "--resume", tmp_path)


# ----- numbers ---------------------------------------------------------------------
HUGE = ("nan", "inf", "1e308", "99999999999999999999", "many", "")


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--width", ("0", "-3", "1.5", *HUGE)), ("--epochs", ("0", "-1", *HUGE)), ("--batch-size", ("0", *HUGE)),
        ("--lr", ("0", "-1", *HUGE)), ("--warmup", ("-5", *HUGE)), ("--clip", ("-1", *HUGE)), ("--seed", ("-1", *HUGE)),
        ("--dropout", ("1", "-0.1", *HUGE)), ("--workers", ("-1", *HUGE)),
        ("--augment", ("hflop", "rotation=nan", "elastic=1e308", "brightness=inf", "zoom=-1", "shift=1")),
        ("--out", ("",)), ("--resume", ("",)),
    ],
)  # fmt: skip
def test_options_out_of_their_range_are_refused_with_the_options_name(option, values, monkeypatch, capsys):
    for value in values:
        with pytest.raises(SystemExit):
            settled(monkeypatch, f"{option}={value}")
        assert f"argument {option}: " in capsys.readouterr().err, value


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (SECTIONS, ("1", "4", "0:3", "2:24"), ("0", "-1", "3:3", "3:1", "a", "1:2:3", "1.5", "", "all", "9" * 20)),
        (CHOSEN_SECTIONS, ("all", "2", "1:3"), ("none", "0")),
        (SHARES, ("406:32:46", "1:0:0", "0.8:0.1:0.1"), ("1:1", "0:1:1", "-1:2:3", "a:b:c", "nan:1:1", "inf:1:1", "")),
        (CLASS_WEIGHTS, ("1", "0.1,1,1,1", "0,1"), ("a,b", "1,,2", "-1,1", "nan,1", "1,inf", "0,0", "1;2", "")),
    ],
)  # fmt: skip
def test_numbers_in_a_text_are_checked_before_anything_is_read(kind, good, bad):
    for text in good:
        assert kind(text) == text
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match="expected .*, found"):
            kind(text)


def test_there_is_a_class_weight_for_each_class():
    assert read_class_weights("0.5,1", ["background", "cell"]) == [0.5, 1]
    for text, classes in (("1,1,1", ["background", "cell"]), ("1", ["whole tumour"])):
        with pytest.raises(ValueError, match=f"--class-weights {text} do not fit"):
            read_class_weights(text, classes)


def test_the_help_says_the_ranges(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        settled(monkeypatch, "--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "channels of the first level (default: 64) [from 1 to 4096]" in text and "[above 0 to 10]" in text


def test_a_warm_up_longer_than_the_training(monkeypatch, capsys):
    optimizer = optim.Adam(models.build("sdunet", width=4, levels=2).parameters())
    with pytest.raises(ValueError, match="the warm-up of 9 steps is longer than the training, which has 8: give a sm"):
        build_schedule(settled(monkeypatch, "--warmup", 9), optimizer, 8)
    build_schedule(settled(monkeypatch), optimizer, 8)
    assert "the warm-up of 20 steps is longer" in capsys.readouterr().out
    build_schedule(settled(monkeypatch, "--warmup", 8), optimizer, 8)
    assert capsys.readouterr().out == ""


def test_options_that_do_not_go_together_are_refused_before_the_data_are_read(monkeypatch):
    for given, words in (
        (("--crop", 33), "multiples of 16"),
        (("--model", "unet", "--ws", "layer"), "ws standardizes"),
    ):
        with pytest.raises(ValueError, match=words):
            settled(monkeypatch, *given)


@pytest.mark.parametrize("script", ["train_isbi.py", "train_brats.py", "reproduce_tables.py"])
def test_the_training_scripts_refuse_them_too(script, tmp_path):
    _, err = run_example(script, "--device", "cpu", "--tf32", "--out", tmp_path / "run", code=1)
    assert "--tf32 is for a GPU, and this runs on the CPU" in err and not (tmp_path / "run").exists()
    _, err = run_example(script, "--device", "cpu", "--cuda-graph", "--out", tmp_path / "run", code=1)
    assert "--cuda-graph is for a GPU, and this runs on the CPU" in err and not (tmp_path / "run").exists()


@pytest.mark.parametrize("script", ["predict.py", "evaluate.py"])
def test_and_those_that_predict(script, tmp_path):
    inputs = ["a.png"] if script == "predict.py" else ["--images", "a.png"]
    given = [*inputs, "--checkpoint", tmp_path / "none", "--device", "cpu", "--gpu-memory", "2"]
    _, err = run_example(script, *given, code=1)
    assert "--gpu-memory is for a GPU, and this runs on the CPU" in err


# ----- options that are given for nothing ------------------------------------------
@pytest.mark.parametrize("script", ["predict.py", "evaluate.py", "train_isbi.py", "train_brats.py"])
def test_two_dashes_are_no_value_of_an_option(script):
    _, err = run_example(script, "--device=--", code=2)
    assert "argument --device: expected one argument, found '--'" in err


def test_a_name_that_is_too_long_is_refused_with_the_options_name(monkeypatch, capsys):
    for option in ("--out", "--resume"):
        with pytest.raises(SystemExit):
            settled(monkeypatch, f"{option}={'x' * 300}")
        assert f"argument {option}: expected the name of a file or folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        settled(monkeypatch, f"--size={'1' * 100_000}")
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "argument --size: " in said and len(said) < 2100


def test_windows_that_do_not_fit_get_two_that_do(monkeypatch):
    with pytest.raises(ValueError, match="--crop 47 does not fit: .* give --crop 32 or 48"):
        settled(monkeypatch, "--crop", 47)
    assert settled(monkeypatch, "--crop", 48).crop == 48


def test_a_warm_up_for_a_schedule_that_has_none(monkeypatch, capsys):
    for schedule in ("step", "plateau"):
        with pytest.raises(SystemExit):
            settled(monkeypatch, "--schedule", schedule, "--warmup", 5)
        assert "--warmup is for --schedule cosine and constant" in capsys.readouterr().err
        assert settled(monkeypatch, "--schedule", schedule).schedule == schedule


@pytest.mark.parametrize(
    ("script", "given", "says"),
    [
        ("train_brats.py", "--shares 4:1:1 --val-cases A", "--shares and --val-cases cannot be had together"),
        ("train_isbi.py", "--foreground black", "--foreground is for the masks in --data"),
        ("predict.py", "a.tif --checkpoint c --isbi-submission --threshold 0.3", "--threshold is for masks, and"),
        ("evaluate.py", "--predictions p --labels l --memory 1", "--memory: this is for a network"),
        ("evaluate.py", "--predictions p --labels l --worst 5", "so give --out too"),
        ("reproduce_tables.py", "--data isbi --tables 3", "--tables 3 needs data"),
    ],
)
def test_options_that_would_change_nothing_are_refused(script, given, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_parser = script in ("train_brats.py", "train_isbi.py", "predict.py")
    _, err = run_example(script, *given.split(), code=2 if by_parser else 1)
    assert says in err


def test_a_run_is_resumed_on_another_computer_or_with_other_threads(capsys, monkeypatch):
    now = backend.describe_computer()
    args = types.SimpleNamespace(computer={})
    assert note_computer(args, "cpu") == now and capsys.readouterr().out == ""  # begins now, or was begun long ago
    args.computer = now
    assert note_computer(args, "cpu") == now and capsys.readouterr().out == ""
    args.computer = now | {"threads": "64", "numpy": "1.0"}
    note_computer(args, "cpu")
    said = capsys.readouterr().out
    assert f"numpy 1.0, now {now['numpy']}" in said and "last bits" in said
    assert "threads" not in said or now["kernels"] != backend.dispatch.NUMBA  # kernels do not mind
    monkeypatch.setattr(backend.dispatch, "kernels_in_use", lambda device="cpu": "NumPy (pip install numba)")
    note_computer(args, "cpu")
    assert f"threads 64, now {backend.count_threads()}" in capsys.readouterr().out


@pytest.mark.parametrize("given", [("--width", 4096), ("--size", 65536, "--batch-size", 4096)])
def test_a_training_that_cannot_fit_into_memory_is_refused_at_once(given, monkeypatch):
    monkeypatch.setattr(memory, "memory_limit", lambda: 64 << 30)
    with pytest.raises(ValueError, match="a training step of .* would take at least .* GiB of memory"):
        settled(monkeypatch, *map(str, given), "--device", "cpu")


def test_a_run_whose_checkpoint_names_data_by_half_a_path(tmp_path, monkeypatch):
    defaults = train_isbi.DEFAULTS | {"data": "../somewhere", "lr": 1e-3}
    checkpoint.save(
        tmp_path / "checkpoint.safetensors", models.build("sdunet", width=4), config=defaults, training={"a": 1}
    )
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors is damaged: .* --data is '\.\./somewhere', and not"):
        settled(monkeypatch, "--resume", tmp_path)


@pytest.mark.parametrize("text", ["a/b", "a\\b", "\0", "\ud800"])
def test_a_suffix_that_no_name_can_have(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a part of a file's name"):
        predict.suffix(text)
