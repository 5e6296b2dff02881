"""What a 1×1 bottleneck saves.

A 5×5 convolution from 192 channels to 32, on maps of 28×28, multiplies and adds 28·28·32 · 5·5·192 ≈ 120 million
times.  Nearly all of that is the 192: every output looks at 25 pixels of each channel.  A 1×1 convolution before it
mixes the 192 channels into 16, pixel by pixel, and the 5×5 has only those to look at: a tenth of the work in all.

With a bottleneck of B channels, C before and O after it, a pixel costs

    C·B + 25·B·O    in place of    25·C·O

multiply-adds.  Both terms grow with B, so a wide bottleneck saves nothing: it pays while B < 25·C·O / (C + 25·O), here
up to 154 channels.  What it costs is generality: what the 5×5 sees of the 192 channels has B dimensions.

The figure has both sides for all widths, counted and timed; times are of this machine, the counts of any.  Time per
multiply-add is not constant: the 1×1 is one product of matrices as it stands, the 5×5 has to gather its patches first,
and narrow layers keep the arithmetic units waiting.  The example is the third branch of module 3a of GoogLeNet
(Szegedy et al. 2015, "Going deeper with convolutions", table 1), well known from lectures on that paper.
"""

import time

import lab
import numpy as np

from tinycnn import Conv2d, Layer, ReLU, Sequential, models

C, O, SIZE = 192, 32, 28  # noqa: E741 (as in the formula)
options = lab.options(__doc__)
rng = np.random.default_rng(options.seed)


def direct() -> Layer:
    return Sequential(Conv2d(C, O, 5, padding=2, rng=rng), ReLU())


def bottleneck(width: int) -> Layer:
    return Sequential(Conv2d(C, width, 1, rng=rng), ReLU(), Conv2d(width, O, 5, padding=2, rng=rng), ReLU())


def milliseconds(nets: dict[int, Layer], images: int, turns: int) -> dict[int, float]:
    """The least time of a forward and a backward pass of each, for one image; in turns, so that noise meets all."""
    x = rng.standard_normal((images, C, SIZE, SIZE), np.float32)
    least = dict.fromkeys(nets, np.inf)
    for _ in range(turns):
        for width, model in nets.items():
            start = time.perf_counter()
            y = model(x)
            model.zero_grad()
            model.backward(y)
            least[width] = min(least[width], 1000 * (time.perf_counter() - start) / images)
    return least


def without_bottlenecks(model: Layer, input_shape: tuple[int, ...]) -> tuple[int, int]:
    """Multiply-adds of a GoogLeNet as it is, and with the 1×1 before the 3×3 and 5×5 of its modules taken out."""
    summary, layers = model.summary(input_shape), dict(model.named_layers())
    macs = {row.path: row.macs for row in summary.rows}
    saved = 0
    for path, reducing in macs.items():
        if path.endswith((".branch2.0.conv", ".branch3.0.conv")):
            reduce, expanding = layers[path], macs[path.replace(".0.conv", ".1.conv")]
            # a convolution's cost is proportional to the channels that it reads
            saved += expanding * reduce.in_channels // reduce.out_channels - expanding - reducing
    return summary.macs, summary.macs + saved


widths = (8, 16, 64, 192) if options.quick else (4, 8, 16, 24, 32, 48, 64, 96, 128, 160, 192)
nets = {0: direct(), **{width: bottleneck(width) for width in widths}}
times = milliseconds(nets, images=4, turns=3) if options.quick else milliseconds(nets, images=16, turns=25)
macs, parameters = {}, {}
print("bottleneck  multiply-adds  parameters  forward + backward, ms per image")
for width, model in nets.items():
    summary = model.summary((1, C, SIZE, SIZE))
    macs[width], parameters[width] = summary.macs, summary.parameters
    print(f"{width or 'none':>10}  {macs[width]:13,}  {parameters[width]:10,}  {times[width]:8.2f}")

whole, wide = without_bottlenecks(models.create("googlenet_2014", initialize=False), (1, 3, 224, 224))

even = 25 * C * O / (C + 25 * O)
figure, axes = lab.figure(1, 2)
panels = (
    (axes[0], {k: n / 1e6 for k, n in macs.items()}, "multiply-adds per image, millions"),
    (axes[1], times, "forward + backward, ms per image"),
)
for axis, found, label in panels:
    axis.axhline(found[0], color=lab.COLORS[1], linestyle="--")
    axis.annotate("5×5 alone", (4, found[0]), (0, 4), textcoords="offset points", color=lab.COLORS[1])
    axis.plot(widths, [found[width] for width in widths], "o-", markersize=4)
    axis.set(xlabel="channels of the 1×1 bottleneck", ylabel=label, xlim=(0, 200))
    axis.set_ylim(0, 1.1 * max(found.values()))
axes[0].annotate(f"{macs[16] / 1e6:.1f} M", (16, macs[16] / 1e6), (8, -4), textcoords="offset points")
axes[0].axvline(even, color="0.7", linewidth=1, zorder=0)
axes[0].annotate(f"break-even: {even:.1f}", (even, 0), (-4, 6), textcoords="offset points", ha="right", color="0.4")

lab.conclude(
    options,
    figure,
    f"A bottleneck of 16 channels takes {macs[0] / 1e6:.1f} M multiply-adds down to {macs[16] / 1e6:.1f} M, "
    f"{macs[0] / macs[16]:.1f} times fewer, and {parameters[0]:,} parameters to {parameters[16]:,}; the time of this "
    f"run fell {times[0] / times[16]:.1f} times, from {times[0]:.1f} to {times[16]:.1f} ms.  All of GoogLeNet costs "
    f"{whole / 1e9:.2f} G multiply-adds with its bottlenecks and would cost {wide / 1e9:.2f} G without.",
    holds=(macs[0], macs[16]) == (120_422_400, 12_443_648)
    and all((macs[width] < macs[0]) == (width < even) for width in widths)
    and wide > 2 * whole,
)
