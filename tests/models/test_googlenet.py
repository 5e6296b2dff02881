"""GoogLeNet, both forms, with and without heads: costs, names, initial values, PyTorch parity."""

import numpy as np
import pytest
import torch
from helpers import assert_step_is_torchs, relative_error, stirred
from references import count
from references.googlenet import GoogLeNet
from small_heads import Joined, joined

from tinycnn import gradcheck
from tinycnn.layers import Dropout, LayerError
from tinycnn.models import architecture, create
from tinycnn.models.googlenet import Widths, inception, papers_form, torchvisions_form

NAMES = ["googlenet", "googlenet_2014"]
PARAMETERS = {
    ("googlenet", False): 6_624_904,
    ("googlenet", True): 13_004_888,
    ("googlenet_2014", False): 6_998_552,
    ("googlenet_2014", True): 13_378_280,
}


def pair(name, heads, classes=7, in_channels=2, seed=0, **options):
    """A network and PyTorch's, with the same random state, without dropout unless told."""
    options = {"dropout": 0.0, "aux_dropout": 0.0, **options}
    model = create(name, classes, in_channels, aux_heads=heads, initialize=False, **options)
    return stirred(model, GoogLeNet(classes, in_channels, heads, name == "googlenet_2014"), seed)


def images(*shape):
    return np.random.default_rng(0).standard_normal(shape)


@pytest.mark.parametrize("heads", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_costs_are_pytorchs(name, heads):
    known, model = architecture(name), create(name, aux_heads=heads, initialize=False)
    with torch.device("meta"):
        module = GoogLeNet(heads=heads, paper=name == "googlenet_2014")
    parameters, macs = count(module, known.input_shape)
    assert model.num_parameters() == parameters == PARAMETERS[name, heads]
    assert model.eval().macs((1, *known.input_shape)) == macs == known.macs
    assert known.parameters == PARAMETERS[name, False]


def test_names_are_torchvisions():
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

    def conv(path):
        return [f"{path}.conv.weight", *(f"{path}.bn.{kind}" for kind in norm)]

    modules = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
    branches = ("branch1", "branch2.0", "branch2.1", "branch3.0", "branch3.1", "branch4.1")
    paths = ["conv1", "conv2", "conv3", *(f"inception{m}.{b}" for m in modules for b in branches)]
    plain = [name for path in paths for name in conv(path)] + ["fc.weight", "fc.bias"]
    aux = [name for a in ("aux1", "aux2") for name in conv(f"{a}.conv")]
    aux += [f"{a}.{fc}.{kind}" for a in ("aux1", "aux2") for fc in ("fc1", "fc2") for kind in ("weight", "bias")]
    for heads, wanted, numbers in ((False, plain, (344, 287)), (True, plain + aux, (364, 305))):
        state = create("googlenet", aux_heads=heads, initialize=False).state_dict()
        assert set(state) == set(wanted)
        assert (len(state), sum(not name.endswith("tracked") for name in state)) == numbers


@pytest.mark.parametrize("heads", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_parameters_is_torchvisions(name, heads):
    with torch.device("meta"):
        module = GoogLeNet(heads=heads, paper=name == "googlenet_2014")
    ours = create(name, aux_heads=heads, initialize=False)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in module.named_parameters()]


@pytest.mark.parametrize("name", NAMES)
def test_sizes_are_those_of_table_1(name):
    rows = create(name, initialize=False).summary((1, 3, 224, 224)).rows
    shapes = {row.path: row.output_shape[1:] for row in rows}
    wanted = {"maxpool1": (64, 56, 56), "maxpool2": (192, 28, 28), "maxpool3": (480, 14, 14), "maxpool4": (832, 7, 7)}
    assert wanted.items() <= shapes.items()
    assert shapes["avgpool"] == (1024, 1, 1)


# ---- PyTorch's numbers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_pytorchs(name, training):
    model, module = pair(name, heads=False)
    if not training:
        model.eval(backward=True)
        module.eval()
    assert_step_is_torchs(model, module, images(3, 2, 75, 58), tolerance=1e-10)


@pytest.mark.parametrize(("name", "shape"), [("googlenet", (3, 2, 91, 70)), ("googlenet_2014", (1, 2, 224, 233))])
def test_a_step_with_heads_is_pytorchs(name, shape):
    model, module = pair(name, heads=True)
    assert_step_is_torchs(Joined(model), joined(module), images(*shape), tolerance=1e-10)


def test_dropout_is_where_it_belongs():
    """With the masks that were drawn, given to PyTorch's layers."""
    model, module = pair("googlenet", heads=True, dropout=0.5, aux_dropout=0.75)
    masks = {}
    for path, layer in model.named_layers():
        if isinstance(layer, Dropout):

            def forward(x, path=path, draw=layer.forward):
                masks[path] = draw(np.ones_like(x))
                return masks[path] * x

            layer.forward = forward
    for path in ("dropout", "aux1.dropout", "aux2.dropout"):
        module.get_submodule(path).forward = lambda x, path=path: x * torch.from_numpy(masks[path])
    x = images(2, 2, 64, 64)
    for y, wanted in zip(model(x), module(torch.from_numpy(x)), strict=True):
        assert relative_error(y, wanted.detach().numpy()) < 1e-11
    assert {path: set(np.unique(mask)) for path, mask in masks.items()} == {
        "dropout": {0.0, 2.0},
        "aux1.dropout": {0.0, 4.0},
        "aux2.dropout": {0.0, 4.0},
    }
    rates = {
        n: layer.p
        for n, layer in create("googlenet_2014", aux_heads=True, initialize=False).named_layers()
        if isinstance(layer, Dropout)
    }
    assert rates == {"dropout": 0.4, "aux1.dropout": 0.7, "aux2.dropout": 0.7}
    assert create("googlenet", initialize=False).dropout.p == 0.2


@pytest.mark.parametrize("form", [torchvisions_form, papers_form])
def test_gradients_of_a_module(form):
    block = inception(form(np.random.default_rng(0)), 3, Widths(2, 2, 3, 1, 2, 2)).astype(np.float64)
    rng = np.random.default_rng(1)
    for p in block.parameters():
        p.data[...] = rng.uniform(0.2, 0.8, p.shape) * rng.choice([-1, 1], p.shape)
    report = gradcheck(block, images(2, 3, 4, 5), directions=1, jacobian_entries=0)
    assert report.ok, str(report)


# ---- initial values --------------------------------------------------------------------------------------------


def test_initial_values_of_torchvision():
    for name, p in create("googlenet", 10, aux_heads=True).named_parameters():
        if ".bn." in name or name.endswith("bias"):
            assert (p.data == (".bn.weight" in name)).all(), name
        else:
            assert abs(p.data).max() <= 0.02 * (1 + 1e-6), name
            assert p.data.std() == pytest.approx(0.0087963, rel=0.02 if p.size > 5000 else 0.1), name


def test_initial_values_of_the_papers_form():
    for name, p in create("googlenet_2014", 10, aux_heads=True).named_parameters():
        if name.endswith("bias"):
            assert (p.data == np.float32(0.0 if name in ("fc.bias", "aux1.fc2.bias", "aux2.fc2.bias") else 0.2)).all()
        else:
            bound = np.sqrt(3 / np.prod(p.shape[1:]))
            assert 0.98 * bound < abs(p.data).max() <= bound * (1 + 1e-6), name


def test_the_signal_reaches_the_end():
    """Of both forms, as they start: scores differ from image to image."""
    x = images(4, 3, 64, 64).astype(np.float32)
    assert create("googlenet", 10, dropout=0.0)(x).std(axis=0).min() > 1e-3
    assert create("googlenet_2014", 10, dropout=0.0)(x).std(axis=0).min() > 1e-3


def test_with_heads_all_else_starts_the_same():
    plain, other = (create("googlenet", 10, aux_heads=heads).state_dict() for heads in (False, True))
    assert all((plain[name] == other[name]).all() for name in plain)


# ---- the rest --------------------------------------------------------------------------------------------------


def test_checkpointed_it_gives_the_same_bits():
    x, found = images(2, 3, 64, 70).astype(np.float32), []
    for checkpointed in (False, True):
        model = create("googlenet", 5, aux_heads=True, checkpointed=checkpointed)
        ys = model(x)
        dx = model.backward(tuple(np.cos(y) for y in ys))
        found.append([*ys, dx, *(p.grad for p in model.parameters()), *model.buffers()])
    assert len(model.state_dict()) == 364
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


def test_published_weights_may_have_heads_that_the_network_has_not():
    assert create("googlenet", initialize=False).droppable == ("aux1.*", "aux2.*")
    assert create("googlenet", aux_heads=True, initialize=False).droppable == ()


def test_what_was_asked_for_is_written_down():
    model = create("googlenet", 10, aux_heads=True, aux_dropout=0.5)
    assert model.architecture["aux_heads"] is True
    again = create(**model.architecture)
    assert [name for name, _ in again.named_layers()] == [name for name, _ in model.named_layers()]


def test_bad_arguments_are_named():
    for option in ("dropout", "aux_dropout"):
        with pytest.raises(ValueError, match=r"p is the probability of dropping, from 0 to 1, got 1\.5"):
            create("googlenet", aux_heads=True, initialize=False, **{option: 1.5})
    with pytest.raises(ValueError, match="use larger images"):
        create("googlenet", initialize=False)(np.zeros((1, 3, 8, 64), np.float32))
    with pytest.raises(LayerError, match="2048 features"):
        create("googlenet_2014", 5, aux_heads=True)(np.zeros((1, 3, 300, 300), np.float32))
