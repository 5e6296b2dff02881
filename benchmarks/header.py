"""Where and how something was measured: the header of every report."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import numpy as np
from threadpoolctl import ThreadpoolController, threadpool_info

import tinycnn


def describe(threads: int) -> dict[str, str]:
    """Return the header: hardware, versions, threads, precision, memory format, repeats, date."""
    versions = [f"{name} {version(name)}" for name in ("numpy", "torch") if version(name)]
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return {
        "machine": f"{_cpu()}, {_cores()} cores usable, {_memory()}",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}{load}",
        "versions": f"tinycnn {tinycnn.__version__}{commit()}, {', '.join(versions)}",
        "threads": f"{threads}, in tinycnn and in PyTorch",
        "BLAS": f"{_blas()}: one BLAS thread in each of tinycnn's {threads}; {_torch_blas()}",
        "precision": "float32 throughout; no TF32, no bfloat16",
        "memory format": "tinycnn: channels-last; PyTorch: the better of contiguous and channels_last, both timed",
        "timing": "in turns (A B A B …), each after calls of its own that do not count; repeats: below each table",
        "numbers": "median ±half the distance between the quartiles; ratio: PyTorch's best median ÷ tinycnn's, "
        "so above 1 tinycnn is the faster",
        "date": now(),
    }


def now() -> str:
    """Return date and time, with the zone."""
    return datetime.datetime.now().astimezone().isoformat(timespec="minutes")


def version(package: str) -> str | None:
    """Return the installed version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    simd = [
        name for name in ("avx512f", "avx2", "asimd") if name in found.get("flags", found.get("Features", "")).split()
    ]
    return " ".join([found.get("model name", platform.machine()), *simd[:1]])


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB of memory"
    except (AttributeError, ValueError, OSError):
        return "memory unknown"


def commit() -> str:
    """Return the commit of the checkout that this is, if it is one."""
    root = Path(__file__).parent
    git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        return f" ({subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()})"
    except (OSError, subprocess.CalledProcessError):
        return ""


def _blas() -> str:
    """Return NumPy's BLAS."""
    for library in threadpool_info():
        if library["user_api"] == "blas" and "numpy" in library["filepath"]:
            return "NumPy's {internal_api} {version} ({architecture})".format(**{"architecture": "", **library})
    return "NumPy's BLAS (unknown)"


def _torch_blas() -> str:
    torch = sys.modules.get("torch")
    if torch is None:
        return "PyTorch not loaded"
    lines = [line.strip(" -").removeprefix("Intel(R) ") for line in torch.__config__.show().splitlines()]
    names = [
        line.replace("-Product", " (").split(" (")[0].replace("Math Kernel Library Version", "MKL")
        for line in lines
        if line.startswith(("oneAPI", "MKL-DNN", "OpenBLAS"))
    ]
    return f"PyTorch's {' and '.join(names)}"


def gemm_peak(threads: int, size: int = 2048, seconds: float = 2.0) -> float:
    """Return the FLOP/s of float32 matrix products, one `numpy.matmul` in each of ``threads`` threads at a time.

    The median over ``seconds`` of products of size×size matrices, with BLAS held to one thread as tinycnn does.
    """
    rng = np.random.default_rng(0)
    operands = [[rng.standard_normal((size, size), np.float32) for _ in range(3)] for _ in range(threads)]

    def multiply(i: int) -> None:
        a, b, out = operands[i]
        np.matmul(a, b, out=out)

    with ThreadpoolController().limit(limits=1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        times = _repeat(lambda: list(pool.map(multiply, range(threads))), seconds)
    return threads * 2 * size**3 / statistics.median(times)


def _repeat(task: Callable[[], object], seconds: float) -> list[float]:
    task()
    times: list[float] = []
    while sum(times) < seconds:
        begin = time.perf_counter()
        task()
        times.append(time.perf_counter() - begin)
    return times
