"""``tinycnn export``."""

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest

from tinycnn import data, models
from tinycnn.train import load, save


def run(path, x):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options).run(["output"], {"input": x})[0]


def test_a_trained_network(command, trained):
    """From a run folder and from its file: what the file says about digits is what the network says."""
    test = data.prepare(data.load("digits", "test"), (32, 32))
    x, _ = next(data.Loader(test.images, test.labels, 50, shuffle=False, normalize=test.normalize).epoch(0))
    expected = load(trained)(x)
    for source in (trained, trained / "best.safetensors"):
        assert command("export", source, "net.onnx") == 0
        assert command.err == ""
        onnx.checker.check_model("net.onnx", full_check=True)
        np.testing.assert_allclose(run("net.onnx", x), expected, atol=1e-4 * np.abs(expected).max())


def test_what_was_written_is_said(command, tmp_path):
    assert command("export", "lenet5", "net.onnx") == 0
    size = (tmp_path / "net.onnx").stat().st_size
    assert command.out.splitlines() == [
        f"net.onnx: {size:,} bytes, opset 18, 12 nodes, float32",
        "input   N×1×32×32",
        "output  N×10",
    ]
    assert command.err == (
        "tinycnn: note: lenet5 is written with new weights, which know nothing: "
        "name a run or a checkpoint for trained ones\n"
    )
    np.testing.assert_allclose(
        run("net.onnx", np.ones((2, 1, 32, 32), np.float32)),
        models.create("lenet5").eval()(np.ones((2, 1, 32, 32), np.float32)),
        atol=1e-6,
    )


def test_json(command, tmp_path, trained):
    assert command("export", trained, "net.onnx", "--json", "--opset", 20) == 0
    assert command.json() == {
        "model": "lenet5",
        "weights": str(trained / "best.safetensors"),
        "path": "net.onnx",
        "bytes": (tmp_path / "net.onnx").stat().st_size,
        "opset": 20,
        "nodes": 12,
        "inputs": {"input": ["N", 1, 32, 32]},
        "outputs": {"output": ["N", 10]},
        "dtype": "float32",
    }
    assert command("export", "lenet5", "net.onnx", "--json") == 0
    assert command.json()["weights"] is None


def test_how_images_were_prepared_is_in_the_file(command, trained):
    assert command("export", trained, "net.onnx") == 0
    found = {entry.key: json.loads(entry.value) for entry in onnx.load("net.onnx").metadata_props}
    test = data.load("digits", "test")
    assert found["architecture"]["name"] == "lenet5"
    assert found["preprocessing"]["classes"] == list(test.classes)
    assert found["preprocessing"]["input_size"] == [32, 32]
    np.testing.assert_allclose(found["preprocessing"]["mean"], test.mean)


def test_another_size(command):
    for shape in ("3,45,40", "3x45x40"):
        assert command("export", "resnet20", "net.onnx", "--input-shape", shape, "--json") == 0
        assert command.json()["inputs"] == {"input": ["N", 3, 45, 40]}


def test_a_checkpoint_that_does_not_say_how_it_was_trained(command, tmp_path):
    save(models.create("lenet5", 7, 2), tmp_path / "m.safetensors")
    assert command("export", "m.safetensors", "net.onnx", "--json") == 0
    assert (command.json()["inputs"]["input"], command.json()["outputs"]["output"]) == (["N", 2, 32, 32], ["N", 7])


def test_a_run_called_as_an_architecture(command, tmp_path):
    (tmp_path / "lenet5").mkdir()
    save(models.create("lenet5", 3), tmp_path / "lenet5" / "best.safetensors")
    assert command("export", "lenet5", "net.onnx", "--json") == 0
    assert command.json()["outputs"]["output"] == ["N", 10]
    assert "(./lenet5 is the one here)" in command.err
    assert command("export", "./lenet5", "net.onnx", "--json") == 0
    assert command.json()["outputs"]["output"] == ["N", 3]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lenet", "a.onnx"], "unknown model 'lenet'; did you mean 'lenet5'?"),
        (["runs/a", "a.onnx"], "runs/a: there is no such file or folder"),
        (["a.safetensors", "a.onnx"], "a.safetensors: there is no such file or folder"),
        (["RUN/training_state.safetensors", "a.onnx"], "holds a training state, not weights"),
        (["lenet5", "nowhere/a.onnx"], "nowhere/a.onnx: No such file or directory"),
        (["lenet5", "."], ".: a folder, where a file is to be written"),
        (["lenet5", "a.onnx", "--input-shape", "28,28"], "--input-shape must be three numbers greater than 0, C,H,W"),
        (["lenet5", "a.onnx", "--input-shape", "1,1,32,32"], "--input-shape must be three numbers"),
        (["lenet5", "a.onnx", "--input-shape", "3,32,32"], "conv1 (Conv2d(1, 6, 5)): expected 1 channels"),
        (["lenet5", "a.onnx", "--input-shape", "1,40,40"], "fc1 (Linear(400, 120))"),
        (["lenet5", "a.onnx", "--opset", "9"], "opset must be from 18"),
        (["lenet5"], "Missing argument 'out'"),
    ],
)
def test_refuses(command, trained, arguments, words, tmp_path):
    before = set(tmp_path.iterdir())
    code = command("export", *(a.replace("RUN", str(trained)) for a in arguments))
    errors = [line for line in command.err.splitlines() if not line.startswith("tinycnn: note: ")]
    assert (code, command.out, len(errors)) == (2, "", 1)
    assert words in errors[0]
    assert set(tmp_path.iterdir()) == before


def test_without_the_library(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert command("export", "lenet5", "a.onnx") == 2
    assert command.err.splitlines()[-1].endswith("needs the library onnx: pip install 'tinycnn[onnx]'")
