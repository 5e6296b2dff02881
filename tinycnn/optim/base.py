"""What all optimizers share: groups, flat buffers, state, the walk over stretches.

An optimizer lays its parameters out in one `FlatParameters`.  Its mathematics is then written once, for plain
vectors, in `Optimizer.update`; this file decides which stretches of the buffers that is called on.

**Who is updated.**  Frozen parameters (``requires_grad=False``) are left alone altogether: no decay, no
momentum.  They may be frozen and thawed at any time.

**The past.**  Some numbers count the updates a parameter has had: Adam's t, for one.  As in PyTorch they
belong to the parameter: one that is thawed after 1000 steps has its t = 1 then, with the bias correction that
its empty averages need.  Parameters of one group with the same past form a *cohort*; in a network of which
nothing was ever frozen that is the whole group, and one contiguous run.

**Stretches.**  An update goes through the buffers in stretches that fit a core's cache, on all threads; `vectors` says
why.  They are cut once and kept until something changes: a step of a small network is mostly Python's time.
An update is elementwise, so neither stretches nor threads can change a bit of the result.

**Arithmetic.**  What an update needs beside vectors (lr/(1 − β1^t), say) Python computes in float64, and it is rounded
to the parameters' type once.  Every operation on vectors is rounded to that type too: no sum and product are fused,
quotients and roots are exact to the last bit.

**On a GPU** a step is one kernel (`kernels/cuda/optim.cu`) that does the same operations in the same order, and so the
CPU's step to the last bit, but for numbers below 1.2e-38, which CuPy has float32 kernels take as 0.  `Optimizer.step`
is two things there: `Optimizer.prepare` counts and computes on the host and sends the numbers that have changed to the
device, `Optimizer.apply` launches.  Only the second may be part of a CUDA graph; the first comes before each replay.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import numpy as np

from ..backend import Array, array_module, is_device_array, to_numpy
from ..kernels.cuda.optim import Step
from ..parallel import get_num_threads
from ..parameter import FlatParameters
from .groups import Group, check_values, make_groups, plain
from .state import first_difference
from .vectors import Batch, Stretch, cut, numbers, run_all, with_work

Past: TypeAlias = dict[str, Any]
Scalars: TypeAlias = tuple[float, ...]


@dataclass
class Cohort:
    """Parameters of one group that share their past, the runs of the buffers that they fill, and those cut up.

    ``values`` are the hyper-parameters of the step under way; ``cut_for`` the slots and the number of threads that
    ``batches`` were cut for.
    """

    group: Group
    past: Past
    spans: list[slice]
    values: Group = field(default_factory=dict)
    batches: list[Batch] = field(default_factory=list)
    cut_for: tuple[tuple[str, ...], int] | None = None


class Optimizer:
    """Base of every optimizer.

    A subclass passes its hyper-parameters as ``defaults``, names its state in ``slots`` and defines `update`.  On a GPU
    that runs too, operation by operation; with a kernel that does the same, named in ``kernel``, it is one launch.

    Attributes:
        param_groups: `Group` dicts, as given, completed by the defaults.
        flat: every parameter and gradient, the groups in order.
        state: buffers laid out like ``flat.data``, by slot; made when first needed.
        slots: every slot that the optimizer may use.
        work: names of the work arrays that `update` needs.
        new_past: the past of a parameter that was never updated.
        kernel: name of the kernel that does `update` on a GPU, with the numbers of `scalars`.
        revision: how often what `apply` launches has changed: a captured graph is good for one revision.
    """

    slots: ClassVar[tuple[str, ...]] = ()
    work: ClassVar[tuple[str, ...]] = ("a",)
    new_past: ClassVar[Mapping[str, Any]] = {"step": 0}
    kernel: ClassVar[str | None] = None

    def __init_subclass__(cls) -> None:
        """Take away the kernel of the parent's `update` from a class that has another."""
        if {"update", "scalars"} & set(vars(cls)) and "kernel" not in vars(cls):
            cls.kernel = None

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        self.defaults = {name: plain(value) for name, value in defaults.items()}
        self.check(self.defaults)
        self.param_groups = make_groups(params, self.defaults, type(self).__name__)
        for group in self.param_groups:
            self.check(group)
        self.flat = FlatParameters(p for group in self.param_groups for p in group["params"])
        self.state: dict[str, Array] = {}
        self._group_of = [i for i, group in enumerate(self.param_groups) for _ in group["params"]]
        self._past: list[Past] = [dict(self.new_past) for _ in self.flat.parameters]
        self._flags: tuple[bool, ...] | None = None
        self._cohorts: list[Cohort] = []
        self.revision = 0
        self._step: Step | None = None
        self._guard: tuple[Array | None, Array | None] = (None, None)
        self._counted: list[tuple[Past, Past]] = []

    # ---- the mathematics: every subclass's own -------------------------------------------------------------

    def update(self, parts: Iterator[Stretch], group: Group, past: Past) -> None:
        """Update stretches of the parameters in place; called from several threads, each with stretches of its own.

        Args:
            parts: tuples of vectors: p and g (weight decay is in them already; g is only read), then every slot in
                `slots_of`, updated in place too, then the work arrays `work`.
            group: hyper-parameters.
            past: as `advance` left it: ``past["step"]`` is 1 in the first update.
        """
        raise TypeError(f"{type(self).__name__} must define update")

    def advance(self, group: Group, past: Past) -> None:
        """Count the update that is about to be made; once per cohort, before any `update`."""
        past["step"] += 1

    def scalars(self, group: Group, past: Past) -> Scalars:
        """Return the numbers that `update` computes with, in float64, as the kernel takes them (at most 6)."""
        return ()

    def slots_of(self, group: Group) -> tuple[str, ...]:
        """Return the slots that ``group`` needs."""
        return self.slots

    def check(self, values: Mapping[str, Any]) -> None:
        """Raise ValueError if a hyper-parameter is out of range."""
        check_values(values, type(self).__name__)

    # ---- one step ------------------------------------------------------------------------------------------

    def zero_grad(self) -> None:
        """Clear every gradient."""
        self.flat.check()
        for p in self.flat.parameters:
            p.zero_grad()

    def step(self) -> None:
        """Update every parameter that is not frozen by its gradient.

        Raises:
            RuntimeError: a parameter was moved or converted since the optimizer was made.
        """
        self.prepare()
        self.apply()

    def prepare(self) -> None:
        """Do the host's part of a step: count the update, compute its numbers and send them to the device.

        Once before every `apply`, and before every replay of a graph that `apply` was captured in, on the same stream.
        The copy to the device is asynchronous; nothing waits, unless there is a `guard`.
        """
        self.flat.check()
        self.settle()
        changed = self._regroup()
        for cohort in self._cohorts:
            cohort.values = {name: plain(value) for name, value in cohort.group.items() if name != "params"}
        if self._guard[1] is not None:
            self._counted = [(cohort.past, dict(cohort.past)) for cohort in self._cohorts]
        for cohort in self._cohorts:
            self.advance(cohort.values, cohort.past)
        if self.kernel is not None and is_device_array(self.flat.data):
            self._prepare_kernel(changed)

    def apply(self) -> None:
        """Do the rest of it: update the parameters, as `prepare` has it; on a GPU launches and nothing else."""
        grad = self.flat.grad
        if self._step is not None:
            return self._step.launch()
        tasks: list[Callable[[], None]] = []
        batches: list[Batch] = []
        for cohort in self._cohorts:
            own = self._batches(cohort, grad, self.slots_of(cohort.values))
            tasks += [functools.partial(self._update_batch, batch, cohort.values, cohort.past) for batch in own]
            batches += own
        run_all(tasks, batches)

    def _update_batch(self, batch: Batch, group: Group, past: Past) -> None:
        self.update(self._decayed(batch, group), group, past)

    def _decayed(self, batch: Batch, group: Group) -> Iterator[Stretch]:
        """Yield the stretches of a batch as `update` wants them, weight decay applied.

        As the gradient of λ/2·‖p‖² (L2 regularisation): g + λ·p.  Decoupled: p ← p·(1 − lr·λ), and g as it is.
        """
        weight_decay = group.get("weight_decay", 0)
        if weight_decay == 0:
            yield from with_work(batch, self.work)
        elif group.get("decoupled_weight_decay", False):
            (keep,) = self.numbers(1 - group["lr"] * weight_decay)
            for stretch in with_work(batch, self.work):
                p = stretch[0]
                p *= keep
                yield stretch
        else:
            xp, (weight_decay,) = array_module(self.flat.data), self.numbers(weight_decay)
            for p, g, *others, total in with_work(batch, (*self.work, "g")):
                xp.multiply(p, weight_decay, out=total)
                total += g
                yield (p, total, *others)

    def numbers(self, *values: float) -> list[Any]:
        """Return numbers in the form that operations on the buffers like best, see `vectors.numbers`."""
        return numbers(self.flat.data, *values)

    def _batches(self, cohort: Cohort, grad: Array, slots: tuple[str, ...]) -> list[Batch]:
        """Return the cohort's stretches of p, g and these slots in batches; they are cut when something has changed."""
        cut_for = (slots, get_num_threads())
        if cohort.cut_for != cut_for:
            vectors = [self.flat.data, grad, *map(self._slot, slots)]
            cohort.batches = cut([tuple(x[span] for x in vectors) for span in cohort.spans], len(self.work))
            cohort.cut_for = cut_for
        return cohort.batches

    def _slot(self, slot: str) -> Array:
        if slot not in self.state:
            self.state[slot] = self.flat.new_buffer()
        return self.state[slot]

    def _regroup(self) -> bool:
        """Form the cohorts anew if a parameter was frozen or thawed; the members of a cohort share one past."""
        parameters = self.flat.parameters
        flags = tuple(p.requires_grad for p in parameters)
        if flags == self._flags:
            return False
        alike: dict[tuple[Any, ...], list[int]] = {}
        for i, trained in enumerate(flags):
            self._past[i] = dict(self._past[i])
            if trained:
                alike.setdefault((self._group_of[i], *self._past[i].values()), []).append(i)
        self._cohorts = []
        for (index, *_), members in alike.items():
            past = self._past[members[0]]
            for i in members:
                self._past[i] = past
            runs = self.flat.runs([parameters[i] for i in members])
            self._cohorts.append(Cohort(self.param_groups[index], past, runs))
        self._flags = flags
        return True

    # ---- on a GPU ------------------------------------------------------------------------------------------

    def _prepare_kernel(self, regrouped: bool) -> None:
        """Set up the launch, if there is none that fits, and send the numbers of this update."""
        wanted = {slot for cohort in self._cohorts for slot in self.slots_of(cohort.values)}
        arrays = (self.flat.data, self.flat.grad_memory, *(self._slot(s) if s in wanted else None for s in self.slots))
        if regrouped or self._step is None or not self._step.is_of(arrays, self._guard):
            align = self.flat.ALIGN  # the gaps between parameters are zeros, and remain so: up to there, no remainders
            spans = [
                (run.start, -(-run.stop // align) * align, i)
                for i, cohort in enumerate(self._cohorts)
                for run in cohort.spans
            ]
            assert self.kernel is not None
            self._step = Step(self.kernel, arrays, spans, len(self._cohorts), self._guard)
            self.revision += 1
        rows = [self._decay(c.values) + self.scalars(c.values, c.past) for c in self._cohorts]
        self._step.send(rows)

    @staticmethod
    def _decay(group: Group) -> Scalars:
        """Return what `_decayed` multiplies p by, and the λ of g + λ·p."""
        weight_decay = group.get("weight_decay", 0)
        if group.get("decoupled_weight_decay", False):
            return (1 - group["lr"] * weight_decay, 0)
        return (1, weight_decay)

    def guard(self, inv_scale: Array | None = None, found_inf: Array | None = None) -> None:
        """Let the device decide in every `apply` from now on: what loss scaling needs, and clipping can use.

        Args:
            inv_scale: a number on the device, of the parameters' type; gradients are multiplied by it as they are read.
            found_inf: an int32 on the device; where it is not 0 nothing is updated, and the update does not count.  The
                host must know before it counts the next one: `prepare` and `state_dict` then wait for the device.

        Raises:
            ValueError: the parameters are not on a GPU, or no kernel does the update.
        """
        if self.kernel is None or not is_device_array(self.flat.data):
            raise ValueError(f"{type(self).__name__}: guard needs parameters on a GPU and an update with a kernel")
        self.settle()
        self._guard = (inv_scale, found_inf)

    def settle(self) -> None:
        """Take back the count of the last update if the device skipped it; waits for the device to know."""
        counted, self._counted = self._counted, []
        if counted and self._step is not None and self._step.was_skipped():
            for past, before in counted:
                past.update(before)

    # ---- state ---------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Return a distinct name for every parameter: its own, with its position where that is not enough."""
        uses = Counter(p.name for p in self.flat.parameters)
        return [p.name if p.name and uses[p.name] == 1 else f"{p.name}#{i}" for i, p in enumerate(self.flat.parameters)]

    def state_dict(self) -> dict[str, Any]:
        """Return all it takes to go on exactly where this optimizer stands.

        Returns:
            ``{"optimizer": class name, "groups": [{hyper-parameters, "params": [names]}, …], "past": {name:
            {"step": t, …}}, "state": {slot: {name: array}}}``.  The arrays are C-ordered NumPy copies in the
            parameters' shapes; everything else is JSON.  `split_state` takes the two apart.
        """
        self.settle()
        names = self.names()
        own = iter(names)
        groups = [
            {**{k: plain(v) for k, v in group.items()}, "params": [next(own) for _ in group["params"]]}
            for group in self.param_groups
        ]
        state = {
            slot: {
                name: np.array(to_numpy(FlatParameters.view(buffer, p, span)), order="C")
                for name, p, span in zip(names, self.flat.parameters, self.flat.spans, strict=True)
            }
            for slot, buffer in self.state.items()
        }
        past = {name: dict(past) for name, past in zip(names, self._past, strict=True)}
        return {"optimizer": type(self).__name__, "groups": groups, "past": past, "state": state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a saved optimizer stood; nothing changes unless everything fits.

        The hyper-parameters become the saved ones.  Make the optimizer, then its schedule, then load both states.

        Raises:
            ValueError: the state of another kind of optimizer, of other parameters, or damaged.
        """
        self.settle()
        groups = self._fitting_groups(state)
        past = self._fitting_past(state)
        buffers = {slot: self._fitting_buffer(slot, arrays) for slot, arrays in state["state"].items()}
        for group, saved in zip(self.param_groups, groups, strict=True):
            members = group["params"]
            group.clear()
            group.update(saved, params=members)
        self._past, self.state, self._flags = past, buffers, None

    def _misfit(self, why: str) -> ValueError:
        return ValueError(f"{type(self).__name__}: the state does not fit: {why}")

    def _fitting_groups(self, state: Mapping[str, Any]) -> list[Group]:
        """Return the saved groups, without their members, after checking kind, members and values."""
        absent = [key for key in ("optimizer", "groups", "past", "state") if key not in state]
        if absent:
            raise self._misfit(f"it has no entry {absent[0]!r}, so it is not an optimizer's state_dict()")
        if state["optimizer"] != type(self).__name__:
            raise self._misfit(f"{state['optimizer']} saved it: make that optimizer")
        if len(state["groups"]) != len(self.param_groups):
            raise self._misfit(f"it has {len(state['groups'])} groups, this optimizer {len(self.param_groups)}")
        own = iter(self.names())
        groups: list[Group] = []
        for i, (group, saved) in enumerate(zip(self.param_groups, state["groups"], strict=True)):
            mine = [next(own) for _ in group["params"]]
            theirs = list(saved.get("params", ()))
            if theirs != mine:
                raise self._misfit(f"in group {i}, {first_difference(mine, theirs)}")
            values = {key: plain(value) for key, value in saved.items() if key != "params"}
            lacking = [key for key in self.defaults if key not in values]
            if lacking:
                raise self._misfit(f"group {i} has no {lacking[0]!r}")
            self.check(values)
            groups.append(values)
        return groups

    def _fitting_past(self, state: Mapping[str, Any]) -> list[Past]:
        past = [state["past"].get(name, {}) for name in self.names()]
        for name, one in zip(self.names(), past, strict=True):
            if set(one) != set(self.new_past):
                raise self._misfit(f"the past of {name} holds {sorted(one)}, it should hold {sorted(self.new_past)}")
        return [{key: one[key] for key in self.new_past} for one in past]

    def _fitting_buffer(self, slot: str, arrays: Mapping[str, Any]) -> Array:
        """Return a new buffer of this optimizer's layout with the saved arrays of one slot in it."""
        if slot not in self.slots:
            raise self._misfit(f"it has {slot!r} of each parameter, this optimizer knows {', '.join(self.slots)}")
        xp, buffer = array_module(self.flat.data), self.flat.new_buffer()
        for name, p, span in zip(self.names(), self.flat.parameters, self.flat.spans, strict=True):
            shape = np.shape(arrays[name]) if name in arrays else None
            if shape != tuple(p.shape):
                raise self._misfit(f"{slot} of {name} should have shape {tuple(p.shape)}, it has {shape}")
            FlatParameters.view(buffer, p, span)[...] = xp.asarray(arrays[name])
        return buffer

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self.defaults.items())
        return f"{type(self).__name__}({values}; {len(self.flat.parameters)} parameters)"
