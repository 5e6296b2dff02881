"""The whole of training in a dozen lines: forward, loss, backward, step.  No Trainer, no command line.

Run it from anywhere: ``python examples/train_from_scratch.py``.  It ends with an error if the network does not learn.
"""

import sys

import numpy as np

from tinycnn import BatchNorm2d, Conv2d, CrossEntropyLoss, Flatten, Linear, MaxPool2d, ReLU, Sequential, data, optim

TARGET = 0.97

train, test = (data.load("digits", split=split) for split in ("train", "test"))
rng = np.random.default_rng(0)


def to_input(images: np.ndarray) -> np.ndarray:
    """0…255 -> −1…1, in float32."""
    return images.astype(np.float32) / 127.5 - 1


model = Sequential(
    Conv2d(1, 16, 3, padding=1, rng=rng),  # (N, 1, 8, 8) -> (N, 16, 8, 8)
    BatchNorm2d(16),
    ReLU(),
    MaxPool2d(2),  # -> (N, 16, 4, 4)
    Conv2d(16, 32, 3, padding=1, rng=rng),  # -> (N, 32, 4, 4)
    BatchNorm2d(32),
    ReLU(),
    Flatten(),  # -> (N, 512)
    Linear(512, 10, rng=rng),
)
loss_fn = CrossEntropyLoss()
optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)

for epoch in range(10):
    order = rng.permutation(len(train.labels))
    for batch in np.array_split(order, len(order) // 32):
        x, labels = to_input(train.images[batch]), train.labels[batch]
        loss, dlogits = loss_fn(model(x), labels)
        model.zero_grad()
        model.backward(dlogits)
        optimizer.step()
    model.eval()
    accuracy = (model(to_input(test.images)).argmax(axis=1) == test.labels).mean()
    model.train()
    print(f"epoch {epoch + 1:2d}  loss {float(loss):.4f}  test accuracy {accuracy:.4f}")

if accuracy < TARGET:
    sys.exit(f"expected at least {TARGET}, got {accuracy:.4f}")
