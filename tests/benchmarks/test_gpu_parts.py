"""The parts of the GPU's benchmark, in their smallest sizes, with a CPU in the card's place."""

import json
import sys
from pathlib import Path

import pytest
import strict_cupy
import torch

sys.path.insert(0, str(Path(__file__).parent))

from cpu_rig import CpuRig

from benchmarks import gpu_agree, gpu_layers, gpu_steps, gpu_table, gpu_tests, gpu_worker
from benchmarks.agree import Disagreement
from benchmarks.gpu_rig import PRECISIONS, matched
from benchmarks.gpu_worker import PARTS
from benchmarks.twins import ResNet50
from tinycnn.kernels.precision import get_precision


@pytest.fixture
def rig(monkeypatch):
    monkeypatch.setattr(gpu_layers, "REPEATS", 2)
    return CpuRig(strict_cupy.install(monkeypatch))


@pytest.mark.parametrize("name", [name for name in PARTS if name not in ("tests", "compiled")])
def test_every_part_measures_and_fills_its_table(rig, name, tmp_path):
    part, path = PARTS[name], tmp_path / "lines"
    cases = part.function(part.cases)(rig)
    assert cases
    with path.open("w") as into:
        assert gpu_worker.serve(rig, part, cases, into) == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["start"] for line in lines[::2]] == cases
    for line in lines[1::2]:
        assert "row" in line, line["traceback"]
    results = {name: {line["case"]: line["row"] for line in lines[1::2]}}
    table = gpu_table.tables(results)[0]
    assert len(table.rows) == len(cases)
    for row in table.rows:
        absent = [c.key for c in table.columns if c.key not in row and not c.key.endswith("roofline")]
        assert not [key for key in absent if not key.startswith("dx")], absent
    assert table.markdown()


def test_full_sizes_are_named_once_and_are_what_the_issue_asks_for():
    class Full:
        tiny = False

    for part in PARTS.values():
        cases = part.function(part.cases)(Full())
        assert len(cases) == len(set(cases))
    assert len(gpu_layers.CASES) == len(gpu_layers.cases(Full()))
    assert {net: len(convs) for net, (_, convs) in gpu_layers.SHAPES.items()} == {
        "ResNet-20": 6,
        "VGG-16 (CIFAR)": 9,
        "ResNet-50": 23,
    }
    assert set(gpu_steps.COMPILED) <= set(gpu_steps.CASES)


def test_the_convolutions_are_all_those_of_resnet50():
    seen = set()

    def note(module, inputs, output):
        K, S, P = module.kernel_size[0], module.stride[0], module.padding[0]
        seen.add((module.in_channels, module.out_channels, K, S, P, module.groups, inputs[0].shape[2]))

    model = ResNet50()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(note)
    model(torch.zeros(2, 3, 224, 224))
    assert set(gpu_layers.SHAPES["ResNet-50"][1]) == seen


def test_a_wrong_convolution_is_not_timed(rig, monkeypatch):
    monkeypatch.setattr(gpu_layers.OurConv, "dx", lambda self, dx=gpu_layers.OurConv.dx: 1.01 * dx(self))
    with pytest.raises(Disagreement, match="dx is off"):
        gpu_layers.measure(rig, "tiny float32")


def test_a_wrong_step_is_not_timed(rig, monkeypatch):
    right = gpu_steps.OurStep.step

    def step(self):
        right(self)
        next(self.model.parameters()).grad[...] *= 1.1

    monkeypatch.setattr(gpu_steps.OurStep, "step", step)
    with pytest.raises(Disagreement, match="gradients"):
        gpu_steps.measure(rig, "lenet5 float32")


def test_a_replay_that_differs_in_a_bit_is_found(rig, monkeypatch):
    train = gpu_agree.train

    def run(*args, graph, **kwargs):
        state, step = train(*args, graph=graph, **kwargs)
        if graph:
            state["losses"].view("int64")[5] += 1
        return state, step

    monkeypatch.setattr(gpu_agree, "train", run)
    with pytest.raises(AssertionError, match=r"replayed, 1 of .* arrays differ: losses"):
        gpu_agree.measure_graph(rig, "lenet5 float32")


def test_a_run_unlike_pytorchs_is_found(rig, monkeypatch):
    monkeypatch.setattr(gpu_agree, "SGD", {**gpu_agree.SGD, "lr": 0.0101})
    monkeypatch.setitem(gpu_agree.CLOSE, "float64", 1e-30)
    with pytest.raises(AssertionError, match="lenet5 float64"):
        gpu_agree.measure_golden(rig, "lenet5 float64")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_both_sides_have_one_precision(precision):
    def settings():
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, get_precision()

    before = settings()
    with matched(precision):
        assert settings() == (
            precision != "float32",
            precision != "float32",
            "tf32" if precision == "tf32" else "float32",
        )
        assert torch.backends.cudnn.benchmark
    assert settings() == before
    with pytest.raises(ValueError, match="unknown precision"), matched("float8"):
        pass


def test_the_files_with_tests_for_a_gpu_are_found():
    files = gpu_tests.cases(None)
    assert files[0].startswith("tests/kernels/cuda/")
    assert {"tests/kernels/cuda/test_pool.py", "tests/test_contract.py"} <= set(files)


def test_one_file_of_tests_is_run_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_tests, "ROOT", Path(__file__).parents[2])
    row = gpu_tests.measure(None, "tests/kernels/cuda/test_pool.py")
    assert row["tests"] > 10
    assert row["failed"] == 0
    broken = tmp_path / "test_broken.py"
    broken.write_text("def test_one(gpu):\n    assert False, 'as planned'\ndef test_two():\n    assert False\n")
    (tmp_path / "conftest.py").write_text("import pytest\n@pytest.fixture\ndef gpu():\n    pass\n")
    with pytest.raises(AssertionError, match=r"(?s)1 of 1 tests fail, exit code 1.*as planned"):
        gpu_tests.measure(None, str(broken))
