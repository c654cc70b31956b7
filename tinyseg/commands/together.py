"""Training commands that mpiexec or srun has started several times: one job, one voice, one folder."""

import contextlib
import functools
import os
import sys

from tinyseg import nn
from tinyseg.commands.script import run_script
from tinyseg.training import RunDirectory
from tinyseg.training.lost import ProcessLost
from tinyseg.training.microbatches import check_microbatches
from tinyseg.training.parallel import Group, join
from tinyseg.training.run import FollowedRun

AFTER_THE_FIRST = 3  # seconds in which the first process says what all of them have to say, and ends


@functools.cache
def group() -> Group:
    """Return the group of the processes that run this command."""
    return join()


def run_together(main, out_of_memory):
    """Run a training command, see `run_script`, in all processes that a launcher has started for it."""

    def start():
        with one_voice(group()):
            main()
            group().leave()

    run_script(start, out_of_memory)


@contextlib.contextmanager
def one_voice(group):
    """Let the first process alone print. Another prints the sentence with which it ends, if the first has not ended."""
    if group.rank == 0:
        yield
        return
    try:
        with contextlib.ExitStack() as stack:
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
            yield
    except Exception as error:
        lost = group.wait_for_loss(AFTER_THE_FIRST)
        if lost is not None and isinstance(error, ProcessLost) != (lost == 0):
            sys.exit(1)  # the first has said why: it has ended too, or has lost the same one
        print(f"In process {group.rank + 1} of {group.size}:", file=sys.stderr)
        raise


def part():
    """Return which part of each batch this process computes, and of how many, for `data.Loader`."""
    return group().rank, group().size


def open_run(args):
    """Return the folder of the run, which the first process writes."""
    kind = RunDirectory if group().rank == 0 else FollowedRun
    return kind(args.out, overwrite=args.overwrite, resume=args.resume is not None)


def settle_microbatches(args):
    """Settle --microbatches, which is the number of processes if it is not given; a ValueError if it does not fit."""
    processes = group().size
    if args.microbatches is None:
        args.microbatches = processes
    if args.resume is not None and processes > args.microbatches:
        raise ValueError(
            f"the batches of this run have {args.microbatches} parts (--microbatches): at most so many processes can "
            f"go on with it, and {processes} were started."
        )
    check_microbatches(args.microbatches, processes)
    if args.microbatches > args.batch_size:
        who = f"{processes} processes" if args.microbatches == processes else f"--microbatches {args.microbatches}"
        raise ValueError(
            f"{who} cannot share a batch of {args.batch_size}: each needs an image, so give --batch-size "
            f"{args.microbatches}, or a multiple of it."
        )
    if args.microbatches > 1 and (args.amp or args.cuda_graph):
        option = "--amp" if args.amp else "--cuda-graph"
        raise ValueError(f"{option} computes a batch at once: leave out --microbatches, and start one process.")


def describe_parts(args, model):
    """Print how a batch is divided, and among how many processes."""
    if args.microbatches == 1:
        return
    processes = f", in {group().size} processes" if group().size > 1 else ""
    print(f"batches of {args.batch_size} in {args.microbatches} parts{processes}")
    if any(isinstance(part, nn.BatchNorm2d) for _, part in model.named_modules()):
        print(f"Note: {args.model} normalizes over the images of a part, not over those of the batch.")
