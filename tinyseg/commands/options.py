"""Options that the commands share, and what is made of them: the device, the network, the schedule, the step."""

import argparse
import pathlib
import sys

from tinyseg import backend, models, optim
from tinyseg.models import checkpoint
from tinyseg.prediction.predictor import Predictor
from tinyseg.training import Step

# Defaults of the options of training that are not kept with a run.
REST = {
    "device": "auto", "gpu_memory": None, "tf32": False, "cuda_graph": False, "workers": 2, "overwrite": False,
    "resume": None, "download": False,
}  # fmt: skip


def settle(parser, defaults, paper, rest):
    """Settle the options of a training script: first what is given, then what the resumed run has, then the defaults.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Its options default to None. Has ``data``, ``epochs``, ``resume``, ``out``, ``overwrite``, ``protocol`` and
        ``download``.
    defaults : dict
        The options that decide what is learned: they are kept with the run.
    paper : dict
        What takes the place of the defaults with ``--protocol paper``.
    rest : dict
        Defaults of further options that are not kept, beside `REST`: ``out``, and the script's own.

    Returns
    -------
    argparse.Namespace
    """
    given = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    if "data" in given:
        given["data"] = str(pathlib.Path(given["data"]).resolve())  # a run is resumed from anywhere
    settings = defaults | (paper if given.get("protocol") == "paper" else {})
    if "resume" in given:
        path = pathlib.Path(given["resume"])
        path = path.parent if path.is_file() else path
        meta = checkpoint.read(path / "checkpoint.safetensors")[1]
        if "training" not in meta or not defaults.keys() <= meta.get("config", {}).keys():
            parser.error(f"{path}/checkpoint.safetensors was not written by this script: there is no run to go on with")
        settings |= meta["config"]
        changed = {name for name in settings if given.get(name, settings[name]) != settings[name]} - {"data", "epochs"}
        changed |= given.keys() & {"protocol", "out", "overwrite"}
        if changed:
            parser.error(f"--resume goes on with the options of {path}: leave out {', '.join(sorted(changed))}")
        if given.get("epochs", settings["epochs"]) != settings["epochs"] and settings["schedule"] in ("cosine", "step"):
            print("Another number of epochs stretches the schedule: the learning rate jumps to where it now would be.")
        given["out"] = given["resume"] = str(path)
    if given.get("download") and "data" not in given:
        parser.error("--download needs --data DIR, the folder to put the files in")
    args = argparse.Namespace(**(REST | rest | settings | given))
    if args.lr is None:
        args.lr = 2e-4 if args.model == "unet" else 2e-3  # 2e-3 needs norm layers, and plain U-Net has none
    return args


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
        See `settle`.
    out : str
        The default of --out.
    """
    add = option_adder(parser, defaults)
    add("--augment", "none, paper or default, and/or hflip,vflip,turns,rotation=…,zoom=…,shift=…,elastic=…")
    add("--model", choices=list(models.MODELS))
    add("--width", "channels of the first level", type=int)
    add("--head", "the last layers; the paper's can die", choices=["direct", "paper"])
    add("--ws", "weight standardization of the depthwise kernels", choices=["default", "layer", "filter", "none"])
    add("--dropout", "probability at the end of the last two encoder levels", type=float)
    add("--protocol", f"what the paper states: {paper}", choices=["paper"])
    add("--epochs", type=int)
    add("--batch-size", type=int)
    add("--lr", "learning rate of Adam (default: 2e-4 for unet, 2e-3 for the others)", type=float)
    add("--schedule", "of the learning rate", choices=["cosine", "constant", "step", "plateau"])
    add("--warmup", "steps of rising learning rate (cosine and constant)", type=int)
    add("--clip", "largest norm of the gradient; 0 for no limit", type=float)
    add("--amp", "mixed precision: activations in float16 (useful on a GPU)", action="store_true", default=None)
    add("--seed", type=int)
    add_device_options(parser)
    add("--workers", f"threads that prepare the data (default: {REST['workers']})", type=int)
    add("--out", f"run directory (default: {out})")
    add("--overwrite", "replace the run that --out holds", action="store_true", default=None)
    add("--resume", "continue the run in this folder, with its own options", metavar="PATH")


def build_network(args, in_channels, num_classes, device):
    """Build the network that the options of `add_training_options` ask for, and check that it takes ``args.size``."""
    options = {"width": args.width, "head": args.head, "dropout": args.dropout, "seed": args.seed}
    if args.ws != "default":
        options["ws"] = None if args.ws == "none" else args.ws
    model = models.build(args.model, in_channels, num_classes, **options).to(device)
    model.check_input((1, in_channels, args.size, args.size))
    return model


def add_device_options(parser):
    """Add --device, --gpu-memory, --tf32 and --cuda-graph, for `choose_device`."""
    add = parser.add_argument
    add("--device", help="where to compute (default: auto)", choices=["auto", "cpu", "gpu"])
    add("--gpu-memory", help="most GPU memory to take (default: all)", type=float, metavar="GiB")
    add("--tf32", help="GPU: faster matrix products of inputs rounded to 10 bits", action="store_true", default=None)
    add("--cuda-graph", help="GPU: launch the network as one CUDA graph", action="store_true", default=None)


def choose_device(args):
    """Return the device that the options of `add_device_options` ask for, and set up the GPU as they say.

    Parameters
    ----------
    args : argparse.Namespace
        With ``device``, ``gpu_memory``, ``tf32`` and ``cuda_graph``. The last is only checked here: `make_step` and
        `Predictor` make the graph.

    Returns
    -------
    {"cpu", "gpu"}

    Raises
    ------
    RuntimeError
        If a GPU is asked for and is not there.
    ValueError
        If an option of the GPU is given for the CPU, or the limit is not positive.
    """
    device = backend.parse_device(args.device or "auto")
    if device == "gpu":
        backend.set_up_gpu(args.gpu_memory, bool(args.tf32))
        return device
    for_gpu = {"--tf32": args.tf32, "--gpu-memory": args.gpu_memory is not None, "--cuda-graph": args.cuda_graph}
    for option, is_given in for_gpu.items():
        if is_given:
            raise ValueError(
                f"{option} is for a GPU, and this runs on the CPU: leave it out, or see what --device gpu says."
            )
    return device


def check_memory(parser, args):
    """End with a sentence if --memory is not positive."""
    if not args.memory > 0:
        parser.error(f"--memory is in GiB and must be positive, but is {args.memory}")


def load_predictor(args, scale=None):
    """Load the `Predictor` that --checkpoint, --memory, --transforms and the options of the device ask for."""
    return Predictor.load(
        args.checkpoint, choose_device(args), memory=int(args.memory * 2**30), transforms=args.transforms, scale=scale,
        cuda_graph=bool(args.cuda_graph),
    )  # fmt: skip


def build_schedule(args, optimizer, steps):
    """Build the learning-rate schedule that --schedule and --warmup ask for, over a number of steps."""
    if args.schedule == "cosine":
        return optim.CosineAnnealingLR(optimizer, T_max=steps, warmup=args.warmup)
    if args.schedule == "step":
        return optim.StepLR(optimizer, step_size=max(1, steps // 3))
    if args.schedule == "plateau":
        return optim.ReduceLROnPlateau(optimizer, patience=5, factor=0.5)
    return optim.WarmupLR(optimizer, warmup=args.warmup)


def make_step(args, model, optimizer, loss):
    """Make the training step that --clip, --amp and --cuda-graph ask for.

    Parameters
    ----------
    args : argparse.Namespace
    model : Module
    optimizer : Optimizer
    loss : callable
        ``loss(logits, y) -> Tensor``, a scalar.

    Returns
    -------
    Step

    Raises
    ------
    ValueError
        If both mixed precision and a CUDA graph are asked for, the folder tinyseg/fast is not there, or the step cannot
        be captured.
    """
    if args.amp and args.cuda_graph:
        raise ValueError(
            "A CUDA graph and mixed precision cannot be had together, since which steps are left out is decided on the "
            "host: choose one of the two."
        )
    if args.amp:
        step = backend.need_fast("gpu.mixed_precision", "--amp").MixedPrecisionStep
    elif args.cuda_graph:
        step = backend.need_fast("gpu.graphs.training_step", "--cuda-graph").CapturedStep
    else:
        step = Step
    return step(model, optimizer, loss, clip=args.clip)


def report_network(args, model, device):
    """Print which network is trained, where, and with which kernels; return the same as a dict for summary.json."""
    kernels = backend.kernels_in_use(device)
    if args.amp:
        kernels += ", mixed precision"
        if device == "cpu":
            kernels += " (slower than float32 here: only useful on a GPU)"
    name, parameters = backend.device_name(device), model.num_parameters()
    print(f"{args.model}, {parameters:,} parameters, on {name}, kernels: {kernels}")
    network = {"model": args.model, "parameters": parameters, "device": name, "kernels": kernels}
    return network | {"data": args.data or "synthetic"}


def exit_if_interrupted(result, run):
    """If `fit` was interrupted, print how to go on, and end the process with the status that its signal asks for."""
    if result["interrupted"]:
        print(f"Stopped after step {result['steps']}. Go on with: python {sys.argv[0]} --resume {run.path}")
        sys.exit(128 + result["interrupted"])
