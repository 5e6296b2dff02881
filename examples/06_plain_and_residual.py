"""Plain against residual: deeper is worse, unless there is a shortcut.

A deeper network can do whatever a shallower one does: its further layers would only have to pass on what they are
given. So it ought to fit the training images at least as well. It does not. From some depth on, plain stacks of
convolutions end with a *higher training error* than shallower ones. As the training images themselves are misread, this
is no overfitting: the optimizer does not find the solution that is there. He et al. call it degradation.

A residual block makes that solution the easy one. It computes y = x + F(x) and has only to learn what is to be added;
with F = 0 it is the identity. The shortcut has no parameters, and here no convolution either: where a stage halves the
image, it takes every other pixel and fills the new channels with zeros ("option A"). Both networks therefore have the
same number of weights and start from the same ones; every convolution is followed by batch normalisation in both.

The left panel shows the training accuracy by depth: the plain networks fall behind as they get deeper, the residual
ones do not. The right panel shows how the deepest two learn. The networks are those of the paper for CIFAR-10 (6n + 2
layers of 16, 32 and 64 channels), on digits of 8×8 pixels. How large the gap is depends on how long one trains: the
deep plain network does learn, but slowly. On CIFAR-10, after the paper's 64,000 steps, 56 plain layers still had a
higher training error than 20.

Source: He, Zhang, Ren & Sun 2016, "Deep residual learning for image recognition", sections 1 and 4.2, figures 1 and 6.
"""

import lab
import numpy as np

from tinycnn import CrossEntropyLoss, data, models, optim
from tinycnn.train import Trainer

options = lab.options(__doc__)
x_train, y_train = lab.digits("train", 512 if options.quick else None)  # (N, 1, 8, 8), (N,)
depths = (8, 32) if options.quick else (8, 14, 20, 32, 56)
epochs = 3 if options.quick else 8


def train(depth: int, shortcut: str) -> list[dict]:
    """Return what was measured in each epoch; for one depth and seed, only the shortcuts differ."""
    model = models.resnet_cifar(depth, in_channels=1, shortcut=shortcut, rng=np.random.default_rng(options.seed))
    trainer = Trainer(model, optim.SGD(model.parameters(), lr=0.02, momentum=0.9), CrossEntropyLoss())
    trainer.fit(data.Loader(x_train, y_train, batch_size=32, seed=options.seed), epochs)
    return trainer.history


kinds = {"plain": "none", "residual": "A"}
history = {}
print(f"after {epochs} epochs, on {len(y_train)} training images\n\nlayers  network   training loss  training accuracy")
for depth in depths:
    for kind, shortcut in kinds.items():
        history[kind, depth] = train(depth, shortcut)
        last = history[kind, depth][-1]
        print(f"{depth:6}  {kind:8}  {last['train_loss']:13.4f}  {last['train_accuracy']:17.1%}", flush=True)

figure, (left, right) = lab.figure(1, 2)
shallow, deep = depths[0], depths[-1]
for kind, style in zip(kinds, ("o--", "s-"), strict=True):
    final = [100 * history[kind, depth][-1]["train_accuracy"] for depth in depths]
    left.plot(depths, final, style, label=kind)
    curve = [row["train_loss"] for row in history[kind, deep]]
    right.plot(range(1, epochs + 1), curve, style, label=f"{kind}, {deep} layers")
curve = [row["train_loss"] for row in history["plain", shallow]]
right.plot(range(1, epochs + 1), curve, "^:", label=f"plain, {shallow} layers")
left.set(xlabel="layers", ylabel="training accuracy, last epoch (%)", xticks=depths, ylim=(0, 103))
right.set(xlabel="epoch", ylabel="training loss (cross-entropy)", yscale="log")
left.legend(frameon=False, loc="lower left")
right.legend(frameon=False)

plain_shallow, plain_deep = (history["plain", depth][-1]["train_accuracy"] for depth in (shallow, deep))
residual_deep = history["residual", deep][-1]["train_accuracy"]
lab.conclude(
    options,
    figure,
    f"Plain networks read {plain_shallow:.1%} of their training images with {shallow} layers and {plain_deep:.1%} with "
    f"{deep}; with shortcuts, and not a weight more, {deep} layers read {residual_deep:.1%}.",
    holds=plain_deep < plain_shallow - 0.3 and residual_deep > plain_deep + 0.3,
)
