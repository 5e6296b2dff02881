"""``inference``: networks in evaluation, here and in PyTorch, convolution and normalisation folded into one in both.

Ours is what `tinycnn.fuse` returns.  PyTorch's has had `torch.nn.utils.fusion.fuse_conv_bn_eval` on every such pair,
and runs in `torch.inference_mode`, in both memory formats, of which the better counts.  A batch of one image asks
whether all threads find work in it; one of 16 is throughput.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import torch

import tinycnn
from tinycnn.layers.fused import FusedConv2d

from .agree import check_close, check_same
from .networks import NETS, batch
from .progress import Progress
from .report import Column, Table
from .timing import Contender, Effort, Samples, Spread, fastest, race, ratio
from .torch_inference import Theirs
from .torch_training import FORMATS

FULL, QUICK = Effort(20, 7, 40, 2), Effort(0.5, 3, 5, 1)
CASES = (("resnet18", 1), ("resnet18", 16), ("resnet50", 1), ("vgg16", 1), ("vgg16", 16))
QUICK_CASES = (("lenet5", 16), ("vgg16_bn_cifar", 1), ("resnet18", 1))
COLUMNS = [
    Column("title", "inference"),
    Column("batch", "batch", "count"),
    Column("ours", "tinycnn ms", "ms"),
    Column("theirs", "PyTorch ms", "ms"),
    Column("best", "PyTorch at its best"),
    Column("ratio", "ratio", "ratio"),
    Column("images", "images/s", "count"),
    Column("gain", "gain of fuse()", "ratio"),
    Column("kept", "kept MiB", "MiB"),
    Column("error", "error", "error"),
    Column("torch_error", "PyTorch's", "error"),
]
NOTES = [
    "in evaluation; here after fuse(), in PyTorch folded by fuse_conv_bn_eval and in inference_mode.",
    "gain of fuse(): time without it ÷ time with it.",
    "kept: memory of the filters in the order that products want, beside the filters.",
    "error: of the scores in float32, against float64; PyTorch's in its worse memory format.",
]


class Ours:
    """A tinycnn network in evaluation.

    Args:
        name: a network of `NETS`.
        N: batch size.
        dtype: of everything.
        fused: whether `tinycnn.fuse` has been called.
    """

    def __init__(self, name: str, N: int, dtype: str = "float32", fused: bool = True) -> None:
        x, _ = batch(name, N)
        self.x = x.astype(dtype)
        self.model = NETS[name].build(0).eval().astype(dtype)
        move_statistics(self.model)
        self.state = self.model.state_dict()
        if fused:
            self.model = tinycnn.fuse(self.model)
        self.scores: np.ndarray | None = None

    def forward(self) -> None:
        """Compute the scores."""
        self.scores = self.model.forward(self.x)

    def kept(self) -> int:
        """Return the memory that fused convolutions have taken beside their filters."""
        convs = (layer for layer in self.model.layers() if isinstance(layer, FusedConv2d))
        return sum(conv.kept_bytes for conv in convs)


def move_statistics(model: tinycnn.Layer) -> None:
    """Give running statistics values that are neither 0 nor 1, always the same ones: a mistake in folding must show."""
    rng = np.random.default_rng(1)
    for name, value in model.named_buffers():
        if name.endswith("running_mean"):
            value[...] = rng.normal(0, 0.1, value.shape)
        elif name.endswith("running_var"):
            value[...] = rng.uniform(0.5, 2, value.shape)


def run(threads: int, quick: bool, only: str = "", progress: Progress | None = None) -> list[Table]:
    """Measure every network of `CASES` whose name contains ``only``."""
    effort = QUICK if quick else FULL
    table = Table("inference", "Inference", COLUMNS, notes=[*NOTES, effort.words()])
    cases = [case for case in (QUICK_CASES if quick else CASES) if only.lower() in case[0]]
    for name, N in (progress or Progress.silent()).over(cases, "inference"):
        mine, yours = check(name, N)
        ours = Ours(name, N)
        samples = race(dict(contenders(ours, name, N)), effort)
        table.add(
            net=name, title=NETS[name].title, batch=N, threads=threads, kept=ours.kept(), error=mine, torch_error=yours
        )
        table.rows[-1] |= {k: v.to_dict() if isinstance(v, Spread) else v for k, v in judge(samples, N).items()}
        del ours
        gc.collect()
    return [table]


def check(name: str, N: int) -> tuple[float, float]:
    """Make sure that ours and PyTorch's compute the same scores.

    Returns:
        Their errors, ours and PyTorch's.
    """
    what = f"{NETS[name].title}, batch {N}, scores"
    same = Ours(name, N, "float64")
    exact = scores(Theirs(name, N, same.state, dtype=torch.float64, folded=False))
    check_same(scores(same), exact, what)
    del same
    ours = Ours(name, N)
    theirs = [scores(Theirs(name, N, ours.state, memory_format)) for memory_format in FORMATS]
    return check_close(scores(ours), theirs, exact, what)


def scores(one: Ours | Theirs) -> dict[str, np.ndarray]:
    """Return what a forward computes."""
    one.forward()
    return {"scores": np.asarray(one.scores)}


def contenders(ours: Ours, name: str, N: int) -> Iterator[tuple[str, Contender]]:
    """Yield ours, fused and not, and PyTorch's in both memory formats, all with the same weights."""
    yield "ours", Contender({"forward": ours.forward})
    yield "not fused", Contender({"forward": Ours(name, N, fused=False).forward})
    for memory_format in FORMATS:
        yield memory_format, Contender({"forward": Theirs(name, N, ours.state, memory_format).forward})


def judge(samples: dict[str, Samples], N: int) -> dict[str, Spread | str | int]:
    """Return the cells of a row: times and ratios."""
    best = fastest(samples, "forward", list(FORMATS))
    ours, theirs = samples["ours"]["forward"], samples[best]["forward"]
    return {
        "ours": Spread.of(ours),
        "theirs": Spread.of(theirs),
        "best": best,
        "ratio": ratio(theirs, ours),
        "gain": ratio(samples["not fused"]["forward"], ours),
        "images": round(N / Spread.of(ours).median),
    }
