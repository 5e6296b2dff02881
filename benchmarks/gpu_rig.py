"""What the measurements on a GPU need of it: its clock, its graphs, and the same precision on both sides.

tinycnn (by CuPy) and PyTorch run in one process on the same card and the same stream, CUDA's default one, so that one
pair of events times either.  Tests put a rig in place that has a CPU do all this.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from tinycnn import DeviceError, backend
from tinycnn.backend import Array
from tinycnn.kernels import precision as products
from tinycnn.kernels.cuda.graph import CapturedTask

Task = Callable[[], object]

PRECISIONS = ("float32", "tf32", "bf16", "fp16")
"""float32 with products in float32; float32 with products on tensor cores; activations and products of 16 bits."""
WARM_UP = 3
"""Calls before a task is captured."""


class Rig:
    """One NVIDIA GPU.

    Attributes:
        device: PyTorch's name of it.
        tiny: use the smallest sizes: does it run at all?

    Raises:
        DeviceError: there is none, or PyTorch or CuPy cannot use it.
    """

    device = "cuda"
    tiny = False

    def __init__(self) -> None:
        problem = backend.cuda_problem()
        if problem is not None:
            raise DeviceError(f"there is nothing to measure: {problem}")
        if not torch.cuda.is_available():
            raise DeviceError("CuPy has a GPU, but PyTorch has none: install a PyTorch with CUDA to measure against")
        self.cupy: Any = backend._import_cupy()

    def name(self) -> str:
        """Return what the card is called."""
        return torch.cuda.get_device_name()

    def synchronize(self) -> None:
        """Wait until the card has finished."""
        torch.cuda.synchronize()

    def seconds(self, task: Task, calls: int) -> float:
        """Return the mean seconds of ``calls`` calls in a row, by the card's clock, from the first's begin."""
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(calls):
            task()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3 / calls

    def captured_ours(self, task: Task, like: Array) -> Task:
        """Return what replays a task of tinycnn's, captured as a CUDA graph."""
        captured = CapturedTask(like)
        for _ in range(WARM_UP):
            captured.run(task)
        captured.capture(task)
        return _keeping(task, captured.replay)

    def captured_theirs(self, task: Task) -> Task:
        """Return what replays a task of PyTorch's, captured as a CUDA graph."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                task()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            task()
        return _keeping(task, graph.replay)

    def array(self, x: np.ndarray) -> Array:
        """Return ``x`` on the card for tinycnn, on channels-last memory."""
        return to_card(x)

    def tensor(self, x: np.ndarray, memory_format: torch.memory_format | None = None) -> torch.Tensor:
        """Return ``x`` on the card for PyTorch."""
        t = torch.from_numpy(np.ascontiguousarray(x)).to(self.device)
        return t if memory_format is None or t.ndim != 4 else t.contiguous(memory_format=memory_format)

    def randn(self, *shape: int, seed: int = 0) -> torch.Tensor:
        """Return standard normal numbers on the card, on channels-last memory, always the same ones."""
        generator = torch.Generator(self.device).manual_seed(seed)
        if len(shape) != 4:
            return torch.randn(shape, generator=generator, device=self.device)
        N, C, H, W = shape
        # (N, H, W, C) -> (N, C, H, W)
        return torch.randn((N, H, W, C), generator=generator, device=self.device).permute(0, 3, 1, 2)

    def shared(self, t: torch.Tensor) -> Array:
        """Return the memory of a tensor as tinycnn's array."""
        if t.dtype == torch.bfloat16:
            import ml_dtypes

            return self.shared(t.view(torch.int16)).view(ml_dtypes.bfloat16)
        return self.cupy.asarray(t)

    def free(self) -> None:
        """Give unused memory of both sides back."""
        self.cupy.get_default_memory_pool().free_all_blocks()
        torch.cuda.empty_cache()


def to_card(x: np.ndarray) -> Array:
    """Return ``x`` on the card, on channels-last memory."""
    if x.ndim != 4:
        return backend.to_device(x, "cuda")
    # (N, C, H, W) -> (N, H, W, C), contiguous, and back as a view
    return backend.to_device(np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2), "cuda")


def _keeping(task: Task, replay: Task) -> Task:
    """Return ``replay``, which keeps what ``task`` works on: a graph knows addresses, and holds no array."""

    def replayed(task: Task = task) -> object:
        return replay()

    return replayed


@contextlib.contextmanager
def matched(precision: str) -> Iterator[None]:
    """Have both sides take products in ``precision``; cuDNN looks for the fastest algorithm of each shape."""
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    cudnn, matmul, tf32 = torch.backends.cudnn, torch.backends.cuda.matmul, precision != "float32"
    before = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = True, tf32, tf32
    try:
        with products.precision("tf32" if precision == "tf32" else "float32"):
            yield
    finally:
        cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before


def autocast(precision: str, device: str) -> torch.autocast:
    """PyTorch's mixed precision, where there is any."""
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")


def on_host(x: Any) -> np.ndarray:
    """Return an array or a tensor as float64 (or integers) on the CPU."""
    if isinstance(x, torch.Tensor):
        x = x.detach()
        return np.asarray((x.double() if x.is_floating_point() else x).cpu().numpy())
    a = backend.to_numpy(x)
    return a.astype(np.float64) if a.dtype.kind not in "iub" else a
