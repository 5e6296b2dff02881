"""Datasets, their preparation, and the loader that cuts them into batches.

train = data.prepare(data.load("digits", "train"), size=(32, 32))
loader = data.Loader(train.images, train.labels, batch_size=64, seed=0, normalize=train.normalize)
for x, y in loader.epoch(0):  # x: float32 (N, C, H, W) on channels-last memory, y: int64 (N,)
    ...

`DeviceLoader` makes the same batches on a GPU.
"""

from .augment import Augment, RandomShift, pixel_covariance
from .dataset import Dataset, prepare, split_validation, stratified_split
from .device import DeviceLoader
from .files import DataError
from .idx import read_idx
from .imagefolder import load_folder
from .loader import Loader
from .registry import load, names
from .transforms import Normalize, fit_images

__all__ = [
    "Augment",
    "DataError",
    "Dataset",
    "DeviceLoader",
    "Loader",
    "Normalize",
    "RandomShift",
    "fit_images",
    "load",
    "load_folder",
    "names",
    "pixel_covariance",
    "prepare",
    "read_idx",
    "split_validation",
    "stratified_split",
]
