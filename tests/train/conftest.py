"""What the tests of runs share."""

import numpy as np
import pytest

from tinycnn import data
from tinycnn.train import run as run_module


def few(monkeypatch, train, test):
    full = data.load

    def load_few(name, split="train", data_dir=None):
        dataset = full(name, split, data_dir)
        return dataset.subset(np.arange(train if split == "train" else test))

    monkeypatch.setattr(run_module.data, "load", load_few)


@pytest.fixture
def small(monkeypatch):
    """Digits, but few of them."""
    few(monkeypatch, 200, 60)


@pytest.fixture
def tiny(monkeypatch):
    """Fewer, for kernels that run on the CPU."""
    few(monkeypatch, 27, 5)
