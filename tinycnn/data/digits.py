"""The UCI handwritten digits, bundled: 1,797 images of 8×8 pixels, enough to learn from in seconds.

Source, licence and changes: ``ATTRIBUTION.md`` beside this file; ``scripts/make_digits.py`` made the archive.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .dataset import Dataset, stratified_split

TEST_FRACTION, SPLIT_SEED = 0.2, 0
"""Everybody's test images are the same 359; the seed of a run has no say in it."""
FULL_SCALE = 16
"""The file counts the inked cells of each 4×4 block of a scan: 0..16."""
CLASSES = tuple("0123456789")
FILE = Path(__file__).with_name("digits.npz")


def load_digits(split: str) -> Dataset:
    """Return the training or the test part, pixels scaled from 0..16 to 0..255.

    Mean and standard deviation are computed here, from the training part.
    """
    with np.load(FILE, allow_pickle=False) as archive:
        counts, labels = archive["images"], archive["labels"].astype(np.int64)
    # (N, H, W) -> (N, 1, H, W); one channel: C-contiguous is channels-last too
    images = np.rint(counts * (255 / FULL_SCALE)).astype(np.uint8)[:, None]
    train, test = stratified_split(labels, TEST_FRACTION, SPLIT_SEED)
    pixels = images[train] / 255
    whole = Dataset("digits", split, images, labels, CLASSES, (float(pixels.mean()),), (float(pixels.std()),))
    return whole.subset(train if split == "train" else test)
