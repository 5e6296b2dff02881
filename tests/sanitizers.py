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
DEFAULT = [
    str(TESTS / "kernels" / "cuda"),
    *(f"--ignore={TESTS / 'kernels' / 'cuda' / f'test_{name}.py'}" for name in ("nvrtc", "mutants", "sanitizers")),
    *("-k", "not float64 and not float16 and not bfloat16 and not backwards1"),
]
"""Addresses do not depend on the type of the elements: float32 does for all."""


def environment():
    """The environment of a process whose kernels are checked."""
    library = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout
    return {
        **os.environ,
        "LD_PRELOAD": library.strip(),
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "TINYCNN_SHIM_FLAGS": FLAGS,
        "OMP_NUM_THREADS": "1",
    }


def main(arguments):
    """Run pytest on these arguments, a few examples for each property."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--hypothesis-profile=few", *arguments]
    return subprocess.run(command, env=environment(), cwd=TESTS.parent, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or DEFAULT))
