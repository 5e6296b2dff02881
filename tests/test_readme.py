"""What README shows is run as it stands there."""

import re
from pathlib import Path

import numpy as np
import torch
from references import resnet

from tinycnn import Conv2d, CrossEntropyLoss, Flatten, Linear, ReLU, Sequential, data, optim
from tinycnn.train import Trainer, evaluate

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_example_runs_and_learns():
    names = {}
    exec(PYTHON[0], names)
    assert float(names["loss"]) < 0.2


def test_the_bare_loop_is_the_trainers(capsys):
    """The same batches, the same schedule: the same bits, and the same numbers on held-out images."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 1, 8, 8), np.float32), rng.integers(0, 3, 40)
    validation = data.Loader(x[30:], y[30:], 10, shuffle=False)

    def parts():
        draws = np.random.default_rng(1)
        model = Sequential(Conv2d(1, 4, 3, rng=draws), ReLU(), Flatten(), Linear(144, 3, rng=draws))
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        return {
            "model": model,
            "loader": data.Loader(x[:30], y[:30], 8),
            "loss_fn": CrossEntropyLoss(),
            "optimizer": optimizer,
            "schedule": optim.CosineAnnealingLR(optimizer, 8),
        }

    by_hand = parts() | {"epochs": 2, "validation": validation, "evaluate": evaluate}
    exec(PYTHON[1], by_hand)
    told = capsys.readouterr().out.splitlines()
    ours = parts()
    loader = ours.pop("loader")
    trainer = Trainer(**ours)
    trainer.fit(loader, 2, validation)
    for name, value in trainer.model.state_dict().items():
        assert np.array_equal(value, by_hand["model"].state_dict()[name]), name
    assert [line.split(" ", 1)[0] for line in told] == ["1", "2"]
    assert str(trainer.history[1]["val_loss"]) in told[1]


def test_weights_go_in_and_out_as_shown(tmp_path, monkeypatch):
    """With a file of torchvision's names: the real one is on the internet."""
    monkeypatch.chdir(tmp_path)
    torch.save(resnet.ResNet(resnet.basic(), 1, (2, 2, 2, 2)).state_dict(), "resnet18-f37072fd.pth")
    (block,) = re.findall(r"^```pycon\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    names = {"x": np.random.default_rng(0).standard_normal((1, 3, 64, 64), np.float32)}
    for line in block.splitlines():
        exec(line.removeprefix(">>> "), names)
    assert names["left"] == ([], [])
    assert names["features"].shape == (1, 256, 4, 4)
    assert names["fast"](names["x"]).shape == (1, 1000)
    assert {"conv1.weight", "layer3.1.bn2.bias"} <= set(names["frozen"])
    assert (tmp_path / "resnet18.onnx").exists()


def test_links_lead_somewhere():
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_it_knows_every_experiment():
    there = {f"examples/{path.name}" for path in (ROOT / "examples").glob("[0-9][0-9]_*.py")}
    assert set(re.findall(r"\]\((examples/\d\d_\w+\.py)\)", README)) == there


def test_the_table_has_every_model():
    from tinycnn import models

    for name in models.names():
        known = models.architecture(name)
        macs = f"{known.macs / 1e9:.3f} G" if known.macs >= 1e9 else f"{known.macs / 1e6:.2f} M"
        paper = re.match(r".*? \d{4}", known.source)[0]
        cells = f"`{name}`", "×".join(map(str, known.input_shape)), f"{known.parameters:,}", macs, paper
        assert f"| {' | '.join(cells)} |" in README
