"""Algorithms for convolution, one per file."""
