"""What a network costs: parameters and multiply-adds of each layer and of the whole, memory and time.

    ts.profile.summary(model, (1, 1, 256, 256))              # prints a table
    ts.profile.memory(model, (1, 1, 256, 256), training=True)
    ts.profile.latency(model, (1, 1, 256, 256))
    ts.profile.compare(["unet", "sdunet"], (1, 1, 256, 256), "models.png")

This works for any `tinyseg.nn.Module`. A copy of the model runs; the model stays as it is.

- `table`: `summary`, from one run that `trace` watches
- `footprint`: `memory`, measured in a process of its own
- `timing`: `latency`
- `comparison`: `compare`, whose picture `picture` draws
- `steps`: the copy, the batch and the step that all of them run
"""

from tinyseg.report.profile.comparison import compare
from tinyseg.report.profile.footprint import Memory, memory
from tinyseg.report.profile.table import Row, Summary, summary
from tinyseg.report.profile.timing import Latency, latency
from tinyseg.report.profile.trace import multiply_adds

__all__ = ["Latency", "Memory", "Row", "Summary", "compare", "latency", "memory", "multiply_adds", "summary"]
