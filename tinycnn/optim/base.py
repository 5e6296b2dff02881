"""What all optimizers share: groups, flat buffers, state, the walk over chunks.

An optimizer lays its parameters out in one `FlatParameters`.  Its mathematics is then written once, for plain
vectors, in `Optimizer.update`; this file decides which stretches of the buffers that is called on.

**Who is updated.**  Frozen parameters (``requires_grad=False``) are left alone altogether: no decay, no
momentum.  They may be frozen and thawed at any time.

**The past.**  Some numbers count the updates a parameter has had: Adam's t, for one.  As in PyTorch they
belong to the parameter: one that is thawed after 1000 steps has its t = 1 then, with the bias correction that
its empty averages need.  Parameters of one group with the same past form a *cohort*; in a network of which
nothing was ever frozen that is the whole group, and one contiguous run.

**Chunks.**  An update is elementwise and bound by memory, so it goes through the buffers in chunks that fit a
core's cache, on all threads: the handful of vector operations of one chunk read and write memory once.
Elementwise also means that neither chunks nor threads can change a bit of the result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np

from ..backend import Array, array_module, to_numpy
from ..parallel import each_slice
from ..parameter import FlatParameters
from .groups import Group, check_values, make_groups, plain
from .vectors import each_chunk

State: TypeAlias = Mapping[str, Array]
Past: TypeAlias = dict[str, Any]


@dataclass
class Cohort:
    """Parameters of one group that share their past, and the runs of the buffers that they fill."""

    group: Group
    past: Past
    spans: list[slice]


class Optimizer:
    """Base of every optimizer.

    A subclass passes its hyper-parameters as ``defaults``, names its state in ``slots`` and defines `update`.

    Attributes:
        param_groups: `Group` dicts, as given, completed by the defaults.
        flat: every parameter and gradient, the groups in order.
        state: buffers laid out like ``flat.data``, by slot; made when first needed.
        slots: every slot that the optimizer may use.
        new_past: the past of a parameter that was never updated.
    """

    slots: ClassVar[tuple[str, ...]] = ()
    new_past: ClassVar[Mapping[str, Any]] = {"step": 0}

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

    # ---- the mathematics: every subclass's own -------------------------------------------------------------

    def update(self, p: Array, g: Array, state: State, group: Group, past: Past) -> None:
        """Update a stretch of parameters in place; called from several threads, each with stretches of its own.

        Args:
            p, g: values and gradient, one-dimensional; ``g`` is only read.
            state: the same stretch of every slot in `slots_of`, updated in place too.
            group: hyper-parameters.
            past: as `advance` left it: ``past["step"]`` is 1 in the first update.
        """
        raise TypeError(f"{type(self).__name__} must define update")

    def advance(self, group: Group, past: Past) -> None:
        """Count the update that is about to be made; once per cohort, before any `update`."""
        past["step"] += 1

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
        each_slice(lambda s: self.flat.grad[s].fill(0), self.flat.grad)

    def step(self) -> None:
        """Update every parameter that is not frozen by its gradient.

        Raises:
            RuntimeError: a parameter was moved or converted since the optimizer was made.
        """
        self.flat.check()
        self._regroup()
        for cohort in self._cohorts:
            group = {name: plain(value) for name, value in cohort.group.items() if name != "params"}
            self.advance(group, cohort.past)
            buffers = {slot: self._slot(slot) for slot in self.slots_of(group)}
            for span in cohort.spans:
                state = {slot: buffer[span] for slot, buffer in buffers.items()}
                self._update_run(self.flat.data[span], self.flat.grad[span], state, group, cohort.past)

    def _update_run(self, p: Array, g: Array, state: State, group: Group, past: Past) -> None:
        def update(s: slice) -> None:
            self.update(p[s], g[s], {slot: x[s] for slot, x in state.items()}, group, past)

        each_chunk(update, p, touched=3 + len(state))  # p, g, the state, a work array

    def _slot(self, slot: str) -> Array:
        if slot not in self.state:
            self.state[slot] = array_module(self.flat.data).zeros_like(self.flat.data)
        return self.state[slot]

    def _regroup(self) -> None:
        """Form the cohorts anew if a parameter was frozen or thawed; the members of a cohort share one past."""
        parameters = self.flat.parameters
        flags = tuple(p.requires_grad for p in parameters)
        if flags == self._flags:
            return
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
                raise self._misfit(f"in group {i}, {_first_difference(mine, theirs)}")
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
        xp = array_module(self.flat.data)
        buffer = xp.zeros_like(self.flat.data)
        for name, p, span in zip(self.names(), self.flat.parameters, self.flat.spans, strict=True):
            shape = np.shape(arrays[name]) if name in arrays else None
            if shape != tuple(p.shape):
                raise self._misfit(f"{slot} of {name} should have shape {tuple(p.shape)}, it has {shape}")
            FlatParameters.view(buffer, p, span)[...] = xp.asarray(arrays[name])
        return buffer

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self.defaults.items())
        return f"{type(self).__name__}({values}; {len(self.flat.parameters)} parameters)"


def _first_difference(mine: list[str], saved: list[str]) -> str:
    for a, b in zip(mine, saved, strict=False):
        if a != b:
            return f"it has {b!r} where this optimizer has {a!r}"
    return f"it has {len(saved)} parameters, this optimizer {len(mine)}"


# ---- files -------------------------------------------------------------------------------------------------


def split_state(state: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Take a ``state_dict`` apart for a file format: arrays by ``slot/name``, and the rest, which is JSON."""
    arrays = {f"{slot}/{name}": x for slot, named in state["state"].items() for name, x in named.items()}
    return arrays, {key: value for key, value in state.items() if key != "state"}


def join_state(arrays: Mapping[str, np.ndarray], rest: Mapping[str, Any]) -> dict[str, Any]:
    """Undo `split_state`."""
    slots: dict[str, dict[str, np.ndarray]] = {}
    for key, x in arrays.items():
        slot, name = key.split("/", 1)
        slots.setdefault(slot, {})[name] = x
    return {**rest, "state": slots}
