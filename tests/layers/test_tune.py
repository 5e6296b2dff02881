"""Reading, restoring and measuring the algorithms of a network."""

import numpy as np
import pytest
import strict_cupy

import tinycnn
from tinycnn import BatchNorm2d, Conv2d, Dropout, Flatten, LayerError, Linear, ReLU, Sequential
from tinycnn.kernels.conv import plan
from tinycnn.kernels.cuda import measured
from tinycnn.layers import tune as module

SHAPE = (2, 4, 8, 8)


def network():
    return Sequential(
        {
            "first": Conv2d(4, 6, 3, padding=1, rng=0),
            "norm": BatchNorm2d(6),
            "second": Conv2d(6, 6, 3, padding=1, rng=1),
            "same": Conv2d(6, 6, 3, padding=1, bias=False, rng=2),
            "half": Conv2d(6, 6, 3, stride=2, padding=1, rng=3),
            "grouped": Conv2d(6, 6, 3, groups=2, rng=4),
            "relu": ReLU(),
            "drop": Dropout(0.5, rng=5),
            "flatten": Flatten(),
            "fc": Linear(24, 2, rng=6),
        }
    )


class Machine:
    """A clock, and convolutions that take as long as they are told to: (forward, backward) by algorithm."""

    def __init__(self, monkeypatch, costs):
        self.now, self.costs, self.calls, self.asked = 0.0, costs, [], []
        monkeypatch.setattr(module, "conv2d_forward", self.forward)
        monkeypatch.setattr(module, "conv2d_backward", self.backward)
        monkeypatch.setattr(module.time, "perf_counter", lambda: self.now)

    def forward(self, x, w, b, window, G, name):
        self.calls.append((name, x.shape, x.dtype))
        self.now += self.costs[name][0]

    def backward(self, dy, x, w, window, G, name, need_dx, need_dw, out=None):
        self.asked.append((x.shape[1], need_dx, need_dw))
        self.now += self.costs[name][1]


COSTS = {"im2col": (0.03, 0.05), "strips": (0.01, 0.09), "winograd2": (0.02, 0.04), "winograd4": (0.005, 0.06)}


def test_the_fastest_forward_and_backward_is_taken(monkeypatch):
    machine, model, told = Machine(monkeypatch, COSTS), network(), []
    chosen = tinycnn.tune(model, SHAPE, repeats=3, progress=lambda *place: told.append(place))
    fast = dict.fromkeys(["first", "second", "same"], "winograd2")
    assert chosen == fast | {"half": "im2col", "grouped": "im2col"} == tinycnn.algorithms(model)
    assert model["second"].chosen_algorithm((2, 6, 8, 8)) == "winograd2"
    assert told == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)], "second and same are one problem, asked once"
    names = [name for name, *_ in machine.calls if _[0] == (2, 4, 8, 8)]
    warm = [name for name in plan.ALGORITHMS for _ in range(2)]
    assert names == [*warm, *plan.ALGORITHMS * 3], "they take turns"
    assert all(dtype == np.float32 for *_, dtype in machine.calls)


def test_the_median_counts_and_short_calls_are_repeated(monkeypatch):
    model, machine = Sequential(Conv2d(4, 6, 3, stride=2)), None
    machine = Machine(monkeypatch, {"im2col": (4e-4, 0), "strips": (5e-4, 0)})
    slow = iter([0, 0, 0, 0, 0, 1.0])  # a hiccup in one of the timings of the faster one

    def forward(*args):
        machine.now += next(slow, 0)
        Machine.forward(machine, *args)

    monkeypatch.setattr(module, "conv2d_forward", forward)
    assert tinycnn.tune(model, SHAPE, repeats=3) == {"0": "im2col"}
    assert len(machine.calls) == 4 + 3 * (5 + 4), "calls of 0.4 and 0.5 ms, until 2 ms are full"


def test_backward_returns_what_it_has_to_in_the_network(monkeypatch):
    machine, model = Machine(monkeypatch, COSTS), network()
    model["second"].weight.requires_grad = False
    model.require_dx(False)
    tinycnn.tune(model, SHAPE, repeats=1)
    assert set(machine.asked) == {(4, False, True), (6, True, False), (6, True, True)}


def test_below_the_last_frozen_layer_there_is_no_backward(monkeypatch):
    machine, model = Machine(monkeypatch, COSTS), network()
    for name in ("first", "norm", "second"):
        for p in model[name].parameters():
            p.requires_grad = False
    model.require_dx(False)
    chosen = tinycnn.tune(model, SHAPE, repeats=1)
    assert (chosen["first"], chosen["second"], chosen["same"]) == ("winograd4", "winograd4", "winograd2")
    assert machine.asked[0] == (6, False, True), "what stands before it needs no gradient"


def test_float64_stays_on_the_exact_route_unless_asked(monkeypatch):
    machine, model = Machine(monkeypatch, COSTS), network().astype(np.float64)
    assert set(tinycnn.tune(model, SHAPE).values()) == {"im2col"}
    assert not machine.calls
    assert tinycnn.tune(model, SHAPE, names=["im2col", "winograd4"], repeats=1)["first"] == "winograd4"
    assert all(dtype == np.float64 for *_, dtype in machine.calls)


def test_where_none_of_the_names_will_do_it_is_im2col(monkeypatch):
    Machine(monkeypatch, COSTS)
    chosen = tinycnn.tune(network(), SHAPE, names=("winograd2", "winograd4"), repeats=1)
    assert (chosen["half"], chosen["first"]) == ("im2col", "winograd2")


def test_a_real_measurement_leaves_all_else_as_it_was():
    model = network()
    before, streams, training = model.state_dict(), model.random_state(), model["norm"].training
    chosen = tinycnn.tune(model, SHAPE, repeats=1)
    assert list(chosen) == ["first", "second", "same", "half", "grouped"]
    assert all(plan.supports(name, model[path].problem(SHAPE)) for path, name in chosen.items())
    assert chosen["second"] == chosen["same"]
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    assert (model.random_state(), model["norm"].training) == (streams, training)
    assert "forward" not in model["first"].__dict__
    assert not any(p.grad.any() for p in model.parameters())


def test_on_a_gpu_each_pass_gets_its_route(monkeypatch, tmp_path):
    strict_cupy.install(monkeypatch)
    monkeypatch.setenv("TINYCNN_CACHE", str(tmp_path))
    asked = []

    def measure(problem, like, dtype, which, names, repeats):
        asked.append((problem.x_shape[3], which, dtype.name, repeats))
        return {"im2col": 2.0} | ({"64x32": 1.0} if which == "dw" else {})

    monkeypatch.setattr(measured, "measure", measure)
    model = Sequential(Conv2d(4, 6, 3, rng=0), Conv2d(6, 6, 3, rng=0)).to("cuda")
    model.require_dx(False)
    chosen = tinycnn.tune(model, SHAPE, repeats=3)
    assert chosen == {"0": "im2col implicit 64x32", "1": "im2col im2col 64x32"} == tinycnn.algorithms(model)
    first = [(4, which, "float32", 3) for which in ("forward", "dw")]
    assert asked == [*first, *((6, which, "float32", 3) for which in ("forward", "dx", "dw"))]
    assert tinycnn.tune(model, SHAPE) == chosen
    assert len(asked) == 5, "the second time the answers are looked up"
    tinycnn.tune(model, SHAPE, fresh=True)
    assert len(asked) == 10
    tinycnn.set_algorithms(model.to("cpu"), chosen)
    assert model[0].chosen_algorithm(SHAPE) in plan.ALGORITHMS
    with pytest.raises(LayerError, match="unknown algorithm 'strips'"):
        tinycnn.tune(model.to("cuda"), SHAPE, names=["strips"])


def test_an_unknown_name_to_try_is_refused():
    with pytest.raises(LayerError, match="tune: unknown algorithm 'winograd'; did you mean 'winograd"):
        tinycnn.tune(network(), SHAPE, names=["winograd"])


def test_there_and_back():
    model, other = network(), network()
    model["second"].algorithm = "winograd4"
    tinycnn.set_algorithms(other, tinycnn.algorithms(model))
    assert tinycnn.algorithms(other) == {
        **dict.fromkeys(["first", "same", "half", "grouped"], "auto"),
        "second": "winograd4",
    }
    tinycnn.set_algorithms(other, {"first": "strips"})
    assert (other["first"].algorithm, other["second"].algorithm) == ("strips", "winograd4")


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"secnd": "im2col"}, r"no convolution at 'secnd'; did you mean 'second'\? \(it has them at first, second"),
        ({"fc": "im2col"}, "no convolution at 'fc'"),
        (
            {"first": "winograd3"},
            r"first \(Conv2d\(4, 6, 3, padding=1\)\): unknown algorithm 'winograd3'; did you mean",
        ),
    ],
)
def test_a_mapping_that_does_not_fit_changes_nothing(mapping, words):
    model = network()
    with pytest.raises(LayerError, match=words):
        tinycnn.set_algorithms(model, {"same": "strips", **mapping})
    assert set(tinycnn.algorithms(model).values()) == {"auto"}
