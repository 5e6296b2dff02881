"""tinycnn: a CNN framework from scratch on NumPy and CuPy, with every backward pass written by hand.

    import numpy as np
    import tinycnn
    from tinycnn import Conv2d, Flatten, Linear, MaxPool2d, ReLU, Sequential

    model = Sequential(Conv2d(1, 8, 3), ReLU(), MaxPool2d(2), Flatten(), Linear(8 * 15 * 15, 10))
    loss_fn, optimizer = tinycnn.CrossEntropyLoss(), tinycnn.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for x, labels in batches:                        # (N, 1, 32, 32) and (N,)
        loss, dlogits = loss_fn(model(x), labels)    # forward
        model.zero_grad()
        model.backward(dlogits)                      # every layer's backward, in reverse
        optimizer.step()

Layers and losses are names of this module; optimizers are in `tinycnn.optim`, data sets in `tinycnn.data`,
architectures in `tinycnn.models`, the training loop in `tinycnn.train`.
"""

__version__ = "0.1.0"

from . import data, initializers, layers, models, optim
from .backend import DeviceError, array_module, to_device, to_numpy
from .gradcheck import assert_gradients, gradcheck
from .kernels.im2col import col2im, im2col, im2col_naive
from .layers import *  # noqa: F403 (layers.__all__ is the list)
from .layers.fuse import fuse
from .layers.rounding import conv_errors
from .layers.tune import algorithms, set_algorithms, tune
from .losses import AuxiliaryLoss, BCEWithLogitsLoss, CrossEntropyLoss, MSELoss
from .parallel import get_num_threads, set_num_threads
from .parameter import Parameter
from .train.captured import CapturedStep
from .train.checkpoint import load, save

__all__ = [  # noqa: PLE0604 (layers.__all__ is a list of strings)
    "AuxiliaryLoss",
    "BCEWithLogitsLoss",
    "CapturedStep",
    "CrossEntropyLoss",
    "DeviceError",
    "MSELoss",
    "Parameter",
    "algorithms",
    "array_module",
    "assert_gradients",
    "col2im",
    "conv_errors",
    "data",
    "fuse",
    "get_num_threads",
    "gradcheck",
    "im2col",
    "im2col_naive",
    "initializers",
    "layers",
    "load",
    "models",
    "optim",
    "save",
    "set_algorithms",
    "set_num_threads",
    "to_device",
    "to_numpy",
    "tune",
    *layers.__all__,
]
