"""Wide residual networks: costs, names, initial values, dropout, PyTorch parity."""

import numpy as np
import pytest
import torch
from helpers import assert_same_step, assert_step_is_torchs, relative_error, stirred
from references import count
from references.preact import Block, Wide

from tinycnn import Dropout, gradcheck
from tinycnn.models import architecture, create, wide_resnet
from tinycnn.models.preact import preact_basic
from tinycnn.models.resnet import Place, conv

NETS = {"wrn_16_8": (16, 8), "wrn_28_10": (28, 10), "wrn_40_4": (40, 4)}


@pytest.mark.parametrize("name", NETS)
def test_costs_and_names_are_pytorchs(name):
    known = architecture(name)
    with torch.device("meta"):
        module = Wide(*NETS[name])
        assert count(module, known.input_shape) == (known.parameters, known.macs)
    ours = create(name, initialize=False).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {
        key: tuple(value.shape) for key, value in module.state_dict().items()
    }
    assert "block2.layer.0.convShortcut.weight" in ours


@pytest.mark.parametrize(("depth", "k"), [(10, 1), (16, 2)])
def test_a_step_is_pytorchs(depth, k):
    ours, theirs = stirred(wide_resnet(depth, k, 5, 2), Wide(depth, k, 5, 2))
    assert_step_is_torchs(ours, theirs, images(3, 2, 14, 10), tolerance=1e-10)


def test_a_block_of_full_width_is_pytorchs():
    rng = np.random.default_rng(0)
    way = conv(320, 640, 1, rng, 2)
    ours = preact_basic(Place(320, 640, 2), way, shared=True, shortcut_name="convShortcut", rng=rng)
    theirs = Block((320, 640, 640), (3, 3), 2, True, "B", "convShortcut")
    assert_step_is_torchs(*stirred(ours, theirs), images(2, 320, 5, 4), tolerance=1e-10)


def test_dropout_is_between_the_convolutions():
    """With the masks that were drawn, put before the second convolutions of the reference."""
    ours, theirs = stirred(wide_resnet(10, 2, dropout=0.3), Wide(10, 2))
    for i in range(1, 4):
        drop = getattr(ours, f"block{i}").layer[0].dropout
        again = Dropout(0.3)
        again.stream.set_state(drop.stream.state())
        convolution = getattr(theirs, f"block{i}").layer[0].conv2
        convolution.register_forward_pre_hook(lambda _, x, d=again: x[0] * torch.from_numpy(d(np.ones(x[0].shape))))
    x = images(3, 3, 14, 10)
    assert_step_is_torchs(ours, theirs, x, tolerance=1e-10)
    assert relative_error(ours.eval()(x), wide_like(ours)(x)) == 0


def wide_like(model):
    plain = wide_resnet(10, 2).astype(np.float64)
    plain.load_state_dict(model.state_dict())
    return plain.eval()


def images(*shape):
    return np.random.default_rng(1).standard_normal(shape)


def test_gradients_of_a_block():
    rng = np.random.default_rng(0)
    block = preact_basic(Place(3, 4, 2), conv(3, 4, 1, rng, 2), shared=True, dropout=0.3, rng=rng)
    report = gradcheck(block.astype(np.float64), images(2, 3, 5, 4))
    assert report.ok, str(report)


def test_initial_values():
    model = create("wrn_16_8")
    for name, p in model.named_parameters():
        if p.data.ndim == 4:
            wanted = np.sqrt(2 / (p.shape[0] * p.shape[2] ** 2))
            assert p.data.std() == pytest.approx(wanted, rel=6 / np.sqrt(2 * p.size)), name
        elif "bn" in name:
            assert (p.data == name.endswith("weight")).all(), name
    assert not model["fc"].bias.data.any()


def test_checkpointing_changes_nothing():
    plain, kept = (wide_resnet(10, 2, dropout=0.4, checkpointed=c, rng=np.random.default_rng(5)) for c in (False, True))
    assert_same_step(plain, kept, images(3, 3, 12, 9).astype(np.float32))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"depth must be 6n \+ 4 .* got 26"):
        wide_resnet(26, 10)
    with pytest.raises(ValueError, match=r"widen, .* must be at least 1, got 0"):
        wide_resnet(28, 0)
    with pytest.raises(ValueError, match=r"Dropout: p is the probability .* got -0\.1"):
        create("wrn_16_8", dropout=-0.1)
