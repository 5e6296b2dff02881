"""State dicts out and in."""

import numpy as np
import pytest

from tinycnn import Linear
from tinycnn.layers import state as state_module
from tinycnn.layers.base import LayerError
from tinycnn.models import create


def test_state_is_copied_both_ways():
    model, other = create("resnet20", seed=1), create("resnet20", seed=2)
    state = model.state_dict()
    other.load_state_dict(state)
    state["conv1.weight"][:] = 0
    assert (model.state_dict()["conv1.weight"] != 0).any()
    assert (other.state_dict()["conv1.weight"] != 0).any()


def test_loading_is_all_or_nothing():
    model = create("lenet5")
    before = model.state_dict()
    state = create("lenet5", seed=3).state_dict()
    for change, message in [
        (lambda s: s.pop("fc3.bias"), "missing fc3.bias"),
        (lambda s: s.update(extra=np.ones(1)), "unexpected extra"),
        (lambda s: s.update({"fc3.bias": np.ones(11)}), r"fc3.bias has shape \(10,\), the state's has \(11,\)"),
    ]:
        changed = dict(state)
        change(changed)
        with pytest.raises(LayerError, match=message):
            model.load_state_dict(changed)
        for name, value in model.state_dict().items():
            np.testing.assert_array_equal(value, before[name])


def test_all_that_does_not_fit_is_said_at_once():
    state = create("lenet5", seed=3).state_dict()
    state["fc2.bias"], state["fc1.bias"], state["conv1.weight"] = np.ones(85), np.ones((120, 1)), np.ones((6, 3, 5, 5))
    state["last.weight"], state["last.bias"] = state.pop("fc3.weight"), state.pop("fc3.bias")
    with pytest.raises(LayerError) as caught:
        create("lenet5").load_state_dict(state)
    for words in [
        "missing fc3.weight, fc3.bias (2 of 10)",
        "unexpected last.weight, last.bias (2 of 10)",
        "conv1.weight has shape (6, 1, 5, 5), the state's has (6, 3, 5, 5)",
        "fc1.bias has shape (120,), the state's has (120, 1)",
        "fc2.bias has shape (84,), the state's has (85,)",
        "renaming last to fc3 would help",
    ]:
        assert words in str(caught.value)


def test_arrays_that_do_not_copy_themselves_are_taken_piece_by_piece(monkeypatch):
    """A mapping that says `release` is told after every piece, and values arrive whole, in any type and order."""
    monkeypatch.setattr(state_module, "PIECE", 400)

    class Mapped(dict):
        released = 0

        def release(self):
            Mapped.released += 1

    model = create("resnet20")
    source = create("resnet20", seed=5).state_dict()
    values = Mapped({name: x.astype(np.float64) if x.dtype.kind == "f" else x for name, x in source.items()})
    model.load_state_dict(values)
    assert Mapped.released > 500
    for name, x in model.state_dict().items():
        np.testing.assert_array_equal(x, source[name])


def test_not_strict_says_what_it_left_and_never_loads_nothing():
    model = create("lenet5")
    missing, unexpected = model.load_state_dict({"fc3.bias": np.ones(10), "head.bias": np.ones(2)}, strict=False)
    assert "fc3.weight" in missing
    assert unexpected == ["head.bias"]
    assert (model.state_dict()["fc3.bias"] == 1).all()
    with pytest.raises(LayerError, match="none of the 1 names given"):
        model.load_state_dict({"module.fc3.bias": np.ones(10)}, strict=False)


def test_old_files_lack_the_batch_counter():
    model = create("resnet20")
    state = {name: value for name, value in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert model.load_state_dict(state) == ([], [])


@pytest.mark.parametrize("bad", [np.array(["a"] * 3), np.array([None] * 3, object), np.ones(3, complex)])
def test_an_entry_that_is_no_number_changes_nothing(bad):
    layer = Linear(2, 3)
    before = layer.state_dict()
    with pytest.raises(LayerError, match="bias cannot be read as float32 numbers"):
        layer.load_state_dict({"weight": np.ones((3, 2)), "bias": bad})
    np.testing.assert_array_equal(layer.state_dict()["weight"], before["weight"])
