"""Kernels in CUDA C on the CPU: what `strict_cupy` has for a ``RawModule``.

`cuda_shim.h` makes C++ of the CUDA; g++ compiles it, once for every source and set of options, and the functions are
called with the memory of NumPy arrays.  ``TINYCNN_SHIM_BACKWARDS=1`` runs blocks and threads in reverse order: a
result that depends on the order shows a race.  ``TINYCNN_SHIM_FLAGS`` is handed to the compiler (-fsanitize=…).
"""

import ctypes
import functools
import hashlib
import os
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

import numpy as np

HEADER = Path(__file__).with_name("cuda_shim.h")
FLAGS = [
    *("-std=c++17", "-O1", "-fPIC", "-U_FORTIFY_SOURCE", "-ffp-contract=off", "-Wall", "-Werror"),
    *("-Wno-unused-function", "-Wno-unused-variable", "-Wno-unknown-pragmas", "-Wno-maybe-uninitialized"),
]
SYNCHRONIZES = re.compile(r"__sync|__shfl|__ballot|__any|(block|warp|mma)_\w*[(<]")
CACHE = Path(os.environ.get("TINYCNN_SHIM_CACHE") or Path(tempfile.gettempdir()) / f"tinycnn-shim-{os.getuid()}")


def kernels(code):
    """Name and body of every kernel in the source."""
    for match in re.finditer(r'extern "C" __global__ void\s*(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(', code):
        start = end = code.index("{", match.end())
        depth = 0
        for end in range(start, len(code)):
            depth += {"{": 1, "}": -1}.get(code[end], 0)
            if depth == 0:
                break
        yield match[1], code[start:end]


@functools.cache
def header(flags):
    """The path of a copy of the header that lies compiled beside itself, which halves the time for most kernels."""
    text = HEADER.read_text(encoding="utf-8")
    path = CACHE / f"{_hash(text, *flags)}.h"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            copy, built = Path(folder) / path.name, Path(folder) / f"{path.name}.gch"
            copy.write_text(text, encoding="utf-8")
            command = ["g++", *flags, "-x", "c++-header", str(copy), "-o", str(built)]
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                built.rename(CACHE / built.name)
            copy.rename(path)
    return path


def _hash(*texts):
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:24]


@functools.cache
def library(code, options):
    """The shared library of a source, compiled."""
    entries = "\n".join(
        f'extern "C" int run_{name}(const unsigned *grid, const unsigned *block, size_t shared, int back, void **args) '
        f"{{ return shim::run({name}, args, grid, block, shared, back, {int(not SYNCHRONIZES.search(body))}); }}"
        for name, body in kernels(code)
    )
    flags = (*FLAGS, *shlex.split(os.environ.get("TINYCNN_SHIM_FLAGS", "")))
    text = f'#include "{header(flags)}"\n#line 1 "kernel.cu"\n{code}\n{entries}\n'
    defined = [option for option in options if option.startswith("-D")]
    path = CACHE / f"{_hash(text, *flags, *defined)}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            built = Path(folder) / "kernel.so"
            command = ["g++", *flags, *defined, "-shared", "-x", "c++", "-", "-o", str(built)]
            done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"g++ does not compile the kernels:\n{done.stderr}")
            built.rename(path)
    return ctypes.CDLL(str(path))


class RawModule:
    """CuPy's, as far as it is used."""

    def __init__(self, *, code, options=(), backend="nvrtc"):
        self.code, self.options = code, tuple(options)

    def compile(self):
        library(self.code, self.options)

    def get_function(self, name):
        return Function(getattr(library(self.code, self.options), f"run_{name}"))


class Function:
    """A kernel that is called with grid, block and arguments."""

    max_dynamic_shared_size_bytes = 48 << 10

    def __init__(self, function):
        self.function = function

    def __call__(self, grid, block, args, *, shared_mem=0):
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise RuntimeError(f"{shared_mem} bytes of shared memory are more than the kernel may have")
        memory = []
        for x in args:
            if type(x).__name__ == "ndarray" and not isinstance(x, np.generic):
                if type(x) is np.ndarray:
                    raise TypeError("an array on the host was given to a kernel")
                memory.append(np.uint64(x.view(np.ndarray).__array_interface__["data"][0]))
            elif isinstance(x, np.generic):
                memory.append(x)
            else:
                raise TypeError(f"an argument of a kernel must be an array or a NumPy number, got {type(x)}")
        cells = [np.array([x]) for x in memory]
        pointers = (ctypes.c_void_p * len(cells))(*(cell.ctypes.data for cell in cells))
        sizes = [(ctypes.c_uint * 3)(*size) for size in (grid, block)]
        backwards = int(os.environ.get("TINYCNN_SHIM_BACKWARDS", "0"))
        self.function(*sizes, ctypes.c_size_t(shared_mem), backwards, pointers)
