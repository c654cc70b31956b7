"""How much memory a training step takes, measured in a process of its own."""

import subprocess
import sys

import pytest

STEP = """
import resource, sys
import numpy as np
import tinyseg as ts
from tinyseg.fast.cpu.arena import reuse_memory

reuse_memory()  # as `fit` does
x = np.random.default_rng(0).standard_normal((2, 1, 256, 256)).astype(np.float32)
model = ts.models.build("sdunet")
adam = ts.optim.Adam(model.parameters(), lr=1e-3)
for _ in range(2):
    adam.zero_grad()
    ts.ops.binary_cross_entropy_with_logits(model(x), x > 0).backward()
    adam.step()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak / 2**20 if sys.platform != "darwin" else peak / 2**30)  # Linux counts KiB, macOS bytes
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no resource module on Windows")
def test_a_training_step_of_sdunet_at_256_batch_2_peaks_under_4_gib():
    result = subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr
    # In GiB. Much less than the weights and activations take would mean that nothing was measured.
    assert 0.3 < float(result.stdout) < 4
