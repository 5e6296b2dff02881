"""Libraries whose images are NHWC: SmallPebble and numpy-ml."""

from __future__ import annotations

import collections
import collections.abc
import importlib
import warnings
from typing import Any
from unittest import mock

import numpy as np

from .base import LR, Arrays, Library, Task


class SmallPebble(Library):
    """SmallPebble, a minimal automatic differentiation on NumPy."""

    name, package = "SmallPebble", "smallpebble"

    def __init__(self) -> None:
        self.sp = importlib.import_module("smallpebble")

    def convolution(self, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> Task:
        sp = self.sp
        vx, vw, vdy = sp.Variable(_nhwc(x)), sp.Variable(_hwio(w)), sp.Variable(_nhwc(dy))
        found: Arrays = {}

        def run() -> None:
            y = sp.conv2d(vx, vw, padding="SAME")
            gradients = sp.get_gradients(sp.sum(sp.mul(y, vdy)))
            found.update(y=_nchw(y.array), dx=_nchw(gradients[vx]), dw=_oihw(gradients[vw]))

        return Task(run, lambda: found)

    def training(self, state: Arrays, x: np.ndarray, y: np.ndarray) -> Task:
        sp, images = self.sp, self.sp.Variable(_nhwc(x))
        p = {name: sp.Variable(_to_nhwc(name, a)) for name, a in state.items()}
        found: Arrays = {}

        def convolve(h: Any, name: str) -> Any:
            h = sp.add(sp.conv2d(h, p[f"{name}.weight"], padding="VALID"), p[f"{name}.bias"])
            return sp.maxpool2d(sp.leaky_relu(h, 0.0), 2, 2, padding="VALID", strides=[2, 2])

        def linear(h: Any, name: str) -> Any:
            return sp.add(sp.matmul(h, p[f"{name}.weight"]), p[f"{name}.bias"])

        def run() -> None:
            h = sp.reshape(convolve(convolve(images, "conv1"), "conv2"), [len(x), 400])
            h = linear(sp.leaky_relu(linear(sp.leaky_relu(linear(h, "fc1"), 0.0), "fc2"), 0.0), "fc3")
            loss = sp.mul(sp.cross_entropy(sp.softmax(h), y), sp.Variable(np.array(1 / len(x), np.float32)))
            sp.sgd_step(list(p.values()), sp.get_gradients(loss), LR)
            found["loss"] = loss.array

        return Task(run, lambda: found | {name: _from_nhwc(name, v.array) for name, v in p.items()})


class NumpyML(Library):
    """numpy-ml, "machine learning, in numpy"."""

    name, package, note = "numpy-ml", "numpy-ml", "its pooling is a Python loop over every output; float64 inside"

    def __init__(self) -> None:
        # it asks for collections.Hashable, gone since Python 3.10, and warns that an optional part is missing
        revived = mock.patch.object(collections, "Hashable", collections.abc.Hashable, create=True)
        with revived, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nets = importlib.import_module("numpy_ml.neural_nets")
        self.layers, self.losses, self.optimizers = nets.layers, nets.losses, nets.optimizers

    def convolution(self, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> Task:
        layer = self.layers.Conv2D(len(w), (3, 3), pad=1)
        images, gradient = _nhwc(x), _nhwc(dy)
        layer.forward(images, retain_derived=False)  # makes its parameters
        layer.parameters["W"] = _hwio(w)
        found: Arrays = {}

        def run() -> None:
            layer.flush_gradients()
            y, dx = layer.forward(images), layer.backward(gradient)
            found.update(y=_nchw(y), dx=_nchw(dx), dw=_oihw(layer.gradients["W"]))

        return Task(run, lambda: found)

    def training(self, state: Arrays, x: np.ndarray, y: np.ndarray) -> Task:
        named = self._trained_layers(state)
        conv1, conv2, *fcs = named.values()
        pool1, pool2 = (self.layers.Pool2D((2, 2), stride=2) for _ in range(2))
        net = [conv1, pool1, conv2, pool2, self.layers.Flatten(keep_dim="first"), *fcs]
        images, targets, cross_entropy = _nhwc(x), np.eye(10)[y], self.losses.CrossEntropy
        found: Arrays = {}

        def run() -> None:
            h = images
            for layer in net:
                h = layer.forward(h)
            e = np.exp(h - h.max(axis=1, keepdims=True))
            predicted = e / e.sum(axis=1, keepdims=True)
            dh = cross_entropy.grad(targets, predicted) / len(x)
            for layer in reversed(net):
                dh = layer.backward(dh)
            for layer in net:
                layer.update()
            found["loss"] = np.float64(cross_entropy.loss(targets, predicted) / len(x))

        def results() -> Arrays:
            parts = {f"{name}.weight": layer.parameters["W"] for name, layer in named.items()}
            parts |= {f"{name}.bias": layer.parameters["b"].ravel() for name, layer in named.items()}
            return found | {name: _from_nhwc(name, a) for name, a in parts.items()}

        return Task(run, results)

    def _trained_layers(self, state: Arrays) -> dict[str, Any]:
        """Return LeNet-5's layers that have parameters, with these."""
        L, SGD = self.layers, self.optimizers.SGD
        convs = [L.Conv2D(OC, (5, 5), act_fn="relu", optimizer=SGD(lr=LR)) for OC in (6, 16)]
        sizes = (120, "relu"), (84, "relu"), (10, None)
        fcs = [L.FullyConnected(n, act_fn=act, optimizer=SGD(lr=LR)) for n, act in sizes]
        shapes = (1, 14, 14, 1), (1, 14, 14, 6), (1, 400), (1, 120), (1, 84)
        named = dict(zip(("conv1", "conv2", "fc1", "fc2", "fc3"), [*convs, *fcs], strict=True))
        for (name, layer), shape in zip(named.items(), shapes, strict=True):
            layer.forward(np.zeros(shape), retain_derived=False)  # makes its parameters
            for key, ending in (("W", "weight"), ("b", "bias")):
                values = _to_nhwc(f"{name}.{ending}", state[f"{name}.{ending}"])
                layer.parameters[key] = values.reshape(layer.parameters[key].shape)
        return named


def _nhwc(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))  # (N, C, H, W) -> (N, H, W, C)


def _nchw(x: np.ndarray) -> np.ndarray:
    return x.transpose(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)


def _hwio(w: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(w.transpose(2, 3, 1, 0))  # (OC, C, KH, KW) -> (KH, KW, C, OC)


def _oihw(w: np.ndarray) -> np.ndarray:
    return w.transpose(3, 2, 0, 1)  # (KH, KW, C, OC) -> (OC, C, KH, KW)


def _to_nhwc(name: str, a: np.ndarray) -> np.ndarray:
    """Return a copy of a parameter of LeNet-5 as a library with NHWC images wants it."""
    if a.ndim == 4:
        return _hwio(a)
    if name == "fc1.weight":  # (120, C·H·W) -> (120, C, H, W) -> (H, W, C, 120) -> (H·W·C, 120)
        return a.reshape(120, 16, 5, 5).transpose(2, 3, 1, 0).reshape(400, 120)
    return np.array(a.T, order="C")


def _from_nhwc(name: str, a: np.ndarray) -> np.ndarray:
    """Undo `_to_nhwc`."""
    if a.ndim == 4:
        return _oihw(a)
    if name == "fc1.weight":  # (H·W·C, 120) -> (H, W, C, 120) -> (120, C, H, W) -> (120, C·H·W)
        return a.reshape(5, 5, 16, 120).transpose(3, 2, 0, 1).reshape(120, 400)
    return a.T
