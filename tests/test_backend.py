"""Which array module, and what is said when the GPU cannot be used."""

import ctypes
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tinycnn import backend


@pytest.fixture
def fresh():
    """The answer is remembered for the process; ask anew, and forget the test's answer."""
    backend.cuda_problem.cache_clear()
    yield
    backend.cuda_problem.cache_clear()


def fake_cupy(error=None, count=1, driver=13000, card=(9, 0), compiler=None):
    class CUDARuntimeError(RuntimeError):
        pass

    def get_device_count():
        if error:
            raise CUDARuntimeError(error)
        return count

    def get_version():
        if compiler:
            raise OSError(compiler)
        return 13, 0

    runtime = SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        getDeviceCount=get_device_count,
        getDevice=lambda: 0,
        driverGetVersion=lambda: driver,
        runtimeGetVersion=lambda: 13020,
        getDeviceProperties=lambda device: {"name": b"Tesla V100", "major": card[0], "minor": card[1]},
    )
    return SimpleNamespace(cuda=SimpleNamespace(runtime=runtime, nvrtc=SimpleNamespace(getVersion=get_version)))


@pytest.mark.parametrize(
    ("cupy", "words"),
    [
        (ImportError("No module named 'cupy'", name="cupy"), ["not installed", "tinycnn[cuda12]", "tinycnn[cuda13]"]),
        (ImportError("libcuda.so", name="cupy._core"), ["does not import", "libcuda.so"]),
        (fake_cupy("cudaErrorInsufficientDriver: is insufficient", driver=0), ["no NVIDIA driver", "CUDA 13.2"]),
        (fake_cupy("cudaErrorInsufficientDriver", driver=11040), ["too old", "CUDA 11.4", "built for 13.2", "cuda12"]),
        (fake_cupy("cudaErrorUnknown: unknown error"), ["driver does not work", "unknown error", "nvidia-smi"]),
        (fake_cupy(card=(7, 0)), ["Tesla V100 has compute capability 7.0", "need 8.0 or more"]),
        (fake_cupy(compiler="no libnvrtc.so.13\n"), ["does not find NVRTC", "libnvrtc.so.13", "cupy-cuda13x[ctk]"]),
        (fake_cupy("cudaErrorNoDevice: no CUDA-capable device"), ["reports no GPU", "CUDA_VISIBLE_DEVICES"]),
        (fake_cupy(count=0), ["reports no GPU"]),
    ],
)
def test_each_cause_has_its_sentence(cupy, words, fresh, monkeypatch):
    def import_cupy():
        if isinstance(cupy, Exception):
            raise cupy
        return cupy

    monkeypatch.setattr(backend, "_import_cupy", import_cupy)
    problem = backend.cuda_problem()
    assert all(word in problem for word in words)
    assert "\n" not in problem
    with pytest.raises(backend.DeviceError, match="device 'cuda' cannot be used"):
        backend.resolve_device("cuda")
    assert backend.resolve_device("auto") == "cpu"
    with pytest.raises(backend.DeviceError):
        backend.to_device(np.ones(3), "cuda")


def test_a_usable_gpu_is_used(fresh, monkeypatch):
    monkeypatch.setattr(backend, "_import_cupy", lambda: fake_cupy(count=2))
    assert backend.cuda_problem() is None
    assert backend.resolve_device("auto") == backend.resolve_device("cuda") == "cuda"


@pytest.mark.parametrize("card", [(8, 0), (8, 6), (9, 0), (12, 0)])
def test_cards_that_are_good_enough(card, fresh, monkeypatch):
    monkeypatch.setattr(backend, "_import_cupy", lambda: fake_cupy(card=card))
    assert backend.cuda_problem() is None


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            'catastrophic error: cannot open source file "cuda_fp16.h"',
            "does not find CUDA's header files: install CUDA's",
        ),
        ("error: identifier x is undefined", r"does not compile for this GPU \(-DA\)"),
    ],
)
def test_kernels_that_do_not_compile(gpu, monkeypatch, said, words):
    class Module:
        def __init__(self, **options):
            pass

        def compile(self):
            raise RuntimeError(said)

    monkeypatch.setattr(gpu, "RawModule", Module)
    with pytest.raises(backend.DeviceError, match=words):
        backend.compile_cuda("no code", ("-DA",), "f")


def test_places_have_words(gpu):
    x = np.ones(3)
    assert backend.place_words(backend.place_of(x)) == "the CPU"
    assert backend.place_words(backend.place_of(backend.to_device(x, "cuda"))) == "GPU 0"
    assert backend.gpu_name()


def test_half_dtypes():
    assert backend.half_dtype("float16") == np.float16
    assert backend.half_dtype("bfloat16").itemsize == 2


def test_bfloat16_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(backend.DeviceError, match="pip install ml_dtypes"):
        backend.half_dtype("bfloat16")


def test_the_cpu_needs_no_question(fresh, monkeypatch):
    monkeypatch.setattr(backend, "_import_cupy", lambda: pytest.fail("asked for CuPy"))
    assert backend.resolve_device("cpu") == "cpu"
    x = np.ones(3)
    assert backend.to_device(x, "cpu") is x
    assert backend.array_module(x) is np
    assert backend.device_of(x) == "cpu"


def test_unknown_devices_are_refused():
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        backend.resolve_device("gpu")


def test_array_module_does_not_import_cupy():
    if "cupy" not in sys.modules:
        backend.array_module(np.ones(2))
        assert "cupy" not in sys.modules


GLIBC = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc"
)


@GLIBC
@pytest.mark.parametrize(("own", "kept"), [({}, True), ({"MALLOC_TRIM_THRESHOLD_": "131072"}, False)])
def test_large_arrays_of_one_step_cost_the_next_no_page_faults(own, kept):
    code = """
import resource, numpy as np
from tinycnn import parallel

def step():
    arrays = [np.ones(500_000) for _ in range(8)]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

parallel.each_slice(lambda s: None, np.ones(1))
for _ in range(3):
    step()
before = faults()
for _ in range(5):
    step()
print((faults() - before) / 5)
"""
    env = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")} | own
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert (float(run.stdout) < 50) == kept


@GLIBC
def test_freed_memory_goes_back_when_asked():
    code = """
import os, numpy as np
from tinycnn import parallel

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

parallel.each_slice(lambda s: None, np.ones(1))
arrays = [np.ones(100_000) for _ in range(200)]
del arrays
before = resident()
parallel.release_scratch()
print(before - resident())
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(run.stdout) > 100
