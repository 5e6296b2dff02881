"""``tinycnn models``, ``summary`` and ``gradcheck``."""

import dataclasses

import pytest

from tinycnn import backend, contract, models
from tinycnn.layers import Conv2d


def test_models(command):
    assert command("models") == 0
    lines = command.out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == models.names()
    assert "61,706" in lines[0]
    assert "1×32×32" in lines[0]
    assert "LeCun" in lines[0]
    assert command("models", "--json") == 0
    first = command.json()["models"][0]
    assert (first["parameters"], first["macs"]) == (61_706, 416_520)


def test_summary(command):
    assert command("summary", "lenet5") == 0
    assert "61,706" in command.out
    assert "416,520" in command.out
    assert command("summary", "resnet20", "--input-shape", "2,1,28,28", "--num-classes", 7, "--json") == 0
    table = command.json()
    assert table["input_shape"] == [2, 1, 28, 28]
    assert table["layers"][-1]["output_shape"] == [2, 7]
    assert command("summary", "resnet18", "--json") == 0
    assert command.json()["parameters"] == models.architecture("resnet18").parameters  # of 1000 classes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lenet"], "unknown model 'lenet'; did you mean 'lenet5'?"),
        (["lenet5", "--input-shape", "1,1,8,8"], "conv2 (Conv2d(6, 16, 5)): the window covers 5×5"),
        (["lenet5", "--input-shape", "1,1,40,40"], "fc1 (Linear(400, 120))"),
        (["lenet5", "--input-shape", "28,28"], "--input-shape must be four numbers"),
        (["lenet5", "--input-shape", "1,1,0,28"], "--input-shape must be four numbers"),
        (["lenet5", "--num-classes", "99999999999"], "out of memory: use a smaller"),
        (["lenet5", "--num-classes", "0"], "num_classes must be at least 1"),
        ([], "MODEL"),
    ],
)
def test_summary_refuses(command, arguments, words):
    assert words.lower() in command.refused("summary", *arguments).lower()


def test_gradcheck_of_some_layers(command):
    assert command("gradcheck", "linear", "ReLU") == 0
    lines = command.out.splitlines()
    assert [line.split("  ")[0] for line in lines[:-1]] == ["Linear", "Linear no bias", "ReLU"]
    assert all(line.endswith("ok") and "e-" in line for line in lines[:-1])
    assert lines[-1] == "3 of 3 cases agree"


def test_gradcheck_on_a_gpu(command, gpu):
    assert command("gradcheck", "Linear", "Dropout", "BatchNorm2d", "--device", "cuda") == 0
    assert command.out.splitlines()[-1].endswith("cases agree")


def test_gradcheck_without_a_gpu(command, monkeypatch):
    monkeypatch.setattr(backend, "cuda_problem", lambda: "there is none")
    assert "device 'cuda' cannot be used: there is none" in command.refused("gradcheck", "--device", "cuda")


def test_gradcheck_takes_the_whole_table_by_default(command, monkeypatch):
    few = {name: case for name, case in contract.CASES.items() if name.startswith("L")}
    monkeypatch.setattr(contract, "CASES", few)
    assert command("gradcheck", "--json") == 0
    result = command.json()
    assert [row["layer"] for row in result["layers"]] == list(few)
    assert result["ok"]
    assert all(0 <= row["error"] < 1e-6 for row in result["layers"])


def test_gradcheck_of_a_wrong_backward(command, monkeypatch):
    class Wrong(Conv2d):
        def backward(self, dy):
            return 1.01 * super().backward(dy)

    case = dataclasses.replace(contract.CASES["Conv2d"], make=lambda rng: Wrong(4, 6, 3, rng=rng))
    monkeypatch.setitem(contract.CASES, "Conv2d", case)
    assert command("gradcheck", "Conv2d", "ReLU") == 1
    assert command.err == "tinycnn: error: wrong gradients: Conv2d\n"
    assert "WRONG" in command.out
    assert command("gradcheck", "Conv2d", "--json") == 1
    assert not command.json()["ok"]


def test_gradcheck_refuses(command):
    assert "unknown layer 'Cov2d'; did you mean 'Conv2d'?" in command.refused("gradcheck", "Cov2d")
    assert "--seed" in command.refused("gradcheck", "ReLU", "--seed", -1)
