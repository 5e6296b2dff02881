"""A stand-in for CuPy that computes with NumPy and refuses what CuPy refuses.

Its arrays are a class of their own.  As with CuPy, mixing one with a NumPy array of more than one element is a
TypeError, turning one into a NumPy array without ``get`` is a TypeError, and only functions that CuPy has exist.  It
says nothing about CUDA itself, but code that quietly falls back to the host fails here as it would there.  Kernels in
CUDA C run on the CPU (`cuda_shim`); streams, events, graphs and memory pools are in `fake_cuda`.
"""

import sys
from types import ModuleType, SimpleNamespace

import cuda_shim
import fake_cuda
import numpy as np
from fake_cuda import memory_of, recording, refuse

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

    @property
    def data(self):
        return SimpleNamespace(ptr=self.__array_interface__["data"][0])

    @property
    def base(self):
        """The array that owns the memory, as CuPy's views have it; here that is of another class."""
        return memory_of(self)

    @property
    def device(self):
        return fake_cuda.STATE.device

    def set(self, arr, stream=None):
        if self.shape != arr.shape or self.dtype != arr.dtype or not self.flags.c_contiguous:
            raise ValueError("set takes an array of the same shape and type")
        refuse()
        (stream or fake_cuda.STATE.streams[-1]).do(lambda: np.copyto(self.view(np.ndarray), arr))

    def get(self, order="C"):
        refuse()
        fake_cuda.STATE.streams[-1].catch_up()
        return np.array(self.view(np.ndarray), order=order)

    def item(self):
        return self.get().item()

    def tolist(self):
        return self.get().tolist()

    def __bool__(self):
        return bool(self.get())

    def __int__(self):
        return int(self.get())

    def __float__(self):
        return float(self.get())

    def __index__(self):
        return self.get().__index__()

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        if kwargs.get("where", True) is not True:
            raise TypeError("CuPy's ufuncs have no where")
        if ufunc is np.matmul:
            refuse("cuBLAS")
        if out is None or (len(out) == 1 and out[0] is None):
            return _execute(getattr(ufunc, method), inputs, kwargs)
        return _execute(getattr(ufunc, method), inputs, kwargs, out if len(out) > 1 else out[0])

    def __array_function__(self, function, types, args, kwargs):
        if function.__name__ not in FUNCTIONS and function.__module__ != "numpy.linalg":
            raise TypeError(f"numpy.{function.__name__} of a device array")
        if function.__name__ == "copyto":
            return _execute(function, args, kwargs, effect=True)
        return _execute(function, args, kwargs)

    def __setitem__(self, key, value):
        _host(value)
        _execute(_set, (self, _Key(key), value), {}, effect=True)

    def __getitem__(self, key):
        return _execute(_get, (self, _Key(key)), {})

    def fill(self, value):
        _execute(np.ndarray.fill, (self, value), {}, effect=True)

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


class _Key:
    """What is between brackets: there, indices may be on the host."""

    def __init__(self, key):
        self.key = key if isinstance(key, tuple) else (key,)
        arrays = [k for k in self.key if isinstance(k, np.ndarray | list)]
        if any(type(k) is not ndarray or k.dtype == bool for k in arrays):
            refuse()  # it would be copied; how many are true decides the shape

    def __iter__(self):
        return iter(self.key)


def _get(x, *key):
    return x[key]


def _set(x, *key_and_value):
    *key, value = key_and_value
    x[tuple(key)] = value


def _execute(function, args, kwargs, out=None, effect=False):
    flat = [v for a in args for v in (a if isinstance(a, _Key) else [a])]
    indexing = any(isinstance(a, _Key) for a in args)

    def host(x, written=False):
        return _host(x, written, indexing)

    return fake_cuda.execute(function, tuple(flat), kwargs, host, _device, out, effect)


def _device(x):
    """Results are device arrays, numbers included."""
    if isinstance(x, np.ndarray | np.generic):
        x = np.asarray(x)
        return (x if memory_of(x) is not None else fake_cuda.allocate(x)).view(ndarray)
    if hasattr(x, "_make"):  # a named tuple, as those of linalg
        return x._make(map(_device, x))
    return type(x)(map(_device, x)) if isinstance(x, list | tuple) else x


def _asarray(x, dtype=None, order="C"):
    if isinstance(x, ndarray):
        return x if dtype is None or x.dtype == dtype else x.astype(dtype)
    refuse()
    return _device(np.array(x, dtype=dtype, order=order))


def _array(x, dtype=None, copy=True, order="K"):
    if isinstance(x, ndarray) and copy:
        return x.astype(dtype or x.dtype, order=order)
    return _asarray(x, dtype, order)


def _method(name):
    function = getattr(np.ndarray, name)

    def method(self, *args, out=None, **kwargs):
        return _execute(function, (self, *args), kwargs, out)

    return method


METHODS = """
    all any argmax argmin astype clip copy cumsum dot flatten max mean min prod ravel repeat reshape round std sum take
    var
""".split()  # noqa: SIM905 (as above)
for _name in METHODS:
    setattr(ndarray, _name, _method(_name))


class RawModule(cuda_shim.RawModule):
    """CuPy's, of kernels that can be recorded."""

    def get_function(self, name):
        function = super().get_function(name)
        function.__class__ = _Kernel
        return function


class _Kernel(cuda_shim.Function):
    def __call__(self, grid, block, args, *, shared_mem=0):
        if recording() is None:
            return super().__call__(grid, block, args, shared_mem=shared_mem)
        if any(type(x) is np.ndarray for x in args):
            raise TypeError("an array on the host was given to a kernel")
        return recording().add(super().__call__, grid, block, args, shared_mem=shared_mem)


def _as_strided(x, shape, strides):
    return _device(np.lib.stride_tricks.as_strided(x.view(np.ndarray), shape, strides))


def _sliding_window_view(x, window_shape, axis=None):
    return _device(np.lib.stride_tricks.sliding_window_view(x.view(np.ndarray), window_shape, axis))


def make():
    """Return the module, to be put into ``sys.modules`` as ``cupy``."""
    module = ModuleType("cupy")
    for name in FUNCTIONS:
        function = getattr(np, name)
        wrapped = function
        if callable(function):

            def wrapped(*args, _function=function, out=None, **kwargs):
                return _execute(_function, args, kwargs, out, effect=_function is np.copyto)

        setattr(module, name, wrapped)
    module.ndarray = ndarray
    module.RawModule = RawModule
    module.asarray, module.array = _asarray, _array
    module.lib = SimpleNamespace(stride_tricks=SimpleNamespace(as_strided=_as_strided))
    module.lib.stride_tricks.sliding_window_view = _sliding_window_view
    module.cuda = fake_cuda.make(ndarray)
    module.get_default_memory_pool = lambda: fake_cuda.STATE.default_pool
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
