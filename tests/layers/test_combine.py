"""Combinators: the chain rule for each way of putting layers together."""

import numpy as np
import pytest
import torch
from helpers import relative_error

from tinycnn import (
    Add,
    BatchNorm2d,
    BatchNormReLU2d,
    Checkpointed,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    Identity,
    Linear,
    ReLU,
    Residual,
    ResidualNormReLU,
    Sequential,
    Tanh,
)
from tinycnn.layers.base import LayerError
from tinycnn.models import create

RNG = np.random.default_rng(0)


class Times(Identity):
    """y = k·x, to follow numbers by hand."""

    def __init__(self, k):
        super().__init__()
        self.k = k

    def forward(self, x):
        self.save()
        return self.k * x

    def backward(self, dy):
        self.take_saved()
        return self.k * dy


def test_by_hand():
    x, dy = np.array([[1.0, 2.0]]), np.array([[10.0, 20.0]])
    for layer, y, dx in [
        (Sequential(Times(2), Times(3)), 6 * x, 6 * dy),
        (Add(Times(2), Times(3), Times(4)), 9 * x, 9 * dy),
        (Residual(Times(2)), 3 * x, 3 * dy),
        (Residual(Times(2), Times(5)), 7 * x, 7 * dy),
        (Sequential(Residual(Times(2)), Residual(Times(3))), 12 * x, 12 * dy),
    ]:
        np.testing.assert_array_equal(layer(x), y)
        np.testing.assert_array_equal(layer.backward(dy), dx)
    concat = Concat(Times(2), Times(3))
    np.testing.assert_array_equal(concat(x), [[2, 4, 3, 6]])
    np.testing.assert_array_equal(concat.backward(np.array([[1.0, 10.0, 100.0, 1000.0]])), [[302, 3020]])


def convolutions():
    ours = [Conv2d(3, c, k, padding=k // 2, rng=RNG, dtype=np.float64) for c, k in ((4, 1), (5, 3), (4, 3))]
    theirs = [torch.nn.Conv2d(3, c, k, padding=k // 2, dtype=torch.float64) for c, k in ((4, 1), (5, 3), (4, 3))]
    for a, b in zip(ours, theirs, strict=True):
        b.load_state_dict({name: torch.from_numpy(value) for name, value in a.state_dict().items()})
    return ours, theirs


@pytest.mark.parametrize("kind", ["concat", "add", "residual"])
def test_branches_are_pytorchs(kind):
    (a, b, c), (ta, tb, tc) = convolutions()
    layer = {"concat": lambda: Concat(a, b), "add": lambda: Add(a, c), "residual": lambda: Residual(a, c)}[kind]()
    x = RNG.standard_normal((2, 3, 5, 6))
    x_torch = torch.from_numpy(x.copy()).requires_grad_()
    y_torch = torch.cat([ta(x_torch), tb(x_torch)], 1) if kind == "concat" else ta(x_torch) + tc(x_torch)
    y = layer(x)
    assert relative_error(y, y_torch.detach().numpy()) < 1e-12
    dy = RNG.standard_normal(y.shape)
    y_torch.backward(torch.from_numpy(dy))
    assert relative_error(layer.backward(dy), x_torch.grad.numpy()) < 1e-12
    for ours, theirs in ((a, ta), (b, tb)) if kind == "concat" else ((a, ta), (c, tc)):
        assert relative_error(ours.weight.grad, theirs.weight.grad.numpy()) < 1e-12


def plain_and_fused(shortcut, seed=0):
    """The same residual block twice: normalisation, sum and ReLU as three layers, and as one."""
    rng = np.random.default_rng(seed)
    convolution = Conv2d(3, 4, 3, padding=1, bias=False, rng=rng, dtype=np.float64)
    way = None if shortcut is None else shortcut(rng)
    main = Sequential({"conv1": convolution, "bn2": BatchNorm2d(4, dtype=np.float64)})
    plain = Sequential({"": Residual(main, way), "relu": ReLU()})
    twins = Conv2d(3, 4, 3, padding=1, bias=False, dtype=np.float64), BatchNormReLU2d(4, dtype=np.float64)
    fused = ResidualNormReLU(
        Sequential({"conv1": twins[0]}), twins[1], None if shortcut is None else shortcut(np.random.default_rng(9))
    )
    fused.load_state_dict(plain.state_dict())
    return plain, fused


def projection(rng):
    return Sequential(Conv2d(3, 4, 1, rng=rng, dtype=np.float64), BatchNorm2d(4, dtype=np.float64))


@pytest.mark.parametrize("frozen", [[], ["conv1.weight"], ["downsample"], ["conv1", "bn2", "downsample"]])
@pytest.mark.parametrize("needed", [True, False])
@pytest.mark.parametrize("evaluate", [False, True])
def test_a_fused_residual_is_the_plain_one(frozen, needed, evaluate):
    plain, fused = plain_and_fused(projection)
    assert list(plain.state_dict()) == list(fused.state_dict())
    x, dy = RNG.standard_normal((2, 3, 5, 6)), RNG.standard_normal((2, 4, 5, 6))
    results = []
    for model in (plain, fused):
        for name, p in model.named_parameters():
            p.requires_grad = not name.startswith(tuple(frozen))
        if evaluate:
            model.eval(backward=True)
        reached = model.require_dx(needed)
        y = model(x)
        results.append((y, model.backward(dy) if reached else None))
    (y, dx), (y_fused, dx_fused) = results
    assert relative_error(y_fused, y) < 1e-13
    assert (dx_fused is None) == (not needed)
    if needed:
        assert relative_error(dx_fused, dx) < 1e-13
    for (name, p), q in zip(plain.named_parameters(), fused.parameters(), strict=True):
        assert relative_error(q.grad, p.grad) < 1e-12, name
    for value, other in zip(plain.buffers(), fused.buffers(), strict=True):
        np.testing.assert_array_equal(value, other)


def test_a_fused_residual_without_projection_keeps_its_gradient_and_input():
    layer = ResidualNormReLU(Sequential(Conv2d(4, 4, 1, dtype=np.float64)), BatchNormReLU2d(4, dtype=np.float64))
    x, dy = RNG.standard_normal((2, 2, 4, 3, 5))
    x_before, dy_before = x.copy(), dy.copy()
    y = layer(x)
    (gate,) = layer.branches()
    np.testing.assert_array_equal(gate, y > 0)
    layer.backward(dy)
    np.testing.assert_array_equal(x, x_before)
    np.testing.assert_array_equal(dy, dy_before)
    assert repr(layer).splitlines()[-2:] == ["  (downsample): Identity()", ")"]


def test_a_fused_residual_may_be_repeated_and_filled_later():
    plain, fused = plain_and_fused(projection)
    x, dy = RNG.standard_normal((2, 3, 5, 6)), RNG.standard_normal((2, 4, 5, 6))
    kept = Checkpointed(fused)
    y, y_plain = kept(x), plain(x)
    assert relative_error(y, y_plain) < 1e-13
    assert relative_error(kept.backward(dy), plain.backward(dy)) < 1e-13
    shortcut = Sequential()
    later = ResidualNormReLU(Times(1), BatchNormReLU2d(1, affine=False), shortcut)
    shortcut.append(Times(0))
    x = np.arange(4.0).reshape(1, 1, 2, 2)
    np.testing.assert_allclose(later(x).ravel(), np.maximum((x.ravel() - 1.5) / np.sqrt(1.25 + 1e-5), 0))


@pytest.mark.parametrize("names", [("bn2", "bn2"), ("", "downsample"), ("bn2", "")])
def test_a_fused_residual_needs_names(names):
    with pytest.raises(LayerError, match="need two names"):
        ResidualNormReLU(Tanh(), BatchNormReLU2d(1), None, *names)


def test_checkpointing_changes_no_bit():
    def build(wrap):
        rng = np.random.default_rng(3)
        inner = Sequential(Conv2d(3, 4, 3, rng=rng), BatchNorm2d(4), Dropout(0.4, rng=rng), Tanh())
        return Sequential(Conv2d(3, 3, 1, rng=rng), wrap(inner), Flatten(), Linear(4 * 5 * 4, 2, rng=rng))

    plain, saving = build(lambda layer: layer), build(Checkpointed)
    assert list(plain.state_dict()) == list(saving.state_dict())
    x = RNG.standard_normal((6, 3, 7, 6)).astype(np.float32)
    for _ in range(3):
        y = plain(x)
        np.testing.assert_array_equal(saving(x), y)
        assert saving[1].layer[0]._saved is None
        dy = RNG.standard_normal(y.shape).astype(np.float32)
        np.testing.assert_array_equal(saving.backward(dy), plain.backward(dy))
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        np.testing.assert_array_equal(a.grad, b.grad, err_msg=name)
    for (name, a), b in zip(plain.named_buffers(), saving.buffers(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
    assert plain.random_state() == saving.random_state()


def test_a_checkpointed_network_trains_the_same():
    x = RNG.standard_normal((4, 3, 32, 32)).astype(np.float32)
    models = create("resnet20", seed=1), create("resnet20", seed=1, checkpointed=True)
    for model in models:
        model.backward(np.ones_like(model(x)))
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        assert a.name == b.name
        np.testing.assert_array_equal(a.grad, b.grad)


def test_branches_that_do_not_fit_are_named():
    x = np.ones((1, 3, 5, 5), np.float32)
    with pytest.raises(LayerError, match=r"must have one shape, got \[\(1, 2, 5, 5\), \(1, 3, 5, 5\)\]"):
        Residual(Conv2d(3, 2, 1))(x)
    with pytest.raises(LayerError, match="differ in channels only"):
        Concat(Identity(), Conv2d(3, 2, 3))(x)
    with pytest.raises(LayerError, match="at least one branch"):
        Add()
    with pytest.raises(TypeError, match="made of layers, got"):
        Sequential({"a": np.tanh})
    with pytest.raises(TypeError, match="expected layers"):
        Sequential(ReLU(), np.tanh)


def test_a_sequential_is_a_sequence():
    model = Sequential(ReLU(), Tanh())
    model.append(Identity())
    assert len(model) == 3
    assert [type(layer).__name__ for layer in model] == ["ReLU", "Tanh", "Identity"]
    assert model[1] is model["1"]
    assert model[-1] is model["2"]
    assert repr(model).splitlines()[1] == "  (0): ReLU()"


def test_a_shortcut_may_be_filled_later():
    shortcut = Sequential()
    layer = Residual(Times(2), shortcut)
    shortcut.append(Times(3))
    np.testing.assert_array_equal(layer(np.ones((1, 1))), [[5.0]])


def test_concat_refuses_another_number_of_channels():
    layer = Concat(Times(2), Times(3))
    layer(np.ones((1, 2)))
    with pytest.raises(LayerError, match=r"output's shape \(1, 4\), got \(1, 5\)"):
        layer.backward(np.ones((1, 5)))


def test_checkpointed_puts_the_random_streams_back_where_they_were():
    layer = Checkpointed(Dropout(0.5))
    layer(np.ones((2, 3)))
    layer.layer.stream.step += 5  # somebody else drew meanwhile
    before = layer.random_state()
    layer.backward(np.ones((2, 3)))
    assert layer.random_state() == before


def test_checkpointed_in_eval_saves_nothing_afterwards():
    layer = Checkpointed(Tanh()).eval()
    layer(np.ones((2, 3)))
    assert not layer.layer.saving


@pytest.mark.parametrize("name", ["lenet5", "resnet20", "plain20"])
def test_multiply_adds_add_up(name):
    model = create(name, shortcut="B") if name == "resnet20" else create(name)
    shape = (2, 1, 32, 32) if name == "lenet5" else (2, 3, 32, 32)
    assert model.macs(shape) == model.summary(shape).macs > 0
