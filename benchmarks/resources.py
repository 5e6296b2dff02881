"""``cuda-resources``: registers, shared memory and spills of every CUDA kernel, as NVIDIA's compiler reports them.

No GPU is needed: NVRTC compiles for any.  A multiprocessor has 65,536 registers and room for 2,048 threads: a kernel of
more than 32 registers leaves part of that room empty.  A *spill* is a register that did not fit and went to memory.
"""

from __future__ import annotations

import getpass
import hashlib
import importlib
import io
import os
import re
import sysconfig
import tempfile
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tinycnn.kernels.cuda import module
from tinycnn.kernels.cuda.module import Variant

from .report import Column, Report, Table

ARCHITECTURES = ("sm_80", "sm_90")
CACHE = Path(tempfile.gettempdir()) / f"tinycnn-nvrtc-{getpass.getuser()}"
COLUMNS = [
    Column("file", "file"),
    Column("kernel", "kernel"),
    Column("dtype", "dtype"),
    Column("variants", "variants", "count"),
    *(Column(f"{arch}_registers", f"{arch} registers") for arch in ARCHITECTURES),
    Column("shared", "shared bytes"),
    Column("stack", "stack bytes"),
    Column("spilled", "spilled bytes"),
]
NOTES = [
    "one row for each kernel and dtype; where its variants (macros) differ: least–most.",
    "shared: without what a launch adds; stack: arrays that are indexed at run time; spilled: loads and stores.",
]


class Resources(NamedTuple):
    """What one kernel of one variant takes: registers of a thread, and bytes."""

    registers: int
    shared: int
    stack: int
    spilled: int


Found = dict[str, Resources]
"""By kernel."""


def modules() -> list[str]:
    """Return the modules of `tinycnn.kernels.cuda` that have kernels of their own."""
    return sorted(p.stem for p in module.HERE.glob("*.py") if "\nVARIANTS" in p.read_text(encoding="utf-8"))


def variants(name: str) -> list[Variant]:
    """Return every way to compile the kernels of a module."""
    return list(importlib.import_module(f"tinycnn.kernels.cuda.{name}").VARIANTS)


def compiled(variant: Variant, arch: str) -> Found:
    """Compile a variant and return what each of its kernels takes.

    Raises:
        ValueError: the compiler warns.
        cuda.core's errors: the source does not compile.
    """
    file, dtype, macros = variant
    defines = [o[2:] for o in module.options(dtype, macros) if o.startswith("-D")]
    log = _log(module.source(file), defines, arch)
    if "warning" in log:
        raise ValueError(f"{variant} compiles for {arch} with warnings:\n{log}")
    return parse(log)


def _log(source: str, defines: list[str], arch: str) -> str:
    """Return the compiler's messages, from a file if it was asked the same before."""
    from cuda.bindings import nvrtc
    from cuda.core import Program, ProgramOptions

    key = hashlib.sha256(repr((source, defines, arch, nvrtc.nvrtcVersion())).encode()).hexdigest()[:24]
    path = CACHE / key
    if path.exists():
        return path.read_text(encoding="utf-8")
    options = ProgramOptions(arch=arch, std="c++17", define_macro=defines, include_path=_headers(), ptxas_options="-v")
    log = io.StringIO()
    Program(source, "c++", options).compile("cubin", logs=log)
    CACHE.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    whole.write_text(log.getvalue(), encoding="utf-8")
    whole.replace(path)
    return log.getvalue()


def parse(log: str) -> Found:
    """Read the messages of ``ptxas -v``.

    A kernel's part may tell of functions that it calls; their stack is counted with its own, and their spills too.

    >>> parse('''
    ... ptxas info    : Compiling entry function 'f' for 'sm_90'
    ... ptxas info    : Function properties for f
    ... ptxas         .     8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
    ... ptxas info    : Used 40 registers, used 1 barriers, 8 bytes cumulative stack size, 1024 bytes smem
    ... ''')
    {'f': Resources(registers=40, shared=1024, stack=8, spilled=16)}
    """
    found = {}
    for part in log.split("Compiling entry function '")[1:]:
        frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part)
        registers, shared = re.search(r"Used (\d+) registers", part), re.search(r"(\d+) bytes smem", part)
        if registers is None:
            raise ValueError(f"ptxas says nothing of registers:\n{part}")
        found[part.partition("'")[0]] = Resources(
            int(registers[1]),
            int(shared[1]) if shared else 0,
            sum(int(stack) for stack, _, _ in frames),
            sum(int(stores) + int(loads) for _, stores, loads in frames),
        )
    return found


def compile_all(wanted: Iterable[tuple[Variant, str]]) -> Iterator[tuple[Variant, str, Future[Found]]]:
    """Compile (variant, architecture) pairs on all cores, and yield each with what is to become of it."""
    for name in ("cuda.bindings.nvrtc", "cuda.core"):
        importlib.import_module(name)  # before several threads do so at the same time
    wanted = list(wanted)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2) as pool:
        futures = [pool.submit(compiled, *pair) for pair in wanted]  # the compiler lets go of Python's lock
        for (variant, arch), future in zip(wanted, futures, strict=True):
            yield variant, arch, future


def run() -> Table:
    """Compile everything and return the table."""
    rows: dict[tuple[str, str, str], dict[str, list[Resources]]] = {}
    pairs = [(variant, arch) for name in modules() for variant in variants(name) for arch in ARCHITECTURES]
    for (file, dtype, _), arch, future in compile_all(pairs):
        for kernel, resources in future.result().items():
            rows.setdefault((file, kernel, dtype), {}).setdefault(arch, []).append(resources)
    table = Table("cuda_resources", "What the CUDA kernels take", COLUMNS, notes=list(NOTES))
    for (file, kernel, dtype), by_arch in sorted(rows.items()):
        everything = [r for resources in by_arch.values() for r in resources]
        table.add(
            file=f"{file}.cu",
            kernel=kernel,
            dtype=dtype,
            variants=len(by_arch[ARCHITECTURES[0]]),
            **{f"{arch}_registers": _range(r.registers for r in by_arch[arch]) for arch in ARCHITECTURES},
            **{what: _range(getattr(r, what) for r in everything) for what in ("shared", "stack", "spilled")},
        )
    return table


def report(table: Table) -> Report:
    """Return the table with a header that says which compiler it was."""
    from cuda.bindings import nvrtc

    _, major, minor = nvrtc.nvrtcVersion()
    return Report({"compiler": f"NVRTC {major}.{minor}"}, [table], "CUDA kernels")


def _range(values: Iterable[int]) -> str:
    values = sorted(values)
    return str(values[0]) if values[0] == values[-1] else f"{values[0]}–{values[-1]}"


def _headers() -> list[str]:
    """Return where NVIDIA's wheels keep the CUDA headers."""
    site = Path(sysconfig.get_paths()["purelib"])
    return [str(path.parent) for path in site.glob("nvidia/**/cuda_fp16.h")]
