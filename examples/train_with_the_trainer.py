"""Data set, loader, schedule, Trainer, checkpoint: the parts behind ``tinycnn train``, put together by hand.

It ends with an error if the network does not learn, or if the checkpoint does not give the same network back.
"""

import sys
import tempfile
from pathlib import Path

import tinycnn
from tinycnn import CrossEntropyLoss, data, models, optim
from tinycnn.train import Trainer, evaluate

TARGET, EPOCHS = 0.97, 10

train, test = (data.prepare(data.load("digits", split), size=(32, 32)) for split in ("train", "test"))
train, validation = data.split_validation(train, fraction=0.1)


def loader(part: data.Dataset, **options: object) -> data.Loader:
    return data.Loader(part.images, part.labels, 64, normalize=train.normalize, **options)


batches = loader(train, transform=data.RandomShift(2))
model = models.create("lenet5")
print(model.summary((64, 1, 32, 32)))

optimizer = optim.AdamW(optim.decay_groups(model, 0.01), lr=3e-3)
schedule = optim.OneCycleLR(optimizer, max_lr=3e-3, total_steps=EPOCHS * len(batches))
trainer = Trainer(
    model,
    optimizer,
    CrossEntropyLoss(label_smoothing=0.05),
    schedule=schedule,
    clip_norm=5.0,
    after_epoch=[lambda _, row: print({name: round(value, 4) for name, value in row.items()})],
)
trainer.fit(batches, EPOCHS, loader(validation, shuffle=False))
accuracy = evaluate(model, loader(test, shuffle=False))["accuracy"]
print(f"test accuracy {accuracy:.4f}")

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "digits.safetensors"
    tinycnn.save(model, path)
    again = evaluate(tinycnn.load(path), loader(test, shuffle=False))["accuracy"]

if accuracy < TARGET or again != accuracy:
    sys.exit(f"expected at least {TARGET}, got {accuracy:.4f}, and {again:.4f} from the checkpoint")
