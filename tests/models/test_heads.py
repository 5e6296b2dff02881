"""Networks with auxiliary heads: PyTorch's numbers, the gradient checker's, and the layers' contract with tuples."""

import numpy as np
import pytest
from helpers import assert_step_is_torchs, relative_error, stirred
from small_heads import Joined, Small, images, joined, small

from tinycnn import Checkpointed, Linear, gradcheck
from tinycnn.layers import LayerError
from tinycnn.models import Network, NetworkWithHeads


def cotangents(ys, seed=1):
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal(y.shape).astype(y.dtype) for y in ys)


def gradients(model):
    return {name: p.grad.copy() for name, p in model.named_parameters()}


def step(model, x, seed=1):
    """Outputs, dx and gradients of one forward and backward."""
    model.zero_grad()
    ys = model.forward(x)
    dys = cotangents(ys if isinstance(ys, tuple) else (ys,), seed)
    dx = model.backward(dys if isinstance(ys, tuple) else dys[0])
    return ys, dx, gradients(model)


@pytest.mark.parametrize("norm", [True, False])
def test_a_step_in_training_is_pytorchs(norm):
    model, module = stirred(small(norm=norm), Small(norm=norm))
    vanishing = [f"conv{i}.0.bias" for i in (1, 2, 3)] if norm else []
    assert_step_is_torchs(Joined(model), joined(module), images(), tolerance=1e-11, vanishing=vanishing)


def test_evaluation_is_the_network_without_heads():
    model = stirred(small(), Small())[0].eval(backward=True)
    y, dx, found = step(model, images())
    plain = Network({n: c for n, c in model._children.items() if "aux" not in n}, features="conv3", classifier="fc")
    wanted_y, wanted_dx, wanted = step(plain, images())
    assert (y == wanted_y).all()
    assert (dx == wanted_dx).all()
    assert all((found[name] == wanted[name]).all() for name in wanted)
    assert not any(found[name].any() for name in found.keys() - wanted.keys())


def test_outputs_are_the_scores_then_the_last_head_first():
    model = small().astype(np.float64)
    y, a2, a1 = model(images())
    assert y.shape == a2.shape == a1.shape == (4, 3)
    x1 = model["pool"](model["conv1"](images()))
    x2 = model["conv2"](x1)
    assert (a1 == model["aux1"](x1)).all()
    assert (a2 == model["aux2"](x2)).all()
    assert [layer.path for layer in model] == ["conv1", "pool", "conv2", "conv3", "average", "flatten", "dropout", "fc"]
    assert len(model) == 8


def test_gradients_are_right_by_differences():
    report = gradcheck(Joined(stirred(small(), Small())[0]), images())
    assert report.ok, str(report)
    assert {entry.name for entry in report.entries} >= {"x", "conv1.0.weight", "aux1.3.weight", "aux2.3.bias"}


@pytest.mark.parametrize("head", [("aux1", 1), ("aux2", 2)])
def test_a_head_teaches_what_is_before_it_and_nothing_else(head):
    name, place = head
    model = small().astype(np.float64)
    ys = model(images())
    dys = [np.zeros_like(y) for y in ys]
    dys[3 - place] += 1
    model.backward(tuple(dys))
    taught = {path.split(".")[0] for path, p in model.named_parameters() if p.grad.any()}
    assert taught == {"conv1", name} | ({"conv2"} if place == 2 else set())


def test_dropout_draws_anew_and_can_be_repeated():
    model = small(dropout=0.5)
    x = images(dtype=np.float32)
    before = model.random_state()
    first, second = model(x), model(x)
    assert all((a != b).any() for a, b in zip(first, second, strict=True))
    model.set_random_state(before)
    assert all((a == b).all() for a, b in zip(first, model(x), strict=True))


# ---- who needs a gradient --------------------------------------------------------------------------------------


def test_nobody_asks_for_the_gradient_of_the_images():
    model = small().astype(np.float64)
    _, dx, wanted = step(model, images())
    assert model.require_dx(False)
    _, none, found = step(model, images())
    assert dx is not None
    assert none is None
    assert all((found[name] == wanted[name]).all() for name in wanted)


@pytest.mark.parametrize(
    ("frozen", "outputs", "unreached"),
    [
        (["conv1*"], 3, {"conv1", "pool"}),
        (["conv1*", "conv2*"], 3, {"conv1", "pool", "conv2"}),
        (["conv1*", "aux1*"], 2, {"conv1", "pool", "aux1"}),
        (["aux1*", "aux2*"], 3, set()),
        (["conv*", "aux*"], 1, {"conv1", "pool", "conv2", "conv3", "aux1", "aux2", "average", "flatten", "dropout"}),
        (["conv*", "fc*"], 3, {"conv1", "pool", "conv2", "conv3", "average", "flatten", "dropout", "fc"}),
    ],
    ids=lambda case: " ".join(sorted(case)) if not isinstance(case, int) else None,
)
def test_what_is_frozen_costs_nothing_and_the_rest_learns_as_ever(frozen, outputs, unreached):
    model = small(norm=False).astype(np.float64)
    ys, _, wanted = step(model, images())
    model.zero_grad()
    names = model.freeze(*frozen)
    found = model(images())
    found = found if isinstance(found, tuple) else (found,)
    assert len(found) == outputs
    assert model.reached
    assert {name for name, child in model._children.items() if not child.reached} == unreached
    assert all(layer._saved is None for name in unreached for layer in model[name].layers())
    dys = dict(zip([y.tobytes() for y in ys], cotangents(ys), strict=True))
    given = tuple(dys[y.tobytes()] for y in found)
    assert model.backward(given if outputs > 1 else given[0]) is None
    for name, grad in gradients(model).items():
        assert not grad.any() if name in names else (grad == wanted[name]).all(), name


def test_a_frozen_network_evaluates():
    model = small()
    model.freeze()
    assert model(images(dtype=np.float32)).shape == (4, 3)


# ---- the rest of the contract ----------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [False, True])
def test_checkpointed_it_gives_the_same_bits(whole):
    plain = small(dropout=0.3)
    other = Checkpointed(small(dropout=0.3)) if whole else small(dropout=0.3, wrap=Checkpointed)
    assert list(plain.state_dict()) == list(other.state_dict())
    x = images(dtype=np.float32)
    for _ in range(2):
        (ys, dx, grads), (other_ys, other_dx, other_grads) = step(plain, x), step(other, x)
        assert all((a == b).all() for a, b in zip(ys, other_ys, strict=True))
        assert (dx == other_dx).all()
        assert all((grads[name] == other_grads[name]).all() for name in grads)
    for (name, a), (_, b) in zip(plain.named_buffers(), other.named_buffers(), strict=True):
        assert (a == b).all(), name


def test_costs_are_those_of_a_forward_in_the_present_mode():
    model, shape = small(), (2, 2, 8, 9)
    trunk = 2 * (72 * 4 * 18 + 16 * 5 * 36 + 4 * 6 * 45 + 6 * 3)
    assert model.macs(shape) == trunk + 2 * (16 * 3 + 5 * 3)
    assert model.eval().macs(shape) == trunk
    assert model.output_shape(shape) == (2, 3)


def test_a_summary_shows_what_evaluates():
    model = small()
    summary = model.summary((1, 2, 8, 9))
    assert not any(row.path.startswith("aux") for row in summary.rows)
    assert summary.macs == small().eval().macs((1, 2, 8, 9))
    assert model.training


def test_outputs_of_heads_by_name():
    model = small()
    x = images(dtype=np.float32)
    assert (model.forward_to("aux2", x) == model(x)[1]).all()
    with pytest.raises(LayerError, match="leaves it out in evaluation"):
        model.eval().forward_to("aux2", x)
    assert model.features(x).shape[1] == 6


def test_heads_get_new_classifiers_too():
    assert [y.shape[1] for y in small().reset_classifier(7)(images(dtype=np.float32))] == [7, 7, 7]


def test_frozen_heads_learn_again_with_new_classifiers():
    model = small(norm=False).astype(np.float64)
    model.freeze()
    model.reset_classifier(5)
    _, _, found = step(model, images())
    learning = {name for name, grad in found.items() if grad.any()}
    assert learning == {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.partition(".")[0] for name in learning} == {"aux1", "aux2", "fc"}


def test_a_wrong_number_of_gradients():
    model = small()
    x = images(dtype=np.float32)
    y = model(x)[0]
    with pytest.raises(LayerError, match=r"in training forward has 3 outputs .* got 1: .*AuxiliaryLoss"):
        model.backward(y)
    model.eval(backward=True)(x)
    with pytest.raises(LayerError, match=r"in evaluation forward has 1 outputs .* got 2"):
        model.backward((y, y))


def test_heads_must_be_among_the_layers():
    layers = {"a": Linear(2, 2), "b": Linear(2, 2)}
    for heads in ({"a": "c"}, {"d": "b"}):
        with pytest.raises(LayerError, match=r"heads names '[cd]', but the layers are a, b"):
            NetworkWithHeads(layers, heads, features="a", classifier="a")


def test_without_heads_it_is_a_network():
    model = small()
    trunk = {name: layer for name, layer in model._children.items() if not name.startswith("aux")}
    plain = NetworkWithHeads(trunk, {}, features="conv3", classifier="fc")
    x = images(dtype=np.float32)
    assert relative_error(plain(x), model(x)[0]) == 0
