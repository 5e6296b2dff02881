"""Out of memory on a GPU: what is said, and that life goes on."""

import numpy as np
import pytest

from tinycnn import optim
from tinycnn.backend import array_module, to_device
from tinycnn.layers import Conv2d, Flatten, Linear, ReLU, Sequential
from tinycnn.losses import CrossEntropyLoss
from tinycnn.train import OutOfMemoryError, Trainer
from tinycnn.train.memory import out_of_memory_explained, size, usage


def trainer():
    rng = np.random.default_rng(0)
    model = Sequential(
        Conv2d(1, 32, 3, padding=1, rng=rng), ReLU(), Conv2d(32, 4, 3, rng=rng), Flatten(), Linear(4 * 100, 3, rng=rng)
    ).to("cuda")
    made = optim.create("adam", model.parameters(), lr=0.01)
    return Trainer(model, made, CrossEntropyLoss(check_labels=False))


def batch(n):
    rng = np.random.default_rng(1)
    images = rng.normal(size=(n, 1, 12, 12)).astype(np.float32)
    return to_device(images, "cuda"), to_device(rng.integers(0, 3, n), "cuda")


@pytest.mark.parametrize("steps_before", [0, 6])
def test_one_error_says_what_takes_the_memory_and_training_goes_on(gpu, steps_before):
    own = trainer()
    pool = gpu.get_default_memory_pool()
    for _ in range(steps_before):
        own.step(*batch(4))
    large = batch(512)
    pool.set_limit(size=pool.used_bytes() + (14 << 20))  # enough for the first layer
    try:
        with pytest.raises(OutOfMemoryError) as caught:
            own.step(*large)
    finally:
        pool.set_limit(size=0)
    words = str(caught.value)
    assert words.startswith("the GPU is out of memory with 512 images of 1×12×12 in a batch: ")
    assert "Out of memory allocating" in words
    assert "the largest of them 0 9.0 MiB, 1 9.0 MiB, 2 0.8 MiB;" in words or "1 9.0 MiB, 3 0.8 MiB;" in words
    assert "use a smaller batch, or Checkpointed blocks" in words
    assert own.captured.nbytes == 0
    assert all(layer._saved is None for layer in own.model.layers())
    caught = None
    del large
    before = pool.used_bytes()
    for _ in range(6):
        own.step(*batch(4))
    assert own.captured.state == "captured"
    assert pool.used_bytes() < before + (1 << 20)


def test_a_cpus_memory_is_not_explained(gpu):
    own = trainer()
    own.model.to("cpu")
    made = optim.create("sgd", own.model.parameters(), lr=0.1)
    with pytest.raises(MemoryError) as caught, out_of_memory_explained(own.model, made, None, lambda: None):
        raise MemoryError("of the host")
    assert not isinstance(caught.value, OutOfMemoryError)


def test_usage(gpu):
    x = gpu.zeros(1 << 20, np.float32)
    words = usage(x, 3 << 20)
    assert "MiB in arrays" in words
    assert "3.0 MiB by the CUDA graph" in words
    assert words.endswith("free")
    assert array_module(x) is gpu


def test_size():
    assert [size(n) for n in (0, 1 << 19, 3 << 30)] == ["0.0 MiB", "0.5 MiB", "3.00 GiB"]
