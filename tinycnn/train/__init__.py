"""Training: the loop, checkpoints, and runs that can be stopped at any moment."""

from .batchnorm_statistics import recompute_statistics
from .callbacks import Callback, EarlyStopping, SaveEvery
from .captured import CapturedStep
from .checkpoint import Checkpoint, CheckpointError, load, load_into, save
from .diagnose import NonFiniteError, diagnose, find_non_finite
from .features import Features, load_features, save_features
from .lr_range import LRRange, lr_range_test
from .measure import evaluate
from .memory import OutOfMemoryError
from .recorder import Recorder, Records, read_records, spread
from .run import Run
from .settings import Settings
from .sums import Sums
from .trainer import Row, Trainer

__all__ = [
    "Callback",
    "CapturedStep",
    "Checkpoint",
    "CheckpointError",
    "EarlyStopping",
    "Features",
    "LRRange",
    "NonFiniteError",
    "OutOfMemoryError",
    "Recorder",
    "Records",
    "Row",
    "Run",
    "SaveEvery",
    "Settings",
    "Sums",
    "Trainer",
    "diagnose",
    "evaluate",
    "find_non_finite",
    "load",
    "load_features",
    "load_into",
    "lr_range_test",
    "read_records",
    "recompute_statistics",
    "save",
    "save_features",
    "spread",
]
