"""A small network, images that it can learn from, and a trainer for both."""

import numpy as np

from tinycnn import optim
from tinycnn.data import Loader
from tinycnn.layers import BatchNorm2d, Conv2d, Dropout, Flatten, Linear, ReLU, Sequential
from tinycnn.losses import CrossEntropyLoss
from tinycnn.train import Trainer

N, CLASSES, SIZE, BATCH = 70, 4, 6, 16


def images(seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, N)
    x = rng.integers(0, 60, (N, 1, SIZE, SIZE)) + 45 * labels[:, None, None, None]
    return x.astype(np.uint8), labels


def loader(shuffle=True, transform=None, batch=BATCH):
    return Loader(*images(), batch, shuffle=shuffle, seed=3, transform=transform)


def network(seed=0, dropout=0.3):
    rng = np.random.default_rng(seed)
    return Sequential(
        Conv2d(1, 3, 3, rng=rng),
        BatchNorm2d(3),
        ReLU(),
        Dropout(dropout, rng=rng),
        Flatten(),
        Linear(3 * (SIZE - 2) ** 2, CLASSES, rng=rng),
    )


def make(optimizer="momentum", schedule="cosine", epochs=4, accumulate=1, ema_of=None, **options):
    """A trainer; ``ema_of``: the arguments of its averages."""
    model = network()
    made = optim.create(optimizer, model.parameters(), lr=0.05)
    steps = epochs if schedule == "plateau" else epochs * -(-len(loader()) // accumulate)
    options["schedule"] = optim.create_schedule(schedule, made, steps)
    options["ema"] = None if ema_of is None else optim.EMA(model, **ema_of)
    return Trainer(model, made, CrossEntropyLoss(), accumulate=accumulate, **options)


def same(a, b):
    """Whether two trainers stand at the same bits."""
    for one, other in ((a.model.state_dict(), b.model.state_dict()), *zip(*map(slots, (a, b)), strict=True)):
        assert list(one) == list(other)
        for name in one:
            assert np.array_equal(one[name], other[name]), name
    timed = ("seconds", "images_per_second")
    rows = [[{k: v for k, v in row.items() if k not in timed} for row in t.history] for t in (a, b)]
    assert rows[0] == rows[1]
    assert a.model.random_state() == b.model.random_state()
    assert (a.ema is None) == (b.ema is None)
    if a.ema is not None:
        np.testing.assert_equal(a.ema.state_dict(), b.ema.state_dict())


def slots(trainer):
    return list(trainer.optimizer.state_dict()["state"].values())
