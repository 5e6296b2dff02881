"""Two 3×3 convolutions or one 5×5.

Two 3×3 convolutions, one after the other, see as much of the image as one 5×5: the gradient of a single output with
respect to the input is nonzero on 5×5 pixels in both.  With C channels they have 2·9·C² = 18·C² weights in place of
25·C², and as many multiply-adds for each pixel, 28 % less; and there is room for a ReLU between them, without which two
convolutions are one again, with a 5×5 kernel of a restricted form.  That is why VGG has nothing but 3×3 (Simonyan &
Zisserman 2015, "Very deep convolutional networks", section 2.3, which makes the point with three 3×3 against one 7×7).

They do not see it in the same way.  A corner of the 5×5 is joined to the output by one path through the pixels in
between, the centre by nine: 1, 2, 3, 2, 1 along each axis.  With weights drawn independently around zero, the expected
square of the gradient is proportional to the number of paths.  The maps show it for fresh weights, averaged over all
channels, in units of one path: close to 1 everywhere for the 5×5, from 1 to 9 for the two 3×3.  (Luo et al. 2016,
"Understanding the effective receptive field in deep convolutional neural networks", follow this through many layers.)

On the right each is the middle of a small network that learns the digits, several times over: the cheaper one reads
them as well.  Differences of less than a percentage point are within what the seeds make of it.
"""

from typing import NamedTuple

import lab
import numpy as np

from tinycnn import Conv2d, CrossEntropyLoss, Flatten, Layer, Linear, MaxPool2d, ReLU, Sequential, data, optim
from tinycnn.train import Trainer

KINDS = ("5×5", "3×3, 3×3", "3×3, ReLU, 3×3")
SIZE = 9


class Found(NamedTuple):
    paths: np.ndarray  # (SIZE, SIZE)
    weights: int
    macs: int
    evenness: float
    scores: list[float]


def block(kind: str, C: int, rng: np.random.Generator) -> Layer:
    if kind == "5×5":
        return Sequential(Conv2d(C, C, 5, padding=2, bias=False, rng=rng))
    first, second = (Conv2d(C, C, 3, padding=1, bias=False, rng=rng) for _ in range(2))
    return Sequential(first, ReLU(), second) if "ReLU" in kind else Sequential(first, second)


def squared_gradients(model: Layer, C: int, rng: np.random.Generator) -> np.ndarray:
    """The mean square of ∂y/∂x for the outputs y in the middle, one channel after the other: (SIZE, SIZE)."""
    model(rng.standard_normal((C, C, SIZE, SIZE), np.float32))
    dy = np.zeros((C, C, SIZE, SIZE), np.float32)
    dy[np.arange(C), np.arange(C), SIZE // 2, SIZE // 2] = 1  # image c asks for channel c of the output
    dx = model.backward(dy)
    return (dx.astype(np.float64) ** 2).mean(axis=(0, 1))  # (C, C, SIZE, SIZE) -> (SIZE, SIZE)


def evenness(model: Layer, C: int, rng: np.random.Generator) -> float:
    """How large f(x) + f(−x) is beside f(x): 0 for what is linear, which turns its sign with x."""
    x = rng.standard_normal((1, C, SIZE, SIZE), np.float32)
    return float(np.linalg.norm(model(x) + model(-x)) / np.linalg.norm(model(x)))


def accuracy(kind: str, seed: int, epochs: int) -> float:
    """The share of the test images that a network with this block in the middle reads after training."""
    C, rng = 16, np.random.default_rng(seed)
    model = Sequential(
        Conv2d(1, C, 1, rng=rng), block(kind, C, rng), ReLU(), MaxPool2d(2), Flatten(), Linear(16 * C, 10, rng=rng)
    )
    trainer = Trainer(model, optim.SGD(model.parameters(), lr=0.02, momentum=0.9), CrossEntropyLoss())
    batches = data.Loader(*lab.digits("train"), batch_size=32, seed=seed)
    trainer.fit(batches, epochs, validation=data.Loader(*lab.digits("test"), shuffle=False))
    return trainer.history[-1]["val_accuracy"]


options = lab.options(__doc__)
C, runs, epochs = (64, 2, 3) if options.quick else (64, 10, 12)
found = {}
print("block           sees   weights        multiply-adds  evenness  test accuracy, mean and range")
for kind in KINDS:
    rng = np.random.default_rng(options.seed)
    net = block(kind, C, rng)
    squares = squared_gradients(net, C, rng)
    paths = squares / squares.sum() * (25 if kind == "5×5" else 81)  # of all there are: 25·1, or (1 + 2 + 3 + 2 + 1)²
    summary = net.summary((1, C, SIZE, SIZE))
    scores = [accuracy(kind, 1000 * options.seed + k, epochs) for k in range(runs)]
    one = found[kind] = Found(paths, summary.parameters, summary.macs, evenness(net, C, rng), scores)
    rows, columns = (np.count_nonzero(paths.any(axis=axis)) for axis in (1, 0))
    print(
        f"{kind:14}  {rows}×{columns}  {one.weights:8,} = {one.weights // C**2} C²  {one.macs:13,}  {one.evenness:8.2f}"
        f"  {np.mean(scores):.1%} ({min(scores):.1%} … {max(scores):.1%})"
    )

figure, axes = lab.figure(1, 3, size=(11.5, 3.6))
five, _, threes = found.values()
for axis, one, title in ((axes[0], five, "5×5: 25 C² weights"), (axes[1], threes, "3×3, ReLU, 3×3: 18 C² weights")):
    axis.imshow(np.where(one.paths, one.paths, np.nan), cmap="Blues", vmin=-3, vmax=14)
    for row, column in np.argwhere(one.paths):
        axis.text(column, row, f"{one.paths[row, column]:.1f}", ha="center", va="center", fontsize=8)
    axis.set(title=title, xlabel="column of the input", ylabel="row", xticks=range(SIZE), yticks=range(SIZE))
for place, kind in enumerate(KINDS):
    percent = 100 * np.array(found[kind].scores)
    axes[2].plot(np.full(runs, place), percent, "o", alpha=0.4, markersize=5)
    axes[2].plot([place - 0.2, place + 0.2], [percent.mean()] * 2, color=lab.COLORS[place], linewidth=3)
axes[2].set_xticks(range(3), [kind.replace(", ", "\n") for kind in KINDS])
axes[2].set(xlim=(-0.5, 2.5), ylabel="test accuracy, %", title="on the digits")

expected = np.outer(*[np.pad([1, 2, 3, 2, 1], (SIZE - 5) // 2)] * 2)  # paths from each pixel through two 3×3
lab.conclude(
    options,
    figure,
    f"Both see 5×5 pixels; two 3×3 have {threes.weights:,} weights where the 5×5 has {five.weights:,} "
    f"({1 - threes.weights / five.weights:.0%} fewer), and in a network of 16 channels they read "
    f"{np.mean(threes.scores):.1%} of the test images, the 5×5 {np.mean(five.scores):.1%}.",
    holds=all(np.array_equal(one.paths > 0, expected > 0) for one in found.values())
    and (five.weights, threes.weights) == (25 * C**2, 18 * C**2)
    and 18 * five.macs == 25 * threes.macs
    and found["3×3, 3×3"].evenness < 0.001  # linear, but for rounding
    and threes.evenness > 0.1
    and np.abs(threes.paths - expected).max() < 1
    and np.abs(five.paths - (expected > 0)).max() < 0.5
    and 0.92 < np.mean(five.scores) < np.mean(threes.scores) + 0.03,
)
