"""Why a residual block learns the identity under weight decay.

Weight decay adds λ/2·‖w‖² to the loss. A weight that the data do not need gets no other gradient than λw, and SGD
multiplies it by 1 − ηλ in every step, by about 1 − ηλ/(1 − μ) with a momentum of μ: it goes to 0. What a block becomes
then depends on the shortcut:

plain block      y = relu(F(x))      F → 0:   y → 0       nothing passes, whatever is before or after it
residual block   y = relu(x + F(x))  F → 0:   y → relu(x) = x, as x comes out of a ReLU: the identity

To do nothing is far from a plain block's zero, and has to be learned against weight decay. For a residual block it is
where weight decay leads.

Six blocks of two convolutions read the digits, for which fewer would do. Weight decay acts on the blocks alone, so that
nothing else changes, and there is no normalisation, which would undo the shrinking of the weights before it. The left
panel shows how large F(x) is beside x, ‖F(x)‖ / ‖x‖, against λ. With shortcuts it falls to 0, and the network reads as
well as before (middle). Plain blocks hold it above 1, which the data ask for, until weight decay wins: then nothing of
the image arrives at the end. The right panel takes one block at a time out of trained networks, with no weight decay
and with the most, and passes x on in its place: residual blocks that have become the identity are hardly missed,
plain blocks are.

Sources: He, Zhang, Ren & Sun 2016, "Deep residual learning for image recognition", section 3.1, for F → 0; Veit,
Wilber & Belongie 2016, "Residual networks behave like ensembles of relatively shallow networks", for blocks taken out.
"""

import lab
import numpy as np

from tinycnn import Conv2d, CrossEntropyLoss, Flatten, Linear, ReLU, Residual, Sequential, data, initializers, optim
from tinycnn.train import Trainer

options = lab.options(__doc__)
x_train, y_train = lab.digits("train", 512 if options.quick else None)  # (N, 1, 8, 8), (N,)
x_test, y_test = lab.digits("test")
decays = (0, 0.1) if options.quick else (0, 0.003, 0.01, 0.03, 0.1)
BLOCKS, WIDTH = 6, 16


def build(residual: bool) -> tuple[Sequential, list[Sequential]]:
    """Return the network, and the F of each of its blocks."""
    rng = np.random.default_rng(options.seed)

    def conv(C: int, stride: int = 1) -> Conv2d:
        return Conv2d(C, WIDTH, 3, stride, padding=1, bias=False, init=initializers.he_normal, rng=rng)

    stem = Sequential(conv(1, stride=2), ReLU())  # (N, 1, 8, 8) -> (N, 16, 4, 4)
    branches = [Sequential(conv(WIDTH), ReLU(), conv(WIDTH)) for _ in range(BLOCKS)]
    blocks = [Sequential(Residual(branch) if residual else branch, ReLU()) for branch in branches]
    return Sequential(stem, *blocks, Sequential(Flatten(), Linear(WIDTH * 16, 10, rng=rng))), branches


def train(model: Sequential, decay: float) -> None:
    stem, *blocks, head = model
    groups = [
        {"params": [p for layer in (stem, head) for p in layer.parameters()], "weight_decay": 0},
        {"params": [p for layer in blocks for p in layer.parameters()], "weight_decay": decay},
    ]
    trainer = Trainer(model, optim.SGD(groups, lr=0.02, momentum=0.9), CrossEntropyLoss())
    trainer.fit(data.Loader(x_train, y_train, batch_size=32, seed=options.seed), epochs=12 if options.quick else 25)
    model.eval()


def accuracy(model: Sequential, without: int | None = None) -> float:
    """Return the part of the test images that is read, by all blocks or without one of them (from 1)."""
    x = x_test
    for place, layer in enumerate(model):
        if place != without:
            x = layer(x)
    return float((x.argmax(axis=1) == y_test).mean())


def strengths(model: Sequential, branches: list[Sequential]) -> list[float]:
    """Return ‖F(x)‖ / ‖x‖ of each block."""
    stem, *blocks, _ = model
    x, found = stem(x_test), []
    for block, branch in zip(blocks, branches, strict=True):
        found.append(float(np.linalg.norm(branch(x)) / max(np.linalg.norm(x), 1e-30)))
        x = block(x)
    return found


print(f"{BLOCKS} blocks\n\nnetwork   weight decay  median ‖F(x)‖/‖x‖  test accuracy  without one block, at worst")
figure, (left, middle, right) = lab.figure(1, 3, size=(11.5, 3.5))
found = {}
for name, style in (("plain", "o--"), ("residual", "s-")):
    for decay in decays:
        model, branches = build(name == "residual")
        train(model, decay)
        out = [accuracy(model, without=k) for k in range(1, BLOCKS + 1)]
        found[name, decay] = np.median(strengths(model, branches)), accuracy(model), out
        strength, read, _ = found[name, decay]
        print(f"{name:8}  {decay:12}  {strength:18.4f}  {read:13.1%}  {min(out):.1%}", flush=True)
    left.plot(range(len(decays)), [found[name, decay][0] for decay in decays], style, label=name)
    middle.plot(range(len(decays)), [100 * found[name, decay][1] for decay in decays], style, label=name)
    for decay, mark in ((decays[0], style), (decays[-1], style[0] + ":")):
        percent = [100 * read for read in found[name, decay][2]]
        right.plot(range(1, BLOCKS + 1), percent, mark, label=f"{name}, λ = {decay}")
left.set(ylabel="median ‖F(x)‖ / ‖x‖ of the blocks")
middle.set(ylabel="test accuracy (%)", ylim=(0, 103))
right.set(ylabel="test accuracy without this block (%)", xlabel="block taken out", ylim=(0, 103))
for axes in (left, middle):
    axes.set(xlabel="weight decay λ of the blocks", xticks=range(len(decays)), xticklabels=decays)
left.legend(frameon=False)
right.legend(frameon=False, fontsize=8)

least, most = decays[0], decays[-1]
(before, _, _), (after, read, out) = found["residual", least], found["residual", most]
(_, plain_read, plain_out), (_, plain_dead, _) = found["plain", least], found["plain", most]
lab.conclude(
    options,
    figure,
    f"A weight decay of {most} shrinks F(x) of a residual block from {before:.2f} to {after:.3f} of x; the network "
    f"reads {read:.1%}, and at least {min(out):.1%} without any one block. The plain network falls from "
    f"{plain_read:.1%} to {plain_dead:.1%}, and without weight decay it reads at most {max(plain_out):.1%} "
    "once a block is missing.",
    holds=after < 0.25 * before
    and min(out) > max(0.6, read - 0.2)
    and plain_dead < 0.2
    and max(plain_out) < plain_read - 0.3,
)
