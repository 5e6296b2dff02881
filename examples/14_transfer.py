"""Transfer in three regimes: the digits 5–9 for a network that knows 0–4, and when that helps.

A network has learned one task from many images; of the next there are few.  Its features may serve again:

- frozen: they stay as they are, and only a new classifier learns;
- upper layers: the lowest layer stays, those above learn on at lower rates than the classifier;
- everything: all layers learn on, the lower the slower.

Here three convolutions learn 0–4 from all images, then 5–9 from n of each; "from scratch" the same network learns 5–9
from the same n, from random weights.  Once the digits stand anywhere on a canvas of 12×12, once all in its middle.

The figure shows the test accuracy on 5–9 against n, with the standard error over draws of the n images.  Where digits
stand anywhere, what a stroke looks like at every place has to be learned, and to bring that along helps as long as the
new images are few; when there are 128 of each, they say it better themselves.  Where they stand in the middle the
lesson is another one: a few images say where the ink is, and features made to tell 0 to 4 apart are in the way, the
more of them are kept.  Transfer is worth what the tasks share and the new images do not say.

In the manner of Yosinski et al. 2014, "How transferable are features in deep neural networks?"; with photographs and a
published network: examples/transfer_learning.py.
"""

import lab
import numpy as np

from tinycnn import Conv2d, CrossEntropyLoss, Flatten, Linear, MaxPool2d, ReLU, data, models, optim
from tinycnn.train import Trainer, evaluate

options = lab.options(__doc__)
COUNTS = (2, 16) if options.quick else (2, 8, 32, 128)  # images of each new digit
DRAWS, STEPS = (2, 80) if options.quick else (4, 300)
RATE = 0.05

REGIMES = {  # what is frozen, and the learning rates of the rest
    "frozen": (["conv*"], {"fc.*": RATE}),
    "upper layers": (["conv1"], {"fc.*": RATE, "*": RATE / 5}),
    "everything": ([], {"fc.*": RATE, "conv3.*": RATE / 2, "*": RATE / 5}),
    "from scratch": ([], {"*": RATE}),
}


def network(seed: int) -> models.Network:
    rng = np.random.default_rng(seed)
    layers = {
        "conv1": Conv2d(1, 16, 3, padding=1, rng=rng),  # (N, 1, 12, 12) -> (N, 16, 12, 12)
        "relu1": ReLU(),
        "pool1": MaxPool2d(2),  # -> (N, 16, 6, 6)
        "conv2": Conv2d(16, 32, 3, padding=1, rng=rng),  # -> (N, 32, 6, 6)
        "relu2": ReLU(),
        "pool2": MaxPool2d(2),  # -> (N, 32, 3, 3)
        "conv3": Conv2d(32, 32, 3, padding=1, rng=rng),  # -> (N, 32, 3, 3)
        "relu3": ReLU(),
        "flatten": Flatten(),  # -> (N, 288)
        "fc": Linear(288, 5, rng=rng),
    }
    return models.Network(layers, features="relu3", classifier="fc")


def task(split: str, first: int, place: str) -> tuple[np.ndarray, np.ndarray]:
    """Return five digits on canvases of 12×12, labelled from 0."""
    x, y = lab.digits(split)
    some = (y >= first) & (y < first + 5)
    canvas = np.full((some.sum(), 1, 12, 12), -1, np.float32)
    places = (
        np.random.default_rng(first).integers(0, 5, (len(canvas), 2)) if place == "anywhere" else [(2, 2)] * len(canvas)
    )
    for image, digit, (top, left) in zip(canvas, x[some], places, strict=True):
        image[:, top : top + 8, left : left + 8] = digit
    return canvas, y[some] - first


def fit(model: models.Network, rates: dict[str, float], x: np.ndarray, y: np.ndarray, steps: int) -> None:
    batches = data.Loader(x, y, batch_size=min(32, len(y)), seed=options.seed)
    epochs = -(-steps // len(batches))
    optimizer = optim.SGD(optim.groups_by_name(model, rates), lr=RATE, momentum=0.9)
    schedule = optim.create_schedule("onecycle", optimizer, epochs * len(batches))
    Trainer(model, optimizer, CrossEntropyLoss(), schedule=schedule).fit(batches, epochs)


def new_task(learned: models.Network, regime: str, x: np.ndarray, y: np.ndarray, seed: int) -> models.Network:
    model, (frozen, rates) = network(seed), REGIMES[regime]
    if regime != "from scratch":
        model.load_state_dict(learned.state_dict())
        model.reset_classifier(5, seed=seed)
    if frozen:
        model.freeze(*frozen)
    fit(model, rates, x, y, STEPS)
    return model


figure, axes = lab.figure(1, 2, size=(9.2, 3.6), sharey=True)
few = {}
for place, panel in zip(("anywhere", "in the middle"), axes, strict=True):
    learned = network(options.seed)
    fit(learned, {"*": RATE}, *task("train", 0, place), steps=150 if options.quick else 600)
    (x, y), test = task("train", 5, place), task("test", 5, place)
    print(f"digits {place}\nof each  " + "  ".join(f"{name:>12}" for name in REGIMES))
    scores = np.zeros((len(REGIMES), len(COUNTS), DRAWS))
    for i, n in enumerate(COUNTS):
        for draw in range(DRAWS):
            rng = np.random.default_rng([options.seed, draw])
            some = np.concatenate([rng.choice(np.flatnonzero(y == k), n, replace=False) for k in range(5)])
            for k, name in enumerate(REGIMES):
                model = new_task(learned, name, x[some], y[some], seed=options.seed + 1 + draw)
                scores[k, i, draw] = evaluate(model, data.Loader(*test, shuffle=False))["accuracy"]
        print(f"{n:7}  " + "  ".join(f"{mean:12.1%}" for mean in scores[:, i].mean(axis=1)), flush=True)
    for name, scored, style in zip(REGIMES, 100 * scores, ("-o", "-s", "-D", "--^"), strict=True):
        errors = scored.std(axis=1, ddof=1) / np.sqrt(DRAWS)
        panel.errorbar(COUNTS, scored.mean(axis=1), errors, fmt=style, label=name, capsize=2)
    panel.set(xscale="log", xlabel="images of each new digit", title=f"digits {place}")
    panel.set_xticks(COUNTS, COUNTS)
    panel.minorticks_off()
    few[place] = scores[:, :2].mean(axis=(1, 2))
axes[0].set(ylabel="test accuracy on 5–9 (%)")
axes[1].legend(frameon=False)

words = "{:.1%} (frozen), {:.1%} (upper layers), {:.1%} (everything) and {:.1%} (from scratch)"
said = "; ".join(f"{place} {words.format(*shares)}" for place, shares in few.items())
holds = min(few["anywhere"][:3]) > few["anywhere"][3] + 0.03
lab.conclude(options, figure, f"From {COUNTS[0]} or {COUNTS[1]} images of each, on average: digits {said}.", holds)
