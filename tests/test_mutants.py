"""Mistakes that others have shipped, planted one at a time into the real source: each must be caught.

A mutant is a file of the package with one piece of text replaced.  It is compiled into a module of its own, and a
check that passes on the original must fail on it.
"""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import tinycnn
from tinycnn import AvgPool2d, BatchNormReLU2d, Conv2d, Dropout, MaxPool2d, Sequential, Tanh, gradcheck
from tinycnn.kernels.conv import patches, scatter
from tinycnn.layers import pool
from tinycnn.parameter import Parameter

PACKAGE = Path(tinycnn.__file__).parent


def mutant(path, old, new):
    """The module ``path`` of the package with ``old``, which must occur, replaced by ``new``."""
    source = (PACKAGE / path).read_text(encoding="utf-8")
    assert source.count(old) >= 1, f"{path} no longer has the text {old!r}: plant the mistake anew"
    name = "tinycnn." + path.removesuffix(".py").replace("/", ".")
    module = ModuleType(name + "_mutant")
    module.__package__ = name.rpartition(".")[0]
    sys.modules[module.__name__] = module
    try:
        exec(compile(source.replace(old, new), f"mutant of {path}", "exec"), module.__dict__)
    finally:
        del sys.modules[module.__name__]
    return module


def planted_in(monkeypatch, path, old, new, users):
    """Let the modules ``users`` have the mutant's functions in place of the originals'."""
    module = mutant(path, old, new)
    for user in users:
        for name in [n for n in vars(user) if callable(getattr(module, n, None)) and not n.startswith("__")]:
            if getattr(vars(user)[name], "__module__", "").endswith(path.removesuffix(".py").replace("/", ".")):
                monkeypatch.setattr(user, name, getattr(module, name))


def right(layer, shape, seed=0):
    """What the gradient checker says of a layer in float64, its parameters moved off special values."""
    rng = np.random.default_rng(seed)
    layer.astype(np.float64)
    for p in layer.parameters():
        p.data[...] += rng.uniform(0.1, 0.4, p.shape)
    size = int(np.prod(shape))
    x = rng.permutation((np.arange(size) + 0.5 - size // 2) * (4.0 / size)).reshape(shape)
    return gradcheck(layer, x).ok


IMAGE = (3, 4, 7, 6)

# what: (file, text, its replacement, the layer built from the mutant, the shape of its input)
BACKWARD = {
    "weight gradient transposed": (
        "layers/conv.py",
        "dw if dw is None else dw.transpose(0, 3, 1, 2)",
        "dw if dw is None else dw.transpose(0, 3, 2, 1)",
        lambda m: m.Conv2d(4, 6, 3),
        IMAGE,
    ),
    "stride and dilation swapped": (
        "layers/conv.py",
        "return Window(kernel, strides, ((PH, PH), (PW, PW)), dilations)",
        "return Window(kernel, dilations, ((PH, PH), (PW, PW)), strides)",
        lambda m: Truth(m.Conv2d(4, 6, 2, stride=1, dilation=2), torch.nn.Conv2d(4, 6, 2, stride=1, dilation=2)),
        IMAGE,
    ),
    "pads swapped": (
        "layers/conv.py",
        "((PH, PH), (PW, PW))",
        "((PW, PW), (PH, PH))",
        lambda m: Truth(m.Conv2d(4, 6, 2, padding=(2, 1)), torch.nn.Conv2d(4, 6, 2, padding=(2, 1))),
        IMAGE,
    ),
    "bias gradient forgotten": (
        "layers/conv.py",
        "b.accumulate(conv2d_backward_bias(dy))",
        "pass",
        lambda m: m.Conv2d(4, 6, 3),
        IMAGE,
    ),
    "bias gradient a mean": (
        "layers/linear.py",
        "dy.sum(axis=0)",
        "dy.mean(axis=0)",
        lambda m: m.Linear(5, 3),
        (4, 5),
    ),
    "gradients replaced, not added": (
        "layers/linear.py",
        "dw[s] += part",
        "dw[s] = part",
        lambda m: m.Linear(5, 3),
        (4, 5),
    ),
    "dropout not scaled in backward": (
        "layers/dropout.py",
        "dropout_backward(_memory(dy), mask, self.p, self.parts(_memory(dy).shape))",
        "_memory(dy) * mask",
        lambda m: m.Dropout(0.4),
        IMAGE,
    ),
    "another dropout mask in backward": (
        "layers/dropout.py",
        "dropout_backward(_memory(dy), mask, self.p, self.parts(_memory(dy).shape))",
        "dropout(_memory(dy), self.stream.place, self.p, self.parts(_memory(dy).shape))[0]",
        lambda m: m.Dropout(0.4),
        IMAGE,
    ),
    "slope of tanh from its input": (
        "models/lenet.py",
        "self.save(y)",
        "self.save(x)",
        lambda m: m.ScaledTanh(),
        IMAGE,
    ),
    "one branch forgotten": (
        "layers/combine.py",
        "return functools.reduce(_sum, dxs) if self.needs_dx else None",
        "return dxs[0]",
        lambda m: m.Residual(Sequential(Conv2d(4, 4, 1), Tanh())),
        IMAGE,
    ),
    "recomputed with other random numbers": (
        "layers/combine.py",
        "self.layer.set_random_state(random_state)",
        "pass",
        lambda m: m.Checkpointed(Dropout(0.4)),
        IMAGE,
    ),
    "batch norm evaluated, its backward the training one's": (
        "layers/batchnorm.py",
        "if not measured:",
        "if False:",
        lambda m: m.BatchNorm2d(4).eval(backward=True),
        IMAGE,
    ),
    "batch norm without its mean term": (
        "layers/batchnorm.py",
        "a * db / R.M, a",
        "0 * db, a",
        lambda m: m.BatchNorm2d(4),
        IMAGE,
    ),
    "batch norm with ReLU: no gate": (
        "layers/batchnorm.py",
        "gate(dy[s], y[s], g[s])",
        "g[s] = dy[s]",
        lambda m: m.BatchNormReLU2d(4),
        IMAGE,
    ),
    "residual with norm and ReLU: the branches' gradients swapped": (
        "layers/combine.py",
        "((main, dm), (shortcut, ds))",
        "((main, ds), (shortcut, dm))",
        lambda m: m.ResidualNormReLU(Conv2d(4, 4, 1), BatchNormReLU2d(4)),
        IMAGE,
    ),
}
# what: (file, text, its replacement, the module that uses the kernel, the layer, the shape of its input)
KERNELS = {
    "col2im assigns": (
        "kernels/conv/scatter.py",
        "first::apart, kh] += strips",
        "first::apart, kh] = strips",
        scatter,
        lambda: Conv2d(4, 6, 5),
        IMAGE,
    ),
    "patches of another stride": (
        "kernels/conv/patches.py",
        "rows.step * sh, self.B",
        "columns.step * sh, self.B",
        patches,
        lambda: Conv2d(4, 6, 2, (2, 1)),  # the wrong step is the shorter: it stays within the image
        IMAGE,
    ),
    "overlapping pool assigns": (
        "kernels/pool.py",
        "pixels += share[tap.positions]",
        "pixels[...] = share[tap.positions]",
        pool,
        lambda: MaxPool2d(3, stride=1),
        IMAGE,
    ),
    "average pool assigns": (
        "kernels/pool.py",
        "pixels += dy[tap.positions]",
        "pixels[...] = dy[tap.positions]",
        pool,
        lambda: AvgPool2d(3, stride=1),
        IMAGE,
    ),
}


class Truth:
    """A layer whose forward is held against PyTorch's first: a wrong forward has a right backward of its own."""

    def __init__(self, ours, theirs):
        self.ours, self.theirs = ours, theirs.double()


def passes(subject, shape):
    if not isinstance(subject, Truth):
        return right(subject, shape)
    ours = subject.ours.astype(np.float64)
    subject.theirs.load_state_dict({name: torch.from_numpy(value) for name, value in ours.state_dict().items()})
    x = np.random.default_rng(0).standard_normal(shape)
    y, wanted = ours(x), subject.theirs(torch.from_numpy(x)).detach().numpy()
    return y.shape == wanted.shape and np.allclose(y, wanted, rtol=1e-10, atol=1e-12) and right(ours, shape)


@pytest.mark.parametrize("name", BACKWARD)
def test_a_wrong_layer_is_caught(name):
    path, old, new, build, shape = BACKWARD[name]
    assert passes(build(mutant(path, "\n", "\n")), shape), "the original must pass"
    assert not passes(build(mutant(path, old, new)), shape)


@pytest.mark.parametrize("name", KERNELS)
def test_a_wrong_kernel_is_caught(name, monkeypatch):
    path, old, new, user, build, shape = KERNELS[name]
    assert right(build(), shape), "the original must pass"
    planted_in(monkeypatch, path, old, new, [user])
    assert not right(build(), shape)


def adam_agrees(module):
    """Ten steps of the module's Adam against PyTorch's."""
    p, q = Parameter(np.array([1.0, -2.0, 3.0]), "p"), torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    ours, theirs = module.Adam([p], lr=0.1), torch.optim.Adam([q.requires_grad_()], lr=0.1)
    for step in range(10):
        p.grad[...] = np.sin(step + p.data)
        q.grad = torch.sin(step + q.detach())
        ours.step()
        theirs.step()
    return np.allclose(p.data, q.detach().numpy(), rtol=1e-10)


def test_adam_without_bias_correction_is_caught():
    from tinycnn.optim import adam

    assert adam_agrees(adam)
    assert not adam_agrees(mutant("optim/adam.py", "1 - beta1 ** past", "1 - 0 * past"))


def running_variance_agrees(module):
    ours, theirs = module.BatchNorm2d(4).astype(np.float64), torch.nn.BatchNorm2d(4).double()
    x = np.random.default_rng(0).standard_normal(IMAGE)
    ours(x)
    theirs(torch.from_numpy(x))
    return np.allclose(ours.running_var, theirs.running_var.numpy(), rtol=1e-10)


def test_a_biased_running_variance_is_caught():
    assert running_variance_agrees(mutant("layers/batchnorm.py", "\n", "\n"))
    assert not running_variance_agrees(mutant("layers/batchnorm.py", "var * (M / (M - 1))", "var"))
