"""A race of all optimizers: through a ravine, and on LeNet-5.

The ravine is f = ½(u² + κ·v²), u along its floor and v across, with κ = 1000 (100 with --quick).  Its walls forbid
plain SGD rates above 2/κ, and so the way along the floor takes about κ/2 steps per factor e.  Momentum adds up what the
steps agree about: at its best it takes about √κ times fewer (Polyak 1964, "Some methods of speeding up the convergence
of iteration methods").  Adagrad and those after it divide each coordinate of the gradient by its usual size.  If the
ravine runs along an axis, none is left for them; if it is turned by 30°, much of that help is gone.  SGD knows no axes:
it takes the same steps in both.  (With a momentum of 0.9 it diverges above rates of 3.8/κ, Nesterov's form at 1.36/κ.)

All start at 0, with the defaults but for the learning rate: of one grid for all, the one that brings f soonest to a
10,000th of its height, to stay.  LeNet-5 (digits of 32×32) is another matter: noise, many directions, few steps.  There
the rate is chosen by the mean loss of the last quarter of the steps, and the race is run with weights and batches that
the choice has not seen.  The table shows the range of its losses: ranks that lie closer together mean nothing.

The figure shows the paths (each ravine laid flat, its width drawn larger than its length) and the race, best first.
"""

import lab
import numpy as np

from tinycnn import CrossEntropyLoss, Parameter, data, models, optim

options = lab.options(__doc__)
kappa, limit = (100, 500) if options.quick else (1000, 4000)
ravine_rates = 10 ** (np.arange(-6, 1) / 2 if options.quick else np.arange(-16, 5) / 4)
lenet_rates = (3e-3, 0.03, 0.3) if options.quick else (1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1, 3)
steps, batch_size, races = (48, 8, 1) if options.quick else (150, 16, 3)
late = slice(-steps // 4, None)


def descend(name: str, lr: float, degrees: float) -> tuple[float, float, float, np.ndarray]:
    """Return the steps that it takes, the part of f that is left, lr, and the path in u and v."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    axes = np.array([[c, -s], [s, c]])  # in the columns: along, across
    p = Parameter(np.zeros(2))
    optimizer = optim.create(name, [p], lr=lr)
    path, heights = [], []
    while len(path) < limit:
        u, v = axes.T @ p.data - (1, 0.05)  # from the lowest point (not 0, where weight decay pulls to)
        path.append((u, v))
        heights.append((u * u + kappa * v * v) / 2)
        if not heights[-1] < 1e6 * heights[0]:
            return np.inf, np.inf, lr, np.array(path)
        if max(heights[-50:]) < 1e-4 * heights[0]:  # it stays there for 50 steps
            return len(heights) - 50, 0, lr, np.array(path)
        p.grad[...] = axes @ (u, kappa * v)
        optimizer.step()
    return np.inf, heights[-1] / heights[0], lr, np.array(path)


def factor(lr: float, momentum: float) -> float:
    """Return what a step multiplies the distance by in the long run, the largest root of z² − (1 + μ − lr·c)z + μ."""
    return max(abs(np.roots([1, lr * c - 1 - momentum, momentum])).max() for c in (1, kappa))


digits = data.prepare(data.load("digits", split="train"))  # (1438, 1, 32, 32)
images, loss_fn = digits.images.astype(np.float32) / 127.5 - 1, CrossEntropyLoss()


def learn(name: str, lr: float, seed: int) -> np.ndarray:
    """Return the loss of every step of LeNet-5, infinite from where it overflows."""
    model, rng, losses = models.create("lenet5", seed=seed), np.random.default_rng(seed), np.full(steps, np.inf)
    optimizer = optim.create(name, model.parameters(), lr=lr)
    for step in range(steps):
        batch = rng.integers(0, len(images), batch_size)
        loss, dlogits = loss_fn(model(images[batch]), digits.labels[batch])
        if not np.isfinite(loss):
            break
        losses[step] = loss
        model.zero_grad()
        model.backward(dlogits)
        optimizer.step()
    return losses


straight, tilted, taken, chosen, curves, ends = {}, {}, {}, {}, {}, {}
print(f"{'along an axis: steps, rate':>34}{'turned by 30°':>26}  LeNet-5: rate, late loss")
for name in optim.names():
    for found, degrees in ((straight, 0), (tilted, 30)):
        found[name] = min((descend(name, lr, degrees) for lr in ravine_rates), key=lambda run: run[:2])
    with np.errstate(over="ignore", invalid="ignore"):
        chosen[name] = min(lenet_rates, key=lambda lr: learn(name, lr, options.seed)[late].mean())
        runs = np.array([learn(name, chosen[name], options.seed + race) for race in range(1, races + 1)])
    curves[name], ends[name] = runs.mean(axis=0), runs[:, late].mean(axis=1)
    best = straight[name], tilted[name]
    taken[name] = [str(run[0]) if run[0] < limit else f"not within {limit}" for run in best]
    ravines = "".join(f"{words:>18} {run[2]:7.4f}" for words, run in zip(taken[name], best, strict=True))
    print(f"{name:8}{ravines} {chosen[name]:14g}  {ends[name].min():.3f} … {ends[name].max():.3f}", flush=True)
mean = {name: losses.mean() for name, losses in ends.items()}
ranking = sorted(mean, key=mean.get)

figure, panels = lab.figure(1, 2, size=(13, 5), width_ratios=(1.7, 1))
panels[0].axis("off")
u, v = np.meshgrid(np.linspace(-1.2, 0.3, 60), np.linspace(-0.12, 0.12, 60))
for place, name in enumerate(straight):
    panel = panels[0].inset_axes((place % 4 / 4, 0.69 - place // 4 * 0.34, 0.23, 0.25))
    panel.contour(u, v, (u * u + kappa * v * v) / 2, levels=4.0 ** np.arange(-6, 2), colors="0.8", linewidths=0.6)
    panel.set_prop_cycle(color=lab.COLORS)
    panel.plot(*straight[name][3].T, "--", *tilted[name][3].T, "-", linewidth=0.9)
    panel.set(xlim=(-1.2, 0.3), ylim=(-0.12, 0.12), xticks=[], yticks=[])
    panel.set_title("{}: {}, turned {}".format(name, *taken[name]), fontsize=8)
panels[0].legend(panel.lines, ("along an axis", "turned by 30°"), frameon=False, loc="lower right")
for place, name in enumerate(ranking):
    label = f"{name}, {chosen[name]:g}: {mean[name]:.2f}"
    smooth = np.convolve(curves[name], np.full(10, 0.1), "valid")
    panels[1].plot(smooth, ("-", "--", ":")[place % 3], color=lab.COLORS[place % 10], label=label)
panels[1].set(yscale="log", xlabel="step", ylabel="cross-entropy of LeNet-5, mean of ten steps")
panels[1].legend(frameon=False, fontsize=7, loc="lower left", title="optimizer, rate: late loss")

slow, fast, easy, hard = straight["sgd"], straight["momentum"], straight["adagrad"], tilted["adagrad"]
measured, predicted = slow[0] / fast[0], np.log(factor(fast[2], 0.9)) / np.log(factor(slow[2], 0))
lab.conclude(
    options,
    figure,
    f"Through the ravine plain SGD takes {slow[0]} steps, momentum {fast[0]}: {measured:.1f} times fewer. Theory says "
    f"{predicted:.1f} for these rates, in the long run (√κ is {kappa**0.5:.1f}).\nTurned by 30°, Adagrad takes "
    f"{taken['adagrad'][1]} instead of {easy[0]}, SGD {taken['sgd'][1]}.\nOn LeNet-5, SGD comes to {mean['sgd']:.2f}, "
    f"momentum to {mean['momentum']:.2f}, Adam to {mean['adam']:.2f}; from best to last: {', '.join(ranking)}.",
    holds=0.5 < measured / predicted < 1.5 and hard[0] > 10 * easy[0] and mean["adam"] < 0.75 * mean["sgd"],
)
