"""Training: the loop, checkpoints, and runs that can be stopped at any moment."""

from .captured import CapturedStep
from .checkpoint import Checkpoint, CheckpointError, load, load_into, save
from .diagnose import NonFiniteError, diagnose, find_non_finite
from .features import Features, load_features, save_features
from .memory import OutOfMemoryError
from .run import Run
from .settings import Settings
from .trainer import Row, Sums, Trainer, evaluate

__all__ = [
    "CapturedStep",
    "Checkpoint",
    "CheckpointError",
    "Features",
    "NonFiniteError",
    "OutOfMemoryError",
    "Row",
    "Run",
    "Settings",
    "Sums",
    "Trainer",
    "diagnose",
    "evaluate",
    "find_non_finite",
    "load",
    "load_features",
    "load_into",
    "save",
    "save_features",
]
