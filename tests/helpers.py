"""What several tests share."""

from contextlib import contextmanager

import numpy as np
import pytest

from tinycnn import backend, parallel


def devices():
    """The devices a test runs on: the same test body on each."""
    problem = backend.cuda_problem()
    skip = pytest.mark.skipif(problem is not None, reason=f"no GPU: {problem}")
    return ["cpu", pytest.param("cuda", marks=skip)]


def is_channels_last(x):
    """Whether the memory of a four-dimensional array is in the order N, H, W, C (others: C-contiguous)."""
    return (x.transpose(0, 2, 3, 1) if x.ndim == 4 else x).flags.c_contiguous


@contextmanager
def poisoned(monkeypatch):
    """Fill all memory that NumPy or the engine hands out uninitialised with NaN (or a large integer)."""
    empty, empty_like, scratch = np.empty, np.empty_like, parallel.scratch

    def fill(x):
        x.fill(np.nan if x.dtype.kind == "f" else 113)
        return x

    with monkeypatch.context() as patch:
        patch.setattr(np, "empty", lambda *args, **kw: fill(empty(*args, **kw)))
        patch.setattr(np, "empty_like", lambda *args, **kw: fill(empty_like(*args, **kw)))
        for module in _users_of_scratch():
            patch.setattr(module, "scratch", lambda *args, **kw: fill(scratch(*args, **kw)))
        yield


def _users_of_scratch():
    import sys

    return [m for name, m in sys.modules.items() if name.startswith("tinycnn.") and hasattr(m, "scratch")]


def relative_error(a, b):
    """Largest difference between two arrays, relative to the largest entry of the second."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape, f"{a.shape} and {b.shape}"
    return np.abs(a - b).max(initial=0) / max(np.abs(b).max(initial=0), 1e-300)
