"""Loss scaling, on a GPU or its stand-in."""

import numpy as np
import pytest

from tinycnn import optim
from tinycnn.parameter import Parameter


def make(**options):
    p = Parameter(np.array([1.0, 2.0, 3.0], np.float32))
    p.to("cuda")
    optimizer = optim.SGD([p], lr=0.5, momentum=0.9)
    return p, optimizer, optim.GradScaler(optimizer, **options)


def step(p, optimizer, scaler, gradient, max_norm=np.inf):
    """One update by the gradient of the scaled loss."""
    optimizer.prepare()
    p.zero_grad()
    p.accumulate(scaler.scale(gradient))
    norm = scaler.unscale(max_norm)
    optimizer.apply()
    scaler.update()
    return float(norm)


def test_updates_are_those_of_the_plain_optimizer(gpu):
    scaled, plain = make(init_scale=1024.0, growth_interval=2), make()[:2]
    plain[1].guard()
    for t in range(5):
        g = np.array([0.5, -1.0, t], np.float32)
        norm = step(*scaled, gpu.asarray(g))
        assert norm == pytest.approx(np.linalg.norm(g), rel=1e-6)
        plain[0].grad[...] = gpu.asarray(g)
        plain[1].step()
        np.testing.assert_array_equal(scaled[0].data.get(), plain[0].data.get())  # powers of two change no digit
    assert scaled[2].get_scale() == 4096


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_an_overflow_leaves_the_update_out_and_halves_the_scale(gpu, bad):
    p, optimizer, scaler = make(init_scale=8.0, growth_interval=2)
    step(p, optimizer, scaler, gpu.ones(3, np.float32))
    before, velocity = p.data.get(), optimizer.state["velocity"].get()
    step(p, optimizer, scaler, gpu.asarray(np.array([1, bad, 0], np.float32)))
    np.testing.assert_array_equal(p.data.get(), before)
    np.testing.assert_array_equal(optimizer.state["velocity"].get(), velocity)
    assert scaler.get_scale() == 4
    assert optimizer.state_dict()["past"]["#0" if not p.name else p.name]["step"] == 1
    step(p, optimizer, scaler, gpu.ones(3, np.float32))
    assert scaler.get_scale() == 4  # the count of good updates began anew
    step(p, optimizer, scaler, gpu.ones(3, np.float32))
    assert scaler.get_scale() == 8


def test_clipping_is_of_the_unscaled_gradient(gpu):
    p, optimizer, scaler = make(init_scale=256.0)
    step(p, optimizer, scaler, gpu.asarray(np.array([3, 0, 4], np.float32)), max_norm=1.0)
    np.testing.assert_allclose(p.data.get(), [1 - 0.5 * 0.6, 2, 3 - 0.5 * 0.8], rtol=1e-6)


def test_state(gpu):
    p, optimizer, scaler = make(init_scale=2.0, growth_interval=3)
    for _ in range(4):
        step(p, optimizer, scaler, gpu.ones(3, np.float32))
    other = make(growth_interval=3)
    other[2].load_state_dict(scaler.state_dict())
    assert other[2].state_dict() == scaler.state_dict() == {"scale": 4.0, "good": 1}
    for _ in range(2):
        step(*other, gpu.ones(3, np.float32))
    assert other[2].get_scale() == 8


@pytest.mark.parametrize(
    "bad", [{"init_scale": 0}, {"growth_factor": 1}, {"backoff_factor": 1}, {"growth_interval": 0}]
)
def test_numbers_out_of_range_are_refused(gpu, bad):
    with pytest.raises(ValueError, match=f"GradScaler: {next(iter(bad))} must"):
        make(**bad)


def test_parameters_on_the_cpu_are_refused():
    with pytest.raises(ValueError, match="on a GPU"):
        optim.GradScaler(optim.SGD([Parameter(np.ones(3, np.float32))]))
