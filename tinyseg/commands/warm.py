"""Compile the kernels for this processor now, so that no other command has to.

    tinyseg warm                         # of all networks, for training and prediction
    tinyseg warm --model sdunet          # of the one that will be used
    tinyseg warm --processes 1           # on a computer with little memory

Compiled kernels are kept, in the folder that ``tinyseg info`` names, until tinyseg, numba, Python or the processor is
another one. Without this command every other one compiles what it needs when it needs it.
"""

import contextlib
import copy
import time

import numpy as np

from tinyseg import Tensor, backend, models, no_grad, ops, optim
from tinyseg.backend.dispatch import NUMBA
from tinyseg.commands.numbers import Number, make_parser
from tinyseg.commands.script import run_script
from tinyseg.data.load_tqdm import tqdm
from tinyseg.prediction.tiles import to_probabilities
from tinyseg.training.losses import dice_and_cross_entropy

SIDE = 256  # pixels of the images of a rehearsal, rounded to what the network takes


def main():
    run_script(warm, out_of_memory="give --processes 1")


def warm():
    args = build_parser().parse_args()
    kernels = backend.kernels_in_use("cpu")
    if kernels != NUMBA:
        print(f"Nothing to compile: {kernels} computes here.")
        return
    calls, start = {}, time.monotonic()
    for name in args.model or models.MODELS:
        network = models.build(name, in_channels=1, num_classes=1)
        loss = ops.binary_cross_entropy_with_logits
        calls |= dict.fromkeys(rehearse_training(network, loss, 2, SIDE) + rehearse_prediction(network))
        network = models.build(name, in_channels=4, num_classes=4)
        calls |= dict.fromkeys(rehearse_training(network, dice_and_cross_entropy(1.0, 1.0), 2, SIDE))
    compiled = compile_missing(list(calls), args.processes)
    folder = backend.fast("cpu.kernel_cache").folder()
    if compiled:
        print(f"{compiled} kernels compiled in {time.monotonic() - start:.0f} s. They are kept in {folder}.")
    else:
        print(f"All {len(calls)} kernels are compiled already. They are kept in {folder}.")


def build_parser():
    parser = make_parser(__doc__)
    parser.add_argument("--model", choices=list(models.MODELS), action="append", help="a network (default: all)")
    parser.add_argument(
        "--processes", type=Number(int, 1, 64), help="how many compile at once (default: a core each, at most 4)"
    )
    return parser


def compile_for(calls, device):
    """Compile the kernels that a rehearsal gives, `calls()`, at the beginning of a process that computes with numba."""
    if device == "cpu" and backend.kernels_in_use(device) == NUMBA and not backend.fast("cpu.kernels").has_begun():
        compile_missing(calls())


def compile_missing(calls, processes=None):
    """Compile those of the kernels that are not there, with a progress bar; return how many those are."""
    ahead = backend.fast("cpu.ahead")
    missing = ahead.missing(calls)
    if missing:
        walk = ahead.compile_calls(missing, processes)
        for _ in tqdm(walk, "compiling kernels, once", len(missing), unit="kernel", leave=False):
            pass
    return len(missing)


def rehearse_training(model, loss, batch_size, side):
    """List the kernels of a step of training, and of a prediction, with a copy of the model; nothing is computed."""
    with _rehearsal() as calls:
        model, (x, y) = copy.deepcopy(model), _batch(model, batch_size, side)
        optimizer = optim.Adam(model.parameters())
        model.train()
        loss(model(x), y).backward()
        optimizer.step()
        _predict(model, x)
    return calls


def rehearse_prediction(model):
    """List the kernels of a prediction; nothing is computed."""
    with _rehearsal() as calls:
        _predict(model, _batch(model, 1, SIDE)[0])
    return calls


@contextlib.contextmanager
def _rehearsal():
    """Yield the list of the kernels that are called inside the block. What goes wrong there goes wrong later, too."""
    with backend.fast("cpu.kernels").noting() as calls, np.errstate(all="ignore"), contextlib.suppress(Exception):
        yield calls


def _batch(model, batch_size, side):
    """Return images for the model, and targets for its loss."""
    side = max(1, side // model.multiple) * model.multiple
    x = np.zeros((batch_size, model.in_channels, side, side), np.float32)
    if model.num_classes == 1:
        return Tensor(x), np.zeros((batch_size, 1, side, side), np.float32)
    return Tensor(x), np.zeros((batch_size, side, side), np.int64)


def _predict(model, x):
    model.eval()
    with no_grad():
        to_probabilities(model(x))
