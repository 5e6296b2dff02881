"""Stochastic depth: blocks left out at random, and the work they save.

A residual block that adds nothing is the identity, so a network survives the loss of one (experiment 08). Huang et al.
leave blocks out on purpose: in every training step block l of L is skipped with probability p_l, for the whole batch.
p_l = l/L·(1 − s) grows with depth, as what early blocks find is needed by all that follow; s is the survival of the
last block. In evaluation every block works. Here, as in dropout, a kept branch is divided by 1 − p_l:

training     y = relu(x + m/(1 − p_l)·F(x)),  m = 1 with probability 1 − p_l, else 0
evaluation   y = relu(x + F(x))

What is left out is not computed, neither forward nor backward. The expected part of the blocks that is computed is
1 − (1 − s)·(L + 1)/(2L): with s = 0.5, about three quarters. The left panel counts the multiply-adds that forward
really did, beside this expectation. The others show what becomes of training loss and test accuracy: of each run (small
marks), and on average.

The paper finds a lower test error on CIFAR-10 with 110 layers, after 500 epochs. That is not seen here: on so few
digits, after so few epochs, which of two networks ends with the lower loss or reads more of the test images depends on
the seed, as the marks show. What is sure is the saving, and that the network reads with all its blocks, though hardly
any step trained all of them at once.

Source: Huang, Sun, Liu, Sedra & Weinberger 2016, "Deep networks with stochastic depth", sections 3 and 4.
"""

import lab
import numpy as np

from tinycnn import (
    BatchNorm2d,
    Conv2d,
    CrossEntropyLoss,
    Flatten,
    GlobalAvgPool2d,
    Linear,
    ReLU,
    Residual,
    Sequential,
    StochasticBranch,
    data,
    optim,
)
from tinycnn.train import Trainer

options = lab.options(__doc__)
x_train, y_train = lab.digits("train", 512 if options.quick else None)  # (N, 1, 8, 8), (N,)
x_test, y_test = lab.digits("test")
survivals = (1, 0.5) if options.quick else (1, 0.75, 0.5, 0.25)
L, epochs, runs = (12, 6, 1) if options.quick else (18, 8, 3)
WIDTH = 16


class Counted(Sequential):
    """Counts the multiply-adds of its forwards in training."""

    done = 0

    def forward(self, x: np.ndarray) -> np.ndarray:
        if self.training:
            self.done += self.macs(x.shape)
        return super().forward(x)


def build(survival: float, seed: int) -> tuple[Sequential, list[Counted]]:
    """Return the network, and the F of each of its blocks."""
    rng = np.random.default_rng(seed)

    def conv(C: int, stride: int = 1) -> list:
        return [Conv2d(C, WIDTH, 3, stride, padding=1, bias=False, rng=rng), BatchNorm2d(WIDTH)]

    branches = [Counted(*conv(WIDTH), ReLU(), *conv(WIDTH)) for _ in range(L)]
    blocks = []
    for number, branch in enumerate(branches, start=1):
        p = number / L * (1 - survival)
        branch[-1].weight.data[...] = 1 - p  # so that a kept branch starts as large as without stochastic depth
        blocks += [Residual(StochasticBranch(branch, p, rng=rng)), ReLU()]
    head = [GlobalAvgPool2d(), Flatten(), Linear(WIDTH, 10, rng=rng)]
    return Sequential(*conv(1, stride=2), ReLU(), *blocks, *head), branches  # (N, 1, 8, 8) -> (N, 16, 4, 4) -> (N, 10)


def measure(survival: float, seed: int) -> tuple[float, float, float]:
    """Return which part of the blocks was computed, the training loss, and the test accuracy."""
    model, branches = build(survival, seed)
    trainer = Trainer(model, optim.SGD(model.parameters(), lr=0.05, momentum=0.9), CrossEntropyLoss())
    batches = data.Loader(x_train, y_train, batch_size=32, seed=seed)
    trainer.fit(batches, epochs, validation=data.Loader(x_test, y_test, shuffle=False))
    everything = epochs * sum(branch.macs((len(y_train), WIDTH, 4, 4)) for branch in branches)
    last = trainer.history[-1]
    return sum(branch.done for branch in branches) / everything, last["train_loss"], last["val_accuracy"]


print(f"{L} blocks, {epochs} epochs of {len(y_train)} images, means of {runs}\n")
print("survival  blocks computed  expected  training loss  test accuracy")
found, expected = [], [1 - (1 - survival) * (L + 1) / (2 * L) for survival in survivals]
for survival, part in zip(survivals, expected, strict=True):
    found.append([measure(survival, 1000 * options.seed + k) for k in range(runs)])
    computed, loss, read = np.mean(found[-1], axis=0)
    print(f"{survival:8}  {computed:15.1%}  {part:8.1%}  {loss:13.4f}  {read:13.1%}", flush=True)

computed, loss, read = np.mean(found, axis=1).T  # (survivals, runs, 3) -> 3 × (survivals,)
figure, panels = lab.figure(1, 3, size=(11.5, 3.4))
panels[0].plot(survivals, np.multiply(100, expected), "k:", label="expected")
panels[0].plot(survivals, 100 * computed, "o", label="counted")
panels[0].set(ylabel="multiply-adds of the blocks (%)", ylim=(0, 103))
panels[0].legend(frameon=False)
for panel, k, scale in zip(panels[1:], (1, 2), (1, 100), strict=True):
    panel.plot(survivals, scale * np.array(found)[:, :, k], "x", color="grey")
    panel.plot(survivals, scale * np.mean(found, axis=1)[:, k], "s-")
panels[1].set(ylabel="training loss, last epoch", ylim=(0, None))
panels[2].set(ylabel="test accuracy (%)")
for panel in panels:
    panel.set(xlabel="survival s of the last block", xticks=survivals)

place = survivals.index(0.5)
lab.conclude(
    options,
    figure,
    f"With s = 0.5 a training computes {computed[place]:.1%} of the blocks' multiply-adds ({expected[place]:.1%} are "
    f"expected); its loss in training is {loss[place]:.3f} in place of {loss[0]:.3f}, and with all blocks it reads "
    f"{read[place]:.1%} of the test images in place of {read[0]:.1%}.",
    holds=abs(computed[place] - expected[place]) < 0.08 and read[place] > 0.5,
)
