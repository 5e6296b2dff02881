"""Overfitting, and what helps: augmentation, dropout, early stopping.

A network with many more weights than there are images can learn them by heart.  Its training loss goes to zero; the
loss on images that it has not seen falls at first and then grows, as it gets ever more certain, of its mistakes too.
Here 100 images are learned by a network of 40,394 parameters:

- with nothing against it;
- with augmentation: every image is turned, moved and scaled a little, anew in each epoch;
- with dropout: in each step half of the features are switched off at random, so that none can rely on a few others;
- with both (takes longest to learn; not with --quick).

Each is measured twice: after the last epoch, and stopped early, with the weights of the epoch that was best on 100
further images, which are not learned from.  Early stopping is the cheapest of all, if one can spare the images, but it
only saves what was there already; the others change what is learned.

The figure has the loss on the training images (dashed; as they are, without augmentation and dropout) and on the test
images (solid): the gap is the overfitting.  The share of misread test images says less of it than the loss, for it does
not count how certain a mistake was; stopped early by the loss, a network may misread a few more.  All are means over
several draws of the 100 images and of the first weights.

Sources: Prechelt 1998, "Early stopping, but when?"; Simard, Steinkraus & Platt 2003, "Best practices for convolutional
neural networks" (augmentation); Srivastava et al. 2014, "Dropout".
"""

import lab
import numpy as np

from tinycnn import Conv2d, CrossEntropyLoss, Dropout, Flatten, Layer, Linear, MaxPool2d, ReLU, Sequential, data, optim
from tinycnn.train import EarlyStopping, Trainer, evaluate

IMAGES = 100
CHANGE = data.RandomAffine(degrees=10, translate=(0.125, 0.125), scale=(0.9, 1.1), fill=-1)
WAYS = {"nothing": (None, 0), "augmentation": (CHANGE, 0), "dropout": (None, 0.5), "both": (CHANGE, 0.5)}


def network(dropped: float, rng: np.random.Generator) -> Layer:
    return Sequential(
        Conv2d(1, 16, 3, padding=1, rng=rng),
        ReLU(),
        MaxPool2d(2),
        Conv2d(16, 32, 3, padding=1, rng=rng),
        ReLU(),
        MaxPool2d(2),  # (N, 32, 2, 2)
        Flatten(),
        Dropout(dropped, rng=rng),
        Linear(128, 256, rng=rng),
        ReLU(),
        Linear(256, 10, rng=rng),
    )


def learn(way: str, seed: int) -> tuple[list[tuple[float, float]], dict[str, float], dict[str, float]]:
    """Return (training loss, test loss) epoch by epoch, and loss and accuracy on test images: last, stopped early."""
    change, dropped = WAYS[way]
    rng = np.random.default_rng(seed)
    chosen, others = np.split(rng.permutation(len(y_all))[: 2 * IMAGES], 2)  # the same for every way
    seen, held_out = (data.Loader(x_all[part], y_all[part], IMAGES, shuffle=False) for part in (chosen, others))
    model, curves, last = network(dropped, rng), [], {}

    def look(trainer: Trainer, row: dict) -> None:
        if row["epoch"] % every == 0:
            last.update(evaluate(model, test))
            curves.append((evaluate(model, seen)["loss"], last["loss"]))

    optimizer = optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
    stopping = EarlyStopping(patience=epochs)  # goes on, to show what would have come; then brings the best back
    trainer = Trainer(model, optimizer, CrossEntropyLoss(), callbacks=[stopping], after_epoch=[look])
    trainer.fit(data.Loader(x_all[chosen], y_all[chosen], 50, seed=seed, transform=change), epochs, held_out)
    return curves, last, evaluate(model, test)


options = lab.options(__doc__)
epochs, runs, every = (100, 2, 10) if options.quick else (300, 8, 10)
x_all, y_all = lab.digits("train")
test = data.Loader(*lab.digits("test"), batch_size=359, shuffle=False)
found = {}
print("              training loss  test loss: last  stopped  misread: last  stopped")
for way in [*WAYS][:3] if options.quick else WAYS:
    curves, last, stopped = zip(*(learn(way, 1000 * options.seed + k) for k in range(runs)), strict=True)
    loss = [np.mean([end["loss"] for end in ends]) for ends in (last, stopped)]
    misread = [100 - 100 * np.mean([end["accuracy"] for end in ends]) for ends in (last, stopped)]
    found[way] = np.mean(curves, axis=0), loss, misread  # (epochs looked at, 2), and two numbers each
    row = f"{way:12}  {found[way][0][-1, 0]:13.4f}  {loss[0]:15.3f}  {loss[1]:7.3f}"
    print(f"{row}  {misread[0]:12.1f}%  {misread[1]:6.1f}%", flush=True)

figure, axes = lab.figure(1, 2, size=(10, 3.8))
at = np.arange(every, epochs + 1, every)
for place, (way, (curves, _, misread)) in enumerate(found.items()):
    color = lab.COLORS[place]
    axes[0].plot(at, curves[:, 0], "--", color=color, linewidth=1)
    axes[0].plot(at, curves[:, 1], color=color, label=way, marker="os^D"[place], markevery=(place, 4))
    axes[1].bar((place - 0.2, place + 0.2), misread, 0.36, color=(color, "white"), edgecolor=color)
axes[0].set(ylim=(0, 1.4), xlabel="epoch", ylabel="cross-entropy: test —, training - -")
axes[0].legend(frameon=False, loc="upper right")
axes[1].set(xticks=range(len(found)), xticklabels=found, ylabel="misread test images, %")
axes[1].set_title("filled: after the last epoch; empty: stopped early", fontsize=10)

curves, loss, misread = found["nothing"]
lowest = curves[:, 1].min()
stopped = {way: loss[1] for way, (_, loss, _) in found.items()}
lab.conclude(
    options,
    figure,
    f"With nothing against it, training loss falls to {curves[-1, 0]:.4f}, and test loss rises from {lowest:.2f} to "
    f"{loss[0]:.2f}, with {misread[0]:.1f} % of the test images misread.  Stopped early the loss is "
    f"{', '.join(f'{value:.2f} with {way}' for way, value in stopped.items())}, and with {way} "
    f"{found[way][2][1]:.1f} % are misread.",
    holds=loss[0] > 1.01 * lowest
    and curves[-1, 0] < 0.05 * loss[0]
    and max([*stopped.values()][1:]) < stopped["nothing"] < loss[0],
)
