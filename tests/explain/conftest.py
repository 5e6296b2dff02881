"""Small networks with every kind of layer, recorded."""

import numpy as np
import pytest

from tinycnn import (
    AvgPool2d,
    BatchNorm2d,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
    Residual,
    Sequential,
)
from tinycnn.explain.study import Example
from tinycnn.layers import BatchNormReLU2d, ResidualNormReLU


def network(rng):
    """One layer of each kind, with every option of a convolution."""
    main = Sequential({"conv1": Conv2d(6, 6, 3, padding=1, groups=2, rng=rng), "bn1": BatchNormReLU2d(6)})
    model = Sequential(
        {
            "conv": Conv2d(2, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), rng=rng),
            "bn": BatchNorm2d(6),
            "relu": ReLU(),
            "block": ResidualNormReLU(Sequential(main, Conv2d(6, 6, 1, rng=rng)), BatchNormReLU2d(6)),
            "sum": Residual(Conv2d(6, 6, 3, padding=1, rng=rng)),
            "max": MaxPool2d(3, 2, 1),
            "cat": Concat(Conv2d(6, 3, 1, rng=rng), Conv2d(6, 2, 1, rng=rng)),
            "avg": AvgPool2d(2, 1, 1, count_include_pad=False),
            "flat": Flatten(),
            "drop": Dropout(0.4, rng=rng),
            "fc": Linear(5 * 4 * 6, 4, rng=rng),
        }
    )
    for p in model.parameters():
        p.data[...] += rng.uniform(-0.15, 0.15, p.shape)
    return model


@pytest.fixture(scope="session")
def examples():
    rng = np.random.default_rng(1)
    return [Example(rng.standard_normal((1, 2, 9, 8)).astype(np.float32), k, f"image {k}") for k in (2, 0)]


@pytest.fixture(scope="session")
def model():
    return network(np.random.default_rng(0))
