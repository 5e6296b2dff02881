"""The bare loop on a GPU: the whole step becomes one CUDA graph.  Without a GPU the same lines train on the CPU.

`CapturedStep` is forward, loss, backward and update.  The first steps run as ever; then one is captured, and from
there on each is a single launch.  ``precision`` may be "tf32", "bf16" or "fp16" on a GPU.
"""

import sys

from tinycnn import CapturedStep, CrossEntropyLoss, data, models, optim
from tinycnn.backend import CUDA, resolve_device
from tinycnn.data import DeviceLoader, Loader, RandomShift
from tinycnn.train import evaluate

EPOCHS, TARGET = 15, 0.97

device = resolve_device("auto")
train, test = (data.prepare(data.load("digits", split=split), (32, 32)) for split in ("train", "test"))
make_loader = DeviceLoader if device == CUDA else Loader  # images live on the GPU, batches are formed there
shift = RandomShift(2)  # every image somewhere else each time
batches = make_loader(train.images, train.labels, 64, shuffle=True, transform=shift, normalize=train.normalize)
held_out = make_loader(test.images, test.labels, 64, normalize=test.normalize)

model = models.create("lenet5", seed=0).to(device)
model.require_dx(False)  # nobody wants the gradient of the images
optimizer = optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
step = CapturedStep(model, optimizer, CrossEntropyLoss(), precision="tf32" if device == CUDA else None)

for epoch in range(EPOCHS):
    for x, y in batches.epoch(epoch):
        loss, logits = step(x, y)
    print(f"epoch {epoch + 1}: last loss {float(loss):.4f}  (steps are {step.state}: {step.reason or 'replayed'})")

accuracy = evaluate(model, held_out)["accuracy"]
print(f"accuracy on {len(test.images)} held-out digits, on {device}: {accuracy:.4f}")
if accuracy < TARGET:
    sys.exit(f"expected at least {TARGET}")
