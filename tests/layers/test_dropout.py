"""Dropout and its relatives: what is dropped, how often, and that the same is dropped again."""

import math

import numpy as np
import pytest
from helpers import is_channels_last, poisoned

from tinycnn import parallel
from tinycnn.layers.base import LayerError
from tinycnn.layers.dropout import Dropout, Dropout2d, RandomStream, StochasticDepth

PROBABILITIES = [0.5, 0.1, 0.25, 0.3, 0.9, 1 / 256, 1e-4]
LAYERS = {
    "Dropout": lambda rng: Dropout(0.4, rng=rng),
    "Dropout bytes": lambda rng: Dropout(0.5, rng=rng),
    "Dropout2d": lambda rng: Dropout2d(0.4, rng=rng),
    "StochasticDepth batch": lambda rng: StochasticDepth(0.4, "batch", rng=rng),
    "StochasticDepth row": lambda rng: StochasticDepth(0.4, "row", rng=rng),
}
ROWS = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())


def images(dtype=np.float64, N=6):
    return np.random.default_rng(0).uniform(1, 2, (N, 5, 8, 7)).astype(dtype)


def mask_of(layer, x):
    """What a forward multiplies by, read off the output."""
    return layer(x) / x


def is_within_5_sigma(kept, n, p):
    return abs(kept - n * (1 - p)) <= 5 * math.sqrt(n * p * (1 - p))


@pytest.mark.parametrize("p", PROBABILITIES)
def test_numbers_are_kept_as_often_as_asked_and_scaled(p):
    m = mask_of(Dropout(p, rng=np.random.default_rng(1)), np.ones((64, 10, 50, 40)))
    assert set(np.unique(m)) == {0.0, 1 / (1 - p)}
    assert is_within_5_sigma((m > 0).sum(), m.size, p)
    # and so along every axis: no part is favoured
    for axis in range(4):
        others = tuple(a for a in range(4) if a != axis)
        for kept in (m > 0).sum(axis=others):
            assert is_within_5_sigma(kept, m.size // m.shape[axis], p)


@ROWS
def test_backward_uses_the_mask_of_the_forward(make):
    layer = make(np.random.default_rng(2))
    x, dy = images(), np.random.default_rng(3).standard_normal(images().shape)
    factors = set()
    for _ in range(12):
        m = mask_of(layer, x)
        np.testing.assert_allclose(layer.backward(dy), dy * m, rtol=1e-15, atol=0)
        factors |= set(np.unique(m).round(6).tolist())
    assert factors == {0.0, round(1 / (1 - layer.p), 6)}


def test_a_channel_is_dropped_whole():
    m = mask_of(Dropout2d(0.5, rng=np.random.default_rng(4)), images(N=200))
    np.testing.assert_array_equal(m > 0, np.broadcast_to(m[:, :, :1, :1] > 0, m.shape))
    assert is_within_5_sigma((m[:, :, 0, 0] > 0).sum(), 1000, 0.5)


def test_a_row_is_dropped_whole():
    m = mask_of(StochasticDepth(0.25, "row", rng=np.random.default_rng(5)), images(N=1000))
    np.testing.assert_array_equal(m > 0, np.broadcast_to(m[:, :1, :1, :1] > 0, m.shape))
    assert is_within_5_sigma((m[:, 0, 0, 0] > 0).sum(), 1000, 0.25)


def test_a_batch_is_dropped_whole():
    layer = StochasticDepth(0.25, rng=np.random.default_rng(6))
    kept = 0
    for _ in range(400):
        (m,) = np.unique(mask_of(layer, np.ones((3, 2)))).tolist()
        assert m in (0, 1 / 0.75)
        kept += m > 0
    assert is_within_5_sigma(kept, 400, 0.25)


def test_forgetting_the_scale_would_be_seen():
    class Unscaled(Dropout):
        def forward(self, x):
            return (super().forward(x) != 0).astype(float)

    x = np.ones((64, 10, 50, 40))

    def is_unbiased(layer):
        return abs(layer(x).mean() - 1) < 5 * math.sqrt(0.3 / 0.7 / x.size)

    assert is_unbiased(Dropout(0.3, rng=np.random.default_rng(7)))
    assert not is_unbiased(Unscaled(0.3, rng=np.random.default_rng(7)))


@ROWS
def test_masks_are_a_function_of_key_and_step(make):
    x = images()
    one, same, other = (make(np.random.default_rng(seed)) for seed in (8, 8, 9))
    masks = np.array([mask_of(one, x) for _ in range(20)])
    np.testing.assert_array_equal([mask_of(same, x) for _ in range(20)], masks)
    assert not (masks == masks[0]).all()
    assert other.stream.key != one.stream.key
    assert not (np.array([mask_of(other, x) for _ in range(20)]) == masks).all()


@ROWS
def test_the_random_state_replays_the_masks(make):
    layer, x = make(np.random.default_rng(10)), images()
    layer(x)
    state = layer.random_state()
    masks = [mask_of(layer, x) for _ in range(6)]
    layer.set_random_state(state)
    for m in masks:
        np.testing.assert_array_equal(mask_of(layer, x), m)
    assert state == {"": [layer.stream.key, 1]}
    fresh = make(np.random.default_rng(11))
    fresh.set_random_state(state)
    np.testing.assert_array_equal(mask_of(fresh, x), masks[0])


def test_only_a_forward_that_draws_takes_a_step():
    layer, x = Dropout(0.5), np.ones((2, 3))
    layer(x)
    layer.backward(x)
    assert layer.stream.step == 1
    layer.eval()(x)
    layer.eval(backward=True)(x)
    assert layer.stream.step == 1
    layer.train()(x)
    assert layer.stream.step == 2
    never = Dropout(0.0)
    never(x)
    assert never.stream.step == 0


@pytest.mark.parametrize("layer", [Dropout(0.0), Dropout2d(0.0), StochasticDepth(0.0, "row")])
def test_nothing_is_dropped_at_p_0(layer):
    x, dy = images(), images() + 1
    np.testing.assert_array_equal(layer(x), x)
    np.testing.assert_array_equal(layer.backward(dy), dy)


@ROWS
def test_evaluation_is_the_identity_and_so_is_its_backward(make):
    layer, x, dy = make(None).eval(backward=True), images(), images() + 1
    np.testing.assert_array_equal(layer(x), x)
    np.testing.assert_array_equal(layer.backward(dy), dy)


@pytest.mark.parametrize("layer", [Dropout(1), Dropout2d(1.0), StochasticDepth(1.0)])
def test_everything_is_dropped_at_p_1(layer):
    for _ in range(50):
        np.testing.assert_array_equal(layer(images()), 0)
        np.testing.assert_array_equal(layer.backward(images()), 0)


@ROWS
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_and_memory_change_nothing(make, dtype, monkeypatch):
    rng = np.random.default_rng(14)
    x, dy = (rng.uniform(1, 2, (67, 6, 23, 21)).astype(dtype) for _ in range(2))
    assert len(parallel.slice_batch(67, 2 * x[0].nbytes)) > 1
    parallel.set_num_threads(2)
    layer = make(np.random.default_rng(15))
    y, dx = layer(x), layer.backward(dy)
    parallel.set_num_threads(1)
    with poisoned(monkeypatch):
        layer = make(np.random.default_rng(15))
        np.testing.assert_array_equal(layer(x), y)
        np.testing.assert_array_equal(layer.backward(dy), dx)
    for a in (y, dx):
        assert a.dtype == dtype
        assert is_channels_last(a)
    kept = dx != 0
    np.testing.assert_array_equal(kept, y != 0)
    np.testing.assert_allclose(y, np.where(kept, x / (1 - layer.p), 0), rtol=1e-6 if dtype == np.float32 else 1e-15)


def test_one_key_gives_one_mask_in_every_precision_and_layout():
    x = images()
    masks = [
        Dropout(0.3, rng=np.random.default_rng(16))(x) != 0
        for x in (x, x.astype(np.float32), x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2))
    ]
    for m in masks[1:]:
        np.testing.assert_array_equal(m, masks[0])


@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 3, 4), (0, 3), (2, 2, 2, 2, 2)])
@pytest.mark.parametrize("layer", [Dropout(0.3), StochasticDepth(0.3, "row"), StochasticDepth(0.3, "batch")])
def test_any_rank(layer, shape):
    assert layer(np.ones(shape)).shape == shape
    assert layer.backward(np.ones(shape)).shape == shape


def test_a_stream_can_be_seeded():
    stream = RandomStream()
    stream.step += 3
    assert stream.state() == [stream.key, 3]
    stream.seed(17)
    assert stream.state() == [17, 0]
    assert stream.place.tolist() == [17, 0]
    with pytest.raises(ValueError, match=r"is \[key, step\], got \[1\]"):
        stream.set_state([1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dropout(1.5), "Dropout: p is the probability of dropping, from 0 to 1, got 1.5"),
        (lambda: Dropout2d(-0.1), "Dropout2d: .* got -0.1"),
        (lambda: StochasticDepth(float("nan")), "StochasticDepth: .* got nan"),
        (lambda: Dropout("0.5"), "got '0.5'"),
        (lambda: StochasticDepth(0.5, "image"), "mode must be 'batch' or 'row', got 'image'"),
        (lambda: Dropout2d()(np.ones((2, 3))), r"expected an input of shape \(N, C, H, W\), got \(2, 3\)"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(LayerError, match=message):
        make()


def test_repr():
    assert repr(Dropout()) == "Dropout(p=0.5)"
    assert repr(StochasticDepth(0.2, "row")) == "StochasticDepth(p=0.2, mode='row')"
