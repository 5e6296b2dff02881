"""The losses of several outputs, added up, against PyTorch's autograd and by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_losses import REDUCTIONS, C

from tinycnn.backend import to_numpy
from tinycnn.losses import AuxiliaryLoss, CrossEntropyLoss, MSELoss
from tinycnn.losses.auxiliary import each_output, scores_of


def outputs(count=3, dtype=np.float64):
    return tuple(np.random.default_rng(0).normal(size=(count, 6, C)).astype(dtype))


LABELS = np.arange(6) % C


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_loss_and_gradients_are_torchs(reduction, count):
    ys = outputs(count)
    leaves = [torch.tensor(y, requires_grad=True) for y in ys]
    terms = [F.cross_entropy(y, torch.tensor(LABELS), reduction=reduction) for y in leaves]
    wanted = terms[0] + 0.3 * sum(terms[1:])
    wanted.sum().backward()
    loss, gradients = AuxiliaryLoss(CrossEntropyLoss(reduction=reduction))(ys, LABELS)
    np.testing.assert_allclose(loss, wanted.detach().numpy(), rtol=1e-12)
    assert isinstance(gradients, tuple)
    for ours, leaf in zip(gradients, leaves, strict=True):
        np.testing.assert_allclose(ours, leaf.grad.numpy(), rtol=1e-12, atol=1e-15)


def test_logits_alone_have_the_loss_that_it_is_made_of():
    y = outputs()[0]
    loss, dy = AuxiliaryLoss(CrossEntropyLoss())(y, LABELS)
    wanted, dwanted = CrossEntropyLoss()(y, LABELS)
    assert loss == wanted
    assert (dy == dwanted).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_is_kept(dtype):
    loss, gradients = AuxiliaryLoss(CrossEntropyLoss())(outputs(dtype=dtype), LABELS)
    assert loss.dtype == dtype
    assert [d.dtype for d in gradients] == [dtype] * 3


def test_heads_of_weight_0_learn_nothing():
    ys, t = outputs(2), np.zeros((6, C))
    loss, (dy, da) = AuxiliaryLoss(MSELoss(), weight=0)(ys, t)
    assert loss == MSELoss()(ys[0], t)[0]
    assert dy.any()
    assert not da.any()


def test_on_a_gpu_it_neither_waits_nor_copies(gpu):
    ys = outputs(dtype=np.float32)
    wanted, dwanted = AuxiliaryLoss(CrossEntropyLoss())(ys, LABELS)
    loss_fn = AuxiliaryLoss(CrossEntropyLoss())
    loss, gradients = loss_fn(tuple(gpu.asarray(y) for y in ys), gpu.asarray(LABELS))
    assert float(loss) == pytest.approx(float(wanted), rel=1e-6)
    for ours, theirs in zip(gradients, dwanted, strict=True):
        np.testing.assert_allclose(to_numpy(ours), theirs, rtol=1e-5, atol=1e-7)
    loss_fn.check()


def test_labels_out_of_range_are_told(gpu):
    loss_fn = AuxiliaryLoss(CrossEntropyLoss())
    with pytest.raises(ValueError, match="label 9 at position 0 is no class"):
        loss_fn(outputs(), np.full(6, 9))
    loss_fn(tuple(gpu.asarray(y.astype(np.float32)) for y in outputs()), gpu.asarray(np.full(6, 9)))
    with pytest.raises(ValueError, match="label 9 at position 0 of a batch"):
        loss_fn.check()
    AuxiliaryLoss(lambda logits, targets: (logits.sum(), logits)).check()  # has nothing to check


@pytest.mark.parametrize("weight", [-0.1, math.inf, math.nan])
def test_weights_out_of_range(weight):
    with pytest.raises(ValueError, match="AuxiliaryLoss: weight must be a number from 0 on, got"):
        AuxiliaryLoss(CrossEntropyLoss(), weight)


@pytest.mark.parametrize("loss_fn", [CrossEntropyLoss(), MSELoss()])
def test_a_loss_for_one_output_says_what_several_need(loss_fn):
    with pytest.raises(ValueError, match=f"{type(loss_fn).__name__}: got 3 arrays .* use AuxiliaryLoss around"):
        loss_fn(outputs(), LABELS)


def test_what_is_done_to_each_output():
    assert each_output(lambda y: y + 1, (1, 2)) == (2, 3)
    assert each_output(lambda y: y + 1, 1) == 2
    assert scores_of((1, 2)) == scores_of(1) == 1


def test_repr():
    assert repr(AuxiliaryLoss(MSELoss(), 0.5)) == "AuxiliaryLoss(MSELoss(reduction='mean'), weight=0.5)"
