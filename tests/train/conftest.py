"""What the tests of runs share."""

import numpy as np
import pytest

from tinycnn import data
from tinycnn.train import run as run_module


@pytest.fixture
def small(monkeypatch):
    """Digits, but few of them."""
    full = data.load

    def load_few(name, split="train", data_dir=None):
        dataset = full(name, split, data_dir)
        return dataset.subset(np.arange(200 if split == "train" else 60))

    monkeypatch.setattr(run_module.data, "load", load_few)
