"""Stochastic depth: blocks left out at random, and the steps they save.

A residual block that adds nothing is the identity, so a network survives the loss of one (experiment 08). Huang et al.
leave blocks out on purpose: in every training step block l of L is skipped with probability p_l, for the whole batch.
p_l = l/L·(1 − s) grows with depth, as what early blocks find is needed by all that follow; s is the survival of the
last block. In evaluation every block works. Here, as in dropout, a kept branch is divided by 1 − p_l:

training     y = relu(x + m/(1 − p_l)·F(x)),  m = 1 with probability 1 − p_l, else 0
evaluation   y = relu(x + F(x))

What is left out is not computed, neither forward nor backward. The expected part of the blocks that is computed is
1 − (1 − s)·(L + 1)/(2L): with s = 0.5, about three quarters. The left panel counts the multiply-adds that were really
done, beside this expectation. The others show what becomes of training loss and test accuracy.

The paper finds a lower test error on CIFAR-10 with 110 layers, after 500 epochs. That is not seen here: on so few
digits, after so few epochs, which of two networks ends with the lower loss or reads more of the test images depends on
the seed. What is sure is the saving, and that the network reads with all its blocks, though hardly any step trained
all of them at once.

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
L, epochs = (12, 6) if options.quick else (18, 8)
WIDTH = 16


class Counted(Sequential):
    """Counts the multiply-adds of its forwards in training."""

    done = 0

    def forward(self, x: np.ndarray) -> np.ndarray:
        if self.training:
            self.done += self.macs(x.shape)
        return super().forward(x)


def build(survival: float) -> tuple[Sequential, list[Counted]]:
    """Return the network, and the F of each of its blocks."""
    rng = np.random.default_rng(options.seed)

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


print(f"{L} blocks, {epochs} epochs of {len(y_train)} images\n")
print("survival  blocks computed  expected  training loss  test accuracy")
found = []
for survival in survivals:
    model, branches = build(survival)
    trainer = Trainer(model, optim.SGD(model.parameters(), lr=0.05, momentum=0.9), CrossEntropyLoss())
    batches = data.Loader(x_train, y_train, batch_size=32, seed=options.seed)
    trainer.fit(batches, epochs, validation=data.Loader(x_test, y_test, shuffle=False))
    everything = epochs * sum(branch.macs((len(y_train), WIDTH, 4, 4)) for branch in branches)
    computed = sum(branch.done for branch in branches) / everything
    expected = 1 - (1 - survival) * (L + 1) / (2 * L)
    last = trainer.history[-1]
    found.append((computed, expected, last["train_loss"], last["val_accuracy"]))
    loss, read = found[-1][2:]
    print(f"{survival:8}  {computed:15.1%}  {expected:8.1%}  {loss:13.4f}  {read:13.1%}", flush=True)

computed, expected, loss, read = np.array(found).T
figure, (left, middle, right) = lab.figure(1, 3, size=(11.5, 3.4))
left.plot(survivals, 100 * expected, "k:", label="expected")
left.plot(survivals, 100 * computed, "o", label="counted")
left.set(ylabel="multiply-adds of the blocks (%)", ylim=(0, 103))
left.legend(frameon=False)
middle.plot(survivals, loss, "s-")
middle.set(ylabel="training loss, last epoch", yscale="log")
right.plot(survivals, 100 * read, "^-")
right.set(ylabel="test accuracy (%)", ylim=(0, 103))
for axes in (left, middle, right):
    axes.set(xlabel="survival s of the last block", xticks=survivals)

place = survivals.index(0.5)
lab.conclude(
    options,
    figure,
    f"With s = 0.5 a training computes {computed[place]:.1%} of the blocks' multiply-adds ({expected[place]:.1%} are "
    f"expected); its loss in training is {loss[place]:.3f} in place of {loss[0]:.3f}, and with all blocks it reads "
    f"{read[place]:.1%} of the test images in place of {read[0]:.1%}.",
    holds=abs(computed[place] - expected[place]) < 0.08 and read[place] > max(0.6, read[0] - 0.25),
)
