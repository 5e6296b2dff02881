"""PyTorch's losses and gradients, and losses of every kind to be held to them."""

import itertools

import numpy as np
import pytest
import torch

from tinycnn.losses import BCEWithLogitsLoss, CrossEntropyLoss, MSELoss

REDUCTIONS = ("mean", "sum", "none")
C = 5
WEIGHT = np.array([0.5, 2.0, 0.0, 1.0, 0.1])
SHAPES = {"(N, C)": (7, C), "(N, C, H, W)": (2, C, 3, 4)}


def tensor(a):
    return None if a is None else torch.tensor(a)


def oracle(function, x, t, **options):
    """PyTorch's loss, and by autograd the gradient of its sum."""
    leaf = torch.tensor(x, requires_grad=True)
    loss = function(
        leaf, torch.tensor(t), **{k: tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    )
    loss.sum().backward()
    return loss.detach().numpy(), leaf.grad.numpy()


def agree(ours, theirs, rtol=1e-10):
    for name, a, b in zip(("loss", "dlogits"), ours, theirs, strict=True):
        assert np.shape(a) == b.shape, name
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(np.abs(b).max(initial=0), 1e-300), err_msg=name)


def labels_for(shape, rng, ignore=None):
    y = rng.integers(0, C, (shape[0], *shape[2:]))
    if ignore is not None:
        y.flat[::3] = ignore
    return y


def all_losses():
    for reduction in REDUCTIONS:
        for smoothing, weight in itertools.product((0.0, 0.2), (None, WEIGHT)):
            yield CrossEntropyLoss(weight, reduction=reduction, label_smoothing=smoothing), "labels"
            yield CrossEntropyLoss(weight, reduction=reduction, label_smoothing=smoothing), "soft"
        yield MSELoss(reduction), "soft"
        yield BCEWithLogitsLoss(WEIGHT, reduction, 2 * WEIGHT), "soft"


def example(shape, kind, seed=0):
    rng = np.random.default_rng(seed)
    targets = labels_for(shape, rng) if kind == "labels" else rng.uniform(size=shape)
    return 2 * rng.normal(size=shape), targets


def refuses(loss_fn, x, t, *words):
    with pytest.raises(ValueError, match=r".+") as caught:
        loss_fn(x, t)
    message = str(caught.value)
    assert "\n" not in message
    for word in (type(loss_fn).__name__, *words):
        assert word in message, message
