"""The bare training loop: forward, loss, backward, step.

All of training is four lines that are repeated.  The network answers; the loss says how wrong that is, and which way
every score should move; `backward` turns that into the gradient of every weight; and each weight takes a small step
against its gradient, w ← w − lr·dL/dw.  Here is nothing else: no `Trainer`, not even an optimizer.

Gradients are added to, so that several losses can share a network; a loop that is about one loss clears them first.
Leave `zero_grad` out and every step is taken along the sum of all gradients so far: this run then fails.

The figure shows loss and gradient norm of every step.  At the start the network guesses, and the loss is near
ln 10 = 2.30.  Once it has begun to read, loss and norm fall together, since all that goes back begins with
softmax(scores) − one-hot(label): a batch that is read without doubt has nothing left to teach.  Single batches scatter
over a factor of a hundred and more; the peaks late in training are batches with a hard image.
"""

import lab
import numpy as np

from tinycnn import Conv2d, CrossEntropyLoss, Flatten, Linear, MaxPool2d, ReLU, Sequential, optim

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
loss_fn = CrossEntropyLoss()
lr = 0.1
losses, norms = [], []

print("epoch  mean loss  mean gradient norm  test accuracy")
for epoch in range(5 if options.quick else 15):
    model.train()
    batches = np.array_split(rng.permutation(len(x_train)), len(x_train) // 16)
    for batch in batches:
        loss, dscores = loss_fn(model(x_train[batch]), y_train[batch])  # forward, and (softmax − one-hot) / N
        model.zero_grad()
        model.backward(dscores)
        for w in model.parameters():
            w.data -= lr * w.grad
        losses.append(float(loss))
        norms.append(optim.grad_norm(model))

    model.eval()
    accuracy = np.mean(model(x_test).argmax(axis=1) == y_test)
    T = len(batches)
    print(f"{epoch + 1:5}  {np.mean(losses[-T:]):9.4f}  {np.mean(norms[-T:]):18.4f}  {accuracy:13.1%}")

figure, axes = lab.figure(1, 2, sharex=True)
for panel, name, values in zip(axes, ("cross-entropy", "norm of the gradient"), (losses, norms), strict=True):
    means = np.reshape(values, (-1, T)).mean(axis=1)
    panel.plot(values, linewidth=0.5, alpha=0.6, label="each step")
    panel.plot((np.arange(len(means)) + 0.5) * T, means, "o-", markersize=3, label="mean of an epoch")
    panel.set(yscale="log", xlabel="step", ylabel=name)
axes[0].axhline(np.log(10), color="grey", linestyle=":", linewidth=1)
axes[0].annotate("guessing: ln 10", (len(losses), np.log(10)), ha="right", va="bottom", color="grey")
axes[1].legend(frameon=False, loc="lower left")

start, end = np.mean(losses[:5]), np.mean(losses[-T:])
late = slice(-2 * T, None)  # the last two epochs
alike = np.corrcoef(np.log(losses[late]), np.log(norms[late]))[0, 1]
lab.conclude(
    options,
    figure,
    f"In {len(losses)} steps the loss went from {start:.2f} to {end:.4f}, and {accuracy:.1%} of the test images are "
    f"read correctly.\nIn the last two epochs the logarithms of a batch's loss and of its gradient norm correlate with "
    f"{alike:.2f}.",
    holds=abs(start - np.log(10)) < 0.2 and end < start / 10 and accuracy > 0.93 and alike > 0.9,
)
