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


def assert_step_is_torchs(layer, module, x, seed=0, tolerance=1e-12, vanishing=()):
    """Hold one forward and backward of a layer to those of a PyTorch module, in float64.

    Output, input gradient, gradients of all parameters by name, and buffers afterwards; the gradients of both
    are cleared first.  Gradients of ``vanishing`` biases are 0 but for rounding, as a normalisation takes the bias out
    again: they are held to 0, in proportion to the gradient of the weight they belong to.
    """
    import torch

    layer.zero_grad()
    module.zero_grad()
    x_torch = torch.from_numpy(x.copy()).requires_grad_()
    y, y_torch = layer(x), module(x_torch)
    dy = np.random.default_rng(seed).standard_normal(y.shape)
    y_torch.backward(torch.from_numpy(dy))
    dx = layer.backward(dy)
    assert relative_error(y, y_torch.detach().numpy()) < tolerance, "y"
    assert relative_error(dx, x_torch.grad.numpy()) < tolerance, "dx"
    gradients = {name: p.grad for name, p in layer.named_parameters()}
    assert gradients.keys() == {name for name, _ in module.named_parameters()}
    for name, p in module.named_parameters():
        if name in vanishing:
            size = abs(gradients[name.removesuffix("bias") + "weight"]).max()
            assert abs(gradients[name]).max() < tolerance * size, name
        else:
            assert relative_error(gradients[name], p.grad.numpy()) < tolerance, name
    buffers = dict(layer.named_buffers())
    assert buffers.keys() == {name for name, _ in module.named_buffers()}
    for name, value in module.named_buffers():
        assert relative_error(buffers[name], value.numpy()) < tolerance, name


def like_torch(layer, module, seed=0):
    """Give a layer and a PyTorch module the same random parameters, both in float64, and return them."""
    import torch

    rng = np.random.default_rng(seed)
    layer.astype(np.float64)
    for p in layer.parameters():
        p.data[...] = rng.uniform(0.5, 1.5, p.shape) * rng.choice([-1, 1], p.shape)
    module.double().load_state_dict({name: torch.from_numpy(value) for name, value in layer.state_dict().items()})
    return layer, module


def stirred(layer, module, seed=0):
    """Give a network and a PyTorch module the same random state, both in float64, and return them.

    Weights have He's variance, so that signals neither vanish nor explode; scales, biases and running statistics are
    off 0 and 1, where a mistake could hide.
    """
    import torch

    rng = np.random.default_rng(seed)
    layer.astype(np.float64)
    for name, x in [*((name, p.data) for name, p in layer.named_parameters()), *layer.named_buffers()]:
        if x.ndim > 1:
            x[...] = rng.normal(0, np.sqrt(2 / np.prod(x.shape[1:])), x.shape)
        elif name.endswith(("bias", "running_mean")):
            x[...] = rng.uniform(-0.3, 0.3, x.shape)
        else:
            x[...] = rng.uniform(0.5, 1.5, x.shape) if x.dtype.kind == "f" else 3
    module.double().load_state_dict({name: torch.from_numpy(value) for name, value in layer.state_dict().items()})
    return layer, module


def assert_same_step(a, b, x, seed=0):
    """Hold output, input gradient, parameter gradients and buffers of two networks' steps equal to the last bit."""
    assert list(a.state_dict()) == list(b.state_dict())
    b.load_state_dict(a.state_dict())
    steps = []
    for model in (a, b):
        y = model(x)
        dx = model.backward(np.random.default_rng(seed).standard_normal(y.shape).astype(y.dtype))
        steps.append({"y": y, "dx": dx, **{name: p.grad for name, p in model.named_parameters()}, **model.state_dict()})
    for name, value in steps[0].items():
        np.testing.assert_array_equal(steps[1][name], value, err_msg=name)


def images(seed, shape, mean=0.0):
    """Images whose channels differ in mean and scale."""
    rng = np.random.default_rng(seed)
    scale, offset = rng.uniform(0.3, 3, (2, 1, shape[1], 1, 1))
    return mean + offset + scale * rng.standard_normal(shape)
