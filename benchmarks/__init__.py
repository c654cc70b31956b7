"""How fast tinyseg is beside PyTorch, on a CPU: ``python -m benchmarks --help``."""
