"""Launching kernels, and that the CPU runs them as a GPU would."""

import subprocess
import sys

import numpy as np
import pytest
import strict_cupy

from tinycnn.backend import DeviceError
from tinycnn.kernels.cuda import TWINS, module, twin

SOURCE = """#include "common.cuh"
#define SIZES int n, int m

// x reversed within every block, by way of shared memory
extern "C" __global__ void reverse(const T *x, T *y, SIZES) {
    __shared__ T own[64];
    own[threadIdx.x] = x[blockIdx.x * m + threadIdx.x];
    __syncthreads();
    y[blockIdx.x * m + threadIdx.x] = own[m - 1 - threadIdx.x];
}

extern "C" __global__ void dynamic(T *y, int n) {
    DYNAMIC_SHARED(T, own);
    put(own[(threadIdx.x + 1) % n], (A)threadIdx.x);
    __syncthreads();
    y[threadIdx.x] = own[threadIdx.x];
}

extern "C" __global__ void sums(const T *x, A *s, long long n) {
    A total = 0;
    for (EACH(i, n)) total += get(x[i]);
    total = block_sum(total);
    A again = block_sum((A)1);
    bool last = threadIdx.x == blockDim.x - 1;  // without a barrier the first is too early, or the last too late
    if (threadIdx.x == 0 || last) s[2 * blockIdx.x + last] = total * (again / blockDim.x);
}

extern "C" __global__ void shuffles(int *y) {
    int lane = threadIdx.x, x = 10 * lane;
    y[lane] = __shfl_down_sync(FULL_WARP, x, 1);
    y[32 + lane] = __shfl_up_sync(FULL_WARP, x, 1);
    y[64 + lane] = __shfl_sync(FULL_WARP, x, 5);
    y[96 + lane] = __shfl_xor_sync(FULL_WARP, x, 3);
    y[128 + lane] = __ballot_sync(FULL_WARP, lane % 2) == 0xaaaaaaaau;
}

extern "C" __global__ void lost(T *y) {
    if (threadIdx.x < 7) __syncthreads();
    else for (;;) if (threadIdx.x != 8) __syncwarp(); else { __syncthreads(); return; }
}

extern "C" __global__ void numbers(double *y, float a, double b, long long c, bool d, const T *none) {
    y[0] = a, y[1] = b, y[2] = (double)c, y[3] = d, y[4] = none == 0;
}

extern "C" __global__ void convert(const T *x, float *y, T *z, int n) {
    for (EACH(i, n)) {
        y[i] = (float)get(x[i]);
        put(z[i], (A)(y[i] * 1.5f));
    }
}
"""


@pytest.fixture
def cupy(monkeypatch, tmp_path):
    """The stand-in, and the kernels above in a file of their own."""
    (tmp_path / "common.cuh").write_text((module.HERE / "common.cuh").read_text())
    (tmp_path / "own.cu").write_text(SOURCE)
    monkeypatch.setattr(module, "HERE", tmp_path)
    yield strict_cupy.install(monkeypatch)
    for cache in (module.source, module.signatures, module._kernel):
        cache.cache_clear()


@pytest.mark.parametrize("backwards", ["0", "1"])
def test_blocks_threads_and_barriers(cupy, monkeypatch, backwards):
    monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)
    x = cupy.arange(3 * 50, dtype=np.float32)
    y = cupy.empty_like(x)
    module.kernel("own", "reverse")(3, 50, x, y, 150, 50)
    np.testing.assert_array_equal(y.get(), x.get().reshape(3, 50)[:, ::-1].ravel())
    y = cupy.empty(8, np.float32)
    module.kernel("own", "dynamic")(1, 8, y, 8, shared=32)
    np.testing.assert_array_equal(y.get(), [7, 0, 1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threads", [32, 128, 1024])
def test_sums_over_a_block(cupy, dtype, threads):
    x = cupy.arange(5000, dtype=dtype)
    s = cupy.empty((2, 2), dtype)
    module.kernel("own", "sums", dtype)(2, threads, x, s, x.size)
    assert s.get().sum(axis=0).tolist() == [4999 * 2500] * 2


def test_warp_operations(cupy):
    y = cupy.empty(160, np.int32)
    module.kernel("own", "shuffles")(1, 32, y)
    lanes = np.arange(32)
    down, up = 10 * np.minimum(lanes + 1, 31), 10 * np.maximum(lanes - 1, 0)
    expected = [down, up, np.full(32, 50), 10 * (lanes ^ 3), np.ones(32)]
    np.testing.assert_array_equal(y.get(), np.concatenate(expected))


def test_numbers_become_what_the_signature_says(cupy):
    y = cupy.empty(5)
    numbers = module.kernel("own", "numbers")
    numbers(1, 1, y, 0.1, 0.1, 1 << 40, True, None)
    np.testing.assert_array_equal(y.get(), [np.float32(0.1), 0.1, 2.0**40, 1, 1])


def test_arguments_that_do_not_fit_are_refused(cupy):
    numbers, reverse = module.kernel("own", "numbers"), module.kernel("own", "reverse")
    y, x = cupy.empty(5), cupy.empty(5, np.float32)
    with pytest.raises(TypeError, match="takes 6 arguments, got 2"):
        numbers(1, 1, y, 1)
    with pytest.raises(TypeError, match="y points to double, got an array of float32"):
        numbers(1, 1, x, 1, 1, 1, True, None)
    with pytest.raises(TypeError, match=r"c = 1\.5 is no long long"):
        numbers(1, 1, y, 1, 1, 1.5, True, None)
    with pytest.raises(TypeError, match="x points to float, got an array of float64"):
        reverse(1, 1, y, x, 1, 1)
    with pytest.raises(TypeError, match="got an array of int32: convert it"):
        module.kernel("own", "reverse", np.int32)
    with pytest.raises(OverflowError):
        reverse(1, 1, x, x, 1 << 31, 1)


def test_half_precision_rounds_to_nearest_even(cupy):
    rng = np.random.default_rng(0)
    special = [0, -0.0, np.inf, -np.inf, np.nan, 65504, 65520, 6e-8, 2e-8, 1 + 2**-11, 1 + 3 * 2**-11, 6.1e-5]
    x = np.concatenate([special, rng.standard_normal(500) * 2.0 ** rng.integers(-20, 12, 500)])
    x = np.clip(x, -65504, 65504, where=np.isfinite(x), out=x).astype(np.float16)
    y, z = cupy.empty(x.size, np.float32), cupy.empty(x.size, np.float16)
    module.kernel("own", "convert", np.float16)(2, 64, cupy.asarray(x), y, z, x.size)
    np.testing.assert_array_equal(y.get(), x.astype(np.float32))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(z.get(), (x.astype(np.float32) * np.float32(1.5)).astype(np.float16))


def test_bfloat16_rounds_to_nearest_even(cupy):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    rng = np.random.default_rng(0)
    x = np.concatenate([[0, -0.0, np.inf, np.nan, 1e-40], rng.standard_normal(500)]).astype(ml_dtypes.bfloat16)
    y, z = cupy.empty(x.size, np.float32), cupy.empty(x.size, ml_dtypes.bfloat16)
    module.kernel("own", "convert", ml_dtypes.bfloat16)(2, 64, cupy.asarray(x), y, z, x.size)
    np.testing.assert_array_equal(y.get(), x.astype(np.float32))
    expected = (x.astype(np.float32) * np.float32(1.5)).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(z.get().astype(np.float32), expected.astype(np.float32))


def test_a_barrier_that_some_threads_miss_is_found():
    script = (
        "import sys; sys.path[:0] = ['tests', 'tests/kernels/cuda']; import numpy as np, cuda_shim;"
        "from test_module import SOURCE;"
        "from tinycnn.kernels.cuda import module;"
        "text = SOURCE.replace('#include \"common.cuh\"', (module.HERE / 'common.cuh').read_text());"
        "lost = cuda_shim.RawModule(code=text, options=('-DTINYCNN_FLOAT',)).get_function('lost');"
        "lost((1, 1, 1), (32, 1, 1), (np.uint64(0),))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode
    assert "barrier" in done.stderr


def test_a_source_that_does_not_compile_is_one_clear_error(cupy):
    (module.HERE / "own.cu").write_text(SOURCE.replace("T *y, SIZES", "T *y, SIZES, nonsense z"))
    module.source.cache_clear()
    module.signatures.cache_clear()
    with pytest.raises(DeviceError, match=r"does not compile for this GPU .*\n(.*\n)*.*nonsense"):
        module.kernel("own", "sums")(1, 32, cupy.empty(1, np.float32), cupy.empty(1, np.float32), 1)


def test_every_twin_exists_and_takes_the_arguments_of_its_specification():
    import inspect

    assert TWINS
    for pair in TWINS:
        assert (
            inspect.signature(pair.load()).parameters.keys() == inspect.signature(pair.specification).parameters.keys()
        )


def test_numpy_arrays_keep_to_the_specification():
    @twin("nowhere")
    def double(x):
        """Twice x."""
        return 2 * x

    TWINS.pop()
    assert double(np.float32(2)) == 4
    assert double.__doc__ == "Twice x."
