"""What goes into a page: which passes are recorded, and how much of them there is room for."""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..backend import Array, to_numpy
from ..layers.base import Layer, LayerError
from ..layers.watch import restored
from ..losses import AuxiliaryLoss, CrossEntropyLoss, softmax
from ..losses.auxiliary import scores_of
from ..messages import nearest
from .check import check_layer
from .layers import geometry, is_drawn, kind_of, own_numbers, places, ways
from .pack import Store
from .record import Visit, record
from .source import describe

ROOM = 4_750_000
"""Characters for arrays, so that a whole page stays below five million."""
MOST_CLASSES = 10
LARGE = 10_000
"""dL/dw of more numbers than this is embedded for the first pass only; the page works it out for the others."""
PRECISION = {4: "float32", 3: "float32 without its last byte, more than four digits"}

Visits = dict[Layer, Visit]


@dataclass
class Study:
    """What a page shows.

    Attributes:
        data: everything but arrays, ready for JSON; arrays appear as numbers of ``store``.
        store: the arrays.
        notes: what the reader should know about it: the mode, what was left out and why.
        training: what its training looked like on the way (`training_of`).
        said: what whoever asked for the page should know, beside the notes.
    """

    data: dict[str, Any]
    store: Store
    notes: list[str] = field(default_factory=list)
    training: dict[str, Any] | None = None
    said: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Example:
    """An image to be sent through a network.

    Attributes:
        x: (1, C, H, W).
        label: the number of its true class.
        name: what it is called.
        target: whose loss is sent back first, if not its own class's.
        notes: what the reader should know of it.
    """

    x: Array
    label: int
    name: str
    target: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def first(self) -> int:
        """The class whose loss is sent back first: the true one, unless another was asked for."""
        return self.label if self.target is None else self.target


def study_network(
    model: Layer,
    examples: Sequence[Example],
    classes: Sequence[str],
    title: str,
    *,
    training: bool = True,
    layers: Sequence[str] = (),
    checks: bool = True,
    room: int = ROOM,
) -> Study:
    """Record a classifier on images, one at a time; the model stays as it is, but for its gradients.

    Args:
        model: any network whose output are scores of classes.
        examples: at least one.
        classes: their names.
        title: of the page.
        training: whether layers behave as in training (statistics of this one image, dropout) or as in evaluation.
        layers: patterns of paths; only these layers are shown with their numbers.  By default all that fit.
        checks: whether each layer's gradient is checked.
        room: characters that arrays may take.

    Raises:
        LayerError: the network cannot take the images; its numbers overflow; no layer matches; or not a single layer
            fits.
    """
    loss_fn = AuxiliaryLoss(CrossEntropyLoss())

    def run(example: Example, label: int) -> tuple[Visits, dict[str, Any]]:
        said: dict[str, Any] = {}

        def gradient(outputs: Any) -> Any:
            loss, dlogits = loss_fn(outputs, np.array([label]))
            logits = scores_of(outputs)
            said.update(loss=float(loss), p=softmax(logits)[0].tolist(), logits=logits, dlogits=scores_of(dlogits))
            return dlogits

        visits = record(model, example.x, gradient)
        _check_finite(visits)
        return visits, said

    with restored(model):
        model.train() if training else model.eval(backward=True)
        builder = _Builder(model, examples, run, layers, checks, room)
        study = builder.build(lambda i, p: _likely(examples[i].first, p))
    mode = "training: normalisations use the statistics of this one image, dropout draws a mask"
    study.notes.insert(0, f"Layers behave as in {mode if training else 'evaluation'}.")
    study.notes += (said := [note for example in examples for note in example.notes])
    study.said += said
    study.data |= {"title": title, "classes": list(classes), "loss": "softmax cross-entropy"}
    return study


def study_layer(layer: Layer, x: Array, title: str, seed: int = 0, checks: bool = True) -> Study:
    """Record one layer, or a small network, at an input; the gradient sent back is drawn at random.

    Args:
        layer: any layer, in the mode in which it is to be shown; it stays as it is.
        x: its input, of which the first item is taken.
        title: of the page.
        seed: of the gradient.
        checks: whether gradients are checked.

    Raises:
        LayerError: the layer cannot take x, or is too large.
    """
    layer = copy.deepcopy(layer)

    def run(example: Example, label: int) -> tuple[Visits, dict[str, Any]]:
        rng = np.random.default_rng(seed)
        visits = record(layer, example.x, lambda y: rng.uniform(-1, 1, y.shape).astype(y.dtype))
        return visits, {"loss": None, "p": []}

    builder = _Builder(layer, [Example(x[:1], 0, "numbers in random order")], run, (), checks, ROOM)
    study = builder.build(lambda i, p: [0])
    study.notes.append("The gradient that comes to the end, dL/dy, is drawn at random.")
    study.data |= {"title": title, "classes": [], "loss": ""}
    return study


def _likely(label: int, p: list[float]) -> list[int]:
    """The label, then the other classes, the likeliest first; all if there are few, and then in their order."""
    others = [int(k) for k in np.argsort(-np.array(p), kind="stable") if k != label]
    if len(p) <= MOST_CLASSES:
        others.sort()
    return [label, *others][:MOST_CLASSES]


class _Builder:
    """Puts a study together: the first pass in as many bytes and layers as fit, and then what else fits."""

    def __init__(
        self,
        model: Layer,
        examples: Sequence[Example],
        run: Callable[[Example, int], tuple[Visits, dict[str, Any]]],
        patterns: Sequence[str],
        checks: bool,
        room: int,
    ) -> None:
        self.model, self.examples, self.run, self.room, self.checks = model, examples, run, room, checks
        self.first, self.said = run(examples[0], examples[0].first)
        self.layers = [layer for layer in self.first if is_drawn(layer)]
        self.wanted = self._wanted(patterns)
        self.notes: list[str] = []
        self.told: list[str] = []

    def _wanted(self, patterns: Sequence[str]) -> list[int]:
        paths = [layer.path for layer in self.layers]
        found = {p: [i for i, path in enumerate(paths) if fnmatch.fnmatchcase(path, p)] for p in patterns}
        for pattern, indices in found.items():
            if not indices:
                raise LayerError(
                    f"no layer is called {pattern!r}{nearest(pattern, paths)} (tinycnn summary lists them)"
                )
        return sorted({i for indices in found.values() for i in indices}) or list(range(len(paths)))

    def build(self, classes_of: Callable[[int, list[float]], list[int]]) -> Study:
        """Return the study."""
        self.store, self.shown = self._fit()
        samples = [self._sample(0, self.first, self.said)]
        self._pass(samples[0], self.examples[0].first, self.first, self.said, everything=True)
        for k, layer in enumerate(self.layers):
            if k not in self.shown:
                self.first[layer].gradients.clear()  # those of a large network take as much memory as the network
        for i, label, is_new in self._further(classes_of):
            visits, said = self.run(self.examples[i], label)
            if is_new:
                sample = self._sample(i, visits, said)
                self._pass(sample, label, visits, said)
            else:
                sample = samples[i]
                self._pass(sample, label, visits, said)
            del visits  # before there are others
            if not self.store.close(self.room):
                sample["passes"].pop(str(label))
                self.notes.append("Other images and classes are left out: they would make the page too large.")
                break
            if is_new:
                samples.append(sample)
        return Study(self._data(samples), self.store, self.notes, said=self.told)

    def _further(self, classes_of: Callable[[int, list[float]], list[int]]) -> Iterator[tuple[int, int, bool]]:
        """Yield (image, class, whether the image is a new one) of all passes but the first."""
        yield from ((i, example.first, True) for i, example in enumerate(self.examples) if i)
        for i, example in enumerate(self.examples):
            yield from ((i, label, False) for label in classes_of(i, self.said["p"]) if label != example.first)

    # ---- what fits -----------------------------------------------------------------------------------------

    def _fit(self) -> tuple[Store, list[int]]:
        """Return a store with the first pass of the layers that fit into it, and which these are."""
        weights = sum(a.size for i in self.wanted for a in self.first[self.layers[i]].gradients.values())
        for kept in (4, 3):
            if weights * kept > self.room:  # with their gradients twice the room, as below: it is not even tried
                continue
            store = Store(kept)
            self._put_all(store, self.wanted)
            # (compression hardly ever halves it: there is no need to try)
            if store.open_size < 2 * self.room and store.close(self.room):
                return store, self.wanted
        chosen, used = list[int](), 0
        for i in sorted(self.wanted, key=self._numbers):
            used += 4 * self._numbers(i)  # three bytes each make four characters; compression is what is to spare
            if used > self.room:
                break
            chosen.append(i)
        if not chosen:
            smallest = self.layers[min(self.wanted, key=self._numbers)]
            raise LayerError(f"{smallest}: too large to draw: use a smaller image, or choose a smaller layer (--layer)")
        store = Store(3)
        self._put_all(store, sorted(chosen))
        store.close()
        self.told.append(
            f"The network is too large to embed whole: {len(chosen)} of {len(self.layers)} layers are shown with their "
            "numbers, the smallest ones. --layer NAME chooses others."
        )
        self.notes += self.told
        return store, sorted(chosen)

    def _numbers(self, i: int) -> int:
        """How many numbers the first pass of a layer has, whether or not another layer has them too."""
        v, own = self.first[self.layers[i]], own_numbers(self.layers[i])
        arrays = [v.x, v.y, v.dy, v.dx, v.shortcut, v.dshortcut, *own.values(), *v.gradients.values()]
        return sum(a.size for a in arrays if a is not None)

    def _put_all(self, store: Store, indices: list[int]) -> None:
        for layer in (self.layers[i] for i in indices):
            visit = self.first[layer]
            for a in own_numbers(layer).values():
                store.add(a)
            _put_forward(store, layer, visit, self.first)
            _put_backward(store, layer, visit, self.first, everything=True)

    # ---- what the page reads -------------------------------------------------------------------------------

    def _sample(self, i: int, visits: Visits, said: dict[str, Any]) -> dict[str, Any]:
        example = self.examples[i]
        shown = self.layers_shown(visits)
        forward = {str(k): _put_forward(self.store, layer, visits[layer], visits) for k, layer in shown}
        logits = self.store.add(to_numpy(said["logits"])) if "logits" in said else None
        variances = [float(visits[layer].y.var(dtype=np.float64)) if layer in visits else None for layer in self.layers]
        named = {"name": example.name, "label": example.label, "first": example.first, "p": said["p"], "logits": logits}
        return {**named, "image": self.store.add(to_numpy(example.x)), "shape": list(example.x.shape[1:]),
                "forward": forward, "variances": variances, "passes": {}}  # fmt: skip

    def _pass(
        self, sample: dict[str, Any], label: int, visits: Visits, said: dict[str, Any], everything: bool = False
    ) -> None:
        layers = {
            str(k): _put_backward(self.store, layer, visits[layer], visits, everything)
            for k, layer in self.layers_shown(visits)
        }
        dlogits = self.store.add(to_numpy(said["dlogits"])) if "dlogits" in said else None
        norms = [_norms(visits.get(layer)) for layer in self.layers]
        sample["passes"][str(label)] = {"loss": said["loss"], "dlogits": dlogits, "layers": layers, "norms": norms}
        if everything:
            self.store.close()

    def layers_shown(self, visits: Visits) -> Iterator[tuple[int, Layer]]:
        """Yield (number, layer) of those with numbers on the page that this pass has come through."""
        return ((i, self.layers[i]) for i in self.shown if self.layers[i] in visits)

    def _data(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        kinds, around = {type(layer).__name__: type(layer) for layer in self.layers}, places(self.layers)
        return {
            "precision": PRECISION[self.store.kept],
            "kept": self.store.kept,
            "layers": [{**self._layer(i, layer), "place": around[i]} for i, layer in enumerate(self.layers)],
            "samples": samples,
            "sources": {name: describe(kind) for name, kind in kinds.items()},
        }

    def _layer(self, i: int, layer: Layer) -> dict[str, Any]:
        visit = self.first[layer]
        own = own_numbers(layer)
        shown = i in self.shown
        composite = bool(list(layer.children()))
        text = type(layer).__name__ if composite else repr(layer)
        return {
            "path": layer.path or type(layer).__name__,
            "kind": kind_of(layer),
            "type": type(layer).__name__,
            "text": text,
            "composite": composite,
            "in": list(visit.x.shape[1:]),
            "out": list(visit.y.shape[1:]),
            "parameters": sum(p.size for p in layer._parameters.values()),
            "macs": 0 if composite else layer.macs(visit.x.shape),
            "shown": shown,
            "geometry": geometry(layer, visit),
            "values": {n: {"id": self.store.add(a), "shape": list(a.shape)} for n, a in own.items()} if shown else {},
            "check": check_layer(layer, visit) if self.checks and shown else None,
        }


def _put_forward(store: Store, layer: Layer, visit: Visit, visits: Visits) -> dict[str, Any]:
    branches = ways(layer, visits)
    found = {"x": store.add(visit.x), "y": store.add(visit.y), "shortcut": store.add(visit.shortcut)}
    return {
        **found,
        **{name: store.add(fact) for name, fact in visit.facts.items()},
        "ways": [{"name": name, "y": store.add(w.y), "channels": w.y.shape[1]} for name, w in branches],
    }


def _put_backward(store: Store, layer: Layer, visit: Visit, visits: Visits, everything: bool) -> dict[str, Any]:
    drawn = own_numbers(layer, visit.gradients)
    gradients = {n: store.add(g) for n, g in drawn.items() if everything or g.size <= LARGE}
    branches = ways(layer, visits)
    return {
        **{"dy": store.add(visit.dy), "dx": store.add(visit.dx), "dshortcut": store.add(visit.dshortcut)},
        "gradients": gradients,
        "ways": [{"name": name, "dx": store.add(w.dx), "norm": _norm(w.dx)} for name, w in branches],
    }


def _check_finite(visits: Visits) -> None:
    """Raise an error that names the first layer where numbers overflow, going forward and then back."""
    forward = [(layer, "output", visit.y) for layer, visit in visits.items()]
    back = [(layer, "dL/dx", visit.dx) for layer, visit in reversed(visits.items()) if visit.dx is not None]
    for layer, what, a in (*forward, *back):
        if not np.isfinite(a).all():
            raise LayerError(
                f"{layer.path or layer}: its {what} has numbers that are infinite or not a number; the weights have "
                "run away: take an earlier checkpoint, or train with a smaller learning rate"
            )


def _norms(visit: Visit | None) -> dict[str, float | None]:
    """Return the length of dL/dy, its variance, and the length of the gradient of the layer's parameters."""
    if visit is None or visit.dy is None:
        return {"dy": None, "variance": None, "dw": None}
    squares = [float((g.astype(np.float64) ** 2).sum()) for g in visit.gradients.values()]
    dw = sum(squares) ** 0.5 if squares else None
    return {"dy": _norm(visit.dy), "variance": float(visit.dy.var(dtype=np.float64)), "dw": dw}


def _norm(a: np.ndarray | None) -> float | None:
    return None if a is None else float((a.astype(np.float64) ** 2).sum() ** 0.5)
