"""The layer contract: forward, backward, parameters, buffers, state.

    y  = layer.forward(x)       # layer(x) is the same call
    dx = layer.backward(dy)     # dy = dL/dy of the loss L; returns dL/dx, adds dL/dw to every parameter's grad

A network is layers made of layers.  There is no graph to trace: the backward of a composite is plainly its
children's backwards in reverse.

**Two switches.**  ``training`` selects behaviour (batch statistics, dropout); ``saving`` says whether a
forward keeps what its backward needs.  `Layer.train` turns both on, `Layer.eval` both off;
``eval(backward=True)`` evaluates and still saves, to differentiate the evaluation behaviour itself.

**Who needs a gradient.**  Nobody wants dL/d(image), and nothing wants a gradient below the last frozen
layer.  `Layer.require_dx` walks the network once, from input to output, and tells each layer whether its
backward must return dx (``needs_dx``) and whether it will be called at all (``reached``).  `Layer.freeze` does so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..backend import Array
from ..parameter import Parameter, channels_last
from . import state
from .check import LayerError, check_array, check_kind

if TYPE_CHECKING:
    from .summary import Summary

__all__ = ["Layer", "LayerError"]

Self = TypeVar("Self", bound="Layer")


class Layer:
    """Base of every layer.

    A layer has one place in one network: it remembers one forward at a time, so each use needs a layer of its own.
    A subclass assigns its `Parameter` objects and child layers as attributes (their names become the paths of
    the state dict), registers running statistics with `register_buffer`, and defines ``forward`` and
    ``backward``.  ``forward`` hands what backward needs to `save`; ``backward`` gets it from `take_saved`.

    Attributes:
        path: where the layer sits in its network, ``layer1.0.conv1``; empty at the root.
        training, saving, needs_dx, reached: see the module docstring.
        frozen: whether `freeze` has fixed it: ``training`` is False then, whatever `train` says.
        mixed: whether activations may have 16 bits, on a GPU, while parameters have 32.
    """

    path = ""
    saving = True
    needs_dx = True
    reached = True
    mixed = True
    frozen = False
    _training = True
    _saved: tuple[Any, ...] | None = None

    def __init__(self) -> None:
        self._parameters: dict[str, Parameter] = {}
        self._buffers: dict[str, Array] = {}
        self._children: dict[str, Layer] = {}

    @property
    def training(self) -> bool:
        """Whether it behaves as in training."""
        return self._training and not self.frozen

    @training.setter
    def training(self, mode: bool) -> None:
        self._training = mode

    def __setattr__(self, name: str, value: Any) -> None:
        parts = self.__dict__
        if isinstance(value, Parameter | Layer):
            inner = parts.get("_children", {}).get("")
            behind = inner is not None and name in inner._names()
            return setattr(inner, name, value) if behind else self.add(name, value)
        if name in parts.get("_buffers", ()):
            self._buffers[name] = value
        elif name in parts.get("_children", ()) or name in parts.get("_parameters", ()):
            raise LayerError(f"{self}: {name} is a part of this layer; another part can take its place, not {value!r}")
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        inner = self.__dict__.get("_children", {}).get("")
        part = getattr(inner, name, None) if inner is not None else None
        if isinstance(part, Parameter | Layer):
            return part
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def add(self, name: str, part: Parameter | Layer) -> None:
        """Register a parameter or a child layer under ``name``, and make it the attribute of that name.

        A child registered under the empty name shares its parent's name space: its own children appear in
        paths, and as attributes, as if they were the parent's.  Behind a name that ends in ``_`` no dot follows:
        ``branch1_`` and its child ``0`` make ``branch1_0``, as some published networks have it.

        Raises:
            TypeError: ``super().__init__()`` was not called yet.
            LayerError: the name has a dot, is that of an attribute which every layer has, or is taken.
        """
        if "_children" not in self.__dict__:
            raise TypeError(f"{type(self).__name__}.__init__ must call super().__init__() before it assigns layers")
        if hasattr(Layer, name) or "." in name:
            why = "dots separate the names of a path" if "." in name else "every layer has that attribute"
            raise LayerError(f"{type(self).__name__}: a part cannot be called {name!r}, {why}")
        if name == "":
            taken = self._names() & part._names() if isinstance(part, Layer) else set()
        else:
            taken = {name} & (self._children[""]._names() if "" in self._children else set())
        if taken:
            raise LayerError(f"{type(self).__name__}: two parts would be called {min(taken)!r}: rename one of them")
        object.__setattr__(self, name, part)
        if isinstance(part, Parameter):
            self._parameters[name] = part
            part.name = _join(self.path, name)
        else:
            self._children[name] = part
            part._set_path(_join(self.path, name))

    def _names(self) -> set[str]:
        """Names of the parts, those behind an empty name included."""
        names = {*self._parameters, *self._buffers, *self._children} - {""}
        return names | self._children[""]._names() if "" in self._children else names

    def register_buffer(self, name: str, value: Array) -> None:
        """Register an array that is state but not trained (a running mean), as ``self.<name>``."""
        self._buffers[name] = value
        object.__setattr__(self, name, value)

    def _set_path(self, path: str) -> None:
        self.path = path
        for name, p in self._parameters.items():
            p.name = _join(path, name)
        for name, child in self._children.items():
            child._set_path(_join(path, name))

    # ---- the mathematics: every subclass's own -------------------------------------------------------------

    def forward(self, x: Array) -> Array:
        """Return y = f(x)."""
        raise TypeError(f"{type(self).__name__} must define forward")

    def backward(self, dy: Array) -> Array:
        """Return dL/dx given dL/dy, and add dL/dw to the gradient of every parameter w."""
        raise TypeError(f"{type(self).__name__} must define backward")

    def __call__(self, x: Array) -> Array:
        return self.forward(x)

    def save(self, *arrays: Any) -> None:
        """Keep ``arrays`` for backward, if ``saving`` is on and backward will be called."""
        self._saved = arrays if self.saving and self.reached else None

    def take_saved(self) -> tuple[Any, ...]:
        """Return what forward saved, and release it.

        Raises:
            RuntimeError: there is nothing: no forward, a second backward, or a forward that did not save.
        """
        if self._saved is None:
            why = "call forward first, and backward once per forward (a layer has one place in a network)"
            if not self.saving:
                why = "forward ran in eval mode, which keeps nothing: call train(), or eval(backward=True)"
            elif not self.reached:
                why = "nothing here or before needs a gradient: after thawing parameters call require_dx again"
            raise RuntimeError(f"{self}: backward has nothing to work from: {why}")
        saved, self._saved = self._saved, None
        return saved

    def branches(self) -> list[Array]:
        """Return the choices that the last forward made at kinks (ReLU's gate, a pool's winners), of all layers below.

        A finite difference is meaningful only between points that choose alike; `tinycnn.gradcheck` compares
        these.  To be asked between forward and backward.
        """
        return [branch for child in self._children.values() for branch in child.branches()]

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of y for an x of ``shape``; by default the same."""
        return shape

    def macs(self, shape: tuple[int, ...]) -> int:
        """Return the multiply-adds of a forward on an x of ``shape``; by default none (only products are counted)."""
        return 0

    def chosen_algorithm(self, shape: tuple[int, ...]) -> str:
        """Return the name of the algorithm taken for an x of ``shape``; empty where there is only one."""
        return ""

    def children(self) -> Iterator[Layer]:
        """The layers that this one is directly made of."""
        return iter(self._children.values())

    def named_layers(self) -> Iterator[tuple[str, Layer]]:
        """(path, layer) of this layer and of all layers below, parents first."""
        return self._walk(self.path)

    def _walk(self, path: str) -> Iterator[tuple[str, Layer]]:
        yield path, self
        for name, child in self._children.items():
            yield from child._walk(_join(path, name))

    def layers(self) -> Iterator[Layer]:
        """This layer and all layers below, parents first."""
        return (layer for _, layer in self.named_layers())

    def parameters(self) -> Iterator[Parameter]:
        """Every parameter of this layer and those below, in the order in which they were defined."""
        return (p for layer in self.layers() for p in layer._parameters.values())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(path relative to this layer, parameter)."""
        return ((_join(path, name), p) for path, layer in self._walk("") for name, p in layer._parameters.items())

    def named_buffers(self) -> Iterator[tuple[str, Array]]:
        """(path relative to this layer, array) of every buffer."""
        return ((_join(path, name), x) for path, layer in self._walk("") for name, x in layer._buffers.items())

    def buffers(self) -> Iterator[Array]:
        """Every buffer of this layer and those below."""
        return (value for _, value in self.named_buffers())

    def num_parameters(self) -> int:
        """Number of trainable scalars, frozen ones included."""
        return sum(p.size for p in self.parameters())

    # ---- switches ------------------------------------------------------------------------------------------

    def train(self: Self, mode: bool = True) -> Self:
        """Training behaviour, and forward saves what backward needs."""
        for layer in self.layers():
            layer.training = layer.saving = mode
            if not mode:
                layer._saved = None
        return self

    def eval(self: Self, backward: bool = False) -> Self:
        """Evaluation behaviour; with ``backward=True`` forward still saves, so that backward works."""
        return self.train(False).set_saving(backward)

    def set_saving(self: Self, saving: bool) -> Self:
        """Say whether forward keeps what backward needs, whatever the behaviour."""
        for layer in self.layers():
            layer.saving = saving
        return self

    def freeze(self, *patterns: str) -> list[str]:
        """Fix layers and parameters: they are not trained, and frozen layers behave as in evaluation (`layers.freeze`).

        ``model.freeze("conv1", "bn1", "layer1.*")``: a layer is frozen with all layers below it, or by all of its
        parameters.  Call it on the whole network: dL/dx of the input is not computed from then on, unless
        ``require_dx()`` asks for it.

        Args:
            patterns: of names, as in the state dict, or of layers; ``*`` stands for anything.  By default all.

        Returns:
            The names of the parameters that match.

        Raises:
            LayerError: a pattern matches nothing.
        """
        from .freeze import set_frozen

        return set_frozen(self, patterns, True)

    def unfreeze(self, *patterns: str) -> list[str]:
        """Undo `freeze`, wholly or for what matches; call it on the whole network."""
        from .freeze import set_frozen

        return set_frozen(self, patterns, False)

    def require_dx(self, needed: bool = True) -> bool:
        """Tell this layer and those below who needs a gradient (module docstring).

        Args:
            needed: whether anything before this layer needs one, so that backward must return dx.

        Returns:
            Whether anything before the *next* layer needs one: ``needed``, or a parameter here is not frozen.
        """
        self.needs_dx = needed
        self.reached = needed or any(p.requires_grad for p in self._parameters.values())
        children = list(self._children.values())
        for child in children:
            self.reached |= child.require_dx(needed)
        if self.reached:  # which child feeds which only a subclass knows: any may have to pass a gradient on
            for child in children:
                child.require_dx(True)
        return self.reached

    def zero_grad(self) -> None:
        """Clear the gradient of every parameter."""
        for p in self.parameters():
            p.zero_grad()

    def to(self: Self, device: str) -> Self:
        """Move parameters, gradients and buffers to ``"cpu"`` or ``"cuda"``, in place."""
        state.to(self, device)
        return self

    def astype(self: Self, dtype: np.typing.DTypeLike) -> Self:
        """Convert parameters, gradients and floating-point buffers to ``dtype``, in place.

        Raises:
            ValueError: ``dtype`` is neither float32 nor float64.
        """
        state.astype(self, dtype)
        return self

    # ---- state ---------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return a copy of every parameter and buffer by its path, as C-contiguous NumPy arrays.

        Names and shapes are PyTorch's.
        """
        return state.state_dict(self)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> tuple[list[str], list[str]]:
        """Copy values in; nothing changes unless everything fits.

        ``num_batches_tracked`` counters may be absent (old PyTorch files lack them).

        Args:
            state_dict: arrays by path.
            strict: raise on missing or unexpected names; otherwise they are returned and left alone.

        Returns:
            (missing names, unexpected names).

        Raises:
            LayerError: names do not match (strict), a shape differs, an entry is not numbers, or *no* name matches.
        """
        return state.load_state_dict(self, state_dict, strict)

    def random_state(self) -> dict[str, list[int]]:
        """Return the position of every random stream below, by layer path; see `set_random_state`."""
        return {path: layer.stream.state() for path, layer in self.named_layers() if hasattr(layer, "stream")}

    def set_random_state(self, positions: Mapping[str, list[int]]) -> None:
        """Set every random stream back to where `random_state` found it: the same masks are drawn again."""
        state.set_random_state(self, positions)

    def summary(self, input_shape: tuple[int, ...]) -> Summary:
        """Return a table of the layers, for inputs of (N, C, H, W) or (N, features): shapes, cost, memory."""
        from .summary import summarize

        return summarize(self, input_shape)

    # ---- errors and words ----------------------------------------------------------------------------------

    def check_input(self, x: Array, rank: int | tuple[int, ...] | None = None, channels: int | None = None) -> Array:
        """Return ``x`` on channels-last memory after checking that this layer can take it.

        Args:
            x: the input.
            rank: allowed number(s) of dimensions.
            channels: required size of axis 1.

        Raises:
            LayerError: not a floating-point array, of another dtype than the parameters, wrong rank or channels.
        """
        check_array(self, x, (rank,) if isinstance(rank, int) else rank, channels)
        check_kind(self, "input", x, self._parameters.values())
        return channels_last(x)

    def check_gradient(self, dy: Array, shape: tuple[int, ...]) -> Array:
        """Return ``dy`` on channels-last memory after checking that it has the shape of the output.

        Raises:
            LayerError: it has not, or is not a floating-point array of the parameters' dtype.
        """
        check_array(self, dy, None, None)
        check_kind(self, "dL/dy", dy, self._parameters.values())
        if tuple(dy.shape) != tuple(shape):
            raise LayerError(
                f"{self}: backward needs dL/dy of the output's shape {tuple(shape)}, got {tuple(dy.shape)}"
            )
        return channels_last(dy)

    def options(self) -> str:
        """Return the layer's arguments as they appear in its repr."""
        return ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.options()})"

    def __str__(self) -> str:
        own = type(self).__name__ if self._children else repr(self)  # a tree of layers fits no line
        return f"{self.path} ({own})" if self.path else own


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part).replace("_.", "_")
