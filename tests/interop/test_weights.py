"""Weights in and out: what is around them, their names, networks."""

import json

import numpy as np
import pytest
import reference
import safetensors.torch
import torch

import tinycnn
from tinycnn import models
from tinycnn.interop import CheckpointError, fit_names, load_network, load_weights, read_weights, save_for_torch
from tinycnn.interop.weights import obvious_rename

# ---- names -------------------------------------------------------------------------------------------------


@pytest.fixture
def lenet():
    return models.create("lenet5", seed=3)


def state_of(model, change=lambda name: name):
    return {change(name): torch.from_numpy(x) for name, x in model.state_dict().items()}


@pytest.mark.parametrize(
    "around",
    [
        lambda s: {"state_dict": s},
        lambda s: {"model": s, "optimizer": {"state": {}}, "epoch": 3},
        lambda s: {"model_state_dict": s, "loss": 0.5},
        lambda s: {"net": {"state_dict": s}},
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()},
        lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
        lambda s: {"epoch": 3, **s},
    ],
)
def test_what_is_around_weights_comes_off(around, lenet, tmp_path):
    torch.save(around(state_of(lenet)), tmp_path / "m.pt")
    other = models.create("lenet5", seed=4)
    assert load_weights(other, tmp_path / "m.pt") == ([], [])
    for name, x in lenet.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], x)


def test_a_prefix_that_not_all_names_have_stays(tmp_path):
    state = {"module.a": torch.ones(1), "module.b": torch.ones(1), "head": torch.ones(1)}
    torch.save(state, tmp_path / "m.pt")
    assert list(read_weights(tmp_path / "m.pt")) == list(state)


def test_one_of_several(lenet, tmp_path):
    other = state_of(models.create("lenet5", seed=9))
    torch.save({"model": state_of(lenet), "model_ema": other}, tmp_path / "m.pt")
    np.testing.assert_array_equal(read_weights(tmp_path / "m.pt", key="model_ema")["fc1.bias"], other["fc1.bias"])
    np.testing.assert_array_equal(read_weights(tmp_path / "m.pt")["fc1.bias"], lenet["fc1"].bias.data)
    with pytest.raises(CheckpointError, match="no state dict 'ema'; its keys are model, model_ema: choose one"):
        read_weights(tmp_path / "m.pt", key="ema")


def test_weights_under_a_key_of_their_own(lenet, tmp_path):
    """Nothing is wrong with the file: it is said where they are, and how to have them."""
    torch.save({"epoch": 3, "ema": state_of(lenet), "shadow": state_of(lenet), "opt": {"lr": 1}}, tmp_path / "m.pt")
    with pytest.raises(CheckpointError) as caught:
        read_weights(tmp_path / "m.pt")
    words = "its tensors are under ema, shadow: say which are wanted, by key (--key)"
    assert str(caught.value) == f"{tmp_path / 'm.pt'}: {words}"
    np.testing.assert_array_equal(read_weights(tmp_path / "m.pt", key="ema")["fc1.bias"], lenet["fc1"].bias.data)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1, 2], "it holds a list, and no state dict"),
        (torch.ones(3), "it holds a ndarray, and no state dict"),
        ({"epoch": 3}, "it holds no tensors; its keys are epoch: choose a file of weights$"),
        ({"state_dict": {"model": {"net": {"network": {}}}}}, "lies within too many others"),
        ({3: torch.ones(1)}, "a name that is none"),
        ({"a" * 2000: torch.ones(1)}, "a name that is none"),
        ({"a\x1b[2J": torch.ones(1)}, "a name that is none"),
    ],
)
def test_files_without_weights(value, words, tmp_path):
    torch.save(value, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=words) as caught:
        read_weights(tmp_path / "m.pt")
    assert len(str(caught.value)) < 500


def test_names_are_changed_on_request(lenet, tmp_path):
    torch.save(state_of(lenet, lambda n: n.replace("fc1.", "head.a.").replace("fc3.", "last.")), tmp_path / "m.pt")
    other = models.create("lenet5", seed=4)
    with pytest.raises(CheckpointError) as caught:
        load_weights(other, tmp_path / "m.pt")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/m.pt: ")
    assert "missing fc1.weight, fc1.bias, fc3.weight, fc3.bias (4 of 10)" in message
    assert "unexpected head.a.weight, head.a.bias, last.weight, last.bias (4 of 10)" in message
    assert "renaming head.a to fc1 would help" in message
    assert "say what to rename" in message
    assert load_weights(other, tmp_path / "m.pt", rename={"head.a": "fc1", "last.": "fc3."}) == ([], [])
    np.testing.assert_array_equal(other["fc3"].weight.data, lenet["fc3"].weight.data)


def test_requests_that_make_no_sense(lenet, tmp_path):
    torch.save(state_of(lenet), tmp_path / "m.pt")
    for options, words in [
        ({"rename": {"fc4": "fc5"}}, "rename: no name is, or lies under, 'fc4'; did you mean 'fc3'"),
        ({"drop": "aux*"}, r"drop: no name matches 'aux\*'"),
        ({"rename": {"fc1": "fc2"}}, "two of the arrays would be called 'fc2.weight'"),
    ]:
        with pytest.raises(CheckpointError, match=words):
            load_weights(lenet, tmp_path / "m.pt", **options)


def test_not_strict(lenet, tmp_path):
    torch.save({"fc3.bias": torch.ones(10), "head.bias": torch.ones(2)}, tmp_path / "m.pt")
    missing, unexpected = load_weights(lenet, tmp_path / "m.pt", strict=False)
    assert (len(missing), unexpected) == (9, ["head.bias"])
    assert (lenet["fc3"].bias.data == 1).all()


def test_a_rename_that_is_obvious(lenet, tmp_path):
    torch.save(state_of(lenet, lambda n: n.replace("fc3.", "last.")), tmp_path / "m.pt")
    assert obvious_rename(lenet, read_weights(tmp_path / "m.pt")) == {"last": "fc3"}
    torch.save(state_of(lenet), tmp_path / "m.pt")
    assert obvious_rename(lenet, read_weights(tmp_path / "m.pt")) == {}
    torch.save(state_of(lenet, lambda n: n.replace("fc3.w", "last.w")), tmp_path / "m.pt")
    assert obvious_rename(lenet, read_weights(tmp_path / "m.pt")) == {"last": "fc3"}
    torch.save(state_of(lenet, lambda n: n.replace("fc1.", "a.").replace("fc3.", "b.")), tmp_path / "m.pt")
    assert obvious_rename(lenet, read_weights(tmp_path / "m.pt")) == {}


def test_wrong_numbers_change_nothing(lenet, tmp_path):
    state = state_of(lenet)
    state["fc3.bias"] = torch.ones(10, dtype=torch.complex64)
    state["fc1.bias"] = torch.zeros(120)
    torch.save(state, tmp_path / "m.pt")
    before = lenet.state_dict()
    with pytest.raises(CheckpointError, match=r"fc3\.bias cannot be read as float32 numbers"):
        load_weights(lenet, tmp_path / "m.pt")
    for name, x in lenet.state_dict().items():
        np.testing.assert_array_equal(x, before[name])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_weights_of_other_precisions(dtype, lenet, tmp_path):
    state = {name: x.to(getattr(torch, dtype)) for name, x in state_of(lenet).items()}
    torch.save(state, tmp_path / "m.pt")
    load_weights(lenet, tmp_path / "m.pt")
    for name, x in lenet.state_dict().items():
        np.testing.assert_array_equal(x, state[name].float().numpy())


# ---- formats -----------------------------------------------------------------------------------------------


def test_safetensors_of_any_program(lenet, tmp_path):
    safetensors.torch.save_file(state_of(lenet, lambda n: f"module.{n}"), tmp_path / "m.safetensors", {"a": "b"})
    other = models.create("lenet5", seed=4)
    weights = read_weights(tmp_path / "m.safetensors")
    assert weights.extra == {"a": "b"}
    assert load_weights(other, weights) == ([], [])
    np.testing.assert_array_equal(other["fc3"].weight.data, lenet["fc3"].weight.data)


def test_checkpoints_of_our_own(lenet, tmp_path):
    tinycnn.save(lenet, tmp_path / "m.safetensors")
    other = models.create("lenet5", seed=4)
    assert load_weights(other, tmp_path / "m.safetensors") == ([], [])
    raw = bytearray((tmp_path / "m.safetensors").read_bytes())
    raw[-5] ^= 1
    (tmp_path / "m.safetensors").write_bytes(raw)
    with pytest.raises(CheckpointError, match="checksum does not fit"):
        load_weights(other, tmp_path / "m.safetensors")


@pytest.mark.parametrize("length", [0x80, 0x80 + 0x200, 0x2863])
def test_a_header_may_be_as_long_as_a_pickle_begins(length, tmp_path):
    """The first byte of a safetensors file is that of its header's length."""
    text = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode().ljust(length)
    (tmp_path / "m").write_bytes(len(text).to_bytes(8, "little") + text + np.ones(2, "<f4").tobytes())
    assert read_weights(tmp_path / "m")["a"].tolist() == [1, 1]


@pytest.mark.parametrize("raw", [b"", b"x", b"hello world, this is text", bytes(1000), b"\x89PNG\r\n\x1a\n" * 9])
def test_what_is_neither(raw, tmp_path):
    (tmp_path / "m.pth").write_bytes(raw)
    with pytest.raises(CheckpointError, match=r"m\.pth: (neither|refused|truncated|damaged)"):
        read_weights(tmp_path / "m.pth")


def test_there_is_no_file(tmp_path):
    with pytest.raises(CheckpointError, match="there is no such file"):
        read_weights(tmp_path / "m.pth")


def test_arrays_may_be_looked_at_by_other_names(lenet, tmp_path):
    torch.save(state_of(lenet), tmp_path / "m.pt")
    weights = read_weights(tmp_path / "m.pt")
    assert "last.bias" in fit_names(weights, [], {"fc3": "last"})
    assert len(fit_names(weights, [], drop="fc*")) == 4


@pytest.mark.parametrize(
    ("name", "net"),
    [("lenet5", reference.LeNet5), ("resnet20", lambda: reference.ResNetCifar(20)), ("resnet32", None)],
)
def test_pytorch_takes_what_is_written_for_it(name, net, tmp_path):
    model = models.create(name, seed=7)
    for x in model.buffers():
        x[...] = np.random.default_rng(2).uniform(1, 2, x.shape) if x.dtype.kind == "f" else 5
    net = reference.ResNetCifar(32) if net is None else net()
    save_for_torch(model, tmp_path / "m.safetensors")
    net.load_state_dict(safetensors.torch.load_file(tmp_path / "m.safetensors"), strict=True)
    ours = model.state_dict()
    for key, x in net.state_dict().items():
        np.testing.assert_array_equal(x.numpy(), ours[key])
        assert x.numpy().dtype == ours[key].dtype
    C, H, W = models.architecture(name).input_shape
    x = np.random.default_rng(3).standard_normal((2, C, H, W)).astype(np.float32)
    with torch.no_grad():
        expected = net.eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(model.eval()(x), expected, rtol=1e-3, atol=1e-4)
    tinycnn.save(model, tmp_path / "native.safetensors")  # and so it does a checkpoint
    net.load_state_dict(safetensors.torch.load_file(tmp_path / "native.safetensors"), strict=True)


@pytest.mark.parametrize("tracked", [True, False])
def test_a_prefix_is_an_obvious_rename_whatever_batchnorms_count(tracked, tmp_path):
    model = models.create("resnet20")
    state = state_of(model, lambda n: "net." + n)
    state = {name: x for name, x in state.items() if tracked or "num_batches" not in name}
    torch.save(state, tmp_path / "m.pt")
    assert obvious_rename(model, read_weights(tmp_path / "m.pt")) == {"net": ""}
    assert load_network(tmp_path / "m.pt", "resnet20", guess=True).renamed == {"net": ""}
    torch.save({**state, "net.more": torch.ones(1)}, tmp_path / "m.pt")
    assert obvious_rename(model, read_weights(tmp_path / "m.pt")) == {}
