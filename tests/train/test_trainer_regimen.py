"""The loop with everything switched on: stopped after any batch; averages, metrics, other networks and data."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_trainers import loader, make, network, same

from tinycnn import models, optim
from tinycnn.data import RandomShift
from tinycnn.losses import CrossEntropyLoss
from tinycnn.train import EarlyStopping, Trainer, evaluate, state

# ---- everything at once ------------------------------------------------------------------------------------


def whole_regimen(*after_batch):
    """Augmentation, dropout, groups of batches, clipping, averages, a schedule and a callback with a memory."""
    callbacks = [EarlyStopping(2, "val_accuracy")]
    averages = {"decay": 0.9, "use_buffers": True, "warmup": True}
    options = {"accumulate": 2, "clip_norm": 1.0, "callbacks": callbacks, "after_batch": after_batch}
    return make("adam", "cosine", epochs=3, ema_of=averages, **options)


@pytest.mark.parametrize("stop_at", range(1, 15))
def test_stopped_after_every_batch_and_gone_on_with(stop_at):
    """Batches 1, 3, 6, 8, … leave a group half done; 5 and 10 end an epoch."""
    train, held_out = loader(transform=RandomShift(1)), loader(shuffle=False)
    whole = whole_regimen()
    assert whole.fit(train, 3, held_out)
    first = whole_regimen(lambda t: t.stop() if 5 * t.epoch + t.batch == stop_at else None)
    assert not first.fit(train, 3, held_out)
    arrays, rest = state.split(first.state_dict())
    assert ("waiting/gradients/0.weight" in arrays) == (stop_at % 5 in (1, 3))
    second = whole_regimen()
    second.load_state_dict(state.join(arrays, json.loads(json.dumps(rest))))
    assert second.fit(train, 3, held_out)
    same(whole, second)


CHILD = """
import json, sys
import numpy as np
from tinycnn.data import RandomShift
from small_trainers import loader
from test_trainer_regimen import whole_regimen
from tinycnn.train import state
path, stop = sys.argv[1], int(sys.argv[2])
trainer = whole_regimen(lambda t: t.stop() if 5 * t.epoch + t.batch == stop else None)
if len(sys.argv) > 3:
    with np.load(path, allow_pickle=False) as file:
        trainer.load_state_dict(state.join(dict(file), json.load(open(path + ".json"))))
done = trainer.fit(loader(transform=RandomShift(1)), 3, loader(shuffle=False))
arrays, rest = state.split(trainer.state_dict())
np.savez(path, **arrays)
json.dump(rest, open(path + ".json", "w"))
"""


def test_gone_on_with_in_another_process(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["tests", "tests/train"])}

    def run(path, *arguments):
        command = [sys.executable, "-c", CHILD, str(path), *map(str, arguments)]
        subprocess.run(command, check=True, env=environment, cwd=Path(__file__).parents[2])
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        return arrays, json.loads(Path(f"{path}.json").read_text())

    whole, _ = run(tmp_path / "whole.npz", 0)
    run(tmp_path / "parts.npz", 8)
    parts, rest = run(tmp_path / "parts.npz", 0, "go on")
    assert len(rest["history"]) == 3
    np.testing.assert_equal(parts, whole)


def test_what_the_regimen_needs_is_really_needed():
    """Leaving any one part of the state out changes the result."""
    train = loader(transform=RandomShift(1))
    held_out = loader(shuffle=False)
    whole = whole_regimen()
    whole.fit(train, 3, held_out)
    first = whole_regimen(lambda t: t.stop() if (t.epoch, t.batch) == (1, 3) else None)
    first.fit(train, 3, held_out)
    saved = first.state_dict()
    for part in ("model", "ema", "optimizer", "schedule", "random", "batch", "waiting"):
        second = whole_regimen()
        second.load_state_dict(saved | {part: whole_regimen().state_dict()[part]})
        second.fit(train, 3, held_out)
        with pytest.raises(AssertionError):
            same(whole, second)


# ---- metrics, averages, other networks and other data --------------------------------------------------------


def test_validation_is_of_the_averaged_network():
    trainer = make(ema_of={"decay": 0.9, "use_buffers": True})
    held_out = loader(shuffle=False)
    trainer.fit(loader(), 2, held_out)
    with trainer.averaged():
        averaged = evaluate(trainer.model, held_out)
    assert trainer.history[-1]["val_loss"] == averaged["loss"] != evaluate(trainer.model, held_out)["loss"]


def test_the_schedule_is_stepped_with_every_update():
    seen = []
    trainer = make(schedule="polynomial", epochs=2, accumulate=2)
    trainer.after_batch.append(lambda t: seen.append(t.schedule.last_epoch))
    trainer.fit(loader(), 2)
    assert seen == [0, 1, 1, 2, 3, 3, 4, 4, 5, 6]
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_a_plateau_of_any_metric():
    trainer = make(schedule="plateau", monitor="train_loss")
    trainer.fit(loader(), 2, loader(shuffle=False))
    assert trainer.schedule.best == min(row["train_loss"] for row in trainer.history)
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    plateau = optim.ReduceLROnPlateau(optimizer)
    with pytest.raises(ValueError, match="mode 'min' does not suit 'val_accuracy'"):
        Trainer(model, optimizer, CrossEntropyLoss(), schedule=plateau, monitor="val_accuracy")
    plateau = optim.ReduceLROnPlateau(optimizer, "max", patience=0)
    trainer = Trainer(model, optimizer, CrossEntropyLoss(), schedule=plateau, monitor="val_accuracy")
    with pytest.raises(ValueError, match="monitor is 'val_accuracy': give fit a validation loader"):
        trainer.fit(loader(), 1)
    trainer.fit(loader(), 2, loader(shuffle=False))
    assert plateau.best == max(row["val_accuracy"] for row in trainer.history)
    with pytest.raises(ValueError, match="nothing measures 'val_acuracy'; did you mean 'val_accuracy'"):
        Trainer(model, optimizer, CrossEntropyLoss(), monitor="val_acuracy")


def test_a_state_of_another_network_is_refused():
    def trainer(name, **options):
        model = models.create(name, 10, **options)
        return Trainer(model, optim.SGD(model.parameters(), lr=0.1), CrossEntropyLoss())

    saved = json.loads(json.dumps(state.split(trainer("resnet20").state_dict())[1]))
    other = trainer("lenet5")
    before = other.model.state_dict()
    with pytest.raises(ValueError, match=r"the state is of resnet20 \(num_classes=10.*, and this network is lenet5 \("):
        other.load_state_dict(saved)
    np.testing.assert_equal(other.model.state_dict(), before)


def test_going_on_with_other_data_is_refused():
    first = make(after_batch=[lambda t: t.stop() if t.batch == 3 else None])
    first.fit(loader(), 1)
    second = make()
    second.load_state_dict(first.state_dict())
    with pytest.raises(ValueError, match="stopped after batch 3 of 5 of an epoch, and the loader has 3 batches"):
        second.fit(loader(batch=32), 1)
    assert second.fit(loader(), 1)
    assert second.fit(loader(batch=32), 2)  # between epochs anything goes
