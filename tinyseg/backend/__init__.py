"""The backend: which module computes an op (`dispatch`), where arrays live (`devices`), the float16 rule (`half`)."""

from tinyseg.backend.devices import (
    device_name,
    device_of,
    is_out_of_memory,
    parse_device,
    set_up_gpu,
    synchronize,
    to_device,
    to_numpy,
    versions,
    xp_of,
)
from tinyseg.backend.dispatch import (
    config,
    count_threads,
    describe_computer,
    fast,
    kernels,
    kernels_in_use,
    need_fast,
    using,
)
from tinyseg.backend.ranges import check_number
from tinyseg.backend.states import compare_states

__all__ = [
    "check_number", "compare_states", "config", "count_threads", "describe_computer", "device_name", "device_of",
    "fast", "is_out_of_memory", "kernels", "kernels_in_use", "need_fast", "parse_device", "set_up_gpu", "synchronize",
    "to_device", "to_numpy", "using", "versions", "xp_of",
]  # fmt: skip
