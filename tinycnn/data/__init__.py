"""Datasets, their preparation, and the loader that cuts them into batches.

train = data.prepare(data.load("digits", "train"), size=(32, 32))
loader = data.Loader(train.images, train.labels, batch_size=64, seed=0, normalize=train.normalize)
for x, y in loader.epoch(0):  # x: float32 (N, C, H, W) on channels-last memory, y: int64 (N,)
    ...

`DeviceLoader` makes the same batches on a GPU.  Both take random changes of images, and mixtures of images and labels:

change = data.Compose([data.RandomCrop(32, padding=4), data.RandomHorizontalFlip()])
loader = data.Loader(train.images, train.labels, batch_size=128, transform=change, mix=data.Mixup(num_classes=10))
"""

from .augment import Augment, RandomShift, pixel_covariance
from .colour import ColorJitter, PCALighting
from .compose import Compose, RandomApply, RandomChoice
from .dataset import Dataset, prepare, split_validation, stratified_split
from .device import DeviceLoader
from .elastic import ElasticTransform
from .erasing import Cutout, RandomErasing
from .files import DataError, MissingError
from .geometry import RandomCrop, RandomHorizontalFlip, RandomRotation90, RandomVerticalFlip
from .idx import read_idx
from .imagefolder import FolderSource, load_folder, open_folder
from .loader import Loader
from .mix import CutMix, Mixup
from .registry import download, load, names, where
from .resized_crop import RandomResizedCrop
from .source import ArraySource, Source, open_images, write_images
from .transforms import Normalize, fit_images
from .warp import RandomAffine, RandomRotation
from .whitening import GCN, ZCA, PerPixelMean

__all__ = [
    "GCN",
    "ZCA",
    "ArraySource",
    "Augment",
    "ColorJitter",
    "Compose",
    "CutMix",
    "Cutout",
    "DataError",
    "Dataset",
    "DeviceLoader",
    "ElasticTransform",
    "FolderSource",
    "Loader",
    "MissingError",
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
    "Source",
    "download",
    "fit_images",
    "load",
    "load_folder",
    "names",
    "open_folder",
    "open_images",
    "pixel_covariance",
    "prepare",
    "read_idx",
    "split_validation",
    "stratified_split",
    "where",
    "write_images",
]
