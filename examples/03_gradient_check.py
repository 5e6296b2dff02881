"""Check the gradients of a layer of your own.

A backward pass is right if it agrees with what forward does when its input moves a little.  With L(b) = ⟨v, forward⟩
for some fixed v, the derivative along a direction u is also the central difference (L(b + h·u) − L(b − h·u)) / 2h.  Two
errors are in it: what the Taylor series cuts off, which goes like h², and the rounding of L, which is divided by h and
so goes like ε/h.  The best h lies between, near ε^⅓, and leaves an error near ε^⅔: ten digits are right in float64
(ε = 2·10⁻¹⁶), but hardly five in float32 (ε = 10⁻⁷), and only at its very best h.  A small mistake hides there.

The layer is Swish with a learned slope b for each feature (Ramachandran et al. 2017, "Searching for activation
functions"); it needs no base class, only forward, backward and parameters.  A second version has a classic mistake: a
mean over the batch where the sum belongs.

The figure shows the relative error of dL/db against h, the median of many trials.  Where backward is right the curve
is a V: h² to the right of its lowest point, 1/h to the left.  Where it is wrong no h helps, and the curve is flat.
`gradcheck` extrapolates from several h, which gains two more digits, and says what the mistake looks like.
"""

import lab
import numpy as np

from tinycnn import Parameter, assert_gradients, gradcheck


class Swish:
    """y = x · σ(b·x), with a learned slope b for each feature."""

    def __init__(self, features: int, dtype: type = np.float64) -> None:
        self.slope = Parameter(np.linspace(0.5, 1.5, features).astype(dtype), "slope")

    def parameters(self) -> list[Parameter]:
        return [self.slope]

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.x, self.s = x, 1 / (1 + np.exp(-self.slope.data * x))
        return x * self.s

    def backward(self, dy: np.ndarray) -> np.ndarray:
        x, s, b = self.x, self.s, self.slope.data
        ds = s * (1 - s)  # dσ(u)/du at u = b·x
        self.slope.grad += (dy * x * x * ds).sum(axis=0)  # (N, features) -> (features,)
        return dy * (s + b * x * ds)


class WrongSwish(Swish):
    """The mistake: the mean over the batch where the sum belongs."""

    def backward(self, dy: np.ndarray) -> np.ndarray:
        before = self.slope.grad.copy()
        dx = super().backward(dy)
        self.slope.grad[...] = before + (self.slope.grad - before) / len(dy)
        return dx


def errors(layer: Swish, x: np.ndarray, v: np.ndarray, u: np.ndarray) -> list[float]:
    """Return, for every h of `steps`, how far dL/db along u is from the central difference, relatively."""
    b = layer.slope.data.copy()
    layer.forward(x)
    layer.backward(v)
    analytic = layer.slope.grad @ u

    def loss(h: float) -> float:
        layer.slope.data[...] = b + h * u  # rounded to the type of the layer
        return (v * layer.forward(x)).sum()

    numeric = [(loss(h) - loss(-h)) / (2 * h) for h in steps]
    return [abs(analytic - n) / max(abs(analytic), abs(n)) for n in numeric]


options = lab.options(__doc__)
rng = np.random.default_rng(options.seed)
steps = np.logspace(-12, 0, 25 if options.quick else 97)
trials = [rng.standard_normal((2, 6, 4)) for _ in range(20 if options.quick else 200)]  # x and v
u = np.array([1, -1, 1, -1])

curves = {}
print("                least error  at h")
for name, cls, dtype in (
    ("right, float64", Swish, np.float64),
    ("right, float32", Swish, np.float32),
    ("wrong, float64", WrongSwish, np.float64),
):
    curves[name] = np.median([errors(cls(4, dtype), *trial.astype(dtype), u) for trial in trials], axis=0)
    print(f"{name:14}  {curves[name].min():11.1e}  {steps[curves[name].argmin()]:.0e}")

x = trials[0][0]
right, wrong = assert_gradients(Swish(4), x), gradcheck(WrongSwish(4), x)
print(f"\n{right}\n\n{wrong}")


def exponent(low: float, high: float) -> float:
    """Return the power of h that the error of the right layer in float64 goes with, between two values of h."""
    part = (steps > low) & (steps < high)
    return np.polyfit(np.log(steps[part]), np.log(curves["right, float64"][part]), 1)[0]


figure, axes = lab.figure(size=(6.4, 4.2))
for (name, curve), style, place in zip(curves.items(), ("-", "--", "-."), (3e-12, 2e-4, 1e-5), strict=True):
    (line,) = axes.loglog(steps, curve, style)
    value = np.interp(place, steps, curve)
    axes.annotate(name, (place, value), (0, 6), textcoords="offset points", color=line.get_color())
for text, values, place in (("h²", steps**2 / 100, (1e-2, 1e-7)), ("1/h", 2e-17 / steps, (3e-10, 3e-9))):
    axes.plot(steps, values, ":", color="grey", linewidth=1)
    axes.annotate(text, place, color="grey")
axes.set(xlabel="step h of the central difference", ylabel="relative error of dL/db", ylim=(1e-12, 10))

best64, best32, best_wrong = (curve.min() for curve in curves.values())
cut_off, rounding = exponent(1e-4, 1e-1), exponent(1e-12, 1e-7)
lab.conclude(
    options,
    figure,
    f"Where backward is right the error falls like h^{cut_off:.2f} to {best64:.0e}, where rounding takes over, which "
    f"goes like h^{rounding:.2f}.\nIn float32 it never gets below {best32:.0e}. Where backward is wrong it is "
    f"{best_wrong:.2f} or more at every h.",
    holds=best64 < 1e-9 and best32 > 1e-6 and best_wrong > 0.5 and abs(cut_off - 2) < 0.1 and abs(rounding + 1) < 0.2,
)
