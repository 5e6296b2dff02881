"""That the sanitizers see what they are there for: mistakes planted into small kernels."""

import subprocess
import sys

import pytest
import sanitizers

PLANTED = {
    "reads beyond an array": ("T x = a[i + 1]; put(b[i], get(x));", "heap-buffer-overflow"),
    "reads before an array": ("T x = a[i - 1]; put(b[i], get(x));", "heap-buffer-overflow"),
    "writes beyond an array": ("b[i + 1] = a[i];", "heap-buffer-overflow"),
    "reads beyond shared memory": (
        "__shared__ T own[50]; T *volatile p = own; p[i] = a[i]; __syncthreads(); b[i] = p[i + 1];",
        "global-buffer-overflow",
    ),
    "reads beyond shared memory given at launch": (
        "DYNAMIC_SHARED(T, own); own[i] = a[i]; __syncthreads(); b[i] = own[i + 1];",
        "heap-buffer-overflow",
    ),
    "reads beyond a local array": ("T own[4]; own[i % 4] = a[i]; b[i] = own[i % 5];", "index 4 out of bounds"),
    "an int overflows": ("int far = (i + 1) * (1 << 30); b[i] = a[far & 1];", "signed integer overflow"),
    "a shift by too much": ("int far = 1 << (i + 1); b[i] = a[far & 1];", "shift exponent 32 is too large"),
    "a vector load that is not aligned": (
        "if (i % 4 == 0 && i < 40) { float4 v = *(const float4 *)(a + i + 1); b[i] = v.x; }",
        "misaligned address",
    ),
}
RIGHT = "__shared__ T own[50]; own[i] = a[i]; __syncthreads(); b[i] = own[49 - i];"
SCRIPT = """
import sys
sys.path[:0] = ["tests"]
import numpy as np, cuda_shim, strict_cupy
from tinycnn.kernels.cuda import module
common = (module.HERE / "common.cuh").read_text()
code = common + 'extern "C" __global__ void f(const T *a, T *b) {{ int i = threadIdx.x; {} }}'
a, b = (np.ones(50, np.float32).view(strict_cupy.ndarray) for _ in range(2))
f = cuda_shim.RawModule(code=code, options=("-DTINYCNN_FLOAT",)).get_function("f")
f((1, 1, 1), (50, 1, 1), (a, b), shared_mem=200)
"""


def run(body):
    """What a process says in which a kernel of this body runs on 50 elements, and its exit code."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(body)],
        env=sanitizers.environment(),
        cwd=sanitizers.TESTS.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_mistake_is_seen(what):
    body, words = PLANTED[what]
    code, said = run(body)
    assert code
    assert words in said


def test_nothing_is_seen_where_nothing_is_wrong():
    code, said = run(RIGHT)
    assert code == 0, said
    assert "error" not in said.lower()
