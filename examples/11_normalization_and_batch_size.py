"""BatchNorm, GroupNorm and InstanceNorm at batches of 2 to 128.

BatchNorm measures the mean and the variance of a channel over the N images of a batch, N·H·W values.  With few of them
what it finds is mostly chance: an image comes out differently with every batch that it happens to be in, and what the
network is evaluated with, averages over many batches, is not what it was trained with.  GroupNorm measures over a group
of channels of one image, InstanceNorm over each channel of one image, and neither knows what a batch is.

The same network is trained with each.  As in Wu & He 2018 ("Group normalization"), where a batch is what one of eight
GPUs holds, N is the number of images that are normalised together.  Unlike there, the gradients of several such batches
are accumulated into one update, of 128 images whatever N is (32 with --quick).  So number of updates, learning rate and
images seen are the same for all N, and no rule has to scale the rate: what differs is the statistics.  The convolutions
work on 8×8 pixels and then on 2×2, where a batch of two has 8 values for each channel.  (With the 8×8 and 4×4 maps of
example 01, this data is too easy: the noise does little harm, and can even do good, as dropout does.)

The figure has the test error against N, and the noise: how far the outputs for one image in training mode scatter over
batches drawn around it, relative to how far they differ between images.  It falls about like 1/√N, as errors of means
do; without BatchNorm it is zero.
InstanceNorm also takes away how strong a channel is in an image as a whole, and is the worst here at any N.  In one
thing this differs from table 2 of the paper, where GroupNorm overtakes BatchNorm at N = 8: here BatchNorm loses with
small N, but is still ahead at 2, in a small network that gets 80 updates.
"""

import lab
import numpy as np

from tinycnn import CrossEntropyLoss, Layer, Sequential, data, optim
from tinycnn.layers import BatchNorm2d, Conv2d, Flatten, GroupNorm, InstanceNorm2d, Linear, MaxPool2d, ReLU
from tinycnn.train import Trainer

NORMS = {
    "BatchNorm": BatchNorm2d,
    "GroupNorm": lambda channels: GroupNorm(channels // 8, channels),
    "InstanceNorm": lambda channels: InstanceNorm2d(channels, affine=True),
}


def network(norm: str, seed: int) -> Layer:
    rng, layers = np.random.default_rng(seed), []
    for C, OC in ((1, 16), (16, 32), (32, 32), (32, 32)):
        layers += [Conv2d(C, OC, 3, padding=1, bias=False, rng=rng), NORMS[norm](OC), ReLU()]
        if C == 1:
            layers += [MaxPool2d(4)]  # (N, 16, 8, 8) -> (N, 16, 2, 2)
    return Sequential(*layers, Flatten(), Linear(32 * 2 * 2, 10, rng=rng))


def trained(norm: str, N: int, seed: int) -> tuple[Layer, float]:
    """Return the network, and its error on the test images in percent."""
    model = network(norm, seed)
    batches = data.Loader(x_train, y_train, batch_size=N, seed=seed)
    optimizer = optim.Adam(model.parameters(), lr=0.006)
    schedule = optim.CosineAnnealingLR(optimizer, epochs * len(x_train) // update)
    trainer = Trainer(model, optimizer, CrossEntropyLoss(), schedule=schedule, accumulate=update // N)
    trainer.fit(batches, epochs)
    wrong = model.eval()(x_test).argmax(axis=1) != y_test
    return model, 100 * wrong.mean()


def noise(model: Layer, N: int, draws: int = 10) -> float:
    """How far the outputs for an image scatter over batches of N that hold it, relative to those of other images."""
    rng = np.random.default_rng(options.seed)
    model.train()
    outputs = np.empty((16, draws, 10))
    for image in range(len(outputs)):
        for draw in range(draws):
            others = rng.integers(0, len(x_train), N - 1)
            outputs[image, draw] = model(x_train[[image, *others]])[0]
    return np.sqrt(outputs.var(axis=1).mean() / outputs.mean(axis=1).var(axis=0).mean())


options = lab.options(__doc__)
size, update, epochs, runs = (512, 32, 5, 1) if options.quick else (1024, 128, 10, 2)
sizes = dict.fromkeys(NORMS, (128, 64, 32, 16, 8, 4, 2))
if options.quick:
    sizes = {"BatchNorm": (32, 2), "GroupNorm": (32, 8), "InstanceNorm": (32, 8)}
(x, y), (x_more, y_more) = lab.digits("train"), lab.digits("test")
x_train, y_train = x[:size], y[:size]
x_test, y_test = np.concatenate([x[size:], x_more]), np.concatenate([y[size:], y_more])  # all that is not trained on

errors, noises, first = {}, {}, {}
print("                 N  test error  noise of the outputs")
for norm in NORMS:
    errors[norm], noises[norm] = {}, {}
    for N in sizes[norm]:
        models, wrong = zip(*(trained(norm, N, 1000 * options.seed + k) for k in range(runs)), strict=True)
        measured = first.setdefault(norm, models[0])  # that of the largest N, in batches of every size
        errors[norm][N], noises[norm][N] = sum(wrong) / runs, noise(measured, N)
        print(f"{norm:12}  {N:4}  {errors[norm][N]:9.2f}%  {noises[norm][N]:.4f}", flush=True)

batch, group, spread = errors["BatchNorm"], errors["GroupNorm"], noises["BatchNorm"]
figure, axes = lab.figure(1, 2)
for norm, marker in zip(NORMS, "os^", strict=True):
    axes[0].plot(*zip(*errors[norm].items(), strict=True), marker=marker, label=norm)
axes[0].set(ylabel="test error, %", ylim=(0, None))
axes[1].plot(*zip(*spread.items(), strict=True), marker="o", label="BatchNorm")
axes[1].plot(
    [2, update], [spread[update] * np.sqrt(update / N) for N in (2, update)], "--", color="0.5", label="∝ 1/√N"
)
axes[1].set(yscale="log", ylabel="noise of the outputs, relative", title="GroupNorm and InstanceNorm: 0")
for axis in axes:
    axis.set_xscale("log", base=2)
    axis.set(xlabel="images normalised together, N", xticks=sizes["BatchNorm"], xticklabels=sizes["BatchNorm"])
    axis.legend(frameon=False)

lab.conclude(
    options,
    figure,
    f"With 2 images normalised together in place of {update}, BatchNorm misreads {batch[2]:.1f} % in place of "
    f"{batch[update]:.1f} %, and the noise of its outputs is {spread[2]:.2f} in place of {spread[update]:.2f}; "
    f"GroupNorm stays between {min(group.values()):.1f} and {max(group.values()):.1f} %.",
    holds=batch[2] > 1.2 * batch[update]
    and spread[2] > 2 * spread[update] > 0
    and max(group.values()) - min(group.values()) < 1
    and max(*noises["GroupNorm"].values(), *noises["InstanceNorm"].values()) < 1e-4,
)
