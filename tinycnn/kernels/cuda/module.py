"""Kernels in CUDA C, from their source files to calls with checked arguments.

A kernel file ``name.cu`` lies beside this one.  It is compiled by NVRTC when one of its kernels is first called, once
for every combination of settings (macros), of which the element type is always one::

    normalize = kernel("norm", "normalize", dtype=np.float32)
    normalize(grid, block, x, y, N, 1e-5)

**Arguments** are converted to what the kernel's signature says: Python's numbers to ``int``, ``long long``, ``float``
…, arrays to pointers, after a comparison of their types.  A kernel that was given a float64 array for a ``const float
*`` would read nonsense, and CUDA would not object; here it is an error.

**Subnormals.**  CuPy compiles with ``-ftz=true``: float32 numbers below 1.2·10⁻³⁸ count as 0 on a GPU.

**Element type.**  In the sources ``T`` is the type of the elements in memory and ``A`` the one that sums are taken in:

==========  =========  =========
dtype       T          A
==========  =========  =========
float32     float      float
float64     double     double
float16     __half     float
bfloat16    bfloat16   float
==========  =========  =========
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ...backend import Array, compile_cuda

HERE = Path(__file__).parent
TYPES = {
    "float32": "TINYCNN_FLOAT",
    "float64": "TINYCNN_DOUBLE",
    "float16": "TINYCNN_HALF",
    "bfloat16": "TINYCNN_BFLOAT16",
}
"""The macro that makes `common.cuh` define T and A for a dtype."""
NUMBERS: dict[str, Any] = {
    "int": np.int32,
    "unsigned": np.uint32,
    "long long": np.int64,
    "unsigned long long": np.uint64,
    "float": np.float32,
    "double": np.float64,
    "bool": np.bool_,
}
POINTERS = {
    "float": "float32",
    "double": "float64",
    "int": "int32",
    "unsigned": "uint32",
    "long long": "int64",
    "unsigned long long": "uint64",
    "unsigned char": "uint8",
    "unsigned short": "uint16",
    "bool": "bool",
    "__half": "float16",
    "bfloat16": "bfloat16",
}
THREADS = 256
"""Threads in a block of kernels that work element by element."""
BLOCKS = 2048
"""The most blocks of such a kernel; beyond that each thread goes on to further elements (a *grid-stride loop*)."""


Variant: TypeAlias = tuple[str, str, dict[str, int]]
"""One way to compile a file: (file, dtype, macros).  Every module beside this one lists its own as ``VARIANTS``."""


class Argument(NamedTuple):
    """One argument of a kernel: its type, without ``const``, whether it is a pointer, and its name."""

    type: str
    is_pointer: bool
    name: str


@functools.cache
def source(file: str) -> str:
    """Return the text of ``file``.cu with its own headers in place of the lines that include them, each once."""
    return _inline(f"{file}.cu", set())


def _inline(name: str, included: set[str]) -> str:
    lines = []
    for number, line in enumerate((HERE / name).read_text(encoding="utf-8").splitlines(), 1):
        match = re.fullmatch(r'#include "(\w+\.cuh)"', line)
        if match is None:
            lines.append(line)
        elif match[1] not in included:
            included.add(match[1])
            lines += [f'#line 1 "{match[1]}"', _inline(match[1], included), f'#line {number + 1} "{name}"']
    return "\n".join(lines) + "\n"


@functools.cache
def signatures(file: str) -> dict[str, list[Argument]]:
    """Return the arguments of every kernel in ``file``.cu."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", source(file), flags=re.DOTALL)
    kernels = re.finditer(
        r'extern "C" __global__ void\s*(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\((.*?)\)\s*\{', text, re.DOTALL
    )
    macros = dict(re.findall(r"^#define (\w+) (.*)$", text, re.MULTILINE))  # a macro may stand for several arguments
    lists = {match[1]: re.sub(r"\w+", lambda word: macros.get(word[0], word[0]), match[2]) for match in kernels}
    return {name: [_argument(part) for part in arguments.split(",")] for name, arguments in lists.items()}


def _argument(declaration: str) -> Argument:
    words = [word for word in re.findall(r"\w+|\*", declaration) if word not in ("const", "__restrict__")]
    return Argument(" ".join(word for word in words[:-1] if word != "*"), "*" in words, words[-1])


@dataclass(frozen=True)
class Kernel:
    """A kernel, to be called with a grid, a block and its arguments.

    Attributes:
        file, name: where it is.
        options: the compiler's.
        arguments: what it takes, T and A resolved.
    """

    file: str
    name: str
    options: tuple[str, ...]
    arguments: tuple[Argument, ...]

    def __call__(self, grid: int | tuple[int, ...], block: int | tuple[int, ...], *args: Any, shared: int = 0) -> None:
        """Launch the kernel on the current stream.

        Args:
            grid, block: numbers of blocks and of threads in a block, along up to three axes.
            args: arrays and numbers; None is a null pointer.
            shared: bytes of dynamic shared memory.

        Raises:
            TypeError: arguments that do not fit the signature.
        """
        if len(args) != len(self.arguments):
            raise TypeError(f"{self.name} takes {len(self.arguments)} arguments, got {len(args)}")
        converted = [self._convert(a, x) for a, x in zip(self.arguments, args, strict=True)]
        compiled = compile_cuda(source(self.file), self.options, self.name, shared)
        compiled(_three(grid), _three(block), tuple(converted), shared_mem=shared)

    def _convert(self, argument: Argument, x: Any) -> Any:
        if not argument.is_pointer:
            number = NUMBERS[argument.type](x)
            if number != x and argument.type not in ("float", "double"):
                raise TypeError(f"{self.name}: {argument.name} = {x!r} is no {argument.type}")
            return number
        if x is None:
            return np.uint64(0)
        if x.dtype.name != POINTERS[argument.type]:
            raise TypeError(f"{self.name}: {argument.name} points to {argument.type}, got an array of {x.dtype}")
        return x


def _three(size: int | tuple[int, ...]) -> tuple[int, ...]:
    size = (size,) if isinstance(size, int) else tuple(size)
    return size + (1,) * (3 - len(size))


def kernel(file: str, name: str, dtype: Any = np.float32, **macros: int) -> Kernel:
    """Return the kernel ``name`` of ``file``.cu for elements of ``dtype``, with further ``macros`` defined.

    Raises:
        TypeError: no kernel is compiled for that dtype.
    """
    return _kernel(file, name, np.dtype(dtype).name, tuple(sorted(macros.items())))


@functools.lru_cache(maxsize=1024)
def _kernel(file: str, name: str, dtype: str, macros: tuple[tuple[str, int], ...]) -> Kernel:
    if dtype not in TYPES:
        raise TypeError(
            f"there are CUDA kernels for {', '.join(TYPES)}; got an array of {dtype}: convert it with astype"
        )
    sums = "double" if dtype == "float64" else "float"
    names = {"T": {name: ctype for ctype, name in POINTERS.items()}[dtype], "A": sums}
    arguments = tuple(a._replace(type=names.get(a.type, a.type)) for a in signatures(file)[name])
    return Kernel(file, name, options(dtype, dict(macros)), arguments)


def options(dtype: str, macros: Mapping[str, int]) -> tuple[str, ...]:
    """Return the compiler's options for elements of ``dtype``."""
    return ("-std=c++17", f"-D{TYPES[dtype]}", *(f"-D{name}={value}" for name, value in sorted(macros.items())))


def blocks_for(n: int, threads: int = THREADS) -> int:
    """Return how many blocks to launch for ``n`` elements, by a kernel with a grid-stride loop."""
    return max(1, min(BLOCKS, -(-n // threads)))


def packed(x: Array) -> Array:
    """Return ``x``, C-contiguous: a copy only where it is not."""
    return x if x.flags.c_contiguous else x.copy()
