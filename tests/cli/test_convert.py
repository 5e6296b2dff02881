"""``tinycnn convert``, and ``eval`` of weights from elsewhere."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import reference
import safetensors.torch
import torch
from references.googlenet import GoogLeNet

from tinycnn import data, models
from tinycnn.train import load

RESNET20 = Path(os.environ.get("TINYCNN_DATA", "nowhere")) / "weights" / "resnet20-12fca82f.th"


@pytest.fixture
def net(tmp_path):
    """LeNet-5 in PyTorch, in net.pth; its classifier is called ``last`` in renamed.pth."""
    torch.manual_seed(3)
    net = reference.LeNet5()
    torch.save(net.state_dict(), tmp_path / "net.pth")
    torch.save({k.replace("fc3", "last"): v for k, v in net.state_dict().items()}, tmp_path / "renamed.pth")
    return net


def test_from_pytorch_and_back(command, net):
    assert command("convert", "net.pth", "net.safetensors", "--model", "lenet5") == 0
    assert command.out == "net.safetensors: lenet5, 10 arrays, 61,706 numbers, checkpoint\n"
    assert command.err == ""
    model = load("net.safetensors")
    assert model.architecture["name"] == "lenet5"
    for name, x in net.state_dict().items():
        np.testing.assert_array_equal(model.state_dict()[name], x.numpy())
    assert command("convert", "net.safetensors", "back.safetensors", "--json") == 0
    assert command.json() == {
        "source": "net.safetensors",
        "out": "back.safetensors",
        "format": "torch",
        "model": "lenet5",
        "arrays": 10,
        "numbers": 61_706,
    }
    again = reference.LeNet5()
    again.load_state_dict(safetensors.torch.load_file("back.safetensors"), strict=True)
    assert all(torch.equal(again.state_dict()[name], x) for name, x in net.state_dict().items())


def test_names(command, net):
    for option in (["--rename", "last=fc3"], []):
        assert command("convert", "renamed.pth", "a.safetensors", "--model", "lenet5", *option) == 0
        assert command.err == ("" if option else "tinycnn: note: last in the file is taken for fc3\n")
        np.testing.assert_array_equal(load("a.safetensors")["fc3"].bias.data, net.fc3.bias.detach().numpy())
    assert command("convert", "renamed.pth", "a.safetensors", "--to", "torch", "--drop", "last*") == 0
    assert command.out == "a.safetensors: weights, 8 arrays, 60,856 numbers, state dict for PyTorch\n"


def test_heads_that_are_left_out_are_named(command, tmp_path):
    state = {name: torch.zeros(p.shape) for name, p in GoogLeNet(heads=True).state_dict().items()}
    torch.save(state, tmp_path / "net.pth")
    assert command("convert", "net.pth", "a.safetensors", "--model", "googlenet") == 0
    assert "aux1, aux2 in the file is left out" in command.err
    assert command("convert", "net.pth", "a.safetensors", "--model", "googlenet", "--option", "aux_heads=true") == 0
    assert command.err == ""


def test_a_checkpoint_in_place_of_itself(command, trained, tmp_path):
    (tmp_path / "a.safetensors").write_bytes((trained / "best.safetensors").read_bytes())
    assert command("convert", "a.safetensors", "a.safetensors", "--to", "native") == 0
    assert (tmp_path / "a.safetensors").read_bytes() == (trained / "best.safetensors").read_bytes()


def test_options_of_the_architecture(command, tmp_path):
    model = models.create("resnet20", shortcut="B", num_classes=7)
    torch.save({name: torch.from_numpy(x) for name, x in model.state_dict().items()}, tmp_path / "b.pth")
    options = ["--option", "shortcut=B", "--option", "num_classes=7"]
    assert command("convert", "b.pth", "b.safetensors", "--model", "resnet20", *options) == 0
    assert load("b.safetensors").architecture == model.architecture


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["net.pth", "a.safetensors"], "net.pth: does not say which network it is of: name it (model)"),
        (["net.pth", "a.pth", "--model", "lenet5"], "let its name end in .safetensors"),
        (["net.pth", "a.safetensors", "--model", "lenet6"], "unknown model 'lenet6'; did you mean 'lenet5'?"),
        (["net.pth", "a.safetensors", "--model", "resnet20"], "missing bn1.weight"),
        (["net.pth", "a.safetensors", "--to", "onnx"], "--to must be native or torch, got 'onnx'"),
        (["net.pth", "a.safetensors", "--to", "torch", "--rename", "fc"], "--rename must be NAME=NAME, got 'fc'"),
        (["net.pth", "a.safetensors", "--model", "lenet5", "--option", "name=x"], "name is no argument"),
        (["net.pth", "a.safetensors", "--model", "lenet5", "--option", "depth=3"], "--option: "),
        (["net.pth", "a.safetensors", "--model", "lenet5", "--key", "ema"], "it has no state dict 'ema'"),
        (["net.pth", "a.safetensors", "--to", "torch", "--drop", "aux*"], "drop: no name matches 'aux*'"),
        (["nowhere.pth", "a.safetensors"], "nowhere.pth: there is no such file"),
        (["text.pth", "a.safetensors"], "text.pth: neither a file of torch.save nor a safetensors file"),
        (["net.pth", "no/a.safetensors", "--to", "torch"], "no/a.safetensors: No such file"),
    ],
)
def test_convert_refuses(command, net, tmp_path, arguments, words):
    (tmp_path / "text.pth").write_text("hello world")
    assert words in command.refused("convert", *arguments)
    assert not (tmp_path / "a.safetensors").exists()


def test_a_pickle_that_wants_more_is_refused(command, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, ("touch canary",)

    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    assert f"refers to {os.system.__module__}.system" in command.refused("convert", "evil.pth", "a.safetensors")
    assert {p.name for p in tmp_path.iterdir()} == {"evil.pth"}


# ---- eval --weights ----------------------------------------------------------------------------------------


def accuracy_of(net, images):
    test = data.load("digits", "test")
    x = torch.from_numpy(np.ascontiguousarray(images))
    with torch.no_grad():
        return float((net(x).argmax(1).numpy() == test.labels).mean())


@pytest.mark.parametrize("normalize", ["none"])
def test_eval_of_pytorchs_weights(command, net, normalize):
    test = data.prepare(data.load("digits", "test"), (32, 32))
    expected = accuracy_of(net, test.images.astype(np.float32) / 255)
    arguments = ["--data", "digits", "--normalize", normalize, "--json", "--model", "lenet5"]
    for name, note in [("net.pth", ""), ("renamed.pth", "tinycnn: note: last in the file is taken for fc3\n")]:
        assert command("eval", "--weights", name, *arguments) == 0
        assert command.json()["test_accuracy"] == pytest.approx(expected)
        assert (command.json()["model"], command.json()["checkpoint"]) == ("lenet5", name)
        assert command.err == note


def test_eval_of_weights_under_a_key(command, net, tmp_path):
    torch.save({"ema": net.state_dict(), "epoch": 3}, tmp_path / "ema.pth")
    test = data.prepare(data.load("digits", "test"), (32, 32))
    arguments = ["--weights", "ema.pth", "--data", "digits", "--normalize", "none", "--json", "--model", "lenet5"]
    assert "ema.pth: its tensors are under ema: say which are wanted, by key (--key)" in command.refused(
        "eval", *arguments
    )
    assert command("eval", *arguments, "--key", "ema") == 0
    expected = accuracy_of(net, test.images.astype(np.float32) / 255)
    assert command.json()["test_accuracy"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("cifar10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        ("inception", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("none", (0, 0, 0), (1, 1, 1)),
    ],
)
def test_images_are_prepared_as_said(command, tmp_path, monkeypatch, name, mean, std):
    """What reaches the network, held to the formula."""
    from tinycnn import train

    digits = data.load("digits", "test")
    colour = np.concatenate([digits.images, 255 - digits.images, digits.images // 2], axis=1)
    dataset = data.Dataset("colour", "test", colour, digits.labels, digits.classes, digits.mean * 3, digits.std * 3)
    monkeypatch.setattr(data, "load", lambda *_: dataset)
    torch.save(reference.ResNetCifar(20).state_dict(), tmp_path / "net.pth")
    seen = []

    def look(model, loader, loss_fn):
        x, y = next(loader.epoch(0))
        seen.append(x)
        loss_fn(np.zeros((len(y), 10), np.float32), y)
        return {"accuracy": 0.5, "loss": 1.0}

    monkeypatch.setattr(train, "evaluate", look)
    arguments = ["--model", "resnet20", "--data", "colour", "--normalize", name]
    assert command("eval", "--weights", "net.pth", *arguments) == 0
    images = data.prepare(dataset, (32, 32)).images[: len(seen[0])]
    expected = (images / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    np.testing.assert_allclose(seen[0], expected, atol=2e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name either a run or a checkpoint, or a file of weights"),
        (["RUN", "--weights", "net.pth"], "name either a run or a checkpoint, or a file of weights"),
        (["RUN", "--normalize", "none"], "are for --weights: a run knows them"),
        (["RUN", "--key", "ema"], "are for --weights: a run knows them"),
        (["--weights", "net.pth", "--model", "lenet5"], "name a dataset with --data, and --normalize"),
        (["--weights", "net.pth", "--data", "digits", "--normalize", "none"], "does not say which network it is of"),
        (["--weights", "net.pth", "--model", "lenet5", "--data", "digits", "--normalize", "non"], "mean 'none'"),
        (["--weights", "net.pth", "--model", "lenet5", "--data", "digits", "--normalize", "imagenet"], "3 channels"),
        (
            ["--weights", "net.pth", "--model", "lenet5", "--data", "cifar10", "--normalize", "none"],
            "no data directory",
        ),
        (["--weights", "no.pth", "--model", "lenet5", "--data", "digits", "--normalize", "none"], "no such file"),
    ],
)
def test_eval_of_weights_refuses(command, net, trained, arguments, words):
    assert words in command.refused("eval", *(a.replace("RUN", str(trained)) for a in arguments))


@pytest.mark.slow
@pytest.mark.skipif(not RESNET20.exists(), reason="TINYCNN_DATA has no weights/resnet20-12fca82f.th")
def test_eval_of_a_published_file(command, kept_cache):
    """The ResNet-20 of akamaster/pytorch_resnet_cifar10: 91.73 % on the 10,000 test images."""
    arguments = ["--model", "resnet20", "--data", "cifar10", "--normalize", "imagenet", "--json"]
    assert command("eval", "--weights", RESNET20, *arguments, "--data-dir", RESNET20.parent.parent) == 0
    assert json.loads(command.out)["test_accuracy"] == 0.9173
