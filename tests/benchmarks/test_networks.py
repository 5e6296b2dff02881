import pytest
import torch

from benchmarks import shapes, steps
from benchmarks.agree import Disagreement
from benchmarks.layers import Ours, Theirs, check
from benchmarks.networks import DEPTHS, NETS, batch
from benchmarks.torch_training import Theirs as TheirStep
from benchmarks.training import Ours as OurStep
from benchmarks.twins import TWINS

LAYERS = [case for case in shapes.cases(quick=True) if case.net == "LeNet-5"]


@pytest.mark.parametrize("name", [name for name in NETS if name not in [f"resnet{d}" for d in DEPTHS[1:]]])
def test_state_dicts_fit_the_twins(name):
    ours = {key: value.shape for key, value in NETS[name].build(0).state_dict().items()}
    assert ours == {key: tuple(value.shape) for key, value in TWINS[name]().state_dict().items()}


def test_numbers_of_parameters_are_the_published_ones():
    count = {name: sum(p.numel() for p in TWINS[name]().parameters()) for name in ("resnet18", "resnet50", "resnet20")}
    assert count == {"resnet18": 11_689_512, "resnet50": 25_557_032, "resnet20": 269_722}
    assert sum(p.numel() for p in TWINS["vgg16_bn_cifar"]().parameters()) == 14_728_266


@pytest.mark.parametrize(
    ("name", "N", "size"),
    [("lenet5", 3, None), ("resnet20", 2, 16), ("resnet18", 2, 33), ("resnet50", 2, 33), ("vgg16_bn_cifar", 2, None)],
)
def test_a_step_is_the_same_step(name, N, size):
    ours = OurStep(name, N, size, dtype="float64")
    theirs = TheirStep(name, N, ours.model.state_dict(), dtype=torch.float64, size=size)
    for one in (ours, theirs):
        one.step()
        one.step()
    for kind, arrays in theirs.results().items():
        steps.check_same(ours.results()[kind], arrays, kind)


def test_a_wrong_step_is_found_out(monkeypatch):
    monkeypatch.setattr(OurStep, "step", lambda self, step=OurStep.step: (step(self), self.model.zero_grad()))
    with pytest.raises(Disagreement, match="LeNet-5, batch 2, gradients"):
        steps.check("lenet5", 2)


def test_a_step_that_is_wrong_in_float32_alone_is_found_out(monkeypatch):
    def step(self, right=OurStep.step):
        right(self)
        if self.x.dtype == "float32":
            next(self.model.parameters()).grad[...] *= 1.05

    monkeypatch.setattr(OurStep, "step", step)
    with pytest.raises(Disagreement, match=r"gradients: conv1\.weight is off by 5\.0e-02"):
        steps.check("lenet5", 2)


def test_the_best_of_pytorch_counts_and_fused_is_told_apart():
    seconds = {"ours": 2.0, "contiguous, single": 5.0, "channels_last, foreach": 3.0, "contiguous, fused": 1.0}
    found = steps.judge({name: {"step": [s] * 3} for name, s in seconds.items()})
    assert found["best"] == "channels_last, foreach"
    assert (found["theirs"].median, found["ratio"].median, found["fused"].median) == (3.0, 1.5, 0.5)


@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_layers_agree_before_they_are_timed(case):
    check_case(case)


def test_a_wrong_layer_is_found_out():
    def doubled(self):
        self.dx = 2 * self.layer.backward(self.dy)

    case = next(case for case in LAYERS if not case.is_first)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ours, "backward", doubled)
        with pytest.raises(Disagreement, match="dx"):
            check_case(case)


def check_case(case):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(case.shape, generator=generator).numpy()
    ours = Ours(case, x)
    dy = torch.randn(ours.layer.output_shape(case.shape), generator=generator).numpy()
    ours.dy = dy
    state = ours.layer.state_dict()
    check(case, x, dy, ours, {"contiguous": Theirs(case, x, dy, state, "contiguous")})


def test_every_convolution_has_its_size():
    sizes = {str(case): case.theirs()(torch.zeros(1, *case.shape[1:])).shape for case in shapes.convolutions()}
    for case in shapes.convolutions():
        assert case.ours().output_shape((1, *case.shape[1:])) == tuple(sizes[str(case)]), case
    assert len(sizes) == len(list(shapes.convolutions()))


def test_batches_are_always_the_same():
    (x, y), (again, labels) = batch("resnet20", 4), batch("resnet20", 4)
    assert (x == again).all()
    assert (y == labels).all()
    assert x.shape == (4, 3, 32, 32)
    assert x.transpose(0, 2, 3, 1).flags.c_contiguous
