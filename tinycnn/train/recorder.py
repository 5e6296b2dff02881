"""What a training looked like on its way: filters, feature maps, beliefs and gradients at some of its steps.

    recorder = Recorder("run/records.safetensors", images, labels, spread(total=epochs * len(loader)))
    Trainer(…, callbacks=[recorder])

``tinycnn train`` records so, unless it is given ``--record 0``, and ``tinycnn explain RUN`` shows it with a slider.

**When.**  Most happens at the beginning, so the steps are spread geometrically (`spread`), step 0 among them: the
network before it has learnt anything.

**What.**  A few images that are never changed go through the network in evaluation mode: the loss of each, its
probabilities, and what some convolutions, from the first to the last, make of it.  Further the filters of those
convolutions, and the loss and the gradient of the batch that was just learnt from, whose length is kept by layer: the
gradient as the update took it, clipped if there is clipping, and where several batches make an update, of those so far.

**How much.**  Filters and maps are for looking at: each is scaled by its largest magnitude to whole numbers of
−127 … 127 (`quantize`), which is off by at most 1/254 of that.  Large maps are averaged down, and of many channels or
filters the first are kept, so that no array of a record has more than `MOST_NUMBERS` numbers.

**Stopped and resumed.**  The file is written whenever the trainer's state is asked for, and at the end, and is replaced
whole: it is never behind a state that was saved.  A training that goes on from an earlier step drops the records after
it, and makes them again, to the same bits.  Where there is no file it begins one; it does not go on with one that is
damaged, or of another training.  Nothing that is done here changes the training: no random number is drawn, and no
gradient touched.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import Array, array_module, to_numpy
from ..layers.base import Layer
from ..layers.conv import Conv2d
from ..layers.watch import undisturbed, watched
from ..losses import softmax
from ..losses.auxiliary import scores_of
from . import checkpoint
from .callbacks import Callback
from .checkpoint import CheckpointError

if TYPE_CHECKING:
    from .run import Run
    from .trainer import Trainer

CURE = "or remove it: it has nothing but what tinycnn explain shows of a training"
RECORDS = "records.safetensors"
"""The file's name in a run folder."""
KIND = "record of a training"
COUNT = 24
"""Steps that ``tinycnn train`` records."""
MOST_CONVS, MOST_CHANNELS, MOST_SIDE = 4, 16, 32
MOST_NUMBERS = 6_144
"""Of one layer's maps of one image; and of one layer's filters."""
AT_ONCE = 1 << 20
"""Numbers of a gradient that are squared at a time: in float64 a large one would take twice the memory again."""


def spread(total: int, count: int = COUNT) -> list[int]:
    """Return up to ``count`` steps from 0 to ``total``, each further from the last than that from the one before.

    >>> spread(1000, 8)
    [0, 1, 3, 10, 32, 100, 316, 1000]
    """
    if count < 3 or total < 1:
        return sorted({0, total})[:count]
    return sorted({0, *(round(total ** (i / (count - 2))) for i in range(count - 1))})


@dataclass
class Records:
    """What a file of records holds.

    Attributes:
        arrays: by name; the first axis counts records, except of ``x`` and ``labels``.

            ====================  ==============================================================================
            ``steps``             (T,): updates done
            ``batch_loss``        (T,): of the batch just learnt from; nan at step 0
            ``loss``, ``p``       (T, n) and (T, n, K): of each image
            ``gradients``         (T, L): length of the batch's gradient, by layer; nan at step 0
            ``filters/PATH``      (T, OC, C, KH, KW), quantized, with ``filters/PATH/scale`` (T,)
            ``maps/PATH``         (T, n, C, H, W), quantized, with ``maps/PATH/scale`` (T,)
            ``x``, ``labels``     (n, C, H, W) and (n,): the images as the network gets them
            ====================  ==============================================================================
        about: ``layers`` (paths of ``gradients``), ``names`` of the images, ``classes``, ``steps_per_epoch``.
    """

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.arrays.get("steps", ()))

    def add(self, record: dict[str, np.ndarray]) -> None:
        """Append one, whole: an interruption leaves either all of its arrays or none."""
        longer = dict(self.arrays)
        for name, value in record.items():
            before = [self.arrays[name]] if name in self.arrays else []
            longer[name] = np.concatenate([*before, np.asarray(value)[None]])
        self.arrays = longer

    def drop_after(self, step: int) -> None:
        """Forget what is later than ``step``."""
        kept = self.arrays["steps"] <= step
        self.arrays = {name: a if name in ("x", "labels") else a[kept] for name, a in self.arrays.items()}

    def write(self, path: Path | str) -> None:
        """Write them to a file, which is replaced whole.

        Raises:
            OSError: it cannot be written.
        """
        checkpoint.write(path, self.arrays, {"kind": KIND, "about": self.about})


def read_records(path: Path | str) -> Records | None:
    """Return the records in a file or a run folder; None if there is none.

    Raises:
        CheckpointError: it is damaged, or something else.
    """
    path = Path(path) / RECORDS if Path(path).is_dir() else Path(path)
    if not path.exists():
        return None
    try:
        saved = checkpoint.read(path, KIND)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {CURE}") from None
    return Records({name: np.array(a) for name, a in saved.arrays.items()}, saved.metadata["about"])


class Recorder(Callback):
    """Write down, at some steps of a training, what there is to see: see the module's docstring.

    Args:
        path: of the file.
        x: a few images (n, C, H, W), as the network gets them.
        labels: their classes, (n,).
        steps: when: after so many updates of the weights, or batches where several make an update.
        names, classes: of the images and the classes, for whoever reads the file.

    Attributes:
        records: so far.
    """

    def __init__(
        self,
        path: Path | str,
        x: Array,
        labels: Array,
        steps: Collection[int],
        names: Sequence[str] = (),
        classes: Sequence[Any] = (),
    ) -> None:
        self.path, self.x, self.labels, self.steps = Path(path), x, to_numpy(labels).astype(np.int64), frozenset(steps)
        self.names, self.classes = [str(name) for name in names], [str(name) for name in classes]
        self.records = Records()
        self._convs: list[Conv2d] | None = None
        self._written = 0

    def on_train_begin(self, trainer: Trainer) -> None:
        """Go on after the records of earlier steps; record step 0.

        Raises:
            CheckpointError: the file is damaged, or of another training.
        """
        step, self._convs, self._written = _step_of(trainer), None, 0
        fixed: dict[str, np.ndarray] = {"x": to_numpy(self.x).astype(np.float32), "labels": self.labels}
        layers = [path for path, _ in _layers_with_parameters(trainer.model)]
        about = {"layers": layers, "names": self.names, "classes": self.classes}
        found = read_records(self.path) if step else None
        if found is not None:
            self._check(found, fixed, about)
            found.drop_after(step)
            self.records = found
            return
        self.records = Records(fixed, about | {"steps_per_epoch": trainer.batches_per_epoch})
        if step == 0 and step in self.steps:
            self.record(trainer)

    def _check(self, found: Records, fixed: dict[str, np.ndarray], about: dict[str, Any]) -> None:
        if any(found.about.get(name) != value for name, value in about.items()) or any(
            found.arrays[name].shape != value.shape for name, value in fixed.items()
        ):
            raise CheckpointError(f"{self.path}: records of another training: take the one of this training, {CURE}")

    def on_batch_end(self, trainer: Trainer) -> None:
        """Record if this is one of the steps."""
        if _step_of(trainer) in self.steps:
            self.record(trainer)

    def on_train_end(self, trainer: Trainer) -> None:
        """Write the file."""
        self.write()

    def state_dict(self) -> dict[str, Any]:
        """Write the file, so that it has every record up to the state that is being saved; it is all there is."""
        self.write()
        return {}

    def write(self) -> None:
        """Write what has not been written.

        Raises:
            OSError: it cannot be written.
        """
        if len(self.records) != self._written:
            self.records.write(self.path)
            self._written = len(self.records)

    def record(self, trainer: Trainer) -> None:
        """Record now."""
        step, model = _step_of(trainer), trainer.model
        learnt = trainer.loss is not None
        record = {
            "steps": np.int64(step),
            "batch_loss": np.float32(math.nan if trainer.loss is None else float(trainer.loss)),
            "gradients": np.array(
                [_norm(layer) if learnt else math.nan for _, layer in _layers_with_parameters(model)], np.float32
            ),
        }
        self.records.add(record | self._look(model))

    def _look(self, model: Layer) -> dict[str, np.ndarray]:
        """Send the images through, and return what there is to see."""
        seen: dict[Layer, Array] = {}
        x = array_module(next(iter(model.parameters())).data).asarray(self.x)
        with undisturbed(model):
            model.eval()
            convs = self._convs = _some_convs(model, x) if self._convs is None else self._convs

            def note(layer: Layer, x: Array, y: Array) -> None:
                if layer in convs:
                    seen[layer] = y.copy()  # what follows may work in place

            with watched(model, note):
                logits = scores_of(model.forward(x))
        p = to_numpy(softmax(logits)).astype(np.float64)
        loss = -np.log(np.maximum(p[np.arange(len(p)), self.labels], 1e-300))
        found = {"loss": loss.astype(np.float32), "p": p.astype(np.float32)}
        for i, conv in enumerate(convs):
            w = to_numpy(conv.weight.data)
            if i == 0 or w.size <= MOST_NUMBERS:
                found |= _quantized(f"filters/{conv.path}", w[: max(1, MOST_NUMBERS // w[0].size)])
            found |= _quantized(f"maps/{conv.path}", smaller(to_numpy(seen[conv])))
        return found


def quantize(a: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """Return ``q`` in −127 … 127 and ``scale`` so that q·scale is ``a``, to half a scale.

    >>> quantize(np.array([-2.54, 0.0, 0.635]))
    (array([-127,    0,   32], dtype=int8), np.float32(0.02))
    """
    a = np.nan_to_num(np.asarray(a, np.float64), posinf=0, neginf=0)
    scale = np.float32(np.abs(a).max(initial=0) / 127)
    return np.clip(np.rint(a / (float(scale) or 1)), -127, 127).astype(np.int8), scale


def smaller(maps: np.ndarray) -> np.ndarray:
    """Return the first channels of feature maps (N, C, H, W), averaged over squares, few enough to be kept."""
    N, C, H, W = maps.shape
    k = max(1, math.ceil(max(H, W) / MOST_SIDE))
    h, w = max(1, H // k), max(1, W // k)
    kept = maps[:, : max(1, min(C, MOST_CHANNELS, MOST_NUMBERS // (h * w))), : h * k, : w * k]
    kh, kw = kept.shape[2] // h, kept.shape[3] // w
    # (N, C', h·kh, w·kw) -> (N, C', h, kh, w, kw) -> (N, C', h, w)
    return kept.reshape(N, -1, h, kh, w, kw).mean(axis=(3, 5), dtype=np.float64)


def recorder_of(run: Run) -> Recorder:
    """Return what records a run into its folder: `Images.watched`, images of its validation part.

    Not of the test images: those are looked at once, at the end.  Without validation it is training images, as they
    are.
    """
    x, labels = next(iter(run.images.watched.epoch(0)))
    what = "validation" if run.validation else "training"
    total = run.settings.epochs * len(run.training)
    return Recorder(
        run.folder / RECORDS,
        to_numpy(x),
        labels,
        spread(total, run.settings.record),
        [f"{what} image {i}" for i in run.images.watched_numbers],
        run.images.preprocessing["classes"],
    )


def _step_of(trainer: Trainer) -> int:
    return trainer.epoch * (trainer.batches_per_epoch or 0) + trainer.batch


def _layers_with_parameters(model: Layer) -> list[tuple[str, Layer]]:
    return [(layer.path, layer) for layer in model.layers() if layer._parameters]


def _norm(layer: Layer) -> float:
    """Return the length of the gradient of a layer's own parameters, as far as there is one."""
    return math.sqrt(sum(_square(p.grad) for p in layer._parameters.values() if p.requires_grad and not p.is_clear))


def _square(g: Array) -> float:
    """Return Σ g²."""
    g = g.reshape(-1) if g.ndim < 2 else g
    rows = max(1, AT_ONCE * len(g) // max(g.size, 1))
    return sum(float((g[k : k + rows].astype(np.float64) ** 2).sum()) for k in range(0, len(g), rows))


def _some_convs(model: Layer, x: Array) -> list[Conv2d]:
    """Return a few of the convolutions that a forward of ``x`` comes through, from the first to the last."""
    called: dict[Conv2d, None] = {}

    def note(layer: Layer, x: Array, y: Array) -> None:
        if isinstance(layer, Conv2d):
            called[layer] = None

    with watched(model, note):
        model.forward(x)
    convs = list(called)
    last, count = len(convs) - 1, min(len(convs), MOST_CONVS)
    return [convs[round(i * last / max(count - 1, 1))] for i in range(count)]


def _quantized(name: str, a: np.ndarray) -> dict[str, np.ndarray]:
    q, scale = quantize(a)
    return {name: q, f"{name}/scale": np.asarray(scale)}
