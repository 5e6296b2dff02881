"""From pixels to what a network takes: the scaling of a run, learnt from its training images and kept with its weights.

==================  ================================================================================================
``standard``        mean and deviation of every channel (`tinycnn.data.Normalize`), batch by batch
``per-pixel-mean``  a mean for every pixel is subtracted (He et al. 2016, section 4.2): `tinycnn.data.PerPixelMean`
``gcn-zca``         contrast and correlations are taken out (Goodfellow et al. 2013, section 5.2): `GCN`, then `ZCA`
==================  ================================================================================================

The last two are applied to the whole set once, so that crops are of images that are normalised already, and a border of
zeros is a border of mean grey: as in the papers.  What was learnt is arrays, which a checkpoint has beside its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..backend import Array, array_module
from ..data import GCN, ZCA, Normalize, PerPixelMean
from ..parameter import channels_last
from .checkpoint import PREPROCESSING, Checkpoint
from .mapped import CheckpointError

NAMES = ("standard", "per-pixel-mean", "gcn-zca")
CHUNK = 1024
"""Images scaled at a time."""


def fit(name: str, images: Array) -> dict[str, Array]:
    """Return what is to be learnt from training images (N, C, H, W), as float32."""
    if name == "standard":
        return {}
    if name == "per-pixel-mean":
        return {"mean": PerPixelMean.fit(images).mean.astype(np.float32)}
    xp = array_module(images)
    zca = ZCA.fit(xp.concatenate([GCN()(images[k : k + CHUNK]) for k in range(0, len(images), CHUNK)]))
    return {"mean": zca.mean.astype(np.float32), "matrix": zca.matrix.astype(np.float32)}


def scaling(name: str, mean: Any, std: Any, learnt: Mapping[str, Array], dtype: str) -> Callable[[Array], Array]:
    """Return what scales a batch of images (N, C, H, W).

    Args:
        name: one of `NAMES`.
        mean, std: of the channels, for ``standard``.
        learnt: what `fit` returned, for the others.
        dtype: of the result.
    """
    if name == "standard":
        return Normalize(tuple(mean), tuple(std), dtype)
    if name == "per-pixel-mean":
        steps: list[Callable[[Array], Array]] = [PerPixelMean(learnt["mean"])]
    else:
        steps = [GCN(), ZCA(learnt["mean"], learnt["matrix"])]

    def scale(x: Array) -> Array:
        if dtype == "float64" and x.dtype == np.uint8:
            x = x / np.float64(255)
        for step in steps:
            x = step(x)
        return x.astype(dtype, copy=False)

    return scale


def whole(images: Array, scale: Callable[[Array], Array]) -> Array:
    """Return all images scaled, some at a time, on channels-last memory."""
    parts = [scale(images[k : k + CHUNK]) for k in range(0, len(images), CHUNK)]
    return channels_last(array_module(images).concatenate(parts))


def of_checkpoint(checkpoint: Checkpoint, dtype: str) -> Callable[[Array], Array]:
    """Return what scales images for the network in a checkpoint that a training run wrote.

    Args:
        checkpoint: with ``preprocessing`` among its metadata (`preprocessing_of` makes sure of that).
        dtype: of the result.

    Raises:
        CheckpointError: it names a way that is not known, or lacks what was learnt.
    """
    how = checkpoint.metadata["preprocessing"]
    name = how.get("normalize", "standard")
    learnt = {
        key.removeprefix(PREPROCESSING): np.array(x)
        for key, x in checkpoint.arrays.items()
        if key.startswith(PREPROCESSING)
    }
    needed: dict[str, set[str]] = {"standard": set(), "per-pixel-mean": {"mean"}, "gcn-zca": {"mean", "matrix"}}
    if name not in needed or not needed[name] <= set(learnt):
        raise CheckpointError(
            f"{checkpoint.path}: images are to be normalised by {name!r}, and it is not whole or not known here: take "
            "another copy, or the version of tinycnn that wrote it"
        )
    return scaling(name, how["mean"], how["std"], learnt, dtype)
