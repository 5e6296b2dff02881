"""A rig for the GPU's benchmarks that has a CPU: PyTorch's, and the stand-in for CuPy."""

import time

import torch

from benchmarks import gpu_rig
from tinycnn import backend


class Hook:
    """CuPy's MemoryHook, to which nothing is told."""

    def __enter__(self):
        self.malloc_postprocess(mem_size=512)
        self.malloc_postprocess(mem_size=512)
        self.free_postprocess(mem_size=512)
        return self

    def __exit__(self, *exception):
        pass


class CpuRig(gpu_rig.Rig):
    """Everything as on a GPU, in its smallest size."""

    device, tiny = "cpu", True

    def __init__(self, cupy):
        self.cupy = cupy
        cupy.cuda.MemoryHook = Hook
        self.freed = 0

    def name(self):
        return "an abacus"

    def synchronize(self):
        pass

    def seconds(self, task, calls):
        begin = time.perf_counter()
        for _ in range(calls):
            task()
        return (time.perf_counter() - begin) / calls

    def captured_theirs(self, task):
        task()
        return task

    def shared(self, t):
        if t.dtype == torch.bfloat16:
            import ml_dtypes

            return backend.to_device(t.float().numpy().astype(ml_dtypes.bfloat16), "cuda")
        return backend.to_device(t.numpy(), "cuda")

    def free(self):
        self.freed += 1
