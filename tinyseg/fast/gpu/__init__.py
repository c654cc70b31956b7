"""Namesakes of the ops in CUDA, and what they are built on: launch, upload, mixed_precision, graphs."""
