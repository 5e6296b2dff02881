"""Where arrays live: NumPy on the CPU, CuPy on an NVIDIA GPU.

This is the only file that imports CuPy, and it does so on first use: ``import tinycnn`` never touches a
GPU.  Everything else asks `array_module` which of the two an array belongs to and calls the same function
names on it, so that one line of layer code serves both.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any
"""An array of either module: ``numpy.ndarray`` or ``cupy.ndarray``."""

CPU, CUDA = "cpu", "cuda"
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of settings of glibc's ``mallopt``."""
MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97
"""CUDA's number of this attribute of a device."""
ALWAYS_SHARED = 32 << 10
"""Bytes of dynamic shared memory that need no permission: 48 KiB, less what a kernel may have of fixed size."""


CAPABILITY = (8, 0)
"""The least compute capability: kernels use what came with Ampere (asynchronous copies, TF32 and bfloat16 products)."""
NO_GPU = "the NVIDIA driver reports no GPU: check nvidia-smi and CUDA_VISIBLE_DEVICES"
LIBRARIES = "install CUDA's libraries beside it, with pip install 'cupy-cuda13x[ctk]' (or cuda12x)"


class DeviceError(RuntimeError):
    """A GPU was asked for and cannot be used; the message says which of the causes it is."""


def _import_cupy() -> ModuleType:
    import cupy

    return cupy


@functools.lru_cache(maxsize=1)
def cuda_problem() -> str | None:
    """Return why no GPU can be used, in one sentence with the cure, or None when one can."""
    try:
        cupy = _import_cupy()
    except ImportError as error:
        if getattr(error, "name", None) == "cupy":
            return (
                "CuPy is not installed: pip install 'tinycnn[cuda12]' or 'tinycnn[cuda13]', "
                "whichever your driver supports"
            )
        return f"CuPy is installed but does not import ({error}): reinstall it with one of the extras cuda12 and cuda13"
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        return _driver_problem(runtime, error)
    if count == 0:
        return NO_GPU
    return _card_problem(runtime) or _compiler_problem(cupy)


def _driver_problem(runtime: Any, error: Exception) -> str:
    """Return what an ``error`` of the first question to the driver means."""
    if "NoDevice" in str(error):
        return NO_GPU
    supported, wanted = (_version(v) for v in (runtime.driverGetVersion(), runtime.runtimeGetVersion()))
    if supported == "0.0":
        return f"no NVIDIA driver is installed ({error}): install one that supports CUDA {wanted}"
    if "InsufficientDriver" in str(error):
        return (
            f"the NVIDIA driver is too old: it supports CUDA {supported}, CuPy is built for {wanted}: update the "
            "driver, or install tinycnn[cuda12] in place of tinycnn[cuda13]"
        )
    return f"the NVIDIA driver does not work ({error}): check nvidia-smi"


def _version(number: int) -> str:
    """Return CUDA's version number 13020 as 13.2."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _card_problem(runtime: Any) -> str | None:
    """Return why the current GPU is not good enough."""
    card = runtime.getDeviceProperties(runtime.getDevice())
    capability = card["major"], card["minor"]
    if capability >= CAPABILITY:
        return None
    has, needed = (".".join(map(str, c)) for c in (capability, CAPABILITY))
    return (
        f"{card['name'].decode()} has compute capability {has}, and the kernels need {needed} or more "
        "(an A100, an RTX 30 or anything newer): choose another with CUDA_VISIBLE_DEVICES, or use device 'cpu'"
    )


def _compiler_problem(cupy: ModuleType) -> str | None:
    """Return why kernels cannot be compiled."""
    try:
        cupy.cuda.nvrtc.getVersion()
    except Exception as error:  # of several kinds, the loader's own among them
        return f"CuPy does not find NVRTC, the compiler of CUDA ({' '.join(str(error).split())}): {LIBRARIES}"
    return None


def resolve_device(device: str) -> str:
    """Turn a user's ``"cpu"``, ``"cuda"`` or ``"auto"`` (a GPU if one is usable) into ``"cpu"`` or ``"cuda"``.

    Raises:
        ValueError: the name is none of the three.
        DeviceError: ``"cuda"`` was asked for and there is no usable GPU.
    """
    if device not in (CPU, CUDA, "auto"):
        raise ValueError(f"unknown device {device!r}: choose 'cpu', 'cuda' or 'auto'")
    if device == CPU:
        return CPU
    problem = cuda_problem()
    if problem is None:
        return CUDA
    if device == CUDA:
        raise DeviceError(f"device 'cuda' cannot be used: {problem}")
    return CPU


def is_device_array(x: object) -> bool:
    """Whether ``x`` is a CuPy array (without importing CuPy: no CuPy module, no CuPy array)."""
    if type(x) is np.ndarray:
        return False
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(x, cupy.ndarray)


def array_module(x: object) -> ModuleType:
    """Return ``cupy`` for a CuPy array and ``numpy`` for anything else.

    >>> array_module(np.zeros(3)).__name__
    'numpy'
    """
    return sys.modules["cupy"] if is_device_array(x) else np


def device_of(x: object) -> str:
    """Return ``"cuda"`` for a CuPy array and ``"cpu"`` for anything else."""
    return CUDA if is_device_array(x) else CPU


def place_of(x: Array) -> int:
    """Return the number of the GPU that ``x`` is on, −1 for the CPU."""
    return int(x.device.id) if is_device_array(x) else -1


def place_words(place: int) -> str:
    """Return what `place_of` returns in words."""
    return "the CPU" if place < 0 else f"GPU {place}"


def to_device(x: Array, device: str) -> Array:
    """Return ``x`` on ``device``, the very same array if it is there already.  Memory order is kept.

    Raises:
        DeviceError: ``device`` is ``"cuda"`` and there is no usable GPU.

    >>> x = np.zeros(3)
    >>> to_device(x, "cpu") is x
    True
    """
    if resolve_device(device) == CPU:
        return to_numpy(x)
    if is_device_array(x):
        return x
    return _in_memory_order(x, _import_cupy().asarray)


def to_numpy(x: Array) -> np.ndarray:
    """Return ``x`` as a NumPy array, copied from the GPU when it lives there.  Memory order is kept.

    >>> to_numpy(np.arange(3))
    array([0, 1, 2])
    """
    return _in_memory_order(x, lambda flat: flat.get()) if is_device_array(x) else np.asarray(x)


def _in_memory_order(x: Array, move: Callable[[Array], Array]) -> Array:
    """Return ``move(x)`` with axes in the order of x's memory: CuPy's copies know C and F order only."""
    order = sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))
    inverse = sorted(range(x.ndim), key=lambda axis: order[axis])
    return move(x.transpose(order)).transpose(inverse)


def synchronize(device: str = CUDA) -> None:
    """Wait until the GPU has finished what was queued; nothing to do on the CPU.  Call it before reading a clock."""
    if device == CUDA and "cupy" in sys.modules:
        sys.modules["cupy"].cuda.get_current_stream().synchronize()


def free_memory() -> int:
    """Return how many bytes a new array on the GPU may have: what the driver has left, and CuPy's pool."""
    cupy = _import_cupy()
    free, _ = cupy.cuda.runtime.memGetInfo()
    return int(free) + int(cupy.get_default_memory_pool().free_bytes())


def device_empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """Return an array on the GPU, whatever is in it."""
    return _import_cupy().empty(shape, dtype)


def pinned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an array on the CPU that a GPU copies from by itself, while both go on with other things."""
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    return np.ndarray(shape, dtype, buffer=_import_cupy().cuda.alloc_pinned_memory(nbytes))


def new_stream() -> Any:
    """Return a queue of work of its own, that waits for others' work only where it is told to."""
    return _import_cupy().cuda.Stream(non_blocking=True)


def current_stream() -> Any:
    """Return the queue that the GPU's work goes to at present."""
    return _import_cupy().cuda.get_current_stream()


def new_event() -> Any:
    """Return a mark to be set in one stream and waited for by another, or by the CPU."""
    return _import_cupy().cuda.Event(disable_timing=True)


def device_seconds(work: Callable[[], object]) -> float:
    """Return the GPU's time from before to after what ``work`` queues in the current stream, and wait for it."""
    cuda = _import_cupy().cuda
    start, end = cuda.Event(), cuda.Event()
    start.record()
    work()
    end.record()
    end.synchronize()
    return float(cuda.get_elapsed_time(start, end)) / 1000


def gpu_name() -> tuple[str, str]:
    """Return the current GPU's name and compute capability: ``("NVIDIA H200", "9.0")``."""
    runtime = _import_cupy().cuda.runtime
    properties = runtime.getDeviceProperties(runtime.getDevice())
    return properties["name"].decode(), f"{properties['major']}.{properties['minor']}"


def shared_limit() -> int:
    """Return how many bytes of shared memory a block of threads may have on the current GPU."""
    return _shared_limit(sys.modules["cupy"].cuda.runtime.getDevice())


@functools.lru_cache(maxsize=64)
def _shared_limit(device: int) -> int:
    return int(sys.modules["cupy"].cuda.runtime.deviceGetAttribute(MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, device))


def compile_cuda(code: str, options: tuple[str, ...], name: str, shared: int = 0) -> Any:
    """Return the kernel ``name`` of a CUDA C source, compiled for the current GPU (once for all calls).

    It may be launched with up to ``shared`` bytes of dynamic shared memory.

    Raises:
        DeviceError: the source does not compile; the compiler's messages are in it.
    """
    return _compiled_kernel(code, options, name, sys.modules["cupy"].cuda.runtime.getDevice(), shared)


@functools.lru_cache(maxsize=4096)
def _compiled_kernel(code: str, options: tuple[str, ...], name: str, device: int, shared: int) -> Any:
    kernel = _compiled_module(code, options, device).get_function(name)
    if shared > ALWAYS_SHARED:
        kernel.max_dynamic_shared_size_bytes = max(shared, kernel.max_dynamic_shared_size_bytes)
    return kernel


@functools.lru_cache(maxsize=1024)
def _compiled_module(code: str, options: tuple[str, ...], device: int) -> Any:
    cupy = sys.modules["cupy"]
    plain = re.sub(r"[^\x00-\x7f]", ".", code)  # CuPy writes it to a file in the locale's encoding
    module = cupy.RawModule(code=plain, options=options, backend="nvrtc")
    try:
        module.compile()
    except Exception as error:  # CuPy's own class, and what NVRTC's loader raises
        if re.search(r"(cannot|could not) open source file", str(error)):
            raise DeviceError(f"CuPy does not find CUDA's header files: {LIBRARIES}\n{error}") from error
        raise DeviceError(f"a CUDA kernel does not compile for this GPU ({' '.join(options)}):\n{error}") from error
    return module


def half_dtype(name: str) -> np.dtype:
    """Return the dtype of 16 bits called ``"float16"`` or ``"bfloat16"``.

    Raises:
        DeviceError: NumPy does not know bfloat16 by itself, and the package that adds it is not there.
    """
    if name == "bfloat16":
        try:
            import ml_dtypes
        except ImportError:
            raise DeviceError("bfloat16 needs the package ml_dtypes: pip install ml_dtypes") from None
        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def keep_freed_memory() -> None:
    """Let memory that was freed stay with the process, for the next arrays, where the C library is glibc.

    A training step allocates and frees the same large arrays as the one before.  Left to itself glibc hands them
    back to the kernel, which clears them page by page when they are wanted again: 12 % of a LeNet-5 step.  A program
    started with ``MALLOC_TRIM_THRESHOLD_`` or ``MALLOC_MMAP_THRESHOLD_`` set keeps its own choice.
    """
    if any(name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 1 << 30)
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def return_freed_memory() -> None:
    """Hand freed memory back to the system, where the C library is glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)
