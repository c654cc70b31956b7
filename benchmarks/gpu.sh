#!/bin/sh
# The proof on a GPU in one command: tests, then benchmarks. Run from the repository's root.
#     sh benchmarks/gpu.sh [python] [options of benchmarks.gpu, such as --quick]
# SANITIZER=1 runs the kernels' tests under compute-sanitizer (of the CUDA toolkit) too, which takes long.
set -e
python=${1:-python}
[ $# -eq 0 ] || shift
"$python" - <<'EOF'
import sys
from tinyseg import backend
try:
    backend.parse_device("gpu")
except RuntimeError as error:
    sys.exit(f"The proof needs a GPU. {error}")
print(backend.device_name("gpu"))
EOF
"$python" -m pytest -m gpu tests
if [ -n "$SANITIZER" ]; then
    for tool in memcheck racecheck; do
        compute-sanitizer --tool $tool --error-exitcode 1 "$python" -m pytest -m gpu tests/fast/gpu \
            --ignore tests/fast/gpu/graphs --ignore tests/fast/gpu/test_gpu.py \
            --ignore tests/fast/gpu/test_mixed_precision.py --ignore tests/fast/gpu/test_upload.py
    done
fi
"$python" -m benchmarks.gpu "$@"
