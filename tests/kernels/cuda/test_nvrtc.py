"""NVRTC compiles every kernel in every variant, without a GPU, for the GPUs it is meant for."""

import pytest

from benchmarks import resources
from benchmarks.resources import ARCHITECTURES, Resources
from tinycnn.kernels.cuda import module

pytest.importorskip("cuda.core", reason="needs the compiler: pip install 'tinycnn[dev]'", exc_type=ImportError)

MAY_SPILL: set[str] = set()
"""Kernels for which a few spilled registers were measured to cost nothing."""
PAIRS = [pytest.param(name, arch, id=f"{name}-{arch}") for name in resources.modules() for arch in ARCHITECTURES]


@pytest.fixture(scope="module")
def results():
    """What became of every variant: all are compiled on all cores, by the time the first is asked for."""
    wanted = [(v, arch) for name in resources.modules() for v in resources.variants(name) for arch in ARCHITECTURES]
    return {(str(variant), arch): future for variant, arch, future in resources.compile_all(wanted)}


def test_every_file_of_kernels_has_its_variants():
    files = {file for name in resources.modules() for file, *_ in resources.variants(name)}
    assert files == {p.stem for p in module.HERE.glob("*.cu")}
    for name in resources.modules():
        variants = [str(v) for v in resources.variants(name)]
        assert variants
        assert len(variants) == len(set(variants)), f"{name}: a variant stands twice"


@pytest.mark.parametrize(("name", "arch"), PAIRS)
def test_every_variant_compiles_and_spills_nothing(name, arch, results):
    for variant in resources.variants(name):
        found = results[str(variant), arch].result()
        assert set(found) == set(module.signatures(variant[0]))
        spilling = {kernel: r for kernel, r in found.items() if r.spilled and kernel not in MAY_SPILL}
        assert not spilling, f"{variant} spills registers"


def test_a_kernel_that_needs_too_many_registers_is_seen_to_spill(monkeypatch):
    source = """extern "C" __global__ void __launch_bounds__(1024) many(const float *x, float *y) {
    float a[200];
#pragma unroll
    for (int i = 0; i < 200; i++) a[i] = x[i * 1024 + threadIdx.x];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 200; i++) y[i * 1024 + threadIdx.x] = a[i] * a[(i * 7 + 1) % 200];
}
"""
    monkeypatch.setattr(module, "source", lambda file: source)
    found = resources.compiled(("many", "float32", {}), "sm_90")["many"]
    assert found.registers <= 64
    assert found.spilled > 100


def test_a_warning_is_an_error(monkeypatch):
    monkeypatch.setattr(module, "source", lambda file: 'extern "C" __global__ void f(int *x) { int unused; x[0] = 1; }')
    with pytest.raises(ValueError, match="declared but never referenced"):
        resources.compiled(("f", "float32", {}), "sm_80")


def test_what_ptxas_says_is_read():
    log = """ptxas info    : 4 bytes gmem
ptxas info    : Compiling entry function 'one' for 'sm_80'
ptxas info    : Function properties for helper
ptxas         .     16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Function properties for one
ptxas         .     8 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 24 registers, used 1 barriers, 8 bytes cumulative stack size, 256 bytes smem, 400 bytes cmem[0]
ptxas info    : Compiling entry function 'two' for 'sm_80'
ptxas info    : Function properties for two
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers
"""
    assert resources.parse(log) == {"one": Resources(24, 256, 24, 12), "two": Resources(8, 0, 0, 0)}
