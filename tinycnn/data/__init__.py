"""Datasets, their preparation, and the loader that cuts them into batches.

train = data.prepare(data.load("digits", "train"), size=(32, 32))
loader = data.Loader(train.images, train.labels, batch_size=64, seed=0, normalize=train.normalize)
for x, y in loader.epoch(0):  # x: float32 (N, C, H, W) on channels-last memory, y: int64 (N,)
    ...

`DeviceLoader` makes the same batches on a GPU.
"""

from .augment import Augment, RandomShift, pixel_covariance
from .colour import ColorJitter, PCALighting
from .compose import Compose, RandomApply, RandomChoice
from .dataset import Dataset, prepare, split_validation, stratified_split
from .device import DeviceLoader
from .elastic import ElasticTransform
from .erasing import Cutout, RandomErasing
from .files import DataError
from .geometry import RandomCrop, RandomHorizontalFlip, RandomRotation90, RandomVerticalFlip
from .idx import read_idx
from .imagefolder import load_folder
from .loader import Loader
from .mix import CutMix, Mixup
from .registry import load, names
from .resized_crop import RandomResizedCrop
from .transforms import Normalize, fit_images
from .warp import RandomAffine, RandomRotation
from .whitening import GCN, ZCA, PerPixelMean

__all__ = [
    "GCN",
    "ZCA",
    "Augment",
    "ColorJitter",
    "Compose",
    "CutMix",
    "Cutout",
    "DataError",
    "Dataset",
    "DeviceLoader",
    "ElasticTransform",
    "Loader",
    "Mixup",
    "Normalize",
    "PCALighting",
    "PerPixelMean",
    "RandomAffine",
    "RandomApply",
    "RandomChoice",
    "RandomCrop",
    "RandomErasing",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "RandomRotation",
    "RandomRotation90",
    "RandomShift",
    "RandomVerticalFlip",
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
