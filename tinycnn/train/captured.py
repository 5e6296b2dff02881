"""A training step that is captured as a CUDA graph and replayed.

The launches of a training step are the same every time: the same kernels, in the same order, on the same arrays.  On a
GPU `CapturedStep` has them written down once (`tinycnn.kernels.cuda.graph`) and from then on replays them, which frees
the step from Python's time::

    cold ──▶ warming ──▶ captured             every step is a real one: the first three run as ever,
      ▲                     │  │              the fourth is captured and then replayed
      └──── changed ────────┘  └──▶ an odd batch runs as ever, and changes nothing
    any of them ──▶ eager, for good, because …

**The same bits.**  A replay does what Python would have done, provided that Python would do the same again.  So before
every replay everything that decides is compared with what it was (`facts.Facts`): modes, options and arrays of every
layer, who is frozen, the loss, the optimizer's `revision`, precision, shapes.  A change, and the step is captured anew.
Learning rates and all other numbers of the optimizer may change: `Optimizer.prepare` sends them before every replay.

**State that Python keeps** is brought to where a step leaves it: gradients count as written (`Parameter` clears them
lazily), and nothing waits for a backward.  Counters of random streams and of batches are on the GPU, and in the graph.

**What cannot be captured** (a layer that looks at a value, copies from the host or calls cuBLAS; an optimizer without a
kernel) is found out when it is tried.  Nothing was done by then: the step is run as ever, and so are all to come;
`CapturedStep.reason` says why, and so does the log.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from ..backend import CPU, Array, array_module, device_of, half_dtype
from ..kernels import precision as products
from ..kernels.cuda.graph import CapturedTask
from ..layers.base import Layer
from ..layers.tune import tune
from ..losses.auxiliary import each_output, scores_of
from ..optim import GradScaler, Optimizer, clip_grad_norm_
from .facts import Facts

Loss: TypeAlias = Callable[[Array, Array], tuple[Array, Array]]
"""``loss, dlogits = loss_fn(logits, targets)``, the loss being a mean over the batch.  With auxiliary heads logits and
dlogits are tuples in training: see `tinycnn.AuxiliaryLoss`."""
Results: TypeAlias = tuple[Array, Array]
"""(loss, logits), without those of auxiliary heads."""

WARM_UP = 3
"""Steps before the one that is captured."""
PATIENCE = 4
"""Steps in a row with a batch of another shape after which that shape is the one to capture."""
ATTEMPTS = 8
"""How many times the step may have changed when it was to be captured, before that is given up."""

PRECISIONS = ("float32", "tf32", "bf16", "fp16")
HALVES = {"bf16": "bfloat16", "fp16": "float16"}
"""Types of activations, by precision."""

log = logging.getLogger("tinycnn")


def check_precision(name: str | None, like: Array) -> str | None:
    """Return ``name`` after checking that parameters like ``like`` can be trained in that precision.

    Raises:
        ValueError: they cannot.
    """
    if name is not None and name not in PRECISIONS:
        raise ValueError(f"unknown precision {name!r} (known: {', '.join(PRECISIONS)})")
    if name is not None and like.dtype != np.float32:
        raise ValueError(f"precision {name!r} is for float32 parameters, these are {like.dtype}")
    if name not in (None, "float32") and device_of(like) == CPU:
        raise ValueError(f"precision {name!r} is for networks on a GPU: move the model first, or use float32")
    return name


class CapturedStep:
    """A whole training step; on a GPU it becomes one CUDA graph.

        step = CapturedStep(model, optimizer, CrossEntropyLoss())
        for x, y in batches:
            loss, logits = step(x, y)

    It clears the gradients, goes forward and backward, clips and updates.  On a CPU it is just that.

    Args:
        model: the network.
        optimizer: over its parameters.
        loss_fn: see `Loss`; one that looks at its result cannot be captured.
        clip_norm: shrink the gradients of each step to this norm at most.
        then: called with (loss, logits, targets) at the end of every step, and captured with it: metrics.
        graph: False runs every step as ever.
        precision: of a float32 network on a GPU; None takes things as they are.

            ===========  =======================================================================================
            ``float32``  everything in float32
            ``tf32``     products on tensor cores, see `tinycnn.kernels.precision`
            ``bf16``     activations and their gradients in bfloat16; parameters, their gradients and the loss float32
            ``fp16``     the same in float16, with the loss scaled (`GradScaler`)
            ===========  =======================================================================================

    Attributes:
        reason: why steps are not captured; None if they are, or may still be.
        scaler: the `GradScaler` of ``fp16``.

    Raises:
        ValueError: a precision that is not known, or needs float32 parameters on a GPU and has others.
    """

    def __init__(
        self,
        model: Layer,
        optimizer: Optimizer,
        loss_fn: Loss,
        *,
        clip_norm: float | None = None,
        then: Callable[[Array, Array, Array], None] | None = None,
        graph: bool = True,
        precision: str | None = None,
    ) -> None:
        self.model, self.optimizer, self.loss_fn, self.clip_norm, self.then = model, optimizer, loss_fn, clip_norm, then
        self.precision = check_precision(precision, optimizer.flat.data)
        self.scaler = GradScaler(optimizer) if precision == "fp16" else None
        self.reason = self._refusal(graph)
        self._task: CapturedTask | None = None
        self._facts: Facts | None = None
        self._shapes: tuple[Any, ...] | None = None
        self._inputs: tuple[Array, Array] | None = None
        self._warm = self._odd = self._attempts = 0
        self._revision = 0
        self._python: _PythonState | None = None

    def _refusal(self, graph: bool) -> str | None:
        """Return why no step of these can be captured, as far as that is known beforehand."""
        if not graph:
            return "graph=False"
        if device_of(self.optimizer.flat.data) == CPU:
            return "the parameters are on the CPU"
        name = type(self.optimizer).__name__
        if type(self.optimizer).step is not Optimizer.step:
            return f"{name} has a step of its own"
        return None if self.optimizer.kernel is not None else f"no kernel does the update of {name}"

    @property
    def state(self) -> str:
        """``cold``, ``warming``, ``captured`` or ``eager``."""
        if self.reason is not None:
            return "eager"
        if self._task is None:
            return "cold"
        return "captured" if self._task.is_captured else "warming"

    @property
    def inputs(self) -> tuple[Array, Array] | None:
        """The arrays that a captured step reads its batch from: one that is in them already is not copied."""
        return self._inputs if self.state == "captured" else None

    @property
    def nbytes(self) -> int:
        """Bytes of the GPU's memory that the graph keeps."""
        return 0 if self._task is None else self._task.nbytes

    # ---- steps ---------------------------------------------------------------------------------------------

    def __call__(self, x: Array, y: Array) -> Results:
        """Learn from one batch: images and their targets.  Returns (loss, logits) as they were before the update."""
        loss, logits = self.run(x, y)
        captured = self._task is not None and self._task.is_captured
        return (loss.copy(), logits.copy()) if captured else (loss, logits)

    def run(self, x: Array, y: Array, look: Callable[[Array], None] | None = None) -> Results:
        """Do the same, and return arrays that the next step may overwrite.

        Args:
            x, y: the batch.
            look: called with the loss: before backward, or where the step is replayed after the update.
        """
        optimizer = self.optimizer
        if self.reason is not None or self._is_odd(x, y):
            return self._step(x, y, optimizer.step, look)
        task = self._current_task()
        if task is None:
            return self._step(x, y, optimizer.step, look)
        if not task.is_captured and self._warm < WARM_UP:
            return self._warmed(task, x, y, look)
        optimizer.prepare()
        results = self._replayed(task, x, y)
        if results is None:
            return self._step(x, y, optimizer.apply, look)
        if look is not None:
            look(results[0])
        return results

    def tune(self, input_shape: tuple[int, ...], progress: Callable[[int, int], None] | None = None) -> dict[str, str]:
        """Time the algorithms of the convolutions in the step's precision: `tinycnn.tune`."""
        with self._products():
            return tune(self.model, input_shape, progress=progress, dtype=self._half)

    def _step(
        self, x: Array, y: Array, update: Callable[[], None], look: Callable[[Array], None] | None = None
    ) -> Results:
        """The step itself, which ends with the optimizer's ``update``."""
        with self._products():
            return self._mathematics(x, y, update, look)

    def _products(self) -> contextlib.AbstractContextManager[None]:
        """Have products taken as the precision says."""
        name = "tf32" if self.precision == "tf32" else "float32" if self.precision else products.get_precision()
        return products.precision(name)

    @property
    def _half(self) -> np.dtype | None:
        """The type of activations in mixed precision."""
        name = HALVES.get(self.precision or "")
        return None if name is None else half_dtype(name)

    def _mathematics(
        self, x: Array, y: Array, update: Callable[[], None], look: Callable[[Array], None] | None
    ) -> Results:
        half = self._half
        outputs = self.model.forward(x if half is None else x.astype(half, copy=False))
        wide = outputs if half is None else each_output(lambda y: y.astype(np.float32), outputs)
        loss, gradients = self.loss_fn(wide, y)
        if look is not None:
            look(loss)
        self.model.zero_grad()
        self.optimizer.zero_grad()
        if self.scaler is not None:
            gradients = each_output(self.scaler.scale, gradients)
        logits, dtype = scores_of(wide), scores_of(outputs).dtype
        self.model.backward(each_output(lambda dy: dy.astype(dtype, copy=False), gradients))
        if self.scaler is not None:
            self.scaler.unscale(math.inf if self.clip_norm is None else self.clip_norm)
        elif self.clip_norm is not None:
            clip_grad_norm_(self.model, self.clip_norm)
        update()
        if self.scaler is not None:
            self.scaler.update()
        if self.then is not None:
            self.then(loss, logits, y)
        return loss, logits

    # ---- the graph -----------------------------------------------------------------------------------------

    def _is_odd(self, x: Array, y: Array) -> bool:
        """Whether the batch is of another shape (or place) than those captured, and not many have been of late."""
        shapes = tuple((device_of(a), a.shape, a.dtype) for a in (x, y))
        if shapes == self._shapes:
            self._odd = 0
            return False
        self._odd += 1
        if CPU in (shapes[0][0], shapes[1][0]) or (self._shapes is not None and self._odd < PATIENCE):
            return True
        self._drop()
        self._shapes, self._odd = shapes, 0
        return False

    def _current_task(self) -> CapturedTask | None:
        """Return the task to go on with, a new one if anything has changed; None if that happens all the time."""
        changed = None if self._facts is None else self._facts.difference()
        if self._task is not None and changed is None:
            return self._task
        self._drop()
        self._attempts += 1
        if self._attempts > ATTEMPTS:
            self._give_up(f"{changed} changes again and again")
            return None
        self._task = CapturedTask(self.optimizer.flat.data)
        return self._task

    def _warmed(self, task: CapturedTask, x: Array, y: Array, look: Callable[[Array], None] | None) -> Results:
        """Return the results of a step that is run as it would be captured."""
        for group in self.optimizer.param_groups:
            for slot in self.optimizer.slots_of(group):
                self.optimizer._slot(slot)  # here, not where the task's memory is: it outlives the task
        results = task.run(lambda: self._step(x, y, self.optimizer.step, look))
        self._warm += 1
        if self._facts is None:  # the first one has made what is made once
            self._facts = self._look_around()
        return results

    def _look_around(self) -> Facts:
        """Return everything that decides what a step does."""
        own = ("model", "optimizer", "loss_fn", "then", "clip_norm", "precision", "scaler")
        others = {name: functools.partial(getattr, self, name) for name in own}
        return Facts(self.model, self.loss_fn, {**others, "products": products.get_precision})

    def _replayed(self, task: CapturedTask, x: Array, y: Array) -> Results | None:
        """Return the results of a replay; None, with nothing done, if there can be none of this step."""
        if not task.is_captured:
            if not self._capture(task, x, y):
                return None
        elif self._revision != self.optimizer.revision:
            self._drop()  # it will be captured again
            return None
        else:
            assert self._python is not None
            self._python.step()
        assert self._inputs is not None
        for own, given in zip(self._inputs, (x, y), strict=True):
            if own is not given:
                _in_memory_order(own)[...] = _in_memory_order(given)
        results: Results = task.replay()
        return results

    def _capture(self, task: CapturedTask, x: Array, y: Array) -> bool:
        """Have the step captured; returns whether that was possible."""
        inputs = self._inputs = _like(x), _like(y)
        why = None
        try:
            task.capture(lambda: self._step(*inputs, self.optimizer.apply))
        except Exception as error:  # CuPy's own kinds, and the layers'
            why = f"{type(error).__name__}: {error}"
        assert self._facts is not None
        if why is None and (changed := self._facts.difference()) is not None:
            why = f"{changed} changes in every step"
        if why is not None:
            self._give_up(why)
            return False
        self._attempts, self._revision = 0, self.optimizer.revision
        self._python = _PythonState(self.model, self.optimizer)
        return True

    def _give_up(self, reason: str) -> None:
        """Run all steps as ever from now on, and say why."""
        self._drop()
        self.reason = " ".join(reason.split())
        log.warning("training steps are not captured as a CUDA graph: %s", self.reason)

    def release(self) -> None:
        """Give up the graph, and the memory that it keeps; the next steps make another."""
        self._drop()
        self._shapes, self._odd = None, 0

    def _drop(self) -> None:
        if self._task is not None:
            self._task.close()
        self._task = self._facts = self._inputs = self._python = None
        self._warm = 0


class _PythonState:
    """What a step leaves behind in Python's objects, which a replay does not touch.

    Args:
        model, optimizer: after a step.
    """

    def __init__(self, model: Layer, optimizer: Optimizer) -> None:
        self._layers = list(model.layers())
        own = {id(p): p for p in (*model.parameters(), *optimizer.flat.parameters)}
        self._written = [p for p in own.values() if not p.is_clear]
        self._clear = [p for p in own.values() if p.is_clear]

    def step(self) -> None:
        """Bring everything to where a step leaves it."""
        for layer in self._layers:
            layer._saved = None
        for p in self._written:
            p.written()
        for p in self._clear:
            p.zero_grad()


def _in_memory_order(x: Array) -> Array:
    return x.transpose(0, 2, 3, 1) if x.ndim == 4 else x  # (N, C, H, W) -> (N, H, W, C)


def _like(x: Array) -> Array:
    """Return an array like ``x``, on channels-last memory."""
    empty = array_module(x).empty
    if x.ndim != 4:
        return empty(x.shape, x.dtype)
    N, C, H, W = x.shape
    return empty((N, H, W, C), x.dtype).transpose(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)
