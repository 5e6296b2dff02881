"""Parameters and their flat buffers."""

import numpy as np
import pytest

from tinycnn.models import create
from tinycnn.parameter import FlatParameters, Parameter, channels_last


def some_parameters():
    rng = np.random.default_rng(0)
    shapes = [(5, 3, 2, 4), (5,), (7, 3), (2, 2, 1, 1)]
    return [Parameter(rng.standard_normal(shape), f"p{i}") for i, shape in enumerate(shapes)]


def test_channels_last_keeps_values_and_copies_only_when_needed():
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    y = channels_last(x)
    np.testing.assert_array_equal(x, y)
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous
    assert np.shares_memory(channels_last(y), y)
    assert channels_last(x[0, 0].T).flags.c_contiguous
    assert channels_last(np.array(1.0)).shape == ()


def test_gradients_begin_as_zeros_in_the_order_of_the_values():
    for shape in [(2, 3, 4, 5), (7, 3), (4,), (0, 3)]:
        p = Parameter(np.ones(shape, np.float32))
        assert not p.grad.any()
        assert (p.grad.shape, p.grad.dtype, p.grad.strides) == (shape, np.float32, p.data.strides)


def test_converting_to_the_type_it_has_copies_nothing():
    p = Parameter(np.ones((2, 3)))
    data, grad = p.data, p.grad
    p.astype(np.float64)
    assert p.data is data
    assert p.grad is grad
    p.astype(np.float32)
    assert (p.data.dtype, p.grad.dtype) == (np.float32, np.float32)


def test_a_frozen_parameter_takes_no_gradient():
    p = Parameter(np.ones(3))
    p.accumulate(np.ones(3))
    p.requires_grad = False
    p.accumulate(np.ones(3))
    np.testing.assert_array_equal(p.grad, np.ones(3))
    p.zero_grad()
    np.testing.assert_array_equal(p.grad, np.zeros(3))


def test_flat_buffers_hold_values_and_gradients_as_views():
    parameters = some_parameters()
    values = [p.data.copy() for p in parameters]
    parameters[1].grad[...] = 3
    flat = FlatParameters(parameters)
    for p, value, span in zip(parameters, values, flat.spans, strict=True):
        np.testing.assert_array_equal(p.data, value)
        assert span.start % FlatParameters.ALIGN == 0
        assert np.shares_memory(p.data, flat.data[span])
        assert np.shares_memory(p.grad, flat.grad[span])
    np.testing.assert_array_equal(parameters[1].grad, np.full(5, 3.0))
    flat.data *= 2
    flat.grad[:] += 1
    for p, value in zip(parameters, values, strict=True):
        np.testing.assert_array_equal(p.data, 2 * value)
    assert (parameters[0].grad == 1).all()
    # the weight matrix of a convolution is a view: (OC, C, KH, KW) -> (OC, KH·KW·C)
    assert np.shares_memory(parameters[0].data.transpose(0, 2, 3, 1).reshape(5, -1), flat.data)


def test_buffers_begin_at_cache_lines():
    for size in (1, 100, 100_000):
        flat = FlatParameters([Parameter(np.ones(size, np.float32)), Parameter(np.ones(3, np.float32))])
        another = flat.new_buffer()
        assert another.shape == flat.data.shape
        assert another.dtype == flat.data.dtype
        assert not another.any()
        for buffer in (flat.data, flat.grad, another, *(p.data for p in flat.parameters)):
            assert buffer.ctypes.data % 64 == 0
        flat.check()


def test_runs_are_the_fewest_spans():
    parameters = some_parameters()
    flat = FlatParameters(parameters)
    assert flat.runs(parameters) == [slice(0, flat.spans[-1].stop)]
    assert flat.runs([parameters[0], parameters[1], parameters[3]]) == [
        slice(0, flat.spans[1].stop),
        flat.spans[3],
    ]
    assert flat.runs([]) == []


def test_a_parameter_that_left_is_noticed():
    model = create("lenet5")
    flat = FlatParameters(model.parameters())
    flat.check()
    model.load_state_dict(create("lenet5", seed=1).state_dict())
    flat.check()
    model.astype(np.float64)
    with pytest.raises(RuntimeError, match=r"conv1\.weight has left .* then make the optimizer"):
        flat.check()


def test_a_gradient_that_was_replaced_is_noticed():
    parameters = some_parameters()
    flat = FlatParameters(parameters)
    parameters[1].grad = np.ones(5)
    with pytest.raises(RuntimeError, match="p1 has left"):
        flat.check()


def test_bad_collections_are_refused():
    with pytest.raises(ValueError, match="no parameters"):
        FlatParameters([])
    p = Parameter(np.ones(2))
    with pytest.raises(ValueError, match="twice"):
        FlatParameters([p, p])
    with pytest.raises(ValueError, match="one device and dtype"):
        FlatParameters([p, Parameter(np.ones(2, np.float32))])


def test_a_parameter_is_of_floating_point_numbers():
    for dtype in (int, np.float16):
        with pytest.raises(ValueError, match="must be float32 or float64"):
            Parameter(np.ones(2, dtype))


def test_a_cleared_gradient_reads_as_zeros_and_is_replaced_by_the_next():
    for read_between in (False, True):
        p = Parameter(np.ones(3))
        p.accumulate(np.full(3, 2.0))
        p.zero_grad()
        if read_between:
            np.testing.assert_array_equal(p.grad, np.zeros(3))
        p.accumulate(np.full(3, 5.0))
        p.accumulate(np.full(3, 6.0))
        np.testing.assert_array_equal(p.grad, np.full(3, 11.0))


def test_a_clear_gradient_is_handed_out_once_to_be_written_over_and_never_when_frozen():
    p = Parameter(np.ones(3))
    assert p.take_clear_grad() is None
    p.zero_grad()
    p.requires_grad = False
    assert p.take_clear_grad() is None
    p.requires_grad = True
    clear = p.take_clear_grad()
    clear[...] = 7
    assert p.take_clear_grad() is None
    np.testing.assert_array_equal(p.grad, np.full(3, 7.0))


def test_a_sink_is_written_over_once_and_then_added_to():
    p = Parameter(np.ones(3))
    assert p.sink()[0] is p.grad
    assert p.sink()[1]
    p.zero_grad()
    grad, add = p.sink()
    assert not add
    grad[...] = 7
    assert p.sink()[1]
    np.testing.assert_array_equal(p.grad, np.full(3, 7.0))
    p.zero_grad()
    p.requires_grad = False
    assert p.sink() is None


def test_the_flat_gradients_of_cleared_parameters_are_zeros():
    parameters = some_parameters()
    flat = FlatParameters(parameters)
    for p in parameters:
        p.grad[...] = 1
        p.zero_grad()
    parameters[1].accumulate(np.full(5, 3.0))
    flat.check()
    assert flat.grad.sum() == 15
    parameters[0].zero_grad()
    parameters[0].grad = np.ones(parameters[0].shape)  # an array of one's own is not cleared
    assert (parameters[0].grad == 1).all()


def test_the_gaps_of_the_gradients_can_be_cleared():
    parameters = [Parameter(np.ones(n)) for n in (3, 16, 5)]
    flat = FlatParameters(parameters)
    flat.grad.fill(np.nan)
    for p in parameters:
        p.grad[...] = 2
    flat.clear_gaps()
    assert flat.grad.sum() == 2 * (3 + 16 + 5)
