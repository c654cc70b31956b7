"""Namesakes of the ops in numba, and what they are built on: simd, gemm, bands, arena, threads."""
