import copy

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tinycnn.layers.base import Layer
from tinycnn.optim import EMA, SGD
from tinycnn.parameter import Parameter


class Net(Layer):
    """Two parameters and two buffers, one of them an integer."""

    def __init__(self, dtype="float64"):
        super().__init__()
        rng = np.random.default_rng(0)
        self.weight = Parameter(rng.normal(size=(4, 3, 2, 2)).astype(dtype))
        self.bias = Parameter(rng.normal(size=4).astype(dtype))
        self.register_buffer("mean", rng.normal(size=4).astype(dtype))
        self.register_buffer("count", np.zeros(1, np.int64))


def twin_of(net):
    twin = torch.nn.Module()
    twin.weight = torch.nn.Parameter(torch.tensor(net.weight.data.copy()))
    twin.bias = torch.nn.Parameter(torch.tensor(net.bias.data.copy()))
    twin.register_buffer("mean", torch.tensor(net.mean.copy()))
    return twin


def move(net, step, twin=None):
    rng = np.random.default_rng(step)
    for name in ("weight", "bias"):
        value = rng.normal(size=getattr(net, name).shape)
        getattr(net, name).data[...] = value
        if twin is not None:
            getattr(twin, name).data[...] = torch.tensor(value)
    net.mean = rng.normal(size=4).astype(net.mean.dtype)  # layers may replace a buffer
    net.count = net.count + 1
    if twin is not None:
        twin.mean[...] = torch.tensor(net.mean)


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.9, 0.3, 1.0])
def test_fifty_updates_are_pytorchs(decay, use_buffers):
    net = Net()
    twin = twin_of(net)
    ema = EMA(net, decay, use_buffers=use_buffers)
    reference = AveragedModel(twin, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=use_buffers)
    for step in range(50):
        move(net, step, twin)
        ema.update()
        reference.update_parameters(twin)
    with ema.averaged():
        for name, expected in reference.module.state_dict().items():
            np.testing.assert_allclose(net.state_dict()[name], expected.numpy(), rtol=1e-12, atol=1e-15)


def test_the_first_update_is_a_copy_exactly():
    p = Parameter(np.random.default_rng(0).normal(size=1000).astype("float32"))
    ema = EMA([p], decay=0.999)
    p.data *= 1e-3
    ema.update()
    with ema.averaged():
        averages = p.data.copy()
    np.testing.assert_array_equal(averages, p.data)


def test_by_hand():
    p = Parameter(np.array([8.0]))
    ema = EMA([p], decay=0.75)
    for value in (4.0, 8.0, 0.0):
        p.data[:] = value
        ema.update()  # 4, then 5, then 3.75
    with ema.averaged():
        assert p.data[0] == 3.75
    assert p.data[0] == 0.0


def test_warmup_averages_less_at_first():
    p = Parameter(np.array([1.0]))
    ema = EMA([p], decay=0.999, warmup=True)
    ema.update()
    p.data[:] = 12.0
    ema.update()  # d = 2/11
    with ema.averaged():
        np.testing.assert_allclose(p.data, [10.0], rtol=1e-15)


def test_values_come_back_exactly_even_after_an_error():
    net = Net()
    ema = EMA(net, 0.5)
    move(net, 1)
    ema.update()
    move(net, 2)
    ema.update()
    own = copy.deepcopy(net.state_dict())

    def evaluate():
        with ema.averaged():
            assert (net.weight.data != own["weight"]).any()
            raise KeyError

    with pytest.raises(KeyError):
        evaluate()
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, own[name])
    ema.update()


def test_the_swap_happens_in_the_optimizers_buffers():
    net = Net("float32")
    optimizer = SGD(net.parameters(), lr=0.1)
    ema = EMA(net)
    with ema.averaged():
        optimizer.flat.check()
    optimizer.step()
    ema.update()
    assert net.weight.data.dtype == np.float32


def test_big_parameters_go_in_chunks():
    p = Parameter(np.random.default_rng(0).normal(size=(100, 30, 7, 11)))
    ema = EMA([p], 0.9)
    ema.update()
    old = p.data.copy()
    p.data += 1.0
    ema.update()
    with ema.averaged():
        np.testing.assert_allclose(p.data, old + 0.1, rtol=1e-12, atol=1e-15)


def test_state_resumes_exactly():
    def train(net, ema, steps):
        for step in steps:
            move(net, step)
            ema.update()

    net, whole = Net(), None
    whole = EMA(net, 0.9, use_buffers=True, warmup=True)
    train(net, whole, range(10))
    net = Net()
    first = EMA(net, 0.9, use_buffers=True, warmup=True)
    train(net, first, range(6))
    second = EMA(net, 0.5, use_buffers=True, warmup=True)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(net, second, range(6, 10))
    expected, got = whole.state_dict(), second.state_dict()
    assert got["updates"] == expected["updates"] == 10
    assert got["decay"] == 0.9
    assert list(got["state"]["average"]) == ["weight", "bias", "mean"]
    for name, value in expected["state"]["average"].items():
        np.testing.assert_array_equal(got["state"]["average"][name], value)
        assert got["state"]["average"][name].flags.c_contiguous


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: {}, "not an EMA's state_dict"),
        (lambda s: {**s, "state": {"average": {}}}, "weight has shape None there"),
        (lambda s: {**s, "state": {"average": {**s["state"]["average"], "x": 1}}}, r"x has shape \(\) there"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(spoil, message):
    ema = EMA(Net())
    before = copy.deepcopy(ema.state_dict())
    with pytest.raises(ValueError, match=f"EMA: the state does not fit: .*{message}"):
        ema.load_state_dict(spoil(ema.state_dict()))
    np.testing.assert_equal(ema.state_dict(), before)


def test_misuse_is_named():
    net = Net()
    with pytest.raises(ValueError, match=r"decay must lie between 0 and 1, got 1.5"):
        EMA(net, 1.5)
    with pytest.raises(ValueError, match="use_buffers=True needs a layer"):
        EMA(net.parameters(), use_buffers=True)
    with pytest.raises(ValueError, match="same name"):
        EMA([Parameter(np.zeros(1), "w"), Parameter(np.zeros(1), "w")])
    ema = EMA(net)
    with ema.averaged():
        for use in (ema.update, ema.state_dict, ema.averaged().__enter__):
            with pytest.raises(RuntimeError, match="inside averaged"):
                use()
    net.astype("float32")
    with pytest.raises(RuntimeError, match="weight was moved or converted"):
        ema.update()
