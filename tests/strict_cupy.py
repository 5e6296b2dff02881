"""A stand-in for CuPy that computes with NumPy and refuses what CuPy refuses.

Its arrays are a class of their own.  As with CuPy, mixing one with a NumPy array of more than one element is a
TypeError, turning one into a NumPy array without ``get`` is a TypeError, and only functions that CuPy has exist.  It
says nothing about CUDA itself, but code that quietly falls back to the host fails here as it would there.  Kernels in
CUDA C run on the CPU (`cuda_shim`).
"""

import sys
from types import ModuleType, SimpleNamespace

import cuda_shim
import numpy as np

# Functions of CuPy 14 that the package may use: same names and arguments as in NumPy.
FUNCTIONS = frozenset(
    """
    abs absolute add all any arange copyto argmax argmin argsort array_equal bitwise_and broadcast_to ceil clip
    concatenate copysign cumsum divide dot einsum equal exp expand_dims expm1 eye fabs flip float_power floor fmax
    fmin full full_like greater greater_equal isfinite isnan less less_equal linalg log log1p logaddexp
    logical_and logical_not logical_or matmul max maximum mean min minimum mod moveaxis multiply negative
    not_equal ones ones_like pad power prod reciprocal repeat reshape rint roll sign split sqrt square stack
    subtract sum take tanh tensordot tile transpose tril triu true_divide where zeros zeros_like empty empty_like
    ascontiguousarray take_along_axis bincount count_nonzero
    """.split()  # noqa: SIM905 (a list of 100 quoted words is no easier to read)
)


class ndarray(np.ndarray):
    """An array that lives "on the device"."""

    def get(self, order="C"):
        return np.array(self.view(np.ndarray), order=order)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        if kwargs.get("where", True) is not True:
            raise TypeError("CuPy's ufuncs have no where")
        inputs = [_host(x) for x in inputs]
        if out is not None:
            kwargs["out"] = tuple(_host(x, written=True) for x in out)
        result = _device(getattr(ufunc, method)(*inputs, **kwargs))
        return out[0] if out is not None and len(out) == 1 else result

    def __array_function__(self, function, types, args, kwargs):
        if function.__name__ not in FUNCTIONS and function.__module__ != "numpy.linalg":
            raise TypeError(f"numpy.{function.__name__} of a device array")
        return _device(function(*_host(args), **_host(kwargs)))

    def __setitem__(self, key, value):
        self.view(np.ndarray)[_host(key, index=True)] = _host(value)

    def __getitem__(self, key):
        return _device(self.view(np.ndarray)[_host(key, index=True)])

    def __array_wrap__(self, *args, **kwargs):
        raise TypeError("implicit conversion to a NumPy array is not allowed: use get")


def _host(x, written=False, index=False):
    """The NumPy array behind a device array; anything else that CuPy would take as it is."""
    if isinstance(x, ndarray):
        return x.view(np.ndarray)
    if isinstance(x, np.ndarray):
        if written or (x.size > 1 and not index):
            raise TypeError(f"Unsupported type {np.ndarray} of shape {x.shape}: it is on the host")
        return x
    if isinstance(x, list | tuple):
        return type(x)(_host(v, written, index) for v in x)
    if isinstance(x, dict):
        return {key: _host(v) for key, v in x.items()}
    return x


def _device(x):
    """Results are device arrays, numbers included."""
    if isinstance(x, np.ndarray | np.generic):
        return np.asarray(x).view(ndarray)
    return type(x)(map(_device, x)) if isinstance(x, list | tuple) else x


def _asarray(x, dtype=None, order="C"):
    if isinstance(x, ndarray):
        return np.array(x.view(np.ndarray), dtype=dtype, copy=None).view(ndarray)
    return np.array(x, dtype=dtype, order=order).view(ndarray)


def _as_strided(x, shape, strides):
    return np.lib.stride_tricks.as_strided(x.view(np.ndarray), shape, strides).view(ndarray)


def make():
    """Return the module, to be put into ``sys.modules`` as ``cupy``."""
    module = ModuleType("cupy")
    for name in FUNCTIONS:
        function = getattr(np, name)
        wrapped = function
        if callable(function):

            def wrapped(*args, _function=function, out=None, **kwargs):
                if out is None:
                    return _device(_function(*_host(args), **_host(kwargs)))
                _function(*_host(args), out=_host(out, written=True), **_host(kwargs))
                return out

        setattr(module, name, wrapped)
    runtime = SimpleNamespace(getDeviceCount=lambda: 1, getDevice=lambda: 0, CUDARuntimeError=RuntimeError)
    stream = SimpleNamespace(synchronize=lambda: None)
    module.ndarray = ndarray
    module.RawModule = cuda_shim.RawModule
    module.asarray = module.array = _asarray
    module.lib = SimpleNamespace(stride_tricks=SimpleNamespace(as_strided=_as_strided))
    module.cuda = SimpleNamespace(runtime=runtime, get_current_stream=lambda: stream)
    for name in (
        "float32",
        "float64",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint32",
        "bool_",
        "inf",
        "nan",
        "pi",
        "newaxis",
        "dtype",
    ):
        setattr(module, name, getattr(np, name))
    return module


def install(monkeypatch):
    """Make it the CuPy of the process for one test, with a usable GPU."""
    from tinycnn import backend

    module = make()
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(backend, "_import_cupy", lambda: module)
    for cache in (backend.cuda_problem, backend._compiled_kernel, backend._compiled_module):
        cache.cache_clear()
    return module
