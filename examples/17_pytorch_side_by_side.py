"""PyTorch side by side: the same network, the same weights, the same batches.

Two libraries that compute the same thing give the same losses and the same gradients, except for rounding.  In
float64 a number carries 16 digits, and one wrong factor anywhere in a backward pass would part the two at the first
step.  In float32 there are 7 digits, and training multiplies small differences, as it does those between two machines.

The functions `steps_here` and `steps_of_pytorch` are one training loop, written twice.  The figure shows, step by step,
how far losses and gradients are apart.  Needs PyTorch: pip install 'tinycnn[torch]'.
"""

import sys
import time

import lab
import numpy as np

from tinycnn import BatchNorm2d, Conv2d, CrossEntropyLoss, Flatten, Linear, MaxPool2d, ReLU, Sequential, optim, parallel

try:
    import torch
    from torch import nn
except ImportError:
    sys.exit("PyTorch is not here: pip install 'tinycnn[torch]'")

options = lab.options(__doc__)
torch.set_num_threads(1)
parallel.set_num_threads(1)
STEPS = 60 if options.quick else 600
x_all, labels_all = lab.digits("train")
batches = np.random.default_rng(options.seed).integers(0, len(x_all), (STEPS, 32))
SETTINGS = {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}


def network(dtype):
    rng = np.random.default_rng(options.seed)
    return Sequential(
        Conv2d(1, 16, 3, padding=1, bias=False, rng=rng, dtype=dtype),
        BatchNorm2d(16, dtype=dtype),
        ReLU(),
        MaxPool2d(2),
        Conv2d(16, 32, 3, stride=2, padding=1, rng=rng, dtype=dtype),
        ReLU(),
        Flatten(),
        Linear(128, 10, rng=rng, dtype=dtype),
    )


def network_of_pytorch(model):
    twin = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 10),
    ).to(torch.float64 if next(model.parameters()).dtype == np.float64 else torch.float32)
    weights = {name: torch.from_numpy(value) for name, value in model.state_dict().items()}
    twin.load_state_dict(weights, strict=False)  # its BatchNorm counts batches besides
    return twin


def steps_here(model, x):
    loss_fn, optimizer = CrossEntropyLoss(), optim.SGD(model.parameters(), **SETTINGS)
    for batch in batches:
        model.zero_grad()
        loss, dlogits = loss_fn(model(x[batch]), labels_all[batch])
        model.backward(dlogits)
        optimizer.step()
        yield float(loss), {name: parameter.grad.copy() for name, parameter in model.named_parameters()}


def steps_of_pytorch(model, x):
    loss_fn, optimizer = nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), **SETTINGS)
    x, labels = torch.from_numpy(x), torch.from_numpy(labels_all.astype(np.int64))
    for batch in batches:
        optimizer.zero_grad()
        loss = loss_fn(model(x[batch]), labels[batch])
        loss.backward()
        optimizer.step()
        yield loss.item(), {name: parameter.grad.numpy().copy() for name, parameter in model.named_parameters()}


def timed(steps):
    """Return what all steps yield, and the median time of one."""
    found = [(step, time.perf_counter()) for step in steps]
    return [step for step, _ in found], 1000 * np.median(np.diff([end for _, end in found]))


figure, (left, right) = lab.figure(1, 2)
worst = {}
print("dtype    step  loss here      loss of PyTorch  differ by  worst gradient")
for dtype in (np.float32, np.float64):
    name, x, model = dtype.__name__, x_all.astype(dtype), network(dtype)
    theirs, ms_theirs = timed(steps_of_pytorch(network_of_pytorch(model), x))
    ours, ms = timed(steps_here(model, x))
    pairs = [*zip(ours, theirs, strict=True)]
    losses = [abs(a - b) for (a, _), (b, _) in pairs]
    # of each step the parameter that is furthest off, relative to its length
    gradients = [max(np.linalg.norm(a[p] - b[p]) / np.linalg.norm(b[p]) for p in a) for (_, a), (_, b) in pairs]
    for step in (0, 1, 9, STEPS - 1):
        here, there = ours[step][0], theirs[step][0]
        print(f"{name}  {step + 1:4}  {here:.11f}  {there:.13f}  {losses[step]:9.1e}  {gradients[step]:14.1e}")
    print(f"{name}  a step takes {ms:.2f} ms, PyTorch's {ms_theirs:.2f} ms, each on one thread")
    worst[name] = gradients[0], max(gradients[:10]), max(losses)
    left.semilogy(np.maximum(losses, 1e-17), label=name, linewidth=0.8)
    right.semilogy(gradients, label=name, linewidth=0.8)
for axes, what in ((left, "difference of the losses, 0 at 1e-17"), (right, "worst relative difference of a gradient")):
    axes.set(xlabel="step", ylabel=what)
right.legend(frameon=False)

first, soon, loss = worst["float64"]
lab.conclude(
    options,
    figure,
    f"In float64 first gradients agree to {first:.0e}, those of ten steps to {soon:.0e}, {STEPS} losses to {loss:.0e}."
    "\nIn float32 it is {:.0e}, {:.0e} and {:.0e}.".format(*worst["float32"]),
    holds=first < 1e-12 and soon < 1e-10 and worst["float32"][0] < 1e-4,
)
