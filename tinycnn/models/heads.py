"""Networks with auxiliary heads: further classifiers, that branch off on the way and help in training.

In a deep network little of the gradient may come down to the first layers.  A head is a small classifier that looks at
the features of a middle layer: there it adds a gradient that has had a short way.  Once the network is trained heads
are left out::

    x ── f₁ ─┬─ f₂ ─┬─ f₃ ── y          y = f₃(x₂),   x₂ = f₂(x₁),   x₁ = f₁(x)
             │      │
             h₁     h₂                  aᵢ = hᵢ(xᵢ)
             │      │
             a₁     a₂                  L = ℓ(y) + w·(ℓ(a₁) + ℓ(a₂)):  `tinycnn.losses.AuxiliaryLoss`

**Backward** is the children's backwards in reverse.  Where a head branches off, what comes back through it is added,
since x₁ and x₂ are read twice::

    dx₂ = f₃ᵀ(dy)  + h₂ᵀ(da₂)
    dx₁ = f₂ᵀ(dx₂) + h₁ᵀ(da₁)
    dx  = f₁ᵀ(dx₁)

Sources: Szegedy et al. 2015, "Going deeper with convolutions", section 5; Lee, Xie, Gallagher, Zhang & Tu 2015,
"Deeply-supervised nets".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..backend import Array
from ..layers.base import Layer, LayerError
from ..layers.combine import _sum as added
from .network import Network


class NetworkWithHeads(Network):
    """Layers one after another, some of whose outputs are also read by an auxiliary head.

    In training ``forward`` returns a tuple: the scores y, then those of the heads, the last one first, as torchvision's
    networks do.  ``backward`` takes the tuple of their gradients.  In evaluation both have to do with y alone, and
    heads cost nothing.

    A head that nothing can learn from, frozen as is all before it (`Layer.freeze`), is left out in training as well.

    Iterating goes through the layers that lead from x to y, without the heads.

    Args:
        layers: by name, in the order of the state dict, heads included.
        heads: the name of a head by that of the layer whose output it reads.  None at all makes a `Network`.
        features, classifier, auxiliary: as for `Network`.
        droppable: patterns of names that published weights may have for heads that this network has not; whoever
            loads them may leave these out.

    Raises:
        LayerError: ``heads`` names what is not among the layers.
    """

    def __init__(
        self,
        layers: Mapping[str, Layer],
        heads: Mapping[str, str],
        *,
        features: str,
        classifier: str,
        auxiliary: Iterable[str] = (),
        droppable: Iterable[str] = (),
    ) -> None:
        for name in (*heads, *heads.values()):
            if name not in layers:
                raise LayerError(f"{type(self).__name__}: heads names {name!r}, but the layers are {', '.join(layers)}")
        self.heads, self.droppable = dict(heads), tuple(droppable)
        super().__init__(layers, features=features, classifier=classifier, auxiliary=auxiliary)

    def __iter__(self) -> Iterator[Layer]:
        return (layer for layer, _ in self.steps())

    def __len__(self) -> int:
        return len(self._children) - len(self.heads)

    def steps(self) -> Iterator[tuple[Layer, Layer | None]]:
        """The layers that lead from x to y, in order, each with the head that reads its output."""
        heads = set(self.heads.values())
        for name, layer in self._children.items():
            if name not in heads:
                yield layer, self._children.get(self.heads.get(name, ""))

    def _active(self) -> list[tuple[Layer, Layer | None]]:
        """The same, with those heads alone that take part in a forward of now."""
        return [
            (layer, head if head is not None and head.reached and self.training else None)
            for layer, head in self.steps()
        ]

    def forward(self, x: Array) -> Array:
        """Return y, or in training (y, …, a₂, a₁)."""
        scores = []
        for layer, head in self._active():
            x = layer.forward(x)
            if head is not None:
                scores.append(head.forward(x))
        return (x, *reversed(scores)) if scores else x

    def backward(self, dy: Array) -> Array:
        """Return dx, given dy, or in training (dy, …, da₂, da₁).

        Raises:
            LayerError: another number of gradients than of outputs.
        """
        steps = self._active()
        dy, *das = self._checked(dy, 1 + sum(head is not None for _, head in steps))
        for layer, head in reversed(steps):
            if head is not None:
                dx = head.backward(das.pop(0))
                dy = added(dy, dx) if head.needs_dx else dy
            dy = layer.backward(dy) if layer.reached else None
        return dy

    def _checked(self, dy: Array, outputs: int) -> tuple[Array, ...]:
        dys = dy if isinstance(dy, tuple) else (dy,)
        if len(dys) != outputs:
            raise LayerError(
                f"{type(self).__name__}: in {'training' if self.training else 'evaluation'} forward has {outputs} "
                f"outputs and backward needs as many gradients, got {len(dys)}: tinycnn.AuxiliaryLoss returns them"
            )
        return dys

    def require_dx(self, needed: bool = True) -> bool:
        """Each layer, and the head behind it, needs to return dx if anything before needs one."""
        self.needs_dx, learning = needed, False
        for layer, head in self.steps():
            needed = layer.require_dx(needed)
            if head is not None:
                learning |= head.require_dx(needed)
        self.reached = needed or learning
        return self.reached

    def macs(self, shape: tuple[int, ...]) -> int:
        """Return the multiply-adds of a forward in the present mode: with heads in training, without in evaluation."""
        total = 0
        for layer, head in self._active():
            total += layer.macs(shape)
            shape = layer.output_shape(shape)
            total += 0 if head is None else head.macs(shape)
        return total
