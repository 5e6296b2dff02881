"""Checkpoints: what goes in comes out, and nothing damaged or foreign gets in."""

import json
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from tinycnn import models
from tinycnn.train import CheckpointError, checkpoint, load, load_into, save, tensors


@pytest.fixture
def model():
    return models.create("lenet5", num_classes=7, in_channels=2, seed=3)


@pytest.fixture
def path(model, tmp_path):
    save(model, tmp_path / "a.safetensors", note="hello")
    return tmp_path / "a.safetensors"


@pytest.mark.parametrize("name", ["lenet5", "lenet5_1998", "resnet20", "plain20"])
def test_round_trip(name, tmp_path):
    model = models.create(name, seed=5)
    for _, buffer in model.named_buffers():
        if buffer.dtype.kind == "f":
            buffer += np.float32(0.25)
    save(model, tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    assert again.architecture == model.architecture
    assert not any(layer.training for layer in again.layers())
    before, after = model.state_dict(), again.state_dict()
    assert list(before) == list(after)
    assert all(np.array_equal(before[n], after[n]) and before[n].dtype == after[n].dtype for n in before)


def test_options_of_the_architecture_and_precision_survive(tmp_path):
    model = models.create("resnet20", shortcut="B", seed=1).astype("float64")
    save(model, tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    assert again.architecture["shortcut"] == "B"
    assert {p.dtype.name for p in again.parameters()} == {"float64"}


def test_other_programs_can_read_it(model, path):
    with safetensors.safe_open(path, "np") as file:
        assert np.array_equal(file.get_tensor("conv1.weight"), model.state_dict()["conv1.weight"])
        assert json.loads(file.metadata()["architecture"])["name"] == "lenet5"
        assert json.loads(file.metadata()["note"]) == "hello"


def test_loading_into_another_architecture_is_refused(path):
    with pytest.raises(CheckpointError, match=r"holds lenet5 .*, the network is resnet20"):
        load_into(models.create("resnet20"), path)
    other = models.create("lenet5", num_classes=7, in_channels=2, seed=9)
    load_into(other, path)
    assert np.array_equal(other["conv1"].weight.data, load(path)["conv1"].weight.data)


def test_weights_of_another_architecture_under_its_name(model, tmp_path):
    path = tmp_path / "m.safetensors"
    wrong = {"name": "lenet5", "num_classes": 7, "in_channels": 3}
    checkpoint.write(path, model.state_dict(), {"kind": "weights", "architecture": wrong})
    with pytest.raises(CheckpointError, match=r"its weights are not those of lenet5 .*conv1.weight has shape"):
        load(path)


def test_architecture_of_a_later_version(model, tmp_path):
    path = tmp_path / "m.safetensors"
    checkpoint.write(path, model.state_dict(), {"kind": "weights", "architecture": {"name": "lenet9"}})
    with pytest.raises(CheckpointError, match=r"cannot build the architecture .*unknown model 'lenet9'"):
        load(path)


@pytest.mark.parametrize(
    "architecture",
    [
        "lenet5",
        ["lenet5"],
        {},
        {"name": ["lenet5"]},
        {"name": "lenet5", "num_classes": "7"},
        {"name": "lenet5", "num_classes": 10**12},
        {"name": "resnet20", "in_channels": 10**13},
        {"name": "resnet20", "shortcut": {"a": 1}},
        {"name": "lenet5", "initialize": True},
        {"name": "lenet5", "seed": "x"},
    ],
)
def test_architectures_that_make_no_sense(architecture, model, tmp_path):
    """Whatever a file says: no time, no memory, one kind of error."""
    path = tmp_path / "m.safetensors"
    checkpoint.write(path, model.state_dict(), {"kind": "weights", "architecture": architecture})
    with pytest.raises(CheckpointError, match=r"m\.safetensors: (cannot build|its weights are not those of)"):
        load(path)


def test_metadata_that_is_no_json(model, tmp_path):
    path = tmp_path / "m.safetensors"
    for text in ("{", "[" * 100_000):
        metadata = {"tinycnn": '"0"', "kind": '"weights"', "architecture": text}
        metadata["checksum"] = json.dumps(checkpoint._checksum(model.state_dict(), metadata))
        tensors.write_tensors(path, model.state_dict(), metadata)
        with pytest.raises(CheckpointError, match="damaged: its checksum"):
            load(path)


def test_a_network_that_cannot_be_rebuilt_is_not_saved(tmp_path):
    layer = models.create("lenet5")["conv1"]
    with pytest.raises(ValueError, match="no attribute 'architecture'"):
        save(layer, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"Network was fused, .*: save the network it was made from"):
        save(models.create("resnet20").fuse(), tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


# ---- damage ------------------------------------------------------------------------------------------------


def damaged(path, content):
    other = path.with_name("damaged.safetensors")
    other.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        load(other)
    assert str(other) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("keep", [0, 5, 8, 60, 0.5, -1])
def test_truncated(path, keep):
    raw = path.read_bytes()
    words = damaged(path, raw[: int(keep * len(raw)) if isinstance(keep, float) else keep])
    assert "truncated" in words


def test_trailing_bytes(path):
    assert "truncated, or has bytes too many" in damaged(path, path.read_bytes() + b"x")


@pytest.mark.parametrize("where", [-1, -1000, -40000])
def test_one_flipped_bit_in_a_weight(path, where):
    raw = bytearray(path.read_bytes())
    raw[where] ^= 4
    assert "checksum does not fit" in damaged(path, bytes(raw))


def test_damage_is_told_before_what_it_leads_to(path):
    raw = path.read_bytes()
    assert raw.count(b"lenet5") == 1
    assert "checksum does not fit" in damaged(path, raw.replace(b"lenet5", b"lenet9"))


def test_changed_metadata(path):
    raw = path.read_bytes()
    assert raw.count(b"hello") == 1
    assert "checksum does not fit" in damaged(path, raw.replace(b"hello", b"jello"))


def test_not_safetensors_at_all(path):
    assert "not a safetensors file" in damaged(path, pickle.dumps({"conv1.weight": np.zeros(3)}) * 20)
    assert "not a safetensors file" in damaged(path, b"PK\x03\x04" + bytes(range(256)) * 9)
    header = b'{"a": [1, 2'
    assert "damaged" in damaged(path, struct.pack("<Q", len(header)) + header)


def test_foreign_safetensors(path):
    foreign = safetensors.numpy.save({"layer.weight": np.zeros(3)}, metadata={"format": "pt"})
    assert "not one of tinycnn's" in damaged(path, foreign)
    assert "not one of tinycnn's" in damaged(path, safetensors.numpy.save({"a": np.zeros(3)}))


def test_training_state_is_no_checkpoint(path):
    checkpoint.write(path, {"a": np.zeros(2)}, {"kind": "training state"})
    with pytest.raises(CheckpointError, match=r"holds a training state, not weights: best\.safetensors"):
        load(path)


def test_missing(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        load(tmp_path / "nowhere.safetensors")
    with pytest.raises(CheckpointError, match=r"has no best\.safetensors"):
        load(tmp_path)


def test_a_folder_means_its_best_weights(model, tmp_path):
    save(model, tmp_path / "best.safetensors")
    assert np.array_equal(load(tmp_path)["fc1"].bias.data, model["fc1"].bias.data)


WRITE = """
import sys, numpy as np
from tinycnn.train.checkpoint import write
write(sys.argv[1], {"b": np.ones((2, 3)), "a": np.zeros(1, "f")}, {"kind": "weights", "ü": [1], "z": 2, "m": 3})
"""


def test_equal_contents_are_equal_bytes(tmp_path):
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        subprocess.run([sys.executable, "-c", WRITE, path], check=True)
    assert len({path.read_bytes() for path in paths}) == 1
    assert checkpoint.read(paths[0], "weights").metadata["ü"] == [1]
    assert safetensors.numpy.load_file(paths[0])["b"].shape == (2, 3)


def test_weights_in_half_precision_are_computed_with_in_single(model, path):
    halves = {k: v.astype(np.float16) if v.dtype.kind == "f" else v for k, v in model.state_dict().items()}
    checkpoint.write(path, halves, {"kind": "weights", "architecture": model.architecture})
    for name, x in load(path).state_dict().items():
        assert x.dtype == model.state_dict()[name].dtype
        np.testing.assert_array_equal(x, halves[name])


def test_a_file_without_an_architecture_is_not_of_a_network(model, path):
    checkpoint.write(path, model.state_dict(), {"kind": "weights"})
    with pytest.raises(CheckpointError, match="holds no architecture, the network is"):
        load_into(model, path)
