"""What predict.py does with each file: whether it is made already, predicting it, and writing down how it was made."""

import contextlib
import functools
import io
import sys
import threading
import uuid

import numpy as np

from tinyseg.commands.jobs import WorkerLost, run_jobs
from tinyseg.commands.options import load_predictor
from tinyseg.commands.predict_instances import instance_options, sections_of, write_instances
from tinyseg.commands.runtime import find_runtime_file
from tinyseg.commands.script import explain
from tinyseg.commands.workers import load_once, workers_of
from tinyseg.data.brain import Preparation
from tinyseg.data.load_tqdm import tqdm
from tinyseg.data.predictions_json import NAME, Record, hash_of
from tinyseg.data.scans import open_scan, write_scan
from tinyseg.prediction import normalizes_over_space
from tinyseg.prediction.components import drop_small_components
from tinyseg.prediction.predictor import labels
from tinyseg.prediction.stacks import statistics_of

FAILURES = ValueError, OSError, WorkerLost  # of one file: the others are predicted all the same


def predict_files(predictor, plan, stacks, args):
    """Predict each scan of the plan that has not been predicted yet, and go on after one that cannot be."""
    kept, settings = Record(args.out, predictor.classes, predictor.masks), settings_of(args)
    statistics, hash_once = functools.cache(functools.partial(statistics_of, predictor)), functools.cache(hash_of)
    failed, entries = [], {}  # of each scan that is being predicted, what ends its entries in the record

    def note(scan, error):
        tqdm.write(f"{scan.name}: {error}" if isinstance(error, WorkerLost) else explain(error), file=sys.stderr)
        failed.append(scan)
        bar.update()

    def jobs():
        """Yield what is to be done; a file has its entry in the record before it is there."""
        for scan, files in plan:
            try:
                there = [file for file in scan.files if file.exists()]  # `open_scan` says what is missing
                of_file = settings | {"input_sha1": hash_once(*there)}
                if scan in stacks:
                    of_file["stack_sha1"] = hash_once(*(file for each in stacks[scan] for file in each.files))
                if not args.force and are_made(files, kept, of_file):
                    bar.update()
                    continue
                entries[scan] = all_entries.enter_context(contextlib.ExitStack())
                for file in files:
                    entries[scan].enter_context(kept.entering(file, scan.files, of_file))
                job = scan, files, statistics(stacks[scan]) if scan in stacks else None
            except FAILURES as error:
                note(scan, error)
                continue
            yield job

    bar = tqdm(total=len(plan), unit="image", disable=len(plan) == 1)
    with bar, contextlib.ExitStack() as all_entries:
        here = functools.partial(predict_job, predictor, args)
        workers = workers_of(args)
        work = functools.partial(predict_in_process, uuid.uuid4().hex, args) if workers else here
        done = all_entries.enter_context(contextlib.closing(run_jobs(work, jobs(), workers)))
        for (scan, *_), said, error in done:
            entries.pop(scan).close()
            tqdm.write(said or "", end="")
            if isinstance(error, FAILURES):
                note(scan, error)
            elif error is not None:
                raise error
            else:
                bar.update()
    if failed:
        sys.exit(f"{len(failed)} of {len(plan)} files could not be predicted: {', '.join(s.name for s in failed)}")


def predict_job(predictor, args, job):
    """Predict a scan; the job is the scan, the files to write, and the statistics of its stack."""
    scan, files, statistics = job
    predict_file(predictor, scan, files, args, statistics)


_turn = threading.Lock()  # a worker of Dask may have several threads, and all that they print goes to one place


def predict_in_process(command, args, job):
    """Predict a scan in a process that does jobs of `command`; return what there is to say."""
    with _turn, contextlib.redirect_stdout(io.StringIO()) as said:
        predict_job(load_once(command, lambda: load_predictor(args, args.scale)), args, job)
    return said.getvalue()


def settings_of(args):
    """Return what decides over the content of a file, besides its input."""
    names = ("transforms", "threshold", "min_component", "probabilities", "scale", "memory")
    settings = {name: getattr(args, name) for name in names}
    if args.probabilities:
        settings["threshold"] = settings["min_component"] = None
    if args.instances:
        settings |= {"instances": True} | instance_options(args)
    if args.runtime != "tinyseg":
        file = find_runtime_file(args.runtime, args.checkpoint)
        settings["runtime"] = file.name if file else args.runtime
        settings["runtime_sha1"] = file and hash_of(file)
    return {"checkpoint": str(args.checkpoint), "checkpoint_sha1": hash_of(args.checkpoint)} | settings


def are_made(files, kept, settings):
    """Return whether the files of a scan are there already, and say so.

    It raises an error if one was made in another way than now, or if some are missing and it is not known how the
    others were made.
    """
    there = [file for file in files if file.exists()]
    differences = [kept.differences(file, settings) for file in there]
    for file, different in zip(there, differences, strict=True):
        check_made(file, different)
    if None in differences and len(there) < len(files):
        raise ValueError(
            f"{there[differences.index(None)]} is there already, and {NAME} does not say how it was made: give another "
            "--out or --suffix, or --force to replace it."
        )
    if len(there) < len(files):
        return False
    if None in differences:
        tqdm.write(
            f"{files[0]} is there already, and {NAME} does not say how it was made: if it is not a prediction, give "
            "another --out or --suffix (--force replaces it)"
        )
    else:
        tqdm.write(f"{files[0]} is there already (--force makes it again)")
    return True


def check_made(target, differences):
    """Refuse a file that is there already if it was made in another way than now."""
    changed = list(dict.fromkeys(name.removesuffix("_sha1") for name in differences or () if name != "checkpoint"))
    if changed:
        raise ValueError(
            f"{target} was made with another {', '.join(changed)} (see {NAME}): give another --out or --suffix, "
            "or --force to make it again."
        )


def predict_file(predictor, scan, files, args, statistics):
    """Predict one scan, which is one file or a file for each modality, section by section."""
    target = files[0]
    with open_scan(scan, for_network=isinstance(predictor.preparation, Preparation)) as image:
        predictor.look_at(image, statistics)
        H, W = predictor.preparation.target(image.shape)
        if max(H, W) > predictor.tile:
            note = ""
            if normalizes_over_space(predictor.model):
                note = ", each with its own GroupNorm statistics (raise --memory to avoid that)"
            tqdm.write(f"{scan.name}: {H} x {W} pixels go through the network in tiles of {predictor.tile}{note}")
        if args.instances:
            there = any(file.exists() for file in files)  # made in the same way: see `are_made`
            write_instances(predictor, image, target, args, overwrite=args.force or there)
            return
        channels = len(predictor.classes) if args.probabilities else 1
        dtype = np.float32 if args.probabilities else type_of_masks(predictor)
        sections = sections_of(image, scan.name)
        with write_scan(image, target, dtype=dtype, channels=channels, overwrite=args.force) as out, sections:
            planes = (choose_output(predictor(image.section(k)), args, image.kind, predictor.masks) for k in sections)
            if predictor.min_component and len(image) > 1 and not args.probabilities:
                planes = drop_small_components(np.stack(list(planes)), predictor.min_component)
            for plane in planes:
                out.write(plane)
    tqdm.write(f"wrote {target}")


def type_of_masks(predictor):
    """Return the type of the masks that are written: with the values of the training's, if the checkpoint says them."""
    return predictor.masks.write(np.zeros(1, int)).dtype if predictor.masks else np.uint8


def choose_output(p, args, kind, classes=None):
    """Return what is to be written for probabilities (classes, H, W): these, or a mask (H, W).

    A mask of `classes` has their values, as the masks of the training had, and else the numbers of the classes.
    """
    if args.probabilities:
        return p[0] if len(p) == 1 else p
    mask = labels(p, args.threshold)
    if len(p) == 1 and kind != "nifti":
        mask *= np.uint8(255)  # pictures of one class are black and white; volumes hold class numbers
    return mask if classes is None else classes.write(mask)
