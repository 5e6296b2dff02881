"""Layers of every make are run from one state and left as they were found."""

import collections
import random
import threading
import types

import numpy as np
import pytest
from tiny_layers import BatchNorm, Conv, Dropout, Linear, Param, Tanh, normal

from tinycnn.gradcheck import assert_gradients, gradcheck
from tinycnn.gradcheck.subject import Snapshot, Subject, find_parameters
from tinycnn.layers.base import Layer
from tinycnn.parameter import Parameter

# ---- finding parameters ------------------------------------------------------------------------------------

W, B = Param(np.ones(2)), Param(np.ones(3))
NAMED = Parameter(np.ones(2), "conv.weight")

FORMS = {
    "mapping": ({"w": W, "b": B}, {"w": W, "b": B}),
    "list": ([W, B], {"parameter 0": W, "parameter 1": B}),
    "tuple": ((W,), {"parameter 0": W}),
    "named": ([NAMED], {"conv.weight": NAMED}),
    "pairs": ([("w", W), ("b", B)], {"w": W, "b": B}),
    "method": (lambda: iter([W, B]), {"parameter 0": W, "parameter 1": B}),
    "method, mapping": (lambda: {"w": W}, {"w": W}),
    "shared": ([W, W], {"parameter 0": W}),
    "one name twice": ([NAMED, Parameter(np.ones(1), "conv.weight")], {"conv.weight": NAMED, "conv.weight'": ...}),
    "x is the input": ({"x": W}, {"x'": W}),
    "empty": ([], {}),
    "none": (None, {}),
}


@pytest.mark.parametrize(("parameters", "wanted"), FORMS.values(), ids=FORMS)
def test_parameters_are_found_in_every_form(parameters, wanted):
    found = find_parameters(types.SimpleNamespace(parameters=parameters))
    assert list(found) == list(wanted)
    assert all(found[name] is p for name, p in wanted.items() if p is not ...)


def test_a_layer_without_parameters():
    assert find_parameters(object()) == {}


@pytest.mark.parametrize("wrong", [[np.ones(3)], [3], {"w": [1.0]}, [types.SimpleNamespace(data=np.ones(2))]], ids=str)
def test_what_is_no_parameter_is_named(wrong):
    with pytest.raises(TypeError, match=r"gradcheck: SimpleNamespace.parameters holds .*data and grad"):
        find_parameters(types.SimpleNamespace(parameters=wrong))


def test_gradients_may_start_as_none():
    class Late(Tanh):
        def __init__(self):
            super().__init__()
            self.scale = types.SimpleNamespace(data=np.array([2.0, 3.0, 4.0]), grad=None)

        def parameters(self):
            return [self.scale]

        def forward(self, x):
            self.x = x
            return super().forward(x * self.scale.data)

        def backward(self, dy):
            dz = super().backward(dy)
            self.scale.grad += (dz * self.x).sum(0)
            return dz * self.scale.data

    layer = Late()
    assert_gradients(layer, normal(4, 3))
    assert layer.scale.grad is None


def test_functions_and_closures_make_a_layer():
    w, saved = Param(normal(3, 3)), []

    def forward(x):
        saved[:] = [x]
        return x @ w.data

    def backward(dy):
        w.grad += saved[0].T @ dy
        return dy @ w.data.T

    layer = types.SimpleNamespace(forward=forward, backward=backward, parameters=[w])
    report = assert_gradients(layer, normal(4, 3))
    assert [entry.name for entry in report.entries] == ["x", "parameter 0"]


def test_a_callable_without_forward():
    class Called:
        def __call__(self, x):
            self.x = x
            return x**3

        def backward(self, dy):
            return 3 * self.x**2 * dy

    assert_gradients(Called(), normal(4, 3))


def test_a_layer_of_this_package():
    class Scale(Layer):
        def __init__(self):
            super().__init__()
            self.weight = Parameter(np.array([1.5]))

        def forward(self, x):
            self.save(x)
            return x * self.weight.data

        def backward(self, dy):
            (x,) = self.take_saved()
            self.weight.grad += (dy * x).sum()
            return dy * self.weight.data if self.needs_dx else None

    layer = Scale()
    assert_gradients(layer, normal(4, 3))
    assert layer._saved is None
    layer.require_dx(False)
    report = assert_gradients(layer, normal(4, 3))
    assert "not checked" in report.entries[0].note
    layer.eval()
    with pytest.raises(RuntimeError, match="eval"):
        gradcheck(layer, normal(4, 3))


# ---- snapshots ---------------------------------------------------------------------------------------------


class Slots:
    __slots__ = ("data", "name")

    def __init__(self):
        self.data, self.name = np.arange(3.0), "slots"


def test_a_snapshot_puts_everything_back():
    thing = types.SimpleNamespace(
        array=np.arange(4.0),
        rebound=np.zeros(2),
        number=3,
        items=[1, [2.0, np.ones(2)]],
        table=collections.OrderedDict(a=np.ones(2)),
        slots=Slots(),
        pair=(np.zeros(3), {"deep": np.zeros(3)}),
        rng=np.random.default_rng(1),
        legacy=np.random.RandomState(1),
        read_only=np.broadcast_to(1.0, 3),
        lock=threading.Lock(),
        module=np,
    )
    thing.itself = thing
    snapshot = Snapshot(thing)

    def draw():
        return [thing.rng.random(), thing.legacy.rand(), np.random.rand(), random.random()]  # noqa: NPY002

    first, rebound = draw(), thing.rebound
    for _ in range(2):
        thing.array *= 2
        thing.rebound = np.ones(7)
        thing.number, thing.new = 4, "new"
        thing.items[1][1] += 1
        thing.items.append(5)
        thing.table["a"] -= 1
        thing.table["b"] = 1
        thing.slots.data += 1
        thing.slots.name = "other"
        thing.pair[1]["deep"] += 1
        snapshot.restore()
        assert thing.array.tolist() == [0, 1, 2, 3]
        assert thing.rebound is rebound
        assert thing.number == 3
        assert not hasattr(thing, "new")
        assert str(thing.items) == "[1, [2.0, array([1., 1.])]]"
        assert str(dict(thing.table)) == "{'a': array([1., 1.])}"
        assert thing.slots.data.tolist() == [0, 1, 2]
        assert thing.slots.name == "slots"
        assert thing.pair[1]["deep"].tolist() == [0, 0, 0]
        assert draw() == first


def test_only_random_state_is_put_back_between_two_calls():
    class Counts(Tanh):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return super().forward(x)

    layer = Counts()
    subject = Subject(layer, normal(4, 3))
    subject.backward_after_another(np.ones((4, 3)), np.ones((4, 3)))
    assert layer.calls == 2
    subject.forward()
    assert layer.calls == 1


# ---- the layer is left as it was ---------------------------------------------------------------------------


def state(layer):
    """Everything in the layer, as bytes and plain values."""
    values = {}
    for name, value in vars(layer).items():
        if isinstance(value, Param):
            values[name] = value.data.tobytes(), value.grad.tobytes(), id(value.data), id(value.grad)
        elif isinstance(value, np.ndarray):
            values[name] = value.tobytes(), id(value)
        elif isinstance(value, np.random.Generator):
            values[name] = str(value.bit_generator.state)
        else:
            values[name] = value
    return values


@pytest.mark.parametrize("make", [BatchNorm, Dropout, Conv, lambda: Linear("rebinds"), lambda: Linear("mutates x")])
def test_checking_leaves_the_layer_as_it_was(make):
    layer = make()
    x = {Conv: normal(2, 4, 5), BatchNorm: normal(4, 3, 2, 2)}.get(type(layer), normal(4, 3))
    for p in layer.parameters().values():
        p.grad[...] = 3
    before, x_before = state(layer), x.copy()
    gradcheck(layer, x)
    assert state(layer) == before
    np.testing.assert_array_equal(x, x_before)


def test_the_layer_is_left_as_it_was_when_it_raises():
    class Raises(BatchNorm):
        def backward(self, dy):
            super().backward(dy)
            raise ZeroDivisionError

    layer = Raises()
    before = state(layer)
    with pytest.raises(ZeroDivisionError):
        gradcheck(layer, normal(4, 3, 2, 2))
    assert state(layer) == before


def test_global_generators_are_left_alone():
    before = np.random.get_state()[1].tobytes()  # noqa: NPY002
    gradcheck(Dropout(source=np.random), normal(4, 3))
    assert np.random.get_state()[1].tobytes() == before  # noqa: NPY002


def test_random_state_of_the_layer_is_used():
    source = np.random.default_rng(3)

    class Opaque:
        """Keeps its generator out of sight."""

        def random_state(self):
            return source.bit_generator.state

        def set_random_state(self, position):
            source.bit_generator.state = position

        def forward(self, x):
            self.mask = source.uniform(size=x.shape) < 0.5
            return x * self.mask

        def backward(self, dy):
            return dy * self.mask

    assert_gradients(Opaque(), normal(4, 3))
