"""Training with frozen layers: through epochs, interruptions, thawing on the way, and captured steps."""

import json

import numpy as np
import pytest

from tinycnn import CapturedStep, optim
from tinycnn.backend import to_device, to_numpy
from tinycnn.data import Loader
from tinycnn.layers import BatchNorm2d, Conv2d, Dropout, Flatten, Linear, ReLU, Sequential
from tinycnn.losses import CrossEntropyLoss
from tinycnn.train import Trainer

N, CLASSES, SIZE = 40, 3, 6


def loader():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, N)
    x = rng.integers(0, 60, (N, 1, SIZE, SIZE)) + 45 * labels[:, None, None, None]
    return Loader(x.astype(np.uint8), labels, 16, seed=3)


def network():
    rng = np.random.default_rng(0)
    return Sequential(
        {
            "conv1": Conv2d(1, 3, 3, padding=1, rng=rng),
            "bn1": BatchNorm2d(3),
            "drop": Dropout(0.5, rng=rng),
            "relu": ReLU(),
            "conv2": Conv2d(3, 4, 3, rng=rng),
            "bn2": BatchNorm2d(4),
            "drop2": Dropout(0.25, rng=rng),
            "flatten": Flatten(),
            "fc": Linear(4 * (SIZE - 2) ** 2, CLASSES, rng=rng),
        }
    )


def make(*frozen, name="momentum", **options):
    model = network()
    if frozen:
        model.freeze(*frozen)
    optimizer = optim.create(name, model.parameters(), lr=0.05, weight_decay=0.1)
    schedule = optim.create_schedule("cosine", optimizer, 4 * len(loader()))
    return Trainer(model, optimizer, CrossEntropyLoss(), schedule=schedule, clip_norm=1.0, **options)


def moved(model, before):
    """The names of what is no longer what it was."""
    return {name for name, value in model.state_dict().items() if not np.array_equal(value, before[name])}


def assert_same(a, b):
    assert moved(a.model, b.model.state_dict()) == set()
    assert a.model.random_state() == b.model.random_state()
    slots = [t.optimizer.state_dict()["state"] for t in (a, b)]
    for slot in slots[0]:
        for name, value in slots[0][slot].items():
            np.testing.assert_array_equal(value, slots[1][slot][name], err_msg=name)


LOWER = {"conv1.weight", "conv1.bias", "bn1.weight", "bn1.bias"}
STATISTICS = {f"bn1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}


@pytest.mark.parametrize("name", ["momentum", "adamw"])
def test_frozen_weights_and_statistics_stay_to_the_bit(name):
    trainer = make("conv1", "bn1", "drop", name=name)
    before = trainer.model.state_dict()
    trainer.fit(loader(), 2)
    assert moved(trainer.model, before) == set(before) - LOWER - STATISTICS


def test_layers_thawed_on_the_way_learn_from_then_on():
    """From the top down, as the course's middle regime has it."""
    trainer, seen = make("conv1", "bn1", "conv2", "bn2"), []
    before = trainer.model.state_dict()

    def thaw(trainer, row):
        seen.append(moved(trainer.model, before))
        trainer.model.unfreeze("bn2", "conv2" if trainer.epoch == 1 else "*1")

    trainer.after_epoch.append(thaw)
    trainer.fit(loader(), 3)
    assert seen[0] == {"fc.weight", "fc.bias"}
    assert seen[1] == set(before) - LOWER - STATISTICS
    assert seen[2] == set(before)


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_run_goes_on_with_what_was_frozen(epochs):
    def thaw(trainer, row):
        if trainer.epoch == 2:
            trainer.model.unfreeze()

    whole = make("conv1", "bn1", "*.bias", after_epoch=[thaw])
    whole.fit(loader(), 4)
    half = make("conv1", "bn1", "*.bias", after_epoch=[thaw])
    half.fit(loader(), epochs)
    state = half.state_dict()
    arrays = {name: state.pop(name) for name in ("model", "optimizer")}
    rest = make(after_epoch=[thaw])  # nothing said of freezing
    rest.load_state_dict({**json.loads(json.dumps(state)), **arrays})
    rest.fit(loader(), 4)
    assert_same(whole, rest)


def test_states_that_say_nothing_of_freezing_can_be_loaded():
    trainer = make("conv1")
    state = trainer.state_dict()
    del state["frozen"]
    other = make("bn1")
    other.load_state_dict(state)
    assert [name for name, layer in other.model.named_layers() if layer.frozen] == ["bn1"]


def test_captured_steps_are_captured_anew_when_layers_are_frozen_or_thawed(gpu):
    """Every bit as without a graph; and what is not done is not in the graph."""

    def steps(graph):
        model = network().to("cuda")
        model.require_dx(False)
        optimizer = optim.create("momentum", model.parameters(), lr=0.05, weight_decay=0.1)
        step = CapturedStep(model, optimizer, CrossEntropyLoss(check_labels=False), graph=graph)
        for count, change in enumerate([None, lambda: model.freeze("conv1", "bn1", "drop"), model.unfreeze]):
            before = model.state_dict()
            if change:
                change()
            for x, y in list(loader().epoch(count))[:1] * 6:
                step(to_device(x, "cuda"), to_device(y, "cuda"))
            assert step.state == ("captured" if graph else "eager")
            frozen = {n for n, layer in model.named_layers() if layer.frozen}
            kept = LOWER | STATISTICS if frozen else set()
            assert moved(model, before) == set(before) - kept
        return model, step

    (captured, _), (eager, _) = steps(True), steps(False)
    for (name, p), q in zip(captured.named_parameters(), eager.parameters(), strict=True):
        np.testing.assert_array_equal(to_numpy(p.data), to_numpy(q.data), err_msg=name)
    for (name, a), b in zip(captured.named_buffers(), eager.buffers(), strict=True):
        np.testing.assert_array_equal(to_numpy(a), to_numpy(b), err_msg=name)
