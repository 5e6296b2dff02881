"""Networks out of files of weights; what it takes of time and memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import tinycnn
from tinycnn import models
from tinycnn.interop import CheckpointError, load_network, read_weights
from tinycnn.train import checkpoint


def saved(model, path, change=lambda name: name):
    torch.save({change(name): torch.from_numpy(x) for name, x in model.state_dict().items()}, path)
    return path


def test_networks_have_the_weights_of_the_file(tmp_path):
    model = models.create("resnet20", seed=3)
    for found in (
        load_network(saved(model, tmp_path / "a.pth"), "resnet20"),
        load_network(saved(model, tmp_path / "a.pth", lambda n: n.replace("fc", "x")), "resnet20", rename={"x": "fc"}),
        load_network(read_weights(saved(model, tmp_path / "b.pth")), "resnet20", pad_where="end"),
    ):
        assert not found.training
        assert found.renamed == {}
        for name, x in found.state_dict().items():
            np.testing.assert_array_equal(x, model.state_dict()[name])
    assert found.architecture["pad_where"] == "end"


def test_the_number_of_classes_is_that_of_the_weights(tmp_path):
    path = saved(models.create("lenet5", num_classes=7), tmp_path / "a.pth")
    assert load_network(path, "lenet5").architecture["num_classes"] == 7
    with pytest.raises(CheckpointError, match=r"fc3.weight has shape \(8, 84\), the state's has \(7, 84\)"):
        load_network(path, "lenet5", num_classes=8)


def test_our_own_files_know_their_network(tmp_path):
    tinycnn.save(models.create("resnet20", shortcut="B", num_classes=3), tmp_path / "a.safetensors")
    found = load_network(tmp_path / "a.safetensors")
    assert found.architecture == {"name": "resnet20", "num_classes": 3, "in_channels": 3, "shortcut": "B"}
    with pytest.raises(CheckpointError, match=r"holds resnet20 \(.*\), not resnet32: leave the name out"):
        load_network(tmp_path / "a.safetensors", "resnet32")


def test_other_files_do_not(tmp_path):
    path = saved(models.create("resnet20"), tmp_path / "resnet20-1234.pth")
    with pytest.raises(CheckpointError, match=r"does not say which network it is of: .*did you mean 'resnet20'"):
        load_network(path)


def test_a_name_is_guessed_on_request_alone(tmp_path):
    path = saved(models.create("resnet20"), tmp_path / "a.pth", lambda n: n.replace("fc", "linear"))
    with pytest.raises(CheckpointError, match="renaming linear to fc would help"):
        load_network(path, "resnet20")
    assert load_network(path, "resnet20", guess=True).renamed == {"linear": "fc"}
    with pytest.raises(CheckpointError, match="rename: no name is"):
        load_network(path, "resnet20", guess=True, rename={"last": "fc"})


MEASURE = """
import json, resource, sys, time
import safetensors, tinycnn
from tinycnn import interop, models
path, name = sys.argv[1:]
models.create("lenet5")
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
before, start = peak(), time.process_time()
model = tinycnn.load(path) if path.endswith(".safetensors") else interop.load_network(path, name)
seconds = time.process_time() - start
weights = sum(p.data.nbytes for p in model.parameters())
print(json.dumps({"seconds": seconds, "memory": peak() - before, "weights": weights}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="what getrusage counts differs between systems")
def test_vgg16_loads_without_a_second_copy_and_fast(tmp_path):
    """138 million weights: the memory of one copy, and less than 2 seconds of a processor."""
    model = models.create("vgg16", initialize=False)
    for p in model.parameters():
        p.data[...] = 0.5  # pages that are there
    tinycnn.save(model, tmp_path / "vgg16.safetensors")
    state = {name: torch.from_numpy(x) for name, x in model.state_dict().items()}
    torch.save(state, tmp_path / "vgg16.pth")
    torch.save(state, tmp_path / "vgg16_old.pth", _use_new_zipfile_serialization=False)
    for path in sorted(tmp_path.iterdir()):
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, path, "vgg16"], capture_output=True, text=True, check=True
        )
        found = json.loads(done.stdout)
        assert found["weights"] == 4 * 138_357_544
        assert found["memory"] < 1.1 * found["weights"], path
        assert found["seconds"] < 2, path


ODD = [[1], 5, "lenet5", {}, {"name": 5}, {"name": ["lenet5"]}, {"name": "nope"}]
ODD += [{"name": "lenet5", **option} for option in ({"num_classes": "x"}, {"num_classes": 10**9}, {"initialize": 1})]


@pytest.mark.parametrize("architecture", ODD, ids=str)
def test_our_own_files_that_name_no_network(architecture, tmp_path):
    path, model = tmp_path / "a.safetensors", models.create("lenet5")
    checkpoint.write(path, model.state_dict(), {"kind": "weights", "architecture": architecture})
    with pytest.raises(CheckpointError, match=r"a\.safetensors: cannot build the architecture it names"):
        load_network(path)
    with pytest.raises(CheckpointError, match=r"a\.safetensors: holds .*, the network is lenet5"):
        checkpoint.load_into(model, path)


def test_classes_of_weights_without_numbers_are_not_believed(tmp_path):
    torch.save({"fc3.weight": torch.ones(10**9, 0)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"fc3\.weight has shape"):
        load_network(tmp_path / "a.pth", "lenet5")
