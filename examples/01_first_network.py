"""A first network: two convolutions learn to read handwritten digits.

A network is a list of layers.  Each turns an array into another one: a convolution looks at a 3×3 neighbourhood of
every pixel, max pooling keeps the strongest answer of each 2×2, and the linear layer at the end weighs what was found
for each of the ten digits.  `Trainer` repeats the four steps of learning for every batch: forward, loss, backward,
step.

The figure shows the loss going down, and the test images that are still misread.
"""

import lab
import numpy as np

from tinycnn import Conv2d, CrossEntropyLoss, Flatten, Linear, MaxPool2d, ReLU, Sequential, data, optim
from tinycnn.train import Trainer

options = lab.options(__doc__)
x_train, y_train = lab.digits("train")  # (1438, 1, 8, 8), (1438,)
x_test, y_test = lab.digits("test")  # (359, 1, 8, 8), (359,)
rng = np.random.default_rng(options.seed)

model = Sequential(
    Conv2d(1, 16, 3, padding=1, rng=rng),  # (N, 1, 8, 8) -> (N, 16, 8, 8)
    ReLU(),
    MaxPool2d(2),  # -> (N, 16, 4, 4)
    Conv2d(16, 32, 3, padding=1, rng=rng),  # -> (N, 32, 4, 4)
    ReLU(),
    Flatten(),  # -> (N, 512)
    Linear(512, 10, rng=rng),
)
print(model.summary((1, 1, 8, 8)))

trainer = Trainer(model, optim.SGD(model.parameters(), lr=0.05, momentum=0.9), CrossEntropyLoss())
batches = data.Loader(x_train, y_train, batch_size=32, seed=options.seed)
print("epoch  training loss  test accuracy")
for epoch in range(4 if options.quick else 15):
    trainer.fit(batches, epochs=epoch + 1, validation=data.Loader(x_test, y_test, shuffle=False))
    row = trainer.history[-1]
    print(f"{row['epoch']:5}  {row['train_loss']:13.4f}  {row['val_accuracy']:13.1%}")

scores = model.eval()(x_test)  # (359, 10): the larger, the more the network believes in that digit
predicted = scores.argmax(axis=1)
wrong = np.flatnonzero(predicted != y_test)

figure, axes = lab.figure(1, 2, size=(9.2, 3.4))
for part, style, name in (("train", "-", "training"), ("val", "--", "test")):
    losses = [row[f"{part}_loss"] for row in trainer.history]
    axes[0].plot(range(1, len(losses) + 1), losses, style, label=name)
axes[0].set(yscale="log", xlabel="epoch", ylabel="cross-entropy")
axes[0].legend(frameon=False)
axes[1].axis("off")
axes[1].set_title(f"misread: {len(wrong)} of {len(y_test)}")
for place, i in enumerate(wrong[:10]):
    panel = axes[1].inset_axes((0.2 * (place % 5), 0.5 - 0.5 * (place // 5), 0.18, 0.38))
    panel.imshow(x_test[i, 0], cmap="gray_r")
    panel.set_title(f"{predicted[i]} for {y_test[i]}", fontsize=8)
    panel.axis("off")

accuracy = 1 - len(wrong) / len(y_test)
lab.conclude(
    options,
    figure,
    f"{len(y_test) - len(wrong)} of {len(y_test)} images are read correctly ({accuracy:.1%}); guessing gets a tenth.",
    holds=accuracy > 0.95,
)
