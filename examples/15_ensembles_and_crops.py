"""Ensembles and crops: several opinions are better than one, if they are about the same thing.

Networks that differ only in their random beginnings make different mistakes.  An ensemble averages their probabilities,
p = (p₁ + … + p_M)/M.  That its loss, −log p of the truth, is no larger than the mean of theirs is certain: −log is
convex (Jensen's inequality).  How much smaller it is, and what the error does, depends on how much they disagree.

Instead of several networks, one can be shown several views of each image: the four corners and the middle, and these
five mirrored (ten crops).  That helps as far as a view shows the same thing, and as the network has learned such views:
here the networks learn from digits shifted by up to a pixel, so five crops are fair.  Mirrored digits are no digits:
averaging over a symmetry that the task does not have makes a network worse.  On photographs, where a mirrored cat is a
cat, ten crops help.

The figure shows the error against the number of members, with Wilson's interval for 95 % (it says how well so many
test images know the error; the curves share their images, so their differences are known better than that); loss and
calibration error, the mean difference between confidence and accuracy; and the error of the views, of each network by
itself.  Networks learn from few images, so that there are mistakes to count.

Sources: Krizhevsky, Sutskever & Hinton 2012, section 4.1 (ten crops) and 6 (ensembles); Lakshminarayanan, Pritzel &
Blundell 2017, "Simple and scalable predictive uncertainty estimation using deep ensembles".
"""

import lab
import numpy as np

from tinycnn import Conv2d, CrossEntropyLoss, Flatten, Linear, MaxPool2d, ReLU, Sequential, data, evaluation, optim
from tinycnn.evaluation import Mirrored, SingleView, TenCrop
from tinycnn.train import Trainer

options = lab.options(__doc__)
MEMBERS, EPOCHS, LEARNED = (4, 15, 300) if options.quick else (16, 40, 300)
parts = [lab.digits(split) for split in ("train", "test")]
x, y = (np.concatenate(part) for part in zip(*parts, strict=True))  # all 1,797 digits
x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-1)  # (N, 1, 8, 8) -> (N, 1, 10, 10)
test = data.Loader(x[LEARNED:], y[LEARNED:], shuffle=False)


def five_crops(images):
    """The first five of the ten crops: those that are not mirrored."""
    for view, _ in zip(TenCrop(8)(images), range(5), strict=False):
        yield view


VIEWS = {"middle": SingleView(8), "5 crops": five_crops, "mirrored": Mirrored(8), "10 crops": TenCrop(8)}


def member(number: int) -> Sequential:
    rng = np.random.default_rng([options.seed, number])
    model = Sequential(
        Conv2d(1, 16, 3, padding=1, rng=rng),  # (N, 1, 8, 8) -> (N, 16, 8, 8)
        ReLU(),
        MaxPool2d(2),  # -> (N, 16, 4, 4)
        Conv2d(16, 32, 3, padding=1, rng=rng),  # -> (N, 32, 4, 4)
        ReLU(),
        Flatten(),  # -> (N, 512)
        Linear(512, 10, rng=rng),
    )
    seed = 1000 * options.seed + number
    batches = data.Loader(x[:LEARNED], y[:LEARNED], batch_size=32, seed=seed, transform=data.RandomCrop(8))
    Trainer(model, optim.SGD(model.parameters(), lr=0.05, momentum=0.9), CrossEntropyLoss()).fit(batches, EPOCHS)
    return model


print(f"trained on {LEARNED} images, tested on {len(x) - LEARNED}: error in %")
print("member  " + "  ".join(f"{name:>8}" for name in VIEWS))
single, errors = [], []
for number in range(MEMBERS):
    model = member(number)
    found = [evaluation.predict(model, test, views) for views in VIEWS.values()]
    single.append(found[0])
    errors.append([100 * (1 - p.accuracy) for p in found])
    print(f"{number + 1:6}  " + "  ".join(f"{error:8.2f}" for error in errors[-1]), flush=True)
middle, crops, mirrored, ten = np.mean(errors, axis=0)

counts = np.arange(1, MEMBERS + 1)
ensembles = [evaluation.average(single[:count]) for count in counts]
error = [100 * (1 - p.accuracy) for p in ensembles]
print("members  error  loss   calibration error")
for count, p in zip(counts, ensembles, strict=True):
    if count & (count - 1) == 0:  # 1, 2, 4, …
        print(f"{count:7}  {100 * (1 - p.accuracy):5.2f}  {p.loss:.3f}  {p.calibration().error:.3f}")

figure, (left, centre, right) = lab.figure(1, 3, size=(11.5, 3.5))
low, high = (100 * (1 - np.array([p.interval() for p in ensembles]))).T
left.fill_between(counts, low, high, color=lab.COLORS[0], alpha=0.15, linewidth=0, label="95 %")
left.plot(counts, error, "o-", markersize=4, label="ensemble")
left.plot(counts, [row[0] for row in errors], "x", color="#8a8a8a", label="the member by itself")
left.set(xlabel="members", ylabel="test error (%)", xticks=counts[MEMBERS // 4 - 1 :: MEMBERS // 4])
left.set_ylim(0, None)
left.legend(frameon=False, loc="lower right")
centre.plot(counts, [p.loss for p in ensembles], "o-", markersize=4, label="loss")
centre.plot(counts, [p.calibration().error for p in ensembles], "s--", markersize=4, label="calibration error")
centre.set(xlabel="members", ylim=(0, None), xticks=left.get_xticks())
centre.legend(frameon=False)
right.bar(list(VIEWS), [middle, crops, mirrored, ten], color=["#8a8a8a", lab.COLORS[0], *lab.COLORS[1:2] * 2])
right.set(ylabel="test error, mean of the members (%)", xlabel="views of each image")

loss, together = np.mean([p.loss for p in single]), ensembles[-1]
lab.conclude(
    options,
    figure,
    f"One network errs on {middle:.2f} % of the images, {MEMBERS} together on {error[-1]:.2f} %, and the loss falls "
    f"from {loss:.3f} to {together.loss:.3f}. Five crops change a network's error to {crops:.2f} %, mirrored views to "
    f"{mirrored:.2f} %, ten crops, half of them mirrored, to {ten:.2f} %.",
    holds=error[-1] < middle - 1 and together.loss < 0.9 * loss and crops < middle < mirrored - 2 and ten > crops + 2,
)
