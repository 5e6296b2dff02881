"""Learning rates from 1e-5 to 10.

Of all the numbers one can tune, the learning rate matters most.  Here the same small network, from the same weights,
sees the same batches with constant rates over six powers of ten.  The optimizer is plain SGD, w ← w − lr·dL/dw.

Too small a rate does nothing wrong, it only takes forever: the loss stays near ln 10 = 2.30, that of a guess.  Too
large a rate jumps across the valley to a place with larger gradients, so that the next jump is larger still.  How that
ends depends on the network.  Where negative numbers leak through (LeakyReLU with slope 0.1) everything grows until it
overflows, after a few steps; `Trainer` raises `NonFiniteError`, which says in which layer.  Where they do not (slope 0,
which is ReLU) some jump may leave a whole layer at zero for every image, before anything overflows: no gradient passes
it, and the network is stuck, with finite numbers, at a loss that a guess would beat.  No error tells of that; the loss
curve does.

The figure shows the loss of every step for some of the rates (slope 0.1, means of ten steps), and the mean loss of the
last epoch against the rate: flat, then a valley, then a wall.  The best rate stands close to the wall.  In a valley of
curvature c the wall is at lr = 2/c (LeCun et al. 1998, "Efficient BackProp", section 5.1).
"""

import lab
import numpy as np

from tinycnn import Conv2d, CrossEntropyLoss, Flatten, LeakyReLU, Linear, MaxPool2d, Sequential, data, optim
from tinycnn.train import NonFiniteError, Trainer

options = lab.options(__doc__)
x_train, y_train = lab.digits("train", 600 if options.quick else None)
batches = data.Loader(x_train, y_train, batch_size=16, seed=options.seed)
epochs = 3 if options.quick else 10
rates = 10.0 ** (np.array([-5, -4, -3, -2, -1, 0, 0.5, 1]) if options.quick else np.arange(-5, 1.1, 0.5))


def network(slope: float) -> Sequential:
    rng = np.random.default_rng(options.seed)
    return Sequential(
        Conv2d(1, 8, 3, padding=1, rng=rng),  # (N, 1, 8, 8) -> (N, 8, 8, 8)
        LeakyReLU(slope),
        MaxPool2d(2),  # -> (N, 8, 4, 4)
        Conv2d(8, 16, 3, padding=1, rng=rng),  # -> (N, 16, 4, 4)
        LeakyReLU(slope),
        Flatten(),  # -> (N, 256)
        Linear(256, 10, rng=rng),
    )


def train(slope: float, lr: float) -> tuple[list[float], str]:
    """Return the loss of every step, and what went wrong if something did."""
    model, losses = network(slope), []
    trainer = Trainer(model, optim.SGD(model.parameters(), lr=lr), CrossEntropyLoss())
    try:
        for epoch in range(epochs):
            for x, y in batches.epoch(epoch):
                loss, _ = trainer.step(x, y)
                losses.append(float(loss))
    except NonFiniteError as error:
        return losses, f"NonFiniteError in step {len(losses) + 1}, first in {error.where}"
    return losses, "" if model[0].weight.grad.any() else "dead: the gradient of layer 0 is zero"


guess, wall = np.log(10), 30.0  # losses: of a guess; where diverged trainings are drawn
final, wrong = {}, {}
figure, axes = lab.figure(1, 2, size=(10, 3.8))
print(f"slope  rate     mean loss of the last of {epochs} epochs")
for slope, style in ((0.1, "o-"), (0.0, "s--")):
    for lr in rates:
        with np.errstate(over="ignore", invalid="ignore"):  # the Trainer looks at the loss
            losses, wrong[slope, lr] = train(slope, lr)
        finished = len(losses) == epochs * len(batches)
        final[slope, lr] = np.mean(losses[-len(batches) :]) if finished else np.inf
        print(f"{slope:5}  {lr:7.1e}  {final[slope, lr]:5.3f}  {wrong[slope, lr]}")
        if slope and lr in rates[:: 1 if options.quick else 2]:
            curve = np.convolve(losses, np.full(10, 0.1), "valid") if finished else np.array(losses)
            axes[0].plot(np.arange(len(curve)) + 1, curve, "-" if finished else ":", label=f"{lr:.2g}")
    name = f"LeakyReLU({slope})" if slope else "ReLU"
    axes[1].plot(rates, [min(final[slope, lr], wall) for lr in rates], style, markersize=4, label=name)
axes[0].set(xscale="log", yscale="log", ylim=(1e-3, 80), xlabel="step", ylabel="cross-entropy")
axes[0].legend(frameon=False, title="learning rate", fontsize=8, ncols=2, loc="lower left")
axes[1].set(xscale="log", yscale="log", ylim=(1e-3, 80), xlabel="learning rate", ylabel="mean loss of the last epoch")
dead = [lr for lr in rates if wrong[0.0, lr].startswith("dead")]
axes[1].annotate("NonFiniteError", (rates[-1], wall), (0, 5), textcoords="offset points", ha="right")
for lr in dead[-1:]:
    axes[1].annotate("dead", (lr, final[0.0, lr]), (0, -14), textcoords="offset points", ha="right")
axes[1].legend(frameon=False, loc="lower left")
for panel in axes:
    panel.axhline(guess, color="grey", linestyle=":", linewidth=1)
axes[1].annotate("a guess: ln 10", (rates[0], guess), (0, 4), textcoords="offset points", color="grey")

losses = {lr: final[0.1, lr] for lr in rates}
best = min(losses, key=losses.get)
idle = max(lr for lr in rates if losses[lr] > 0.97 * guess and lr < best)
good = [lr for lr in rates if losses[lr] <= max(guess / 2, losses[best])]
lab.conclude(
    options,
    figure,
    f"Rates up to {idle:.2g} leave the loss above {0.97 * guess:.2f}; those from {good[0]:.2g} to {good[-1]:.2g} at "
    f"least halve it, best of them {best:.2g} with {losses[best]:.3f}.\nAt 10, LeakyReLU: {wrong[0.1, 10.0]}.\n"
    f"With ReLU the network is dead at {', '.join(f'{lr:.2g}' for lr in dead)}, at a loss of "
    f"{', '.join(f'{final[0.0, lr]:.2f}' for lr in dead)}, worse than a guess.",
    holds=idle >= 1e-4
    and losses[best] < guess / 4
    and wrong[0.1, 10.0].startswith("NonFiniteError")
    and dead
    and min(final[0.0, lr] for lr in dead) > guess,
)
