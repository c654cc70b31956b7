"""What makes tinyseg fast, and is not needed to understand or to run it.

`cpu` and `gpu` hold namesakes of the files in `tinyseg/ops`: functions of the same names and signatures, in numba and
in CUDA. `tinyseg.backend.dispatch` imports them by name; nothing else does. Without this folder everything gives the
same results to rounding, slower.
"""
