"""Write a layer, and let the checker prove its backward.

The layer below needs no base class: forward and backward are enough, and `parameters` if it has some.  A second
version has a classic mistake; the checker finds it and says what it looks like.
"""

import sys

import numpy as np

from tinycnn import Parameter, assert_gradients, gradcheck


class Swish:
    """y = x · σ(b·x), with a learned slope b for each feature."""

    def __init__(self, features: int) -> None:
        self.slope = Parameter(np.linspace(0.5, 1.5, features), "slope")

    def parameters(self) -> list[Parameter]:
        return [self.slope]

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.x, self.s = x, 1 / (1 + np.exp(-self.slope.data * x))
        return x * self.s

    def backward(self, dy: np.ndarray) -> np.ndarray:
        x, s, b = self.x, self.s, self.slope.data
        ds = s * (1 - s)  # dσ(u)/du at u = b·x
        self.slope.grad += (dy * x * x * ds).sum(axis=0)
        return dy * (s + b * x * ds)


class WrongSwish(Swish):
    """The mistake: the mean over the batch where the sum belongs."""

    def backward(self, dy: np.ndarray) -> np.ndarray:
        before = self.slope.grad.copy()
        dx = super().backward(dy)
        self.slope.grad[...] = before + (self.slope.grad - before) / len(dy)
        return dx


x = np.random.default_rng(0).standard_normal((6, 4))
assert_gradients(Swish(4), x)
print("Swish: backward is right\n")

report = gradcheck(WrongSwish(4), x)
print(report)
if report.ok:
    sys.exit("the planted mistake was not found")
