"""Group and instance normalisation against plain loops and against PyTorch."""

import numpy as np
import pytest
import torch
from helpers import assert_step_is_torchs, is_channels_last, like_torch, poisoned, relative_error
from hypothesis import given
from hypothesis import strategies as st

from tinycnn import parallel
from tinycnn.layers.base import LayerError
from tinycnn.layers.norm import GroupNorm, InstanceNorm2d

IMAGES = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(3, 7))


def images(seed, shape, mean=0.0):
    """Images whose channels, and which among themselves, differ in mean and scale."""
    rng = np.random.default_rng(seed)
    scale, offset = rng.uniform(0.3, 3, (2, *shape[:2], *[1] * (len(shape) - 2)))
    return mean + offset + scale * rng.standard_normal(shape)


def loops(x, dy, G, w, b, eps):
    """y, dx, dw and db, with the Jacobian of each group formed in full."""
    N, C = x.shape[:2]
    y, dx, dw, db = np.zeros(x.shape), np.zeros(x.shape), np.zeros(C), np.zeros(C)
    for n in range(N):
        for g in range(G):
            channels = slice(g * C // G, (g + 1) * C // G)
            part, gradient = x[n, channels], dy[n, channels]
            gain, shift = (np.repeat(v[channels], part[0].size) for v in (w, b))
            values, M = part.ravel(), part.size
            std = np.sqrt(values.var() + eps)
            x_hat = (values - values.mean()) / std
            jacobian = (np.eye(M) - 1 / M - np.outer(x_hat, x_hat) / M) / std * gain[:, None]
            y[n, channels] = (gain * x_hat + shift).reshape(part.shape)
            dx[n, channels] = (jacobian.T @ gradient.ravel()).reshape(part.shape)
            dw[channels] += (gradient.ravel() * x_hat).reshape(len(part), -1).sum(axis=1)
            db[channels] += gradient.reshape(len(part), -1).sum(axis=1)
    return y, dx, dw, db


@given(st.sampled_from([(1, 4), (2, 4), (4, 4), (3, 6), (1, 1)]), IMAGES, st.booleans(), st.integers(0, 99))
def test_group_norm_is_the_loops(groups, sizes, flat, seed):
    G, C = groups
    shape = (sizes[0], C) if flat and C // G > 1 else (sizes[0], C, *sizes[1:])
    rng = np.random.default_rng(seed)
    layer = GroupNorm(G, C, dtype=np.float64)
    for p in layer.parameters():
        p.data[...] = rng.uniform(0.5, 2, p.shape)
    x, dy = images(seed, shape), rng.standard_normal(shape)
    y, dx, dw, db = loops(x, dy, G, layer.weight.data, layer.bias.data, 1e-5)
    assert relative_error(layer(x), y) < 1e-12
    np.testing.assert_allclose(layer.backward(dy), dx, rtol=0, atol=1e-11 * max(np.abs(dx).max(), 1))
    assert relative_error(layer.weight.grad, dw) < 1e-11
    assert relative_error(layer.bias.grad, db) < 1e-12


@given(
    st.sampled_from([(1, 4), (2, 4), (4, 4), (3, 6), (8, 32)]),
    IMAGES,
    st.sampled_from([1e-5, 1e-2]),
    st.booleans(),
    st.integers(0, 99),
)
def test_group_norm_is_pytorchs(groups, sizes, eps, affine, seed):
    ours, theirs = like_torch(GroupNorm(*groups, eps, affine), torch.nn.GroupNorm(*groups, eps, affine), seed)
    shape = (sizes[0], groups[1], *sizes[1:])
    assert_step_is_torchs(ours, theirs, images(seed, shape), seed, 1e-11)
    assert_step_is_torchs(ours.eval(backward=True), theirs.eval(), images(seed + 1, shape), seed, 1e-11)


@given(
    st.fixed_dictionaries(
        {
            "eps": st.sampled_from([1e-5, 1e-2]),
            "momentum": st.sampled_from([0.1, 0.7, None]),
            "affine": st.booleans(),
            "track_running_stats": st.booleans(),
        }
    ),
    st.integers(1, 5),
    IMAGES,
    st.integers(0, 99),
)
def test_instance_norm_in_training_then_evaluation_is_pytorchs(options, C, sizes, seed):
    ours, theirs = like_torch(InstanceNorm2d(C, **options), torch.nn.InstanceNorm2d(C, **options), seed)
    shape = (sizes[0], C, *sizes[1:])
    for step in range(3):
        assert_step_is_torchs(ours, theirs, images(seed + step, shape), step, 1e-10)
    theirs.eval()
    assert_step_is_torchs(ours.eval(backward=True), theirs, images(seed, shape), 9, 1e-10)


def test_instance_norm_is_group_norm_of_single_channels():
    x, dy = images(0, (3, 5, 6, 4)), images(1, (3, 5, 6, 4))
    instance, group = InstanceNorm2d(5, affine=True, dtype=np.float64), GroupNorm(5, 5, dtype=np.float64)
    np.testing.assert_array_equal(instance(x), group(x))
    np.testing.assert_array_equal(instance.backward(dy), group.backward(dy))


def test_state_has_pytorchs_names():
    for ours, theirs in (
        (GroupNorm(2, 4), torch.nn.GroupNorm(2, 4)),
        (GroupNorm(2, 4, affine=False), torch.nn.GroupNorm(2, 4, affine=False)),
        (InstanceNorm2d(4), torch.nn.InstanceNorm2d(4)),
        (InstanceNorm2d(4, affine=True), torch.nn.InstanceNorm2d(4, affine=True)),
        (InstanceNorm2d(4, track_running_stats=True), torch.nn.InstanceNorm2d(4, track_running_stats=True)),
    ):
        assert ours.state_dict().keys() == theirs.state_dict().keys()


def test_an_image_does_not_depend_on_its_neighbours():
    x = images(0, (6, 4, 5, 7))
    for layer in (GroupNorm(2, 4, dtype=np.float64), InstanceNorm2d(4, dtype=np.float64)):
        np.testing.assert_array_equal(layer(x)[2:3], layer(x[2:3]))


@pytest.mark.parametrize("mean", [0, 1e3, -1e3])
@pytest.mark.parametrize("make", [lambda: GroupNorm(4, 8), lambda: InstanceNorm2d(8, affine=True)])
def test_float32_is_accurate_with_a_mean_of_a_thousand_deviations(make, mean):
    rng, shape = np.random.default_rng(0), (6, 8, 32, 30)
    x, dy = (mean + rng.standard_normal(shape)).astype(np.float32), rng.standard_normal(shape).astype(np.float32)
    layer, exact = make(), make().astype(np.float64)
    np.testing.assert_allclose(layer(x), exact(x.astype(np.float64)), rtol=0, atol=3e-6)
    np.testing.assert_allclose(layer.backward(dy), exact.backward(dy.astype(np.float64)), rtol=0, atol=3e-6)
    for p, q in zip(layer.parameters(), exact.parameters(), strict=True):
        np.testing.assert_allclose(p.grad, q.grad, rtol=0, atol=1e-4)


LAYERS = {
    "group": lambda dtype: GroupNorm(3, 6, dtype=dtype),
    "instance": lambda dtype: InstanceNorm2d(6, affine=True, track_running_stats=True, dtype=dtype),
    "instance, evaluation": lambda dtype: InstanceNorm2d(6, affine=True, track_running_stats=True, dtype=dtype).eval(
        backward=True
    ),
    "instance, no parameters": lambda dtype: InstanceNorm2d(6, dtype=dtype),
}
EACH = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())


def run(make, dtype=np.float32, shape=(64, 6, 24, 20)):
    layer = make(dtype)
    y = layer(images(0, shape).astype(dtype))
    dx = layer.backward(images(1, shape).astype(dtype))
    return [y, dx, *(p.grad for p in layer.parameters()), *(b for b in layer.buffers() if b.ndim)]


@EACH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_and_memory_order(make, dtype):
    results = run(make, dtype)
    assert all(result.dtype == dtype for result in results)
    assert all(is_channels_last(result) for result in results[:2])


@EACH
def test_the_number_of_threads_changes_no_bit(make):
    parallel.set_num_threads(1)
    one = run(make)
    parallel.set_num_threads(2)
    for a, b in zip(one, run(make), strict=True):
        np.testing.assert_array_equal(a, b)


@EACH
def test_uninitialised_memory_is_not_read(make, monkeypatch):
    clean = run(make)
    with poisoned(monkeypatch):
        dirty = run(make)
    for a, b in zip(clean, dirty, strict=True):
        np.testing.assert_array_equal(a, b)


@EACH
def test_frozen_parameters_and_an_input_that_needs_no_gradient(make):
    x, dy = images(0, (2, 6, 4, 5)), images(1, (2, 6, 4, 5))
    free, layer = make(np.float64), make(np.float64)
    free(x)
    wanted = free.backward(dy)
    for p in layer.parameters():
        p.requires_grad = False
    layer(x)
    np.testing.assert_array_equal(layer.backward(dy), wanted)
    assert not any(p.grad.any() for p in layer.parameters())
    free.zero_grad()
    if free.require_dx(False):
        free(x)
        assert free.backward(dy) is None
        assert all(p.grad.any() for p in free.parameters())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GroupNorm(3, 4), r"GroupNorm\(3, 4\): num_channels must be a positive multiple of num_groups"),
        (lambda: GroupNorm(0, 4), "num_channels must be a positive multiple of num_groups"),
        (lambda: GroupNorm(2, 4)(np.ones((1, 6, 2, 2), "f")), "expected 4 channels on axis 1, got 6"),
        (lambda: GroupNorm(2, 4)(np.ones((1, 4, 2), "f")), r"expected an input of shape .* got \(1, 4, 2\)"),
        (lambda: InstanceNorm2d(0), "InstanceNorm2d: num_features must be at least 1, got 0"),
        (lambda: InstanceNorm2d(2)(np.ones((3, 2, 1, 1), "f")), r"more than one pixel, got .* \(3, 2, 1, 1\)"),
        (lambda: InstanceNorm2d(2)(np.ones((3, 4, 2, 2), "f")), r"InstanceNorm2d\(2\): expected 2 channels"),
    ],
)
def test_errors_say_what_is_wrong(make, message):
    with pytest.raises(LayerError, match=message):
        make()


def test_repr_leaves_defaults_out():
    assert repr(GroupNorm(2, 4)) == "GroupNorm(2, 4)"
    assert repr(GroupNorm(2, 4, 1e-3, affine=False)) == "GroupNorm(2, 4, eps=0.001, affine=False)"
    assert repr(InstanceNorm2d(4)) == "InstanceNorm2d(4)"
    assert repr(InstanceNorm2d(4, 1e-3, 0.2, True, True)) == (
        "InstanceNorm2d(4, eps=0.001, momentum=0.2, affine=True, track_running_stats=True)"
    )
