"""What the first layer looks for: noise before training, edges and spots after it.

The filters of a first layer can be looked at as pictures: a filter answers most to the patch that looks like itself.
At first they are random numbers; what training adds is a sum of patches of images, each times how much its answer
mattered: dw = Σ dy·patch.  Neighbouring pixels of an image are alike, so what is added is smooth.

How smooth a filter w is, is measured by the correlation of neighbouring weights, the mean of w[i]·w[i + 1] over the
mean of w[i]², along rows and along columns: about 0 for random numbers, 1 for what does not change at all.  Weight
decay lets the random start fade, so that what was learnt is seen.  If smoothness comes from the images, it must be
absent where neighbouring pixels have nothing in common.  So a second network learns from the same images with their
pixels in another order, one that is the same for all images.

The figure shows eight filters of 7×7 before and after training (blue is negative, red positive), what each answers to
a digit, and the correlations.  The digits are enlarged from 8×8 to 16×16 pixels, which adds to their smoothness; the
shuffled ones are what tells that from learning.
"""

import lab
import numpy as np

from tinycnn import Conv2d, CrossEntropyLoss, Flatten, Linear, MaxPool2d, ReLU, Sequential, data, optim
from tinycnn.train import Trainer, evaluate

options = lab.options(__doc__)
EPOCHS = 2 if options.quick else 15
FILTERS = 16


def images(split: str) -> tuple[np.ndarray, np.ndarray]:
    part = data.prepare(data.load("digits", split=split), (16, 16), method="resize")
    return part.images.astype(np.float32) / 127.5 - 1, part.labels


def network() -> Sequential:
    rng = np.random.default_rng(options.seed)
    return Sequential(
        Conv2d(1, FILTERS, 7, padding=3, rng=rng),  # (N, 1, 16, 16) -> (N, 16, 16, 16)
        ReLU(),
        MaxPool2d(2),  # -> (N, 16, 8, 8)
        Conv2d(FILTERS, 32, 3, padding=1, rng=rng),  # -> (N, 32, 8, 8)
        ReLU(),
        MaxPool2d(2),  # -> (N, 32, 4, 4)
        Flatten(),  # -> (N, 512)
        Linear(512, 10, rng=rng),
    )


def smoothness(w: np.ndarray) -> np.ndarray:
    """Return the correlation of neighbouring weights of each filter, (OC, 1, K, K) -> (OC,)."""
    rows = (w[:, :, 1:] * w[:, :, :-1]).mean(axis=(1, 2, 3))
    columns = (w[:, :, :, 1:] * w[:, :, :, :-1]).mean(axis=(1, 2, 3))
    return (rows + columns) / 2 / (w**2).mean(axis=(1, 2, 3))


(x, y), (x_test, y_test) = images("train"), images("test")
order = np.random.default_rng(options.seed).permutation(256)  # another place for every pixel
shuffled, shuffled_test = (every.reshape(-1, 256)[:, order].reshape(-1, 1, 16, 16) for every in (x, x_test))

before = network()
learned, found = {}, {"before": smoothness(before[0].weight.data)}
print(f"before training: neighbouring weights correlate by {found['before'].mean():.2f}")
for name, seen, held_out in (("digits", x, x_test), ("shuffled", shuffled, shuffled_test)):
    model = learned[name] = network()
    optimizer = optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-3)
    Trainer(model, optimizer, CrossEntropyLoss()).fit(data.Loader(seen, y, batch_size=32, seed=options.seed), EPOCHS)
    found[name] = smoothness(model[0].weight.data)
    accuracy = evaluate(model, data.Loader(held_out, y_test, shuffle=False))["accuracy"]
    print(f"after {name}: {found[name].mean():.2f}, test accuracy {accuracy:.1%}", flush=True)

figure, (left, right) = lab.figure(1, 2, size=(9.6, 4), width_ratios=[3, 1])
left.axis("off")
digit = x_test[int(np.flatnonzero(y_test == 3)[0])][None]
after = learned["digits"][0]
answers = after(digit)[0]  # (16, 16, 16): where, and how much, each filter answers
chosen = np.argsort(-np.abs(answers).max(axis=(1, 2)))[:8]  # those that answer most
rows = {"before": before[0].weight.data[:, 0], "after": after.weight.data[:, 0], "answer": answers}
for row, (title, maps) in enumerate(rows.items()):
    left.text(0, 0.84 - 0.34 * row, title, transform=left.transAxes, va="center")
    for column, k in enumerate(chosen):
        panel = left.inset_axes((0.1 + 0.1 * column, 0.7 - 0.34 * row, 0.095, 0.28))
        limit = np.abs(maps[k]).max()
        panel.imshow(maps[k], cmap="RdBu_r", vmin=-limit, vmax=limit)
        panel.axis("off")
panel = left.inset_axes((0.91, 0.02, 0.095, 0.28))
panel.imshow(digit[0, 0], cmap="gray_r")
panel.set_title("the digit", fontsize=8)
panel.axis("off")
for place, values in enumerate(found.values()):
    right.plot(np.linspace(place - 0.15, place + 0.15, FILTERS), np.sort(values), ".", color=lab.COLORS[place])
    right.plot([place - 0.25, place + 0.25], [values.mean()] * 2, color=lab.COLORS[place])
right.axhline(0, color="#8a8a8a", linewidth=0.8)
right.set_xticks(range(3), ["before", "after\ndigits", "after\nshuffled"])
right.set(ylabel="correlation of neighbouring weights", xlim=(-0.5, 2.5))

means = {name: float(values.mean()) for name, values in found.items()}
lab.conclude(
    options,
    figure,
    f"Neighbouring weights correlate by {means['before']:.2f} before training, by {means['digits']:.2f} after training "
    f"on digits, and by {means['shuffled']:.2f} after training on digits whose pixels are shuffled.",
    holds=means["digits"] > 0.2 and means["digits"] > 2 * max(abs(means["before"]), abs(means["shuffled"])),
)
