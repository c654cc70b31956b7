"""All benchmarks: the machine, networks, single ops with their roofline, and scaling.

    python -m benchmarks                        # less than half an hour on two cores
    python -m benchmarks --quick                # a few minutes: fewer cases, fewer rounds
    python -m benchmarks --parts kernels        # anew, beside what results/cpu.json already holds of the other parts
    python -m benchmarks --compile --reference  # torch.compile, and tinyseg without numba, too

Leaves cpu.json and cpu.md, with scaling.png, in benchmarks/results; they are written anew after every case, so that a
run that is interrupted loses nothing. Close other programs first.
"""

import argparse
import datetime
import json
import pathlib
import statistics

from benchmarks import kernels, machine, models, scaling, tables, worker

PARTS = ("machine", "models", "kernels", "scaling")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer cases and rounds")
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="only these; the others stay as they are")
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile too: a minute more for each network and input"
    )
    parser.add_argument("--reference", action="store_true", help="tinyseg without numba too")
    parser.add_argument("--out", type=pathlib.Path, default=scaling.RESULTS, help="(default: benchmarks/results)")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "cpu.json"
    results = json.loads(file.read_text()) if args.parts and file.exists() else {}
    worker.warn_if_busy()
    try:
        for part in args.parts or PARTS:
            print(f"----- {part}", flush=True)
            results[part] = {"date": now(), "quick": args.quick, "busy": [worker.busy(1.0)], "found": None}
            for found in measure_part(part, args.quick, args.compile, args.reference):
                results[part]["found"] = found
                results[part]["busy"].append(worker.busy())
                write(results, args.out)
    except KeyboardInterrupt:
        print(f"Stopped. What was measured is in {args.out}.")
    else:
        print(f"See {args.out / 'cpu.md'}")


def measure_part(part, quick, compiled=False, reference=False):
    """Yield what has been found so far: a dict (machine), or a list of records that grows."""
    if part == "machine":
        yield machine.run()
        return
    if part == "models":
        cases = models.the_cases(batches=(1,) if quick else (1, 4), brain=not quick)
        options = {"rounds": 3, "turn": 0.2} if quick else {"rounds": 7, "turn": 0.3, "budget": 20}
        records = models.run(cases, models.the_variants(compiled, reference), **options)
    elif part == "kernels":
        options = {"rounds": 3, "turn": 0.03} if quick else {"rounds": 5, "turn": 0.05}
        records = kernels.run(scales=(0, 3) if quick else None, reference=reference, **options)
    else:
        options = {"largest": 182, "rounds": 2, "turn": 0.1} if quick else {"largest": 1024, "rounds": 3, "turn": 0.2}
        records = scaling.run(**options)
    found = []
    for record in records:
        found.append(record)
        yield found


def now():
    """Return the time, to the minute."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def write(results, folder):
    """Write cpu.json, cpu.md and what belongs to them."""
    _replace(folder / "cpu.json", json.dumps(results, indent=1))
    if found(results, "scaling"):
        scaling.write(found(results, "scaling"), folder)
    _replace(folder / "cpu.md", markdown(results))


def _replace(path, text):
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def found(results, part):
    """Return what was found in a part, or None."""
    return results.get(part, {}).get("found")


def markdown(results):
    """Return cpu.md."""
    measured = found(results, "machine")
    parts = ["# tinyseg beside PyTorch on a CPU\n"]
    parts.append(
        f"`python -m benchmarks` made this file. Every variant is a process of its own that may use all cores. "
        f"{tables.RATIOS}\n"
    )
    if measured:
        parts += [heading("Machine", results["machine"]), machine.markdown(measured)]
    if found(results, "models"):
        parts += [heading("Networks", results["models"]), models.markdown(found(results, "models"))]
    if found(results, "scaling"):
        parts += [
            heading("Scaling", results["scaling"]),
            "![Time a pixel against image size, batch and width](scaling.png)\n",
            "PyTorch: channels-last, tuned allocator.\n",
            scaling.markdown(found(results, "scaling")),
        ]
    if found(results, "kernels"):
        parts += [heading("Single ops", results["kernels"]), kernels.markdown(found(results, "kernels"))]
        if measured and measured["rates"] and measured["bandwidths"]:
            parts += [
                heading("Roofline", results["kernels"]),
                "The roof is the longer of two times: all operations at the rate of the fastest matrix product above, "
                "and reading every input and writing every output once at the highest bandwidth above (limit *cache*: "
                "that of the small arrays, where all that moves is no more than they are). Convolutions are counted as "
                "direct sums, so that a method with fewer operations may pass 100 %.\n",
                kernels.roofline(found(results, "kernels"), measured),
            ]
    return "\n".join(parts)


def heading(title, part):
    """Return a heading, and below it when and how the part was measured."""
    busy = statistics.fmean(part["busy"])
    words = [part["date"]]
    if part["quick"]:
        words.append("a quick run: fewer cases, fewer rounds")
    if busy > 0.1:
        words.append(f"**other programs kept {busy:.1f} cores busy: measure again without them**")
    return f"## {title}\n\n{'; '.join(words)}\n"


if __name__ == "__main__":
    main()
