"""Runs tests with the kernels under AddressSanitizer and UndefinedBehaviorSanitizer, and everything else as it is.

    python tests/sanitizers.py                  # a few shapes for every kernel
    python tests/sanitizers.py tests/kernels/cuda/test_pool.py -k max

The kernels' memory is that of NumPy arrays, which comes from the sanitizer's malloc: a byte beyond one is an error,
and so are one beyond an array in shared memory, an int that overflows and a float4 that is not aligned.
"""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=all -fsanitize-sections=shim_shared -fno-omit-frame-pointer"
KERNELS = TESTS / "kernels" / "cuda"
WITHOUT_KERNELS = {"test_nvrtc.py", "test_mutants.py", "test_sanitizers.py"}
SOME = ["-k", "not float64 and not float16 and not bfloat16"]
"""Addresses do not depend on the type of the elements: float32 does for all."""


def environment():
    """The environment of a process whose kernels are checked."""
    library = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout
    return {
        **os.environ,
        "LD_PRELOAD": library.strip(),
        "ASAN_OPTIONS": "detect_leaks=0:malloc_context_size=3:quarantine_size_mb=32",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "TINYCNN_SHIM_FLAGS": FLAGS,
        "OMP_NUM_THREADS": "1",
    }


def start(arguments):
    """Start pytest with these arguments, a few examples for each property."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--hypothesis-profile=few", *arguments]
    return subprocess.Popen(command, env=environment(), cwd=TESTS.parent)


def main(arguments):
    """Run what was asked for; by default a few tests of every kernel, the files dealt out to all cores."""
    if arguments:
        return start(arguments).wait()
    files = sorted(str(path) for path in KERNELS.glob("test_*.py") if path.name not in WITHOUT_KERNELS)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    hands = [files[i::cores] for i in range(min(cores, len(files)))]
    running = [start([*hand, *SOME]) for hand in hands]
    return max(abs(process.wait()) for process in running)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
