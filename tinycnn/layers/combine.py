"""Layers made of layers.

There is no graph to trace here.  Each combinator's forward is a way of putting functions together, and its
backward is the chain rule for just that way, plainly the children's backwards in reverse:

==============================  ====================================================================
y = f₂(f₁(x))                   dx = f₁ᵀ(f₂ᵀ(dy)): `Sequential`, last child first
y = Σᵢ fᵢ(x)                    dx = Σᵢ fᵢᵀ(dy): `Add`; every branch sees the whole dy, x collects from all
y = f(x) + g(x), g often x      `Residual`: as `Add`; where g is the identity, dx = fᵀ(dy) + dy, so the
                                gradient has a way past f that no weight can shrink
y = relu(norm(f(x)) + g(x))     `ResidualNormReLU`: the norm's backward gives both branches their dy
y = [f₁(x), f₂(x), …]           dx = Σᵢ fᵢᵀ(dyᵢ): `Concat`; each branch sees its own channels of dy
==============================  ====================================================================

(fᵀ is "backward of f": multiplication by the transposed Jacobian at the point of the last forward.)

None of these saves an array itself.  `Checkpointed` saves the input of its layer, and nothing within.

Sources: residual learning, He et al. 2016, "Deep residual learning for image recognition", eq. 1; the gradient's
free way, He et al. 2016, "Identity mappings in deep residual networks", eq. 5; concatenation, Szegedy et al.
2015, "Going deeper with convolutions"; recomputation, Chen et al. 2016, "Training deep nets with sublinear
memory cost".
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import cast

from ..backend import Array, array_module
from ..kernels.activation import add
from ..parallel import each_slice
from .activation import in_rows
from .base import Layer, LayerError
from .batchnorm import BatchNormReLU2d
from .shape import Identity


class Sequential(Layer):
    """The children one after another.

    Args:
        layers: the children, named "0", "1", … in paths; or one mapping of names to layers.  A child under the
            empty name shares this layer's name space.

    >>> Sequential(Identity(), Identity())
    Sequential(
      (0): Identity()
      (1): Identity()
    )
    """

    forward_is_in_order = True

    def __init__(self, *layers: Layer | Mapping[str, Layer]) -> None:
        super().__init__()
        named = layers[0] if len(layers) == 1 and isinstance(layers[0], Mapping) else dict(_numbered(layers))
        for name, layer in named.items():
            self.append(layer, name)

    def append(self, layer: Layer, name: str | None = None) -> Sequential:
        """Add a layer at the end.

        Raises:
            TypeError: it is not a `Layer`.
        """
        if not isinstance(layer, Layer):
            raise TypeError(f"a Sequential is made of layers, got {layer!r}")
        self.add(str(len(self)) if name is None else name, layer)
        return self

    def forward(self, x: Array) -> Array:
        """Return the children's forwards, in order."""
        for layer in self:
            x = layer.forward(x)
        return x

    def backward(self, dy: Array) -> Array:
        """Return the children's backwards, in reverse, down to the last one that needs a gradient."""
        for layer in reversed(list(self)):
            if not layer.reached:
                return None
            dy = layer.backward(dy)
        return dy

    def require_dx(self, needed: bool = True) -> bool:
        """Each child needs to return dx if anything before it needs one."""
        self.needs_dx = self.reached = needed
        for layer in self:
            self.reached = layer.require_dx(self.reached)
        return self.reached

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape after the last child."""
        return functools.reduce(lambda s, layer: layer.output_shape(s), self, shape)

    def macs(self, shape: tuple[int, ...]) -> int:
        """Return the sum over the children."""
        total = 0
        for layer in self:
            total += layer.macs(shape)
            shape = layer.output_shape(shape)
        return total

    def __len__(self) -> int:
        return len(self._children)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._children.values())

    def __getitem__(self, key: int | str) -> Layer:
        return self._children[key] if isinstance(key, str) else list(self)[key]

    def __repr__(self) -> str:
        return tree(self)


def in_order(layer: Layer) -> Iterator[Layer]:
    """Yield the layers that ``layer`` is a chain of: of a `Sequential` its children, those of one within likewise.

    A class whose forward, in evaluation, is that of its children one after another says so by
    ``forward_is_in_order = True`` where it defines that forward.
    """
    owner = next(cls for cls in type(layer).__mro__ if "forward" in vars(cls))
    if not vars(owner).get("forward_is_in_order", False):
        yield layer
    else:
        for child in cast(Sequential, layer):
            yield from in_order(child)


class Add(Layer):
    """The sum of branches that all see the same input: y = Σᵢ fᵢ(x).

    Args:
        branches: layers whose outputs have one shape, named "0", "1", … in paths; or one mapping.

    Raises:
        LayerError: the outputs' shapes differ.
    """

    def __init__(self, *branches: Layer | Mapping[str, Layer]) -> None:
        super().__init__()
        named = branches[0] if len(branches) == 1 and isinstance(branches[0], Mapping) else dict(_numbered(branches))
        if not named:
            raise LayerError(f"{type(self).__name__} needs at least one branch")
        for name, layer in named.items():
            self.add(name, layer)

    def forward(self, x: Array) -> Array:
        """Return Σᵢ fᵢ(x)."""
        ys = [branch.forward(x) for branch in self.children()]
        if len({tuple(y.shape) for y in ys}) > 1:
            raise LayerError(f"{self}: the branches' outputs must have one shape, got {[tuple(y.shape) for y in ys]}")
        return functools.reduce(_sum, ys)

    def backward(self, dy: Array) -> Array:
        """Return Σᵢ fᵢᵀ(dy)."""
        dxs = [branch.backward(dy) for branch in self.children() if branch.reached]
        return functools.reduce(_sum, dxs) if self.needs_dx else None

    def require_dx(self, needed: bool = True) -> bool:
        """Every branch needs to return dx if anything before this layer needs one."""
        self.needs_dx = self.reached = needed
        for branch in self.children():
            self.reached |= branch.require_dx(needed)
        return self.reached

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of any branch's output."""
        return next(self.children()).output_shape(shape)

    def macs(self, shape: tuple[int, ...]) -> int:
        """Return the sum over the branches."""
        return sum(branch.macs(shape) for branch in self.children())

    def __repr__(self) -> str:
        return tree(self)


class Residual(Add):
    """y = main(x) + shortcut(x), the building block of residual networks.

    In paths the children of ``main`` appear as this layer's own (``layer1.0.conv1``), those of the shortcut
    under ``shortcut_name``.

    Args:
        main: the branch that learns the residual.
        shortcut: by default the identity.
        shortcut_name: what the shortcut is called in paths; PyTorch's networks say ``downsample``.
    """

    def __init__(self, main: Layer, shortcut: Layer | None = None, shortcut_name: str = "downsample") -> None:
        if not shortcut_name:
            raise LayerError("Residual: shortcut_name must not be empty, that is the name of the main branch")
        super().__init__({"": main, shortcut_name: Identity() if shortcut is None else shortcut})


class ResidualNormReLU(Layer):
    """y = relu(norm(main(x)) + shortcut(x)): a residual block whose normalisation does sum and ReLU on the way.

    The same function as a `Residual` that ends in a `BatchNorm2d`, followed by `ReLU`, and the same paths.

    Args:
        main: the branch that learns the residual, without its last normalisation.
        norm: that normalisation.
        shortcut: by default the identity.
        norm_name, shortcut_name: what these two are called in paths.
    """

    def __init__(
        self,
        main: Layer,
        norm: BatchNormReLU2d,
        shortcut: Layer | None = None,
        norm_name: str = "bn2",
        shortcut_name: str = "downsample",
    ) -> None:
        super().__init__()
        if len({"", norm_name, shortcut_name}) < 3:
            raise LayerError("ResidualNormReLU: norm and shortcut need two names, the empty one is the main branch's")
        self.add("", main)
        self.add(norm_name, norm)
        self.add(shortcut_name, Identity() if shortcut is None else shortcut)

    def _parts(self) -> tuple[Layer, BatchNormReLU2d, Layer]:
        return cast("tuple[Layer, BatchNormReLU2d, Layer]", tuple(self.children()))

    def forward(self, x: Array) -> Array:
        """Return relu(norm(main(x)) + shortcut(x))."""
        main, norm, shortcut = self._parts()
        return norm.forward(main.forward(x), shortcut.forward(x))

    def backward(self, dy: Array) -> Array:
        """Return mainᵀ(dm) + shortcutᵀ(ds), where norm's backward tells dm and ds."""
        main, norm, shortcut = self._parts()
        dm, ds = norm.backward(dy)
        a, b = (branch.backward(d) if branch.reached else None for branch, d in ((main, dm), (shortcut, ds)))
        # through an identity ds comes back as it is: nobody else has it, so the sum may take its place
        return _sum(a, b, out=ds if b is ds else None) if self.needs_dx else None

    def require_dx(self, needed: bool = True) -> bool:
        """Both branches need to return dx if anything before this layer needs one, and norm if they are reached."""
        main, norm, shortcut = self._parts()
        self.needs_dx = needed
        branches = [main.require_dx(needed), shortcut.require_dx(needed)]
        self.reached = norm.require_dx(any(branches))
        return self.reached

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the main branch's output."""
        return next(self.children()).output_shape(shape)

    def macs(self, shape: tuple[int, ...]) -> int:
        """Return the sum over the branches."""
        main, _, shortcut = self._parts()
        return main.macs(shape) + shortcut.macs(shape)

    def __repr__(self) -> str:
        return tree(self)


class Concat(Add):
    """The outputs of branches that all see the same input, side by side along the channels (axis 1).

    Args:
        branches: layers whose outputs differ in nothing but channels; or one mapping of names to layers.

    Raises:
        LayerError: the outputs differ elsewhere.

    >>> Concat(Identity(), Identity()).output_shape((2, 3, 8, 8))
    (2, 6, 8, 8)
    """

    def forward(self, x: Array) -> Array:
        """Return [f₁(x), f₂(x), …]."""
        ys = [branch.forward(x) for branch in self.children()]
        if len({(y.shape[0], *y.shape[2:]) for y in ys}) > 1:
            raise LayerError(f"{self}: outputs may differ in channels only, got {[tuple(y.shape) for y in ys]}")
        self.save(ys[0].shape, [y.shape[1] for y in ys])
        xp = array_module(x)
        if ys[0].ndim != 4:
            return xp.concatenate(ys, axis=1)
        # (N, Cᵢ, H, W) -> (N, H, W, Cᵢ), joined to (N, H, W, ΣCᵢ) -> (N, ΣCᵢ, H, W)
        return xp.concatenate([y.transpose(0, 2, 3, 1) for y in ys], axis=3).transpose(0, 3, 1, 2)

    def backward(self, dy: Array) -> Array:
        """Return Σᵢ fᵢᵀ(dyᵢ)."""
        (N, _, *rest), widths = self.take_saved()
        dy = self.check_gradient(dy, (N, sum(widths), *rest))
        dxs = [
            branch.backward(dy[:, end - width : end])
            for branch, width, end in zip(self.children(), widths, itertools.accumulate(widths), strict=True)
            if branch.reached
        ]
        return functools.reduce(_sum, dxs) if self.needs_dx else None

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape with the branches' channels added up."""
        shapes = [branch.output_shape(shape) for branch in self.children()]
        return shape[0], sum(s[1] for s in shapes), *shapes[0][2:]


class Checkpointed(Layer):
    """A layer that keeps only its input, and does its forward once more when backward asks.

    Memory for time: of everything that the layer would save, only x stays; one more forward is paid.  The
    second forward draws the same random numbers (the streams are set back) and leaves running statistics
    alone, so gradients are those of the plain layer to the last bit.

    Args:
        layer: any layer, most usefully a `Sequential`; paths are the same as without this wrapper.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.add("", layer)

    @property
    def layer(self) -> Layer:
        """The layer within."""
        return self._children[""]

    def require_dx(self, needed: bool = True) -> bool:
        """The layer needs what this one needs."""
        self.needs_dx = needed
        self.reached = self.layer.require_dx(needed)
        return self.reached

    def forward(self, x: Array) -> Array:
        """Return the layer's forward, keeping x and the position of the random streams."""
        self.save(x, self.layer.random_state())
        self.layer.set_saving(False)
        try:
            return self.layer.forward(x)
        finally:
            self.layer.set_saving(self.saving)

    def backward(self, dy: Array) -> Array:
        """Return the layer's backward after repeating its forward."""
        self._repeat(*self.take_saved())
        return self.layer.backward(dy)

    def branches(self) -> list[Array]:
        """Return those of the layer, after repeating its forward."""
        if self._saved is not None:
            self._repeat(*self._saved)
        return self.layer.branches()

    def _repeat(self, x: Array, random_state: dict[str, list[int]]) -> None:
        buffers = {name: value.copy() for name, value in self.layer.named_buffers()}
        position = self.layer.random_state()
        self.layer.set_random_state(random_state)
        self.layer.forward(x)
        self.layer.set_random_state(position)
        for name, value in self.layer.named_buffers():
            value[...] = buffers[name]

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the layer's."""
        return self.layer.output_shape(shape)

    def macs(self, shape: tuple[int, ...]) -> int:
        """Return the layer's (of one forward)."""
        return self.layer.macs(shape)

    def options(self) -> str:
        """Return the layer's repr."""
        return repr(self.layer)


def _sum(a: Array, b: Array, out: Array | None = None) -> Array:
    """a + b, slice by slice, in ``out`` if it is given."""
    out = array_module(a).empty_like(a) if out is None else out
    x, y, z = map(in_rows, (a, b, out))
    each_slice(lambda s: add(x[s], y[s], z[s]), x, 3 * a.nbytes // max(len(x), 1))
    return out


def _numbered(layers: tuple[Layer | Mapping[str, Layer], ...]) -> Iterator[tuple[str, Layer]]:
    for i, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise TypeError(f"expected layers, or one mapping of names to layers, got {layer!r}")
        yield str(i), layer


def tree(layer: Layer) -> str:
    """Return the repr of a layer with all its children, one below the other."""
    lines = [f"{type(layer).__name__}("]
    for name, child in layer._children.items():
        lines.append(f"  ({name}): " + repr(child).replace("\n", "\n  "))
    return "\n".join([*lines, ")"])
