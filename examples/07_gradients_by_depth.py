"""Gradient size and noise by depth.

Why are deep plain networks hard to train (experiment 06)? Here nothing is trained. Four networks of random weights,
with and without shortcuts, with and without batch normalisation (BatchNorm), see the same images, and the gradient of
L, the right class's score, is sent back to the first block. Block after block two things are measured about g = dL/dx,
the gradient that arrives at the block's input x:

Its **size**, the root of its mean square, divided by that at the last block. Where it shrinks or grows by the same
factor in every block, it vanishes or explodes over many: no learning rate then suits all layers.

Its **noise**: the images are moved by random noise of 1 % of the range of a pixel, which nobody would see, and the new
gradient g' is compared with the old one by the cosine of the angle between the two, ⟨g, g'⟩ / (‖g‖·‖g'‖), averaged over
images. A cosine near 1 says that near images ask for nearly the same change. A cosine near 0 says that
the gradient resembles white noise: what one image asks for tells nothing about its neighbour, and a step that is right
here is wrong next to it, whatever its size. Balduzzi et al. call such gradients shattered.

Only the network with both comes near to keeping both. Without normalisation the gradient shrinks (plain; He's
initialisation, which would keep it, does not know of the zeros at the borders) or grows (residual, as every block adds
to the signal). BatchNorm alone keeps the activations in range and not the gradient: it grows, and it is shattered. That
is so at initialisation and at great depth: He et al. report healthy norms for their plain networks with BatchNorm, of
18 and 34 layers in training; here are 98, untrained.

Sources: Balduzzi et al. 2017, "The shattered gradients problem"; Yang et al. 2019, "A mean field theory of batch
normalization", for BatchNorm's growing gradients; He et al. 2016, "Deep residual learning for image recognition", 4.1.
"""

import lab
import numpy as np

from tinycnn import (
    BatchNorm2d,
    Conv2d,
    Flatten,
    GlobalAvgPool2d,
    Identity,
    Linear,
    ReLU,
    Residual,
    Sequential,
    initializers,
)

options = lab.options(__doc__)
BLOCKS, IMAGES, NETWORKS = (24, 32, 1) if options.quick else (48, 128, 3)
WIDTH = 16
x, labels = lab.digits("train", IMAGES)  # (N, 1, 8, 8), (N,)
moved = x + 0.02 * np.random.default_rng(options.seed).standard_normal(x.shape, dtype=np.float32)  # from −1 to 1 is 2


def build(shortcut: bool, norm: bool, rng: np.random.Generator) -> Sequential:
    def convolution(C: int) -> Sequential:
        conv = Conv2d(C, WIDTH, 3, padding=1, bias=False, init=initializers.he_normal, rng=rng)
        return Sequential(conv, BatchNorm2d(WIDTH) if norm else Identity())

    def block() -> Sequential:
        main = Sequential(convolution(WIDTH), ReLU(), convolution(WIDTH))
        return Sequential(Residual(main) if shortcut else main, ReLU())

    head = Sequential(GlobalAvgPool2d(), Flatten(), Linear(WIDTH, 10, rng=rng))
    return Sequential(convolution(1), ReLU(), *(block() for _ in range(BLOCKS)), head)


def gradients(model: Sequential, images: np.ndarray) -> np.ndarray:
    """Return dL/dx of every block's input, from the first to the last."""
    model(images)
    dy = np.eye(10, dtype=np.float32)[labels]  # (N, 10): L is the right class's score
    found = []
    for layer in reversed(list(model)[2:]):
        dy = layer.backward(dy)  # (N, WIDTH, 8, 8)
        found.append(dy.reshape(len(dy), -1).astype(np.float64))
    return np.array(found[:0:-1])  # (BLOCKS, N, WIDTH·64); found[0] is the last block's output


def measure(shortcut: bool, norm: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return size and cosine by block: geometric mean and mean over a few networks."""
    sizes, cosines = [], []
    for number in range(NETWORKS):
        model = build(shortcut, norm, np.random.default_rng([options.seed, number]))
        g, h = gradients(model, x), gradients(model, moved)
        size = np.sqrt((g**2).mean(axis=(1, 2)))  # (BLOCKS, N, K) -> (BLOCKS,)
        sizes.append(np.log(size / size[-1]))
        cosines.append(((g * h).sum(2) / np.sqrt((g**2).sum(2) * (h**2).sum(2))).mean(1))
    return np.exp(np.mean(sizes, axis=0)), np.mean(cosines, axis=0)


kinds = {
    "plain": (False, False),
    "plain, BatchNorm": (False, True),
    "residual": (True, False),
    "residual, BatchNorm": (True, True),
}
figure, (left, right) = lab.figure(1, 2, size=(9.2, 3.6))
found = {}
print(
    f"gradient at the first of {BLOCKS} blocks\n\nnetwork              size, last block = 1  cosine with a near image's"
)
for (name, kind), style in zip(kinds.items(), ("-", "--", ":", "-."), strict=True):
    size, cosine = measure(*kind)
    found[name] = size[0], cosine[0]
    print(f"{name:19}  {size[0]:20.3g}  {cosine[0]:26.3f}", flush=True)
    left.plot(range(1, BLOCKS + 1), size, style, label=name)
    right.plot(range(1, BLOCKS + 1), cosine, style, label=name)
left.set(yscale="log", xlabel="block (the gradient travels to the left)", ylabel="size of dL/dx, last block = 1")
right.set(ylim=(-0.1, 1.03), xlabel="block (the gradient travels to the left)", ylabel="cosine of dL/dx of near images")
left.legend(frameon=False, fontsize=8, loc="upper right")

(shrunk, _), (grown, noise), (added, _), (kept, signal) = found.values()
lab.conclude(
    options,
    figure,
    f"Through {BLOCKS} plain blocks the gradient shrinks {1 / shrunk:,.0f}-fold; with BatchNorm it grows "
    f"{grown:,.0f}-fold, and near images disagree (cosine {noise:.2f}). Shortcuts alone let it grow "
    f"{added:,.0f}-fold; with both it grows {kept:,.0f}-fold, and near images agree (cosine {signal:.2f}).",
    holds=shrunk < 0.6 and min(grown, added) > 5 * kept and noise < 0.1 and signal > noise + 0.4,
)
