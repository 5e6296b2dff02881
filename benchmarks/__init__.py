"""Benchmarks against PyTorch and against other libraries; ``python -m benchmarks --help``."""
