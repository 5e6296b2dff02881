"""Parameters and gradients for tinycnn and PyTorch alike, and a training that runs both side by side."""

import functools

import numpy as np
import pytest
import torch

from tinycnn.backend import to_device, to_numpy
from tinycnn.parameter import Parameter

SHAPES = {"conv.weight": (4, 3, 3, 2), "conv.bias": (4,), "fc.weight": (5, 7), "fc.bias": (5,), "scale": (1,)}


def make_parameters(dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    return [Parameter(rng.normal(size=shape).astype(dtype), name) for name, shape in SHAPES.items()]


def make_gradients(steps, seed=1):
    """Gradients of very different sizes, with zeros among them."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        scales = 10.0 ** rng.integers(-3, 2)
        yield [rng.normal(size=s) * scales * rng.integers(0, 2, s) + rng.normal(size=s) * 1e-2 for s in SHAPES.values()]


def torch_twins(parameters):
    return [torch.nn.Parameter(torch.tensor(np.ascontiguousarray(p.data), dtype=torch.float64)) for p in parameters]


def relative_error(parameters, twins):
    errors = []
    for p, twin in zip(parameters, twins, strict=True):
        expected = twin.detach().numpy()
        errors.append(np.abs(to_numpy(p.data) - expected).max() / np.abs(expected).max())
    return max(errors)


@pytest.fixture(autouse=True)
def double_precision():
    """PyTorch's own scalars (NAdam's product of momenta) are float32 unless the default dtype is float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def split(parameters, group_options):
    """The parameters as they are, or in two groups of which the second has options of its own."""
    if group_options is None:
        return parameters
    return [{"params": parameters[:2]}, {"params": parameters[2:], **group_options}]


def train(device, ours, theirs, kwargs, group_options=None, steps=50, dtype="float64", frozen=lambda step, i: False):
    """Take ``steps`` steps with both optimizers; return the largest relative error there ever was."""
    parameters = make_parameters(dtype)
    twins = torch_twins(parameters)
    for p in parameters:
        p.to(device)
    optimizer = ours(split(parameters, group_options), **kwargs)
    reference = theirs(split(twins, group_options), foreach=False, **kwargs)
    worst = 0.0
    for step, gradients in enumerate(make_gradients(steps)):
        for i, (p, twin, g) in enumerate(zip(parameters, twins, gradients, strict=True)):
            p.requires_grad = not frozen(step, i)
            p.grad[...] = to_device(np.asarray(g, dtype), device)
            twin.grad = None if frozen(step, i) else torch.tensor(np.asarray(g, dtype).astype("float64"))
        optimizer.step()
        reference.step()
        worst = max(worst, relative_error(parameters, twins))
    assert all(p.data.dtype == dtype for p in parameters)
    assert all(x.dtype == dtype for x in optimizer.state.values())
    return worst


@pytest.fixture(params=["cpu", "cuda"])
def compare(request):
    """`train` on the CPU, and on a GPU or its stand-in."""
    if request.param == "cuda":
        request.getfixturevalue("gpu")
    return functools.partial(train, request.param)


@pytest.fixture
def parameters():
    return make_parameters()


@pytest.fixture
def gradients():
    return make_gradients
