"""Transfer learning: a network that knows CIFAR-10 learns ants from bees, from few, some and all of 244 photographs.

From few the features, computed once and kept in a file, stay as they are, and a linear model learns; from some the
upper layers learn on; from all everything does, the lower layers slowly.  14_transfer.py is about these three ways.
Beside each, the same network learns from the same photographs from scratch.  Do not expect wonders: CIFAR-10 shows no
insects, its network has 64 features, and 153 held-out photographs tell accuracies apart that differ by some 0.08.

    python examples/transfer_learning.py                             # the three above, with a published ResNet-20
    python examples/transfer_learning.py runs/cifar10-30min          # with a ResNet-20 that was trained here
    python examples/transfer_learning.py --all [runs/cifar10-30min]  # every way with every number of photographs

It needs the photographs (https://download.pytorch.org/tutorial/hymenoptera_data.zip) unpacked in $TINYCNN_DATA, and in
$TINYCNN_DATA/weights the file resnet20-12fca82f.th of https://github.com/akamaster/pytorch_resnet_cifar10; without them
it says so and stops.  It ends with an error if what was learned from CIFAR-10 is of no use.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tinycnn import CrossEntropyLoss, Layer, Linear, Sequential, data, interop, models, optim
from tinycnn.train import Trainer, evaluate, save_features

SIZE, EPOCHS, BATCH = 48, 5, 16
PUBLISHED = Path(os.environ.get("TINYCNN_DATA", "."), "weights", "resnet20-12fca82f.th")
given = [argument for argument in sys.argv[1:] if argument != "--all"]
WEIGHTS = Path(given[0], "best.safetensors") if given else PUBLISHED

try:
    photos, held_out = (data.prepare(data.load("hymenoptera", split), (SIZE, SIZE)) for split in ("train", "test"))
    if not WEIGHTS.exists():
        raise data.DataError(f"there is no {WEIGHTS}")
except data.DataError as error:
    sys.exit(print(f"skipped: {error}"))


def in_order(part: data.Dataset) -> data.Loader:
    return data.Loader(part.images, part.labels, 64, shuffle=False, normalize=part.normalize)


def network(pretrained: bool = True) -> models.Network:
    """ResNet-20 with a new classifier for two classes."""
    model = models.create("resnet20", seed=1)
    if pretrained:
        interop.load_weights(model, WEIGHTS, rename={"linear": "fc"} if WEIGHTS == PUBLISHED else None)
    return model.reset_classifier(photos.num_classes)


def fit(model: Layer, optimizer: optim.Optimizer, batches: data.Loader, epochs: int) -> None:
    schedule = optim.create_schedule("onecycle", optimizer, epochs * len(batches))
    Trainer(model, optimizer, CrossEntropyLoss(), schedule=schedule).fit(batches, epochs)


def shallow(part: data.Dataset, folder: Path) -> float:
    """Few: a linear model on what comes to the network's classifier."""
    model = network()
    features = save_features(model, in_order(part), folder / "train.safetensors")
    others = save_features(model, in_order(held_out), folder / "test.safetensors")
    head = Sequential(Linear(features.x.shape[1], part.num_classes, rng=np.random.default_rng(0)))
    fit(head, optim.AdamW(head.parameters(), lr=0.01, weight_decay=1.0), features.loader(BATCH), epochs=60)
    return evaluate(head, others.loader(64, shuffle=False))["accuracy"]


def learned_on(part: data.Dataset, model: models.Network, rates: dict[str, float]) -> float:
    """Train with a learning rate for each pattern of names."""
    groups = optim.groups_by_name(model, rates)
    flip = data.RandomHorizontalFlip()
    batches = data.Loader(part.images, part.labels, BATCH, transform=flip, normalize=part.normalize)
    fit(model, optim.SGD(groups, lr=0.01, momentum=0.9, weight_decay=5e-4), batches, EPOCHS)
    return evaluate(model, in_order(held_out))["accuracy"]


def upper_layers(part: data.Dataset, folder: Path) -> float:
    """Some: the last stage and the classifier."""
    model = network()
    model.freeze("conv1", "bn1", "layer1", "layer2")
    return learned_on(part, model, {"fc.*": 0.03, "layer3.*": 0.003})


def all_layers(part: data.Dataset, folder: Path) -> float:
    """All: everything, the lower the slower."""
    return learned_on(part, network(), {"fc.*": 0.03, "layer3.*": 0.01, "*": 0.003})


def from_scratch(part: data.Dataset, folder: Path) -> float:
    """The same network, from random weights."""
    return learned_on(part, network(pretrained=False), {"*": 0.05})


REGIMES = {"frozen + linear": shallow, "upper layers": upper_layers, "everything": all_layers}
COUNTS = (40, 122, len(photos))
plan = [*zip(REGIMES, COUNTS, strict=True)]
if "--all" in sys.argv:
    plan = [(name, count) for count in COUNTS for name in REGIMES]


def timed(learn: Callable[[data.Dataset, Path], float], count: int) -> tuple[float, float]:
    """Return the accuracy that comes from so many photographs, and the seconds that takes."""
    share = count / len(photos)
    part = photos if share == 1 else photos.subset(data.stratified_split(photos.labels, share)[1])
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        return learn(part, Path(folder)), time.perf_counter() - start


print(f"{len(held_out)} held-out photographs, {max(np.bincount(held_out.labels)) / len(held_out):.3f} of one class\n")
print("photographs  trained          accuracy  seconds")
scratch = {count: timed(from_scratch, count) for count in COUNTS}
learned = {(name, count): timed(REGIMES[name], count) for name, count in plan}
for (name, count), (accuracy, seconds) in [*learned.items(), *((("from scratch", n), s) for n, s in scratch.items())]:
    print(f"{count:11}  {name:15}  {accuracy:8.3f}  {seconds:7.1f}")

mean, without = (np.mean([accuracy for accuracy, _ in found.values()]) for found in (learned, scratch))
if learned["frozen + linear", 40][0] < 0.63 or mean < max(0.65, without):
    sys.exit("expected at least 0.63 from few photographs, 0.65 on average, and no less than from scratch")
