"""Data set, loader, schedule, Trainer, checkpoint: the parts behind ``tinycnn train``, put together by hand.

It ends with an error if the network does not learn, or if the checkpoint does not give the same network back.
"""

import sys
import tempfile
from pathlib import Path

import tinycnn
from tinycnn import CrossEntropyLoss, data, models, optim
from tinycnn.train import Callback, EarlyStopping, Row, Trainer, evaluate

TARGET, EPOCHS = 0.97, 20

train, test = (data.prepare(data.load("digits", split), size=(32, 32)) for split in ("train", "test"))
train, validation = data.split_validation(train, fraction=0.1)


def loader(part: data.Dataset, **options: object) -> data.Loader:
    return data.Loader(part.images, part.labels, 32, normalize=train.normalize, **options)


class Print(Callback):
    """A callback has a method for each moment of a training; this one is called when an epoch has been measured."""

    def on_epoch_end(self, trainer: Trainer, row: Row) -> None:
        print({name: round(value, 4) for name, value in row.items()})


batches = loader(train, transform=data.RandomShift(2))
model = models.create("lenet5")
print(model.summary((32, 1, 32, 32)))

optimizer = optim.AdamW(optim.decay_groups(model, 0.01), lr=3e-3)
updates = EPOCHS * -(-len(batches) // 2)  # gradients of two batches make one update
schedule = optim.create_schedule("cosine", optimizer, updates, warmup=updates // 20)
trainer = Trainer(
    model,
    optimizer,
    CrossEntropyLoss(label_smoothing=0.05),
    schedule=schedule,
    accumulate=2,
    clip_norm=5.0,
    ema=optim.EMA(model, decay=0.98, use_buffers=True, warmup=True),
    callbacks=[Print(), EarlyStopping(patience=5, monitor="val_loss")],
)
trainer.fit(batches, EPOCHS, loader(validation, shuffle=False))
print(trainer.ended or "all epochs are done")

with tempfile.TemporaryDirectory() as folder, trainer.averaged():  # the weights that validation was measured with
    accuracy = evaluate(model, loader(test, shuffle=False))["accuracy"]
    print(f"test accuracy {accuracy:.4f}")
    path = Path(folder) / "digits.safetensors"
    tinycnn.save(model, path)
    again = evaluate(tinycnn.load(path), loader(test, shuffle=False))["accuracy"]

if accuracy < TARGET or again != accuracy:
    sys.exit(f"expected at least {TARGET}, got {accuracy:.4f}, and {again:.4f} from the checkpoint")
