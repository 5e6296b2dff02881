"""Fused networks compute what the networks do in evaluation, whatever convolutions can take in, and nothing else."""

import copy
from inspect import signature

import numpy as np
import pytest
from helpers import relative_error
from small_networks import FAMILIES, images, made

import tinycnn
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
    LayerError,
    LeakyReLU,
    Linear,
    ReLU,
    Residual,
    ResidualNormReLU,
    Scale,
    Sequential,
    StochasticBranch,
    fuse,
    models,
)
from tinycnn.layers.base import Layer
from tinycnn.layers.fused import FusedConv2d, FusedResidual


def conv(C=4, OC=4, **options):
    return Conv2d(C, OC, 3, padding=1, rng=np.random.default_rng(C + OC), dtype=np.float64, **options)


def stirred(model, seed=0):
    """Parameters and statistics off 0 and 1."""
    rng = np.random.default_rng(seed)
    for value in (*(p.data for p in model.parameters()), *model.buffers()):
        if value.dtype.kind == "f":
            value[...] = rng.uniform(0.3, 1.5, value.shape) * rng.choice([1, 1, 1, -1], value.shape)
            value[...] = np.abs(value) if value.ndim == 1 else value
    return model


def norm(C=4, relu=False, **options):
    return (BatchNormReLU2d if relu else BatchNorm2d)(C, dtype=np.float64, **options)


def kinds(model):
    return [type(layer).__name__ for layer in model.layers() if not list(layer.children())]


def check(model, expected_kinds, C=4):
    """``fuse`` gives layers of these kinds, and the same function."""
    stirred(model)
    x = np.random.default_rng(3).standard_normal((2, C, 7, 6))
    wanted = model.eval()(x)
    model.train()
    fused = fuse(model)
    assert kinds(fused) == expected_kinds
    assert relative_error(fused(x), wanted) < 1e-12
    return fused


# ---- whole networks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_computes_the_same(name):
    options = {"hidden": 64} if "hidden" in signature(models.architecture(name).build).parameters else {}
    model = made(name, "float64", **options)
    before = {key: value.copy() for key, value in model.state_dict().items()}
    x = images(name, "float64")
    if name == "alexnet_2012":  # it takes no other size
        x = np.random.default_rng(0).standard_normal((1, 3, 227, 227))
    wanted = model.eval()(x)
    model.train()
    fused = fuse(model)
    assert relative_error(fused(x), wanted) < 1e-12
    assert type(fused) is type(model)
    assert not any(layer.training for layer in fused.layers())
    assert all(layer.training for layer in model.layers())
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("name", ["resnet20", "googlenet"])
def test_in_float32_on_any_number_of_threads(name):
    model, x = made(name), images(name)
    wanted = made(name, "float64").eval()(x.astype(np.float64))
    fused, results = fuse(model), []
    for threads in (1, 2, 5):
        tinycnn.set_num_threads(threads)
        results.append(fused(x))
    assert results[0].dtype == np.float32
    assert relative_error(results[0], wanted) < 1e-4
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


def test_a_resnet_is_left_without_norms_and_sums():
    model = made("resnet18")
    fused = model.fuse()
    assert not [layer for layer in fused.layers() if isinstance(layer, BatchNorm2d)]
    assert sum(isinstance(layer, FusedConv2d) for layer in fused.layers()) == 20
    assert sum(isinstance(layer, FusedResidual) for layer in fused.layers()) == 8
    convs = {key for key in model.state_dict() if key.endswith("weight") and model.state_dict()[key].ndim == 4}
    biases = {key.replace("weight", "bias") for key in convs}
    assert set(fused.state_dict()) == convs | biases | {"fc.weight", "fc.bias"}


def test_names_and_looks_inside_stay():
    model, x = made("resnet20").eval(), images("resnet20")
    fused = fuse(model)
    for name in ("bn1", "layer1.0", "layer2", "fc"):
        assert relative_error(fused.forward_to(name, x), model.forward_to(name, x)) < 1e-4
    assert relative_error(fused.features(x), model.features(x)) < 1e-4
    assert fused.layer1[0].conv1.path == "layer1.0.conv1"
    assert [p.name for p in fused.parameters()] == [name for name, _ in fused.named_parameters()]


def test_equal_arrays_are_shared_and_no_others():
    model = made("vgg16_bn_cifar")
    fused = fuse(model)
    assert fused.classifier.weight.data is model.classifier.weight.data
    own, theirs = list(fused.features.parameters()), list(model.features.parameters())
    assert not any(np.shares_memory(a.data, b.data) for a in own for b in theirs)


def test_a_fused_network_can_be_fused_and_copied():
    model, x = made("resnet20"), images("resnet20")
    fused = fuse(model)
    wanted = fused(x)
    np.testing.assert_array_equal(fuse(fused)(x), wanted)
    np.testing.assert_array_equal(copy.deepcopy(fused)(x), wanted)


def test_create_does_not_build_it():
    assert not hasattr(fuse(made("resnet20")), "architecture")


def test_weights_are_loaded_before():
    model = made("resnet20")
    fused = fuse(model)
    fused(images("resnet20"))
    with pytest.raises(LayerError, match="read-only: load the weights into the network first, and call fuse"):
        fused.load_state_dict(fused.state_dict())


def test_backward_says_what_to_do():
    model, x = made("resnet20"), images("resnet20")
    fused = fuse(model)
    fused.set_saving(True)
    with pytest.raises(LayerError, match="no backward"):
        fused.backward(fused(x))


def test_it_works_in_the_middle_of_a_step():
    """What a forward has saved is neither copied nor lost."""
    model, x = made("resnet20"), images("resnet20")
    y = model(x)
    saved = model.conv1._saved
    fused = fuse(model)
    assert model.conv1._saved is saved
    assert all(layer._saved is None for layer in fused.layers())
    model.backward(np.ones_like(y))


# ---- what is taken in ------------------------------------------------------------------------------------------


def test_norms_scales_and_relu():
    fused = ["FusedConv2d", "Identity"]
    check(Sequential(conv(), norm()), fused)
    check(Sequential(conv(bias=False), norm(relu=True)), fused)
    check(Sequential(conv(), ReLU()), fused)
    check(Sequential(conv(), norm(affine=False), ReLU()), [*fused, "Identity"])
    check(Sequential(conv(), Scale(-0.3), norm(), Scale(2.0), norm(relu=True)), [*fused, *["Identity"] * 3])
    check(Sequential(conv(groups=2), Dropout(0.5), norm(), Identity(), ReLU()), [*fused, *["Identity"] * 3])


def test_nothing_after_relu_and_nothing_else():
    check(Sequential(conv(), ReLU(), norm()), ["FusedConv2d", "Identity", "BatchNorm2d"])
    check(Sequential(conv(), norm(relu=True), norm()), ["FusedConv2d", "Identity", "BatchNorm2d"])
    check(Sequential(conv(), LeakyReLU(0.1), norm()), ["FusedConv2d", "LeakyReLU", "BatchNorm2d"])
    check(Sequential(norm(), conv(), conv()), ["BatchNorm2d", "FusedConv2d", "FusedConv2d"])
    check(Sequential(conv(), norm(track_running_stats=False)), ["FusedConv2d", "BatchNorm2d"])


def test_chains_within_chains_and_branches():
    inner = Sequential({"0": conv(), "": Sequential({"1": norm()})})
    check(Sequential(Sequential(conv()), Sequential(inner, norm(), ReLU())), ["FusedConv2d"] * 2 + ["Identity"] * 3)
    branches = Concat(Sequential(conv(), norm()), Sequential(norm(), conv(), ReLU()))
    check(branches, ["FusedConv2d", "Identity", "BatchNorm2d", "FusedConv2d", "Identity"])
    check(Sequential(Add(conv(), conv()), norm()), ["FusedConv2d", "FusedConv2d", "BatchNorm2d"])


def test_sums():
    def main(*after):
        return Sequential(conv(), norm(relu=True), conv(), *after)

    two = ["FusedConv2d", "Identity", "FusedConv2d"]
    check(ResidualNormReLU(main(), norm(relu=True)), [*two, "Identity"])
    check(ResidualNormReLU(main(Dropout(0.5)), norm(relu=True)), [*two, "Identity", "Identity"])
    check(Residual(main(norm())), [*two, "Identity", "Identity"])
    short = Sequential(conv(), norm())
    block = Sequential({"": Residual(main(norm(), Scale(0.2)), short), "relu": ReLU(), "norm": norm()})
    fused = check(block, [*two, "Identity", "Identity", "FusedConv2d", "Identity", "Identity", "BatchNorm2d"])
    assert isinstance(fused._children[""], FusedResidual)


def test_sums_that_the_last_convolution_cannot_do():
    def kept(model, kind):
        stirred(model)
        fused = fuse(model)
        assert kind in [type(layer) for layer in fused.layers()]
        assert FusedResidual not in [type(layer) for layer in fused.layers()]
        x = np.random.default_rng(3).standard_normal((2, 4, 7, 6))
        assert relative_error(fused(x), model.eval()(x)) < 1e-12

    kept(Residual(Sequential(conv(), ReLU())), Residual)
    kept(Residual(Sequential(conv(), LeakyReLU())), Residual)
    kept(ResidualNormReLU(Sequential(conv(), norm(relu=True)), norm(relu=True)), ResidualNormReLU)
    kept(ResidualNormReLU(conv(), norm(relu=True, track_running_stats=False)), ResidualNormReLU)


def test_a_sum_is_done_once():
    inner = Residual(Sequential(conv(), norm()))
    outer = stirred(Sequential(Residual(Sequential(norm(), inner), shortcut_name="outer"), ReLU()))
    x = np.random.default_rng(3).standard_normal((2, 4, 7, 6))
    fused = fuse(outer)
    assert relative_error(fused(x), outer.eval()(x)) < 1e-12
    assert [type(layer) for layer in fused.layers()].count(FusedResidual) == 1


def test_what_does_nothing_in_evaluation_is_left_out():
    branch = StochasticBranch(Sequential(conv(), norm()), 0.4)
    fused = check(Sequential(Residual(branch), ReLU()), ["FusedConv2d", "Identity", "Identity", "Identity"])
    assert isinstance(fused[0], FusedResidual)
    block = Checkpointed(ResidualNormReLU(conv(), norm(relu=True)))
    fused = check(
        Sequential(conv(), Checkpointed(Sequential(norm(), block))),
        ["FusedConv2d", "BatchNorm2d", "FusedConv2d", "Identity"],
    )
    assert not [layer for layer in fused.layers() if isinstance(layer, Checkpointed)]


class TwoUses(Sequential):
    """Looks like a chain and is none."""

    def forward(self, x):
        y = self[0].forward(x)
        return y + self[1].forward(y)


class Opaque(Layer):
    def __init__(self):
        super().__init__()
        self.norm, self.conv, self.tail = norm(), conv(), Sequential(conv(), norm())
        self.twice = [self.norm, self.tail]

    def forward(self, x):
        first, tail = self.twice
        return tail.forward(self.conv.forward(first.forward(x)))


def test_what_a_layer_of_another_kind_does_is_not_guessed():
    check(TwoUses(conv(), norm()), ["FusedConv2d", "BatchNorm2d"])
    check(Opaque(), ["BatchNorm2d", "FusedConv2d", "FusedConv2d", "Identity"])


def test_a_network_without_convolutions_is_a_copy():
    model = Sequential(Flatten(), Linear(6, 3), Dropout(0.5), Linear(3, 2))
    x = np.random.default_rng(0).standard_normal((4, 6, 1, 1)).astype(np.float32)
    np.testing.assert_array_equal(fuse(model)(x), model.eval()(x))
