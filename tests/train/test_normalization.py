"""Normalisation of runs: what is learnt, and that it travels."""

from types import SimpleNamespace

import numpy as np
import pytest

from tinycnn.train import CheckpointError, checkpoint, normalization
from tinycnn.train.normalization import fit, of_checkpoint, scaling, whole


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (20, 3, 4, 5), dtype=np.uint8)


def expected(name, x):
    """In float64, from the definitions."""
    x = x / 255
    if name == "standard":
        mean, std = np.array([0.5, 0.4, 0.3])[:, None, None], np.array([0.2, 0.3, 0.4])[:, None, None]
        return (x - mean) / std
    if name == "per-pixel-mean":
        return x - x.mean(axis=0)
    x = 255 * x - (255 * x).mean(axis=(1, 2, 3), keepdims=True)
    rows = (x / np.sqrt(10 + (x**2).mean(axis=(1, 2, 3), keepdims=True))).reshape(len(x), -1)
    rows = rows - rows.mean(axis=0)
    values, vectors = np.linalg.eigh(rows.T @ rows / len(rows))
    return (rows @ vectors @ np.diag(1 / np.sqrt(values + 0.1)) @ vectors.T).reshape(x.shape)


@pytest.mark.parametrize("name", normalization.NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scaling(images, name, dtype):
    learnt = fit(name, images)
    y = whole(images, scaling(name, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), learnt, dtype))
    assert y.dtype == dtype
    assert y.transpose(0, 2, 3, 1).flags["C_CONTIGUOUS"]
    np.testing.assert_allclose(y, expected(name, images), rtol=1e-4, atol=1e-4)
    assert all(v.dtype == np.float32 for v in learnt.values())


def file(name, arrays):
    how = {"normalize": name, "mean": [0.5] * 3, "std": [0.25] * 3}
    prefixed = {checkpoint.PREPROCESSING + k: v for k, v in arrays.items()} | {"conv1.weight": np.zeros(3)}
    return SimpleNamespace(path="a.safetensors", arrays=prefixed, metadata={"preprocessing": how})


@pytest.mark.parametrize("name", normalization.NAMES)
def test_from_a_checkpoint(images, name):
    learnt = fit(name, images)
    scale = of_checkpoint(file(name, learnt), "float32")
    assert np.array_equal(scale(images), scaling(name, [0.5] * 3, [0.25] * 3, learnt, "float32")(images))


def test_older_checkpoints_are_standard(images):
    old = file("", {})
    del old.metadata["preprocessing"]["normalize"]
    assert np.allclose(of_checkpoint(old, "float32")(images), (images / 255 - 0.5) / 0.25, atol=1e-6)


def test_what_is_missing_is_said(images):
    with pytest.raises(CheckpointError, match=r"a\.safetensors: images are to be normalised by 'gcn-zca'"):
        of_checkpoint(file("gcn-zca", fit("per-pixel-mean", images)), "float32")
    with pytest.raises(CheckpointError, match="normalised by 'newer'"):
        of_checkpoint(file("newer", {}), "float32")
