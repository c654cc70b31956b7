"""Options that the commands share, and what is made of them: the device, the network, the schedule, the step."""

import argparse
import errno
import os
import pathlib
import sys

from tinyseg import backend, models, nn, optim
from tinyseg.commands import together
from tinyseg.commands.main import called_as
from tinyseg.commands.numbers import AUGMENTATION, MEMORY, PROBABILITY, Number
from tinyseg.commands.runtime import open_runtime, runtime_name
from tinyseg.commands.warm import compile_for, rehearse_prediction, rehearse_training
from tinyseg.data.brain import Preparation
from tinyseg.prediction import TRANSFORMS
from tinyseg.prediction.predictor import Predictor
from tinyseg.training import Step, WeightAverage
from tinyseg.training.microbatches import MicrobatchStep
from tinyseg.training.parallel import ALONE
from tinyseg.training.run import command_line

# Defaults of the options of training that are not kept with a run.
REST = {
    "device": "auto", "gpu_memory": None, "tf32": False, "cuda_graph": False, "workers": 2, "overwrite": False,
    "resume": None, "download": False,
}  # fmt: skip


def option_adder(parser, defaults):
    """Return ``add(flag, help, **options)``, which adds an option and puts its default into the help."""

    def add(flag, help="", **options):
        default = defaults.get(flag[2:].replace("-", "_"))
        known = f" (default: {default})" if default is not None else ""
        parser.add_argument(flag, help=(help + known).strip(), **options)

    return add


def add_training_options(parser, defaults, paper, out):
    """Add the options of every training script: the network, the optimizer, the device, and where the run is kept.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    defaults, paper : dict
        See `tinyseg.commands.settings.settle`.
    out : str
        The default of --out.
    """
    add = option_adder(parser, defaults)
    add(
        "--augment", "none, paper or default, and/or hflip,vflip,turns,rotation=…,zoom=…,shift=…,elastic=…",
        type=AUGMENTATION,
    )  # fmt: skip
    add("--model", choices=list(models.MODELS))
    add("--width", "channels of the first level", type=Number(int, 1, 4096))
    add("--head", "the last layers; the paper's can die", choices=["direct", "paper"])
    add("--ws", "weight standardization of the depthwise kernels", choices=["default", "layer", "filter", "none"])
    add("--dropout", "probability at the end of the last two encoder levels", type=Number(float, 0, 1, below=True))
    add("--protocol", f"what the paper states: {paper}", choices=["paper"])
    add("--epochs", type=Number(int, 1, 10**6))
    add("--batch-size", type=Number(int, 1, 4096))
    add(
        "--microbatches", "parts of a batch, computed one after the other or in several processes: 1, 2, 4, … "
        "(default: as many as processes)", type=Number(int, 1, 4096),
    )  # fmt: skip
    add(
        "--lr", "learning rate of Adam (default: 2e-4 for unet, 2e-3 for the others)",
        type=Number(float, 0, 10, above=True),
    )  # fmt: skip
    add("--schedule", "of the learning rate", choices=["cosine", "constant", "step", "plateau"])
    add("--warmup", "steps of rising learning rate (cosine and constant)", type=Number(int, 0, 10**9))
    add("--clip", "largest norm of the gradient; 0 for no limit", type=Number(float, 0, 10**6))
    add(
        "--ema", "decay of the exponential mean of the weights, which is what is kept and predicts; 0: the weights",
        type=Number(float, 0, 1, below=True),
    )  # fmt: skip
    add("--amp", "mixed precision: activations in float16 (useful on a GPU)", action="store_true", default=None)
    add("--seed", type=Number(int, 0, 2**32 - 1))
    add_device_options(parser)
    add("--workers", f"threads that prepare the data; 0: none (default: {REST['workers']})", type=Number(int, 0, 256))
    add("--out", f"run directory (default: {out})", type=folder_name)
    add("--overwrite", "replace the run that --out holds", action="store_true", default=None)
    add("--config", "options to begin with: the config.json of a run, or a part of one", type=folder_name)
    add("--resume", "continue the run in this folder, with its own options", metavar="PATH", type=folder_name)


def folder_name(text):
    """Return the name of a file or folder as it is given, if there can be such a one.

    Nothing at all, which Python takes for ".", is refused, and a name that is too long.
    """
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError("expected the name of a file or folder, found an empty text")
    try:
        os.lstat(text)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise argparse.ArgumentTypeError(
                f"expected the name of a file or folder, found {len(text)} letters, which is too long"
            ) from None
    return text


def a_path(text):
    """Return a path; nothing at all is refused."""
    return pathlib.Path(folder_name(text))


def add_device_options(parser):
    """Add --device, --gpu-memory, --tf32 and --cuda-graph, for `choose_device`."""
    add = parser.add_argument
    add("--device", help="where to compute (default: auto)", choices=["auto", "cpu", "gpu"])
    add("--gpu-memory", help="most GPU memory to take (default: all)", type=MEMORY, metavar="GiB")
    add("--tf32", help="GPU: faster matrix products of inputs rounded to 10 bits", action="store_true", default=None)
    add("--cuda-graph", help="GPU: launch the network as one CUDA graph", action="store_true", default=None)


def choose_device(args, group=ALONE):
    """Return the device that the options of `add_device_options` ask for, and set up the GPU as they say.

    Parameters
    ----------
    args : argparse.Namespace
        With ``device``, ``gpu_memory``, ``tf32`` and ``cuda_graph``. The last is only checked here: `make_step` and
        `Predictor` make the graph.
    group : Group
        The processes that share the GPUs of a machine.

    Returns
    -------
    {"cpu", "gpu"}

    Raises
    ------
    RuntimeError
        If a GPU is asked for and is not there.
    ValueError
        If an option of the GPU is given for the CPU.
    """
    device = backend.parse_device(args.device or "auto")
    if len(set(found := group.gather(device))) > 1:
        raise ValueError(f"some processes have found a GPU and others none ({', '.join(found)}): give --device.")
    if device == "gpu":
        group.take_gpu()
        backend.set_up_gpu(args.gpu_memory, bool(args.tf32))
        return device
    for_gpu = {"--tf32": args.tf32, "--gpu-memory": args.gpu_memory is not None, "--cuda-graph": args.cuda_graph}
    for option, is_given in for_gpu.items():
        if is_given:
            raise ValueError(
                f"{option} is for a GPU, and this runs on the CPU: leave it out, or see what --device gpu says."
            )
    return device


def add_prediction_options(parser):
    """Add what `load_predictor` needs and, for masks, --threshold and --min-component."""
    add = parser.add_argument
    add("--threshold", type=PROBABILITY, default=0.5, help="of the probability, in a mask of one class (default: 0.5)")
    add(
        "--min-component", type=PROBABILITY, metavar="SHARE",
        help="of volumes, parts smaller than this share of the largest are background (default: as trained)",
    )  # fmt: skip
    add("--transforms", choices=list(TRANSFORMS), default="none", help="mean over flips, or flips and turns")
    add("--memory", type=MEMORY, default=2, help="GiB for activations; larger images in tiles (default: 2)")
    add(
        "--runtime", metavar="{tinyseg,onnx,int8,FILE.onnx}", type=runtime_name, default="tinyseg",
        help="what computes: int8 is tinyseg on the CPU with what tinyseg export --int8 wrote; onnx is onnxruntime",
    )  # fmt: skip
    add_device_options(parser)


def load_predictor(args, scale=None):
    """Load the `Predictor` that --checkpoint and the options of `add_prediction_options` ask for.

    Where --border was not given, `args` gets the network's.
    """
    other = args.runtime != "tinyseg"
    if other and (args.device == "gpu" or args.cuda_graph):
        raise ValueError(f"--runtime {args.runtime} computes on the CPU: leave out --device gpu and --cuda-graph.")
    args.device = "cpu" if other else args.device
    device = choose_device(args)
    predictor = Predictor.load(
        args.checkpoint, device, memory=int(args.memory * 2**30), transforms=args.transforms, scale=scale,
        cuda_graph=bool(args.cuda_graph),
    )  # fmt: skip
    if args.min_component is not None:
        if not isinstance(predictor.preparation, Preparation):
            raise ValueError("--min-component is for networks of brain volumes, and this is none: leave it out.")
        predictor.min_component = args.min_component
    if args.border is None:
        args.border = predictor.border
    if other:
        predictor.forward = open_runtime(args.runtime, args.checkpoint, predictor.model)
    else:
        compile_for(lambda: rehearse_prediction(predictor.model), device)
    return predictor


def build_schedule(args, optimizer, steps):
    """Build the learning-rate schedule that --schedule and --warmup ask for, over a number of steps.

    A --warmup that is given and longer than the training is a ValueError. If it is the default, a line says so.
    """
    if args.schedule in ("cosine", "constant") and args.warmup > steps:
        sentence = f"the warm-up of {args.warmup} steps is longer than the training, which has {steps}"
        if "warmup" in args.given:
            raise ValueError(f"{sentence}: give a smaller --warmup, or more epochs.")
        print(f"Note: {sentence}, so the learning rate does not reach {args.lr:g}: see --warmup.")
    if args.schedule == "cosine":
        return optim.CosineAnnealingLR(optimizer, T_max=steps, warmup=args.warmup)
    if args.schedule == "step":
        return optim.StepLR(optimizer, step_size=max(1, steps // 3))
    if args.schedule == "plateau":
        return optim.ReduceLROnPlateau(optimizer, patience=5, factor=0.5)
    return optim.WarmupLR(optimizer, warmup=args.warmup)


def make_step(args, model, optimizer, loss, side):
    """Make the step that --clip, --microbatches, --amp and --cuda-graph ask for, and compile the kernels that it needs.

    Parameters
    ----------
    args : argparse.Namespace
    model : Module
    optimizer : Optimizer
    loss : callable
        ``loss(logits, y) -> Tensor``, a scalar.
    side : int
        Of an image of a batch, for the choice of the kernels.

    Returns
    -------
    Step

    Raises
    ------
    ValueError
        If the folder tinyseg/fast is not there, or the step cannot be captured.
    """
    if args.amp:
        step = backend.need_fast("gpu.mixed_precision", "--amp").MixedPrecisionStep
    elif args.cuda_graph:
        step = backend.need_fast("gpu.graphs.training_step", "--cuda-graph").CapturedStep
    else:
        device, images = backend.device_of(model.parameters()[0].data), -(-args.batch_size // args.microbatches)
        group = together.group()
        group.first_alone(lambda: compile_for(lambda: rehearse_training(model, loss, images, side), device))
        if args.microbatches > 1:
            return MicrobatchStep(model, optimizer, loss, args.clip, args.microbatches, group)
        step = Step
    return step(model, optimizer, loss, clip=args.clip)


def make_average(args, model):
    """Make the mean of the weights that --ema asks for, or None."""
    return WeightAverage(model, args.ema) if args.ema else None


def report_network(args, model, device):
    """Print which network is trained, where, and with which kernels; return the same as a dict for summary.json."""
    kernels = backend.kernels_in_use(device)
    if args.amp:
        kernels += ", mixed precision"
        if device == "cpu":
            kernels += " (slower than float32 here: only useful on a GPU)"
    if args.batch_size == 1 and any(isinstance(part, nn.BatchNorm2d) for _, part in model.named_modules()):
        print(f"Note: {args.model} normalizes over the batch, which is one image: --batch-size 4 is better for it.")
    name, parameters = backend.device_name(device), model.num_parameters()
    print(f"{args.model}, {parameters:,} parameters, on {name}, kernels: {kernels}")
    network = {"model": args.model, "parameters": parameters, "device": name, "kernels": kernels}
    return network | {"data": args.data or "synthetic"}


def note_computer(args, device):
    """Return `backend.describe_computer`, to be kept with the run. If a resumed run had another, print what differs."""
    before, now = args.computer, backend.describe_computer(device)
    changed = [f"{name} {before.get(name)}, now {now.get(name)}" for name in now if before.get(name) != now.get(name)]
    if before and changed:
        print(
            f"Note: this run goes on with another computer or other versions ({'; '.join(changed)}): the last bits of "
            "what it learns can differ from those of a run that was not interrupted."
        )
    return now


def exit_if_interrupted(result, run, args):
    """If `fit` was interrupted, print how to go on, and end the process with the status that its signal asks for.

    The options that were given and are not kept with the run, such as --device, belong to the command.
    """
    if result["interrupted"]:
        words = [*called_as(), "--resume", str(run.path)]
        for name in ("cache", *REST):
            if name in args.given - {"overwrite", "resume", "download"}:
                value = getattr(args, name)
                words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        print(f"Stopped after step {result['steps']}. Go on with: {command_line(words)}")
        together.group().leave()
        sys.exit(128 + result["interrupted"])
