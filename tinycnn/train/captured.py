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

import functools
import logging
from collections.abc import Callable
from typing import Any

from ..backend import CPU, Array, array_module, device_of
from ..kernels import precision as products
from ..kernels.cuda.graph import CapturedTask
from ..layers.base import Layer
from ..layers.tune import tune
from ..optim import EMA, Optimizer
from .facts import Facts
from .step import PRECISIONS, Loss, Results, Step, check_precision

__all__ = ["PRECISIONS", "CapturedStep", "Loss", "Results", "check_precision"]

WARM_UP = 3
"""Steps before the one that is captured."""
PATIENCE = 4
"""Steps in a row with a batch of another shape after which that shape is the one to capture."""
ATTEMPTS = 8
"""How many times the step may have changed when it was to be captured, before that is given up."""

log = logging.getLogger("tinycnn")


class CapturedStep(Step):
    """A whole training step; on a GPU it becomes one CUDA graph.

        step = CapturedStep(model, optimizer, CrossEntropyLoss())
        for x, y in batches:
            loss, logits = step(x, y)

    It clears the gradients, goes forward and backward, clips and updates.  On a CPU it is just that.

    Args:
        model: the network.
        optimizer: over its parameters.
        loss_fn: see `Loss`; one that looks at its result cannot be captured.
        clip_norm: shrink the gradients of each update to this norm at most.
        accumulate: update after so many batches, as after one batch of all their examples (`step`).
        ema: averages to move after each update.
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
        waiting: batches whose gradients wait for an update.
        scaler: the `GradScaler` of ``fp16``.

    Raises:
        ValueError: a precision that is not known, or needs float32 parameters on a GPU and has others; ``accumulate``
            below 1.
    """

    def __init__(
        self,
        model: Layer,
        optimizer: Optimizer,
        loss_fn: Loss,
        *,
        clip_norm: float | None = None,
        accumulate: int = 1,
        ema: EMA | None = None,
        then: Callable[[Array, Array, Array], None] | None = None,
        graph: bool = True,
        precision: str | None = None,
    ) -> None:
        super().__init__(
            model,
            optimizer,
            loss_fn,
            clip_norm=clip_norm,
            accumulate=accumulate,
            ema=ema,
            then=then,
            precision=precision,
        )
        self.reason = self._refusal(graph)
        self._task: CapturedTask | None = None
        self._facts: Facts | None = None
        self._shapes: tuple[Any, ...] | None = None
        self._inputs: tuple[Array, Array] | None = None
        self._warm = self._odd = self._attempts = 0
        self._revision = (0, 0)
        self._python: _PythonState | None = None

    def _refusal(self, graph: bool) -> str | None:
        """Return why no step of these can be captured, as far as that is known beforehand."""
        if not graph:
            return "graph=False"
        if device_of(self.optimizer.flat.data) == CPU:
            return "the parameters are on the CPU"
        if self.accumulate > 1:
            return None  # the update, once for many batches, is not captured
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

    def run(self, x: Array, y: Array, look: Callable[[Array], None] | None = None, last: bool = False) -> Results:
        """Do the same, and return arrays that the next step may overwrite.

        Args:
            x, y: the batch.
            look: called with the loss: before backward, or where the step is replayed after it, or after the update.
            last: update now, even if fewer than ``accumulate`` batches are waiting.
        """
        if self.accumulate == 1:
            return self._run(x, y, 1, look)
        share = self._begin(len(x))
        try:
            results = self._run(x, y, share, look)
        except BaseException:
            self.waiting = 0  # a part of these gradients may be missing: the group is given up
            raise
        if last or self.waiting == self.accumulate:
            self._finish(self._update)
            self.waiting = 0
        return results

    def _run(self, x: Array, y: Array, share: float, look: Callable[[Array], None] | None) -> Results:
        """Do what is captured: all of the step, or where batches accumulate what has to be done for each."""
        if self.reason is not None or share != 1 or self._is_odd(x, y):
            return self._eager(x, y, self._update, share, look)
        task = self._current_task()
        if task is None:
            return self._eager(x, y, self._update, 1, look)
        if not task.is_captured and self._warm < WARM_UP:
            return self._warmed(task, x, y, look)
        if self.accumulate == 1:
            self._prepare()
        results = self._replayed(task, x, y)
        if results is None:
            return self._eager(x, y, self._apply, 1, look)
        if look is not None:
            look(results[0])
        return results

    def tune(self, input_shape: tuple[int, ...], progress: Callable[[int, int], None] | None = None) -> dict[str, str]:
        """Time the algorithms of the convolutions in the step's precision: `tinycnn.tune`."""
        with self._products():
            return tune(self.model, input_shape, progress=progress, dtype=self._half)

    def _eager(
        self,
        x: Array,
        y: Array,
        update: Callable[[], None],
        share: float = 1,
        look: Callable[[Array], None] | None = None,
    ) -> Results:
        """Do it kernel by kernel; with the ``update`` that ends it, unless batches accumulate."""
        loss, logits = self._learn(x, y, share, look)
        if self.accumulate == 1:
            self._finish(update)
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
        if self.ema is not None:
            self.ema._find()
        results = task.run(lambda: self._eager(x, y, self._update, 1, look))
        self._warm += 1
        if self._facts is None:  # the first one has made what is made once
            self._facts = self._look_around()
        return results

    def _look_around(self) -> Facts:
        """Return everything that decides what a step does."""
        own = ("model", "optimizer", "loss_fn", "then", "clip_norm", "accumulate", "ema", "precision", "scaler")
        others = {name: functools.partial(getattr, self, name) for name in own}
        return Facts(self.model, self.loss_fn, {**others, "products": products.get_precision})

    def _replayed(self, task: CapturedTask, x: Array, y: Array) -> Results | None:
        """Return the results of a replay; None, with nothing done, if there can be none of this step."""
        if not task.is_captured:
            if not self._capture(task, x, y):
                return None
        elif self._revision != self._revisions():
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
            task.capture(lambda: self._eager(*inputs, self._apply))
        except Exception as error:  # CuPy's own kinds, and the layers'
            why = f"{type(error).__name__}: {error}"
        assert self._facts is not None
        if why is None and (changed := self._facts.difference()) is not None:
            why = f"{changed} changes in every step"
        if why is not None:
            self._give_up(why)
            return False
        self._attempts, self._revision = 0, self._revisions()
        self._python = _PythonState(self.model, self.optimizer)
        return True

    def _revisions(self) -> tuple[int, int]:
        """Return what changes when the update would launch something else, if it is captured."""
        if self.accumulate > 1:
            return 0, 0
        return self.optimizer.revision, 0 if self.ema is None else self.ema.revision

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
