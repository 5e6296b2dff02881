"""The forward that is measured is the same in both, folded right, and a mistake is found before anything is timed."""

import json

import numpy as np
import pytest
import torch

from benchmarks import cli, inference
from benchmarks.agree import Disagreement
from benchmarks.inference import Ours
from benchmarks.networks import NETS
from benchmarks.timing import Effort
from benchmarks.torch_inference import Theirs, pairs
from tinycnn.layers.fused import FusedConv2d


@pytest.fixture(autouse=True)
def _threads_of_torch():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_command_shows_and_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(inference, "QUICK", Effort(0, 1, 1, 1))
    path = tmp_path / "inference.json"
    assert cli.main(["inference", "--quick", "--only", "lenet", "--threads", "1", "--json", str(path)]) == 0
    assert "LeNet-5" in capsys.readouterr().out
    (row,) = json.loads(path.read_text(encoding="utf-8"))["tables"][0]["rows"]
    assert row["ratio"]["median"] == pytest.approx(row["theirs"]["median"] / row["ours"]["median"])
    assert row["best"] in ("contiguous", "channels_last")
    assert row["images"] == pytest.approx(row["batch"] / row["ours"]["median"], rel=1e-3)
    assert row["kept"] > 0


def test_it_is_among_all():
    assert "inference" in cli.ALL
    assert {name for name, _ in (*inference.CASES, *inference.QUICK_CASES)} <= set(NETS)
    assert {("resnet18", 1), ("resnet18", 16), ("vgg16", 1), ("vgg16", 16)} <= set(inference.CASES)


@pytest.mark.parametrize("name", ["resnet20", "vgg16_bn_cifar"])
def test_pytorch_is_folded_and_computes_the_same(name):
    ours = Ours(name, 2, "float64")
    plain, folded = (Theirs(name, 2, ours.state, dtype=torch.float64, folded=f) for f in (False, True))
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in plain.model.modules())
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.model.modules())
    wanted = inference.scores(plain)["scores"]
    for one in (folded, ours):
        np.testing.assert_allclose(inference.scores(one)["scores"], wanted, rtol=1e-9)
    assert not folded.scores.requires_grad


def test_pairs_are_neighbours():
    net = torch.nn.Sequential(
        *(torch.nn.Conv2d(2, 2, 1), torch.nn.BatchNorm2d(2), torch.nn.BatchNorm2d(2)),
        *(torch.nn.Conv2d(2, 2, 1), torch.nn.ReLU(), torch.nn.BatchNorm2d(2)),
    )
    assert list(pairs(net)) == [("0", "1")]


def test_statistics_are_moved_and_ours_is_fused_if_asked():
    fused, plain = Ours("resnet20", 2), Ours("resnet20", 2, fused=False)
    assert any(isinstance(layer, FusedConv2d) for layer in fused.model.layers())
    assert not any(isinstance(layer, FusedConv2d) for layer in plain.model.layers())
    for key, value in plain.state.items():
        np.testing.assert_array_equal(fused.state[key], value)
        if key.endswith("running_mean"):
            assert value.any()
    assert (fused.kept(), plain.kept()) == (0, 0)
    fused.forward()
    assert fused.kept() > 0


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_wrong_forward_is_found_out(dtype, monkeypatch):
    def wrong(self, right=Ours.forward):
        right(self)
        if self.x.dtype == dtype:
            self.scores = self.scores * 1.001

    monkeypatch.setattr(Ours, "forward", wrong)
    with pytest.raises(Disagreement, match="LeNet-5, batch 2, scores"):
        inference.check("lenet5", 2)


def test_the_better_memory_format_counts():
    seconds = {"ours": 2.0, "not fused": 5.0, "contiguous": 3.0, "channels_last": 4.0}
    found = inference.judge({name: {"forward": [s] * 3} for name, s in seconds.items()}, 16)
    assert (found["best"], found["ratio"].median, found["gain"].median, found["images"]) == ("contiguous", 1.5, 2.5, 8)
