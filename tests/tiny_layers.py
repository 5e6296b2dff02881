"""Tiny layers of no base class, each with bugs that can be planted, for testing the gradient checker."""

import numpy as np

from tinycnn.gradcheck import gapped


class Param:
    def __init__(self, data, requires_grad=True):
        self.data, self.grad, self.requires_grad = data, np.zeros_like(data), requires_grad


class Tiny:
    """A layer with at most one planted ``bug``."""

    def __init__(self, bug="", **options):
        self.bug = bug
        self.options = options
        rng = np.random.default_rng(7)
        for name, shape in self.shapes().items():
            setattr(self, name, Param(rng.normal(size=shape)))

    def shapes(self):
        return {}

    def parameters(self):
        return {name: getattr(self, name) for name in self.shapes()}


class Linear(Tiny):
    def shapes(self):
        return {"weight": (3, 3), "bias": (3,)}

    def forward(self, x):
        self.x = x
        return x @ self.weight.data.T + self.bias.data

    def backward(self, dy):
        if self.bug == "mutates dy":
            dy *= 1.0 + 1e-15 * np.arange(dy.size).reshape(dy.shape)
        if self.bug == "mutates x":
            self.x += 1
        if self.bug == "mutates weight":
            self.weight.data *= 1 + 1e-15
        dw, db, dx = dy.T @ self.x, dy.sum(0), dy @ self.weight.data
        if self.bug == "transposed":
            dw = dw.T
        if self.bug == "assigns":
            self.weight.grad[...] = dw
        elif self.bug == "rebinds":
            self.weight.grad = dw
        else:
            self.weight.grad += {"sign": -dw, "factor 2": 2 * dw, "mean": dw / max(len(dy), 1)}.get(self.bug, dw)
        self.bias.grad += 0 if self.bug == "no bias" else db
        return self.spoil(dx, dy)

    def spoil(self, dx, dy):
        if self.bug == "wrong shape":
            return dx[:, :2]
        if self.bug == "float32":
            return dx.astype(np.float32)
        if self.bug == "nan":
            dx[1, 1] = np.nan
        if self.bug == "offset":
            dx = dx + 1e-3
        if self.bug == "keeps":
            self.left = dx = dx + 1e-8 * getattr(self, "left", 0)
        return {"times N": dx * len(dy), "none": None, "tiny": dx * (1 + 1e-7)}.get(self.bug, dx)


class Tanh(Tiny):
    def forward(self, x):
        self.y = np.tanh(x)
        return self.y

    def backward(self, dy):
        return dy * (1 - self.y if self.bug else 1 - self.y**2)


class ReLU(Tiny):
    def forward(self, x):
        self.gate = x > 0
        return np.maximum(x, 0)

    def backward(self, dy):
        return dy.copy() if self.bug else dy * self.gate


class TellingReLU(ReLU):
    def branches(self):
        return [self.gate]


class Max(Tiny):
    """Over axis 1; the first of equals wins."""

    def forward(self, x):
        self.x = x
        return x.max(1)

    def backward(self, dy):
        if self.bug:
            return (self.x == self.x.max(1, keepdims=True)) * dy[:, None]
        dx = np.zeros_like(self.x)
        dx[np.arange(len(dx)), self.x.argmax(1)] = dy
        return dx


class Dropout(Tiny):
    def __init__(self, bug="", source=None):
        super().__init__(bug)
        self.rng = source or np.random.default_rng(3)

    def forward(self, x):
        self.mask = (self.rng.uniform(size=x.shape) < 0.6) / 0.6
        return x * self.mask

    def backward(self, dy):
        return dy * (self.mask > 0 if self.bug else self.mask)


class BatchNorm(Tiny):
    """Over axes 0, 2, 3, with a running mean that checking must not move."""

    def __init__(self, bug=""):
        super().__init__(bug)
        self.running_mean = np.zeros(3)

    def shapes(self):
        return {"gamma": (3,), "beta": (3,)}

    def forward(self, x):
        axes = (0, 2, 3)
        self.running_mean *= 0.9
        self.running_mean += 0.1 * x.mean(axes)
        self.inv = 1 / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
        self.xhat = (x - x.mean(axes, keepdims=True)) * self.inv
        return self.xhat * self.gamma.data.reshape(1, 3, 1, 1) + self.beta.data.reshape(1, 3, 1, 1)

    def backward(self, dy):
        axes = (0, 2, 3)
        self.gamma.grad += (dy * self.xhat).sum(axes)
        self.beta.grad += dy.sum(axes)
        dx = dy * (1 if self.bug == "no gamma" else self.gamma.data.reshape(1, 3, 1, 1))
        mean, along = dx.mean(axes, keepdims=True), (dx * self.xhat).mean(axes, keepdims=True)
        mean *= self.bug != "no mean"
        along *= self.bug != "no variance"
        return (dx - mean - self.xhat * along) * self.inv


class Conv(Tiny):
    """One channel, one filter, loops; pads (top, bottom, left, right), stride and dilation by option."""

    def shapes(self):
        return {"weight": (2, 3)}

    def places(self, S, D, y_shape):
        KH, KW = self.weight.data.shape
        for h, w in np.ndindex(y_shape):
            yield slice(h * S, h * S + D * KH, D), slice(w * S, w * S + D * KW, D), h, w

    def forward(self, x):
        top, bottom, left, right = self.options.get("pads", (0, 0, 0, 0))
        self.padded = np.pad(x, [(0, 0), (top, bottom), (left, right)])
        S, D = self.options.get("stride", 1), self.options.get("dilation", 1)
        sizes = zip(self.padded.shape[1:], self.weight.data.shape, strict=True)
        y = np.zeros((len(x), *((size - D * (K - 1) - 1) // S + 1 for size, K in sizes)))
        for rows, columns, h, w in self.places(S, D, y.shape[1:]):
            y[:, h, w] = (self.padded[:, rows, columns] * self.weight.data).sum((1, 2))
        return y

    def backward(self, dy):
        S, D = self.options.get("stride", 1), self.options.get("dilation", 1)
        if self.bug == "stride and dilation swapped":
            S, D = D, S
        dx, dw = np.zeros_like(self.padded), np.zeros_like(self.weight.data)
        for rows, columns, h, w in self.places(S, D, dy.shape[1:]):
            one = dy[:, h, w, None, None]
            dx[:, rows, columns] = one * self.weight.data + (0 if self.bug == "assigns" else dx[:, rows, columns])
            dw += (one * self.padded[:, rows, columns]).sum(0)
        self.weight.grad += dw[::-1, ::-1] if self.bug == "flipped" else dw
        top, bottom, left, right = self.options.get("pads", (0, 0, 0, 0))
        if self.bug == "pads swapped":
            top, bottom = bottom, top
        return dx[:, top : dx.shape[1] - bottom, left : dx.shape[2] - right]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def ties(*shape):
    return np.round(normal(*shape))


RIGHT = {
    "linear": (Linear(), normal(4, 3)),
    "tanh": (Tanh(), normal(4, 3)),
    "relu": (ReLU(), gapped((6, 5), np.random.default_rng(0))),
    "relu, general input": (ReLU(), normal(20, 30)),
    "relu that tells": (TellingReLU(), normal(20, 30)),
    "max": (Max(), gapped((6, 5), np.random.default_rng(0))),
    "max with ties": (Max(), ties(6, 5)),
    "dropout": (Dropout(), normal(5, 6)),
    "dropout, legacy generator": (Dropout(source=np.random.RandomState(3)), normal(5, 6)),
    "dropout, global generator": (Dropout(source=np.random), normal(5, 6)),
    "batch norm": (BatchNorm(), normal(4, 3, 2, 2)),
    "batch norm, small": (BatchNorm(), 1e-3 * normal(4, 3, 2, 2)),
    "batch norm, far off": (BatchNorm(), 100 + normal(4, 3, 2, 2)),
    "conv": (Conv(), normal(2, 4, 5)),
    "conv, all options": (Conv(pads=(2, 1, 0, 1), stride=2, dilation=2), normal(2, 6, 7)),
    "batch of one": (Linear(), normal(1, 3)),
}
