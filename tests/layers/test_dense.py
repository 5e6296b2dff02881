"""Dense blocks against PyTorch's with torch.cat, and what they save of memory and work."""

import numpy as np
import pytest
import torch
from helpers import assert_step_is_torchs, like_torch, relative_error
from hypothesis import given, settings
from hypothesis import strategies as st
from references import densenet as reference

from tinycnn import Concat, Conv2d, DenseBlock, DenseLayer, Identity, LayerError, Sequential
from tinycnn.kernels import dense as kernels
from tinycnn.layers import dense


def images(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def pair(C, k, L, bottleneck, seed=0, **options):
    """A block and PyTorch's, with the same random weights and running statistics."""
    ours = DenseBlock(C, k, L, bottleneck, **options)
    rng = np.random.default_rng(seed + 1)
    for name, value in ours.named_buffers():
        if name.endswith(("mean", "var")):
            value[...] = rng.uniform(0.3, 2, value.shape)
    return like_torch(ours, reference.Block(C, k, L, bottleneck), seed)


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(st.integers(2, 3), st.integers(1, 6), st.integers(1, 5), st.integers(1, 4)),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from([None, 1, 2, 4]),
    st.booleans(),
    st.booleans(),
)
def test_a_step_is_pytorchs(shape, k, L, bottleneck, checkpointed, evaluate):
    ours, theirs = pair(shape[1], k, L, bottleneck, checkpointed=checkpointed)
    if evaluate:
        ours.eval(backward=True)
        theirs.eval()
    elif shape[0] * shape[2] * shape[3] < 4:  # of two or three values, x̂ hardly depends on x
        return
    assert_step_is_torchs(ours, theirs, images(shape), tolerance=1e-9)


@pytest.mark.parametrize("bottleneck", [None, 4])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_three_steps_of_running_statistics(bottleneck, checkpointed):
    ours, theirs = pair(5, 3, 3, bottleneck, checkpointed=checkpointed)
    for seed in range(3):
        assert_step_is_torchs(ours, theirs, images((3, 5, 4, 6), seed), tolerance=1e-11)
    for value in (ours.denselayer3.norm1.num_batches_tracked, theirs.denselayer3.norm1.num_batches_tracked):
        assert int(value) == 3


def test_norms_may_have_momentum_and_epsilon_of_their_own():
    ours, theirs = pair(4, 2, 3, 2)
    for block in (ours, theirs):
        block.denselayer1.norm1.momentum, block.denselayer2.norm1.momentum = None, 0.5
        block.denselayer2.norm1.eps, block.denselayer3.norm1.eps = 0.1, 0.7
    for seed in range(2):
        assert_step_is_torchs(ours, theirs, images((3, 4, 4, 6), seed), tolerance=1e-11)


@pytest.mark.parametrize("which", ["denselayer1", "denselayer2", "denselayer3"])
def test_one_norm_may_keep_to_its_running_statistics(which):
    """As frozen layers do: its neighbours still measure, and it moves nothing."""
    ours, theirs = pair(4, 2, 3, 2)
    for block in (ours, theirs):
        getattr(block, which).norm1.eval()
    getattr(ours, which).norm1.set_saving(True)
    assert_step_is_torchs(ours, theirs, images((3, 4, 4, 6)), tolerance=1e-11)


def naive(block):
    """The same layers, concatenated one by one."""
    children = block._children.items()
    return Sequential({name: Concat({"x": Identity(), "": layer}) for name, layer in children})


@pytest.mark.parametrize("bottleneck", [None, 2])
def test_a_block_is_its_layers_concatenated(bottleneck):
    x, dy = images((3, 4, 5, 4)), images((3, 13, 5, 4), 1)
    results = []
    for build in (Identity, naive):
        block = DenseBlock(4, 3, 3, bottleneck, 0.2, rng=np.random.default_rng(3)).astype(np.float64)
        net = naive(block) if build is naive else block
        y, dx = net(x), net.backward(dy)
        results.append([y, dx, *(p.grad for p in net.parameters()), *net.buffers()])
    for a, b in zip(*results, strict=True):
        assert relative_error(a, b) < 1e-11


@pytest.mark.parametrize("bottleneck", [None, 2])
def test_checkpointed_gives_the_same_bits(bottleneck):
    """Of gradients, running statistics and the masks of the next step, too."""
    x, results = images((3, 4, 5, 6)).astype(np.float32), []
    for checkpointed in (False, True):
        block = DenseBlock(4, 3, 4, bottleneck, 0.3, checkpointed=checkpointed, rng=np.random.default_rng(3))
        y, dx = block(x), block.backward(np.cos(np.arange(3 * 16 * 30, dtype=np.float32)).reshape(3, 16, 5, 6))
        results.append([y, dx, block(x), *(p.grad for p in block.parameters()), *block.buffers()])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def kept(block):
    """Numbers per pixel that a block keeps between forward and backward, arrays shared by several layers once."""
    owners = {}
    for layer in block.layers():
        for part in layer._saved or ():
            for x in part if isinstance(part, tuple) else (part,):
                if isinstance(x, np.ndarray) and x.ndim == 4:
                    owner = x if x.base is None else x.base
                    owners[id(owner)] = owner.size
    return sum(owners.values())


@pytest.mark.parametrize(("bottleneck", "of_each"), [(4, 8), (None, 0)])
def test_memory_is_what_the_docstring_says(bottleneck, of_each):
    N, C, k, L, H, W = 2, 8, 4, 5, 6, 7
    for checkpointed in (False, True):
        block = DenseBlock(C, k, L, bottleneck, checkpointed=checkpointed)
        block(np.zeros((N, C, H, W), np.float32))
        quadratic = sum(C + i * k for i in range(L))
        wanted = C + L * k + (0 if checkpointed else quadratic + of_each * k * L)
        assert kept(block) == wanted * N * H * W


def test_every_channel_is_measured_once_and_corrected_once(monkeypatch):
    seen = {"measured": [], "corrected": []}
    measure, correct = dense.channel_moments, dense.corrected

    def count_measured(x, moments):
        seen["measured"].append(x.shape[1])
        return measure(x, moments)

    def count_corrected(dx, x, moments, correction):
        seen["corrected"].append(x.shape[1])
        return correct(dx, x, moments, correction)

    monkeypatch.setattr(dense, "channel_moments", count_measured)
    monkeypatch.setattr(dense, "corrected", count_corrected)
    block = DenseBlock(5, 3, 4)
    y = block(images((2, 5, 4, 4)).astype(np.float32))
    block.backward(y)
    assert seen == {"measured": [5, 3, 3, 3], "corrected": [3, 3, 3, 3, 5]}  # what the last layer writes, nobody reads


def test_layers_read_views_of_one_array(monkeypatch):
    read = []
    forward = kernels.norm_relu_forward

    def note(x, *others):
        read.append(x)
        return forward(x, *others)

    monkeypatch.setattr(dense, "norm_relu_forward", note)
    y = DenseBlock(5, 3, 4)(images((2, 5, 4, 4)).astype(np.float32))
    assert [x.shape[1] for x in read] == [5, 8, 11, 14]
    assert all(x.base is y.base and x.ctypes.data == y.ctypes.data for x in read)


def test_float32_keeps_its_digits_with_a_mean_far_from_zero():
    ours, theirs = pair(4, 2, 2, None)
    x, dy = (1000 + images((3, 4, 12, 10))).astype(np.float32), images((3, 8, 12, 10), 1).astype(np.float32)
    x_torch = torch.from_numpy(x.astype(np.float64)).requires_grad_()
    y_torch = theirs(x_torch)
    y_torch.backward(torch.from_numpy(dy.astype(np.float64)))
    ours.astype(np.float32)
    y, dx = ours(x), ours.backward(dy)
    assert relative_error(y[:, 4:], y_torch[:, 4:].detach().numpy()) < 3e-6
    assert relative_error(dx, x_torch.grad.numpy()) < 3e-6


def test_frozen_layers_at_the_bottom_do_nothing(monkeypatch):
    """Below the first trained layer no gradient is formed, above it they are the same as ever."""
    x, dy = images((2, 4, 5, 4)), images((2, 16, 5, 4), 1)
    whole, part = (DenseBlock(4, 3, 4, 2, rng=np.random.default_rng(0)).astype(np.float64) for _ in range(2))
    for layer in (part.denselayer1, part.denselayer2):
        for p in layer.parameters():
            p.requires_grad = False
    part.require_dx(False)
    backward, worked = Conv2d.backward, []
    monkeypatch.setattr(Conv2d, "backward", lambda self, dy: (worked.append(self.path), backward(self, dy))[1])
    norm_backward, added_to = dense.norm_relu_backward, []
    monkeypatch.setattr(dense, "norm_relu_backward", lambda *args: (added_to.append(args[6]), norm_backward(*args))[1])
    part(x)
    assert part.backward(dy) is None
    assert sorted(worked) == [f"denselayer{i}.conv{j}" for i in (3, 4) for j in (1, 2)]
    assert [dx is None for dx in added_to] == [False, True]  # the fourth layer tells the third, which tells nobody
    whole(x)
    whole.backward(dy)
    for (name, p), q in zip(part.named_parameters(), whole.parameters(), strict=True):
        wanted = q.grad if p.requires_grad else 0 * q.grad
        np.testing.assert_allclose(p.grad, wanted, rtol=1e-12, atol=1e-13, err_msg=name)


def test_a_layer_alone_is_a_sequence():
    """Outside of a block it takes any input."""
    layer, theirs = DenseLayer(4, 3, 2), torch.nn.Sequential()
    for name, module in reference.Layer(4, 3, 2).named_children():
        theirs.add_module(name, module)
        if name.startswith("norm"):
            theirs.add_module("relu" + name[-1], torch.nn.ReLU())
    layer, theirs = like_torch(layer, theirs)
    assert_step_is_torchs(layer, theirs, images((3, 4, 5, 6)), tolerance=1e-12)


def test_names_costs_and_words():
    block = DenseBlock(4, 3, 2, 2, 0.1)
    assert [name for name, _ in block.named_parameters()][:5] == [
        *(
            f"denselayer1.{name}"
            for name in ("norm1.weight", "norm1.bias", "conv1.weight", "norm2.weight", "norm2.bias")
        ),
    ]
    assert list(block.denselayer1._children) == ["norm1", "conv1", "drop1", "norm2", "conv2", "drop2"]
    assert list(DenseLayer(4, 3, None, 0.1)._children) == ["norm1", "conv1", "drop1"]
    assert block.macs((2, 4, 5, 6)) == 2 * 30 * sum(C * 6 + 6 * 3 * 9 for C in (4, 7))
    table = block.summary((2, 4, 5, 6))
    assert table.macs == block.macs((2, 4, 5, 6))
    assert table.parameters == block.num_parameters()
    assert "(denselayer2): DenseLayer(" in repr(block)


def test_what_layers_see_can_be_looked_at():
    """By names of layers within: the block calls them, if with its own array."""
    from tinycnn.layers.watch import forward_to

    block, x = DenseBlock(4, 3, 2, 2).eval(), images((2, 4, 5, 6)).astype(np.float32)
    y = block(x)
    seen = forward_to(block, ["denselayer1", "denselayer2.norm1"], x)
    np.testing.assert_array_equal(seen["denselayer1"], y[:, 4:7])
    assert seen["denselayer2.norm1"].shape == (2, 7, 5, 6)


def test_what_does_not_fit_is_refused():
    with pytest.raises(LayerError, match=r"DenseBlock\(4, 0, 2\): growth_rate must be an integer of at least 1, got 0"):
        DenseBlock(4, 0, 2)
    with pytest.raises(LayerError, match="num_layers must be an integer of at least 1, got 0"):
        DenseBlock(4, 3, 0)
    with pytest.raises(LayerError, match="bottleneck must be an integer of at least 1, got 0"):
        DenseBlock(4, 3, 2, bottleneck=0)
    with pytest.raises(LayerError, match=r"p is the probability of dropping, from 0 to 1, got 1\.5"):
        DenseBlock(4, 3, 2, dropout=1.5)
    block = DenseBlock(4, 3, 2)
    with pytest.raises(LayerError, match="expected 4 channels on axis 1, got 5"):
        block(np.zeros((2, 5, 4, 4), np.float32))
    with pytest.raises(LayerError, match="input is float64, parameters are float32"):
        block(np.zeros((2, 4, 4, 4)))
    with pytest.raises(
        LayerError, match=r"denselayer1.norm1 .* more than one value, got an input of shape \(1, 4, 1, 1\)"
    ):
        block(np.zeros((1, 4, 1, 1), np.float32))
    assert block.eval()(np.zeros((1, 4, 1, 1), np.float32)).shape == (1, 10, 1, 1)
