"""What a network costs: parameters, multiply-adds, memory and time, layer by layer and in all.

    ts.profile.summary(model, (1, 1, 256, 256))              # prints a table
    ts.profile.memory(model, (1, 1, 256, 256), training=True)
    ts.profile.latency(model, (1, 1, 256, 256))
    ts.profile.compare(["unet", "sdunet"], (1, 1, 256, 256), "models.png")

Any `tinyseg.nn.Module` will do. A copy of it runs: the model stays as it is.

- `steps`: what is run;  `trace`: one run, watched;  `table`: `summary`
- `footprint`: `memory`, measured in a process of its own
- `timing`: `latency`;  `comparison`: `compare`, whose picture is in `picture`
"""

from tinyseg.report.profile.comparison import compare
from tinyseg.report.profile.footprint import Memory, memory
from tinyseg.report.profile.table import Row, Summary, summary
from tinyseg.report.profile.timing import Latency, latency
from tinyseg.report.profile.trace import multiply_adds

__all__ = ["Latency", "Memory", "Row", "Summary", "compare", "latency", "memory", "multiply_adds", "summary"]
