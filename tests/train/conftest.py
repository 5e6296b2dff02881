"""What the tests of runs share."""

import numpy as np
import pytest

from tinycnn import data


def few(monkeypatch, train, test):
    full = data.load

    def load_few(name, split="train", data_dir=None, **options):
        dataset = full(name, split, data_dir, **options)
        return dataset.subset(np.arange(train if split == "train" else test))

    monkeypatch.setattr(data, "load", load_few)


@pytest.fixture
def small(monkeypatch):
    """Digits, but few of them."""
    few(monkeypatch, 200, 60)


@pytest.fixture
def tiny(monkeypatch):
    """Fewer, for kernels that run on the CPU."""
    few(monkeypatch, 27, 5)
