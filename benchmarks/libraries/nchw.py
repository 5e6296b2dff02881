"""Libraries whose images are NCHW, as ours: DeZero, MyGrad and tinygrad."""

from __future__ import annotations

import importlib
import os
from typing import Any
from unittest import mock

import numpy as np

import tinycnn

from .base import LR, Arrays, Library, Task


def _is_linear(name: str) -> bool:
    return name.startswith("fc") and name.endswith("weight")


class DeZero(Library):
    """DeZero, of the book "Deep Learning from Scratch 3"."""

    name, package = "DeZero", "dezero"

    def __init__(self) -> None:
        with mock.patch.object(np, "int", int, create=True):  # it asks for np.int, which NumPy 1.24 removed
            self.Variable = importlib.import_module("dezero").Variable
            self.F = importlib.import_module("dezero.functions")

    def convolution(self, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> Task:
        vx, vw, vdy = (self.Variable(np.ascontiguousarray(a)) for a in (x, w, dy))
        found: Arrays = {}

        def run() -> None:
            vx.cleargrad(), vw.cleargrad()
            y = self.F.conv2d(vx, vw, pad=1)
            y.grad = vdy
            y.backward()
            found.update(y=y.data, dx=vx.grad.data, dw=vw.grad.data)

        return Task(run, lambda: found)

    def training(self, state: Arrays, x: np.ndarray, y: np.ndarray) -> Task:
        F, images = self.F, self.Variable(np.ascontiguousarray(x))
        p = {name: self.Variable(np.array(a.T if _is_linear(name) else a, order="C")) for name, a in state.items()}
        found: Arrays = {}

        def forward() -> Any:
            h = F.pooling(F.relu(F.conv2d(images, p["conv1.weight"], p["conv1.bias"])), 2, 2)
            h = F.pooling(F.relu(F.conv2d(h, p["conv2.weight"], p["conv2.bias"])), 2, 2)
            h = F.reshape(h, (len(x), -1))
            h = F.relu(F.linear(h, p["fc1.weight"], p["fc1.bias"]))
            h = F.relu(F.linear(h, p["fc2.weight"], p["fc2.bias"]))
            return F.linear(h, p["fc3.weight"], p["fc3.bias"])

        def run() -> None:
            loss = F.softmax_cross_entropy(forward(), y)
            for v in p.values():
                v.cleargrad()
            loss.backward()
            for v in p.values():
                v.data -= LR * v.grad.data
            found["loss"] = loss.data

        return Task(run, lambda: found | {n: v.data.T if _is_linear(n) else v.data for n, v in p.items()})


class MyGrad(Library):
    """MyGrad, drop-in automatic differentiation for NumPy."""

    name, package = "MyGrad", "mygrad"

    def __init__(self) -> None:
        self.mg, nnet = importlib.import_module("mygrad"), importlib.import_module("mygrad.nnet")
        self.conv, self.pool = nnet.layers.conv_nd, nnet.layers.max_pool
        self.relu, self.cross_entropy = nnet.activations.relu, nnet.losses.softmax_crossentropy

    def convolution(self, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> Task:
        tx, tw = self.mg.tensor(x), self.mg.tensor(w)
        found: Arrays = {}

        def run() -> None:
            y = self.conv(tx, tw, stride=1, padding=1)
            y.backward(dy)
            found.update(y=y.data, dx=tx.grad, dw=tw.grad)

        return Task(run, lambda: found)

    def training(self, state: Arrays, x: np.ndarray, y: np.ndarray) -> Task:
        p = {name: self.mg.tensor(a.T if _is_linear(name) else a) for name, a in state.items()}
        found: Arrays = {}

        def convolve(h: Any, name: str) -> Any:
            h = self.conv(h, p[f"{name}.weight"], stride=1) + p[f"{name}.bias"].reshape(-1, 1, 1)
            return self.pool(self.relu(h), (2, 2), 2)

        def run() -> None:
            h = convolve(convolve(x, "conv1"), "conv2").reshape(len(x), -1)
            h = self.relu(h @ p["fc1.weight"] + p["fc1.bias"])
            h = self.relu(h @ p["fc2.weight"] + p["fc2.bias"])
            loss = self.cross_entropy(h @ p["fc3.weight"] + p["fc3.bias"], y)
            loss.backward()
            for tensor in p.values():
                tensor.data -= LR * tensor.grad
            found["loss"] = loss.data

        return Task(run, lambda: found | {n: t.data.T if _is_linear(n) else t.data for n, t in p.items()})


class Tinygrad(Library):
    """tinygrad on its CPU device, which compiles what it runs; needs clang."""

    name, package, note = "tinygrad", "tinygrad", "compiled to machine code by clang, replayed by TinyJit"

    def __init__(self) -> None:
        os.environ.setdefault("DEV", "CPU")
        os.environ.setdefault("NUM_CPU_THREADS", str(tinycnn.get_num_threads()))
        self.tg = importlib.import_module("tinygrad")
        try:
            self.device = self.tg.Device[self.tg.Device.DEFAULT]
        except Exception as error:
            raise ImportError(f"its CPU device does not start ({error}): it needs clang", name="tinygrad") from error

    def convolution(self, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> Task:
        tensors = [self.tg.Tensor(np.ascontiguousarray(a)).realize() for a in (x, w, dy)]
        found: dict[str, Any] = {}

        def compute(tx: Any, tw: Any, tdy: Any) -> Any:
            y = tx.conv2d(tw, padding=1)
            return tuple(t.realize() for t in (y, *y.gradient(tx, tw, gradient=tdy)))

        replayed = self.tg.TinyJit(compute)

        def run() -> None:
            found.update(zip(("y", "dx", "dw"), replayed(*tensors), strict=True))
            self.device.synchronize()

        return Task(run, lambda: {name: t.numpy() for name, t in found.items()})

    def training(self, state: Arrays, x: np.ndarray, y: np.ndarray) -> Task:
        Tensor = self.tg.Tensor
        p = {name: Tensor(np.ascontiguousarray(a)).realize() for name, a in state.items()}
        for tensor in p.values():
            tensor.requires_grad = True
        images, labels = Tensor(np.ascontiguousarray(x)).realize(), Tensor(y.astype(np.int32)).realize()
        optimizer = self.tg.nn.optim.SGD(list(p.values()), lr=LR)
        found: dict[str, Any] = {}

        def linear(h: Any, name: str) -> Any:
            return h.linear(p[f"{name}.weight"].transpose(), p[f"{name}.bias"])

        def step() -> Any:
            h = images.conv2d(p["conv1.weight"], p["conv1.bias"]).relu().max_pool2d(2)
            h = h.conv2d(p["conv2.weight"], p["conv2.bias"]).relu().max_pool2d(2).flatten(1)
            h = linear(linear(linear(h, "fc1").relu(), "fc2").relu(), "fc3")
            loss = h.sparse_categorical_crossentropy(labels)
            optimizer.zero_grad()
            loss.backward()
            return loss.realize(*optimizer.schedule_step())

        replayed = self.tg.TinyJit(step)

        def run() -> None:
            with self.tg.Context(TRAINING=1):
                found["loss"] = replayed()
            self.device.synchronize()

        return Task(run, lambda: {name: t.numpy() for name, t in (found | p).items()})
