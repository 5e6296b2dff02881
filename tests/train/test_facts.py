"""What decides what a step does: every change is seen, and nothing else."""

import numpy as np
import pytest

from tinycnn.layers import BatchNorm2d, Conv2d, Dropout, Sequential
from tinycnn.layers.watch import restored, watched
from tinycnn.losses import CrossEntropyLoss
from tinycnn.train.facts import Facts, same


@pytest.fixture
def model():
    return Sequential(Conv2d(2, 3, 3), BatchNorm2d(3), Dropout(0.5))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: setattr(m[2], "p", 0.25), "p of 2 (Dropout"),
        (lambda m: m[1].eval(), "training, or who needs gradients, of 1 (BatchNorm2d"),
        (lambda m: m.require_dx(False), "who needs gradients, of "),
        (lambda m: setattr(m[0].weight, "requires_grad", False), "0.weight"),
        (lambda m: m.astype(np.float64), "of "),
        (lambda m: setattr(m[0].weight, "grad", m[0].weight.grad.copy()), "0.weight"),
        (lambda m: setattr(m[1], "running_var", m[1].running_var.copy()), "running_var of 1 (BatchNorm2d"),
        (lambda m: m.append(Dropout(0.1)), "of"),
        (lambda m: m._children.pop("2"), "what Sequential is made of"),
        (lambda m: setattr(m[2].stream, "place", m[2].stream.place.copy()), "place of 2 (Dropout"),
        (lambda m: vars(m[0]).update(forward=lambda x: x), "forward of 0 (Conv2d"),
    ],
)
def test_every_change_is_seen_and_named(model, change, words):
    facts = Facts(model, None, {})
    assert facts.hold()
    change(model)
    assert not facts.hold()
    assert words in facts.difference()


def test_a_step_and_a_look_leave_no_trace(model):
    x = np.random.default_rng(0).normal(size=(2, 2, 6, 6)).astype(np.float32)
    facts = Facts(model, None, {})
    model.backward(model.forward(x))
    model.zero_grad()
    with restored(model):
        model.eval().forward(x)
    with watched(model, lambda *_: None):
        assert not facts.hold()
    model.load_state_dict(model.state_dict())
    assert facts.difference() is None


def test_the_loss_and_others(model):
    loss_fn, others = CrossEntropyLoss(np.ones(3)), {"clip": 1.0}
    facts = Facts(model, loss_fn, {"clip": lambda: others["clip"]})
    assert facts.hold()
    loss_fn.label_smoothing = 0.5
    assert facts.difference().startswith("label_smoothing of CrossEntropyLoss")
    facts = Facts(model, loss_fn, {"clip": lambda: others["clip"]})
    loss_fn.weight = np.ones(3)
    assert facts.difference().startswith("weight of")
    facts = Facts(model, loss_fn, {"clip": lambda: others["clip"]})
    others["clip"] = 2.0
    assert facts.difference() == "clip"
    assert Facts(model, lambda x, y: x, {}).hold()


def test_sameness():
    x = np.ones(2)
    assert same(x, x)
    assert not same(x, np.ones(2))
    assert same((1, [x, "a"]), (1, [x, "a"]))
    assert not same((1, x), (1, x.copy()))
    assert not same(1, 1.0)
    assert not same(True, 1)
    assert not same([1], [1, 2])
    assert same(float("1.5"), 1.5)
