"""What `strict_cupy` has for CUDA's streams, events, graphs and memory pools.

**Graphs.**  While a stream is capturing, nothing that is done on it is done: launches, operations and copies are
recorded, and done at every `Graph.launch`.  Results of operations are poisoned meanwhile (nan, or 1 for integers), so
that whoever looks at them is found out; looking at them, synchronising, cuBLAS and copies from the host are refused
as CuPy refuses them.  As in CUDA a graph keeps no array alive: if one that it reads or writes has been freed by the
time of a launch, that is an error here.  Memory of a pool lives as long as the pool, whatever happens to the arrays.

**Streams.**  Work is done at once, on whatever stream, but for copies from the host that name another stream than the
current one: these are done as late as events and synchronisations allow, so that a missing one shows.
"""

import contextlib
import ctypes
import math
import time
import weakref
from types import SimpleNamespace

import numpy as np

CUBLAS = {"matmul", "dot", "einsum", "tensordot"}
TOTAL = 8 << 30
"""Bytes of the card."""
SYNCHRONOUS = "the current stream is capturing, so synchronous API calls are disallowed"


class CUDARuntimeError(RuntimeError):
    """CuPy's."""


class OutOfMemoryError(MemoryError):
    """CuPy's."""

    def __init__(self, size, total, limit=0):
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes).")


class Memory(np.ndarray):
    """The memory of one array and its views."""


def _up(x):
    return np.ndarray.base.__get__(x) if isinstance(x, np.ndarray) else getattr(x, "base", None)


def memory_of(x):
    """The memory that an array lies in; None if that is not the device's."""
    while x is not None and not isinstance(x, Memory):
        x = _up(x)
    return x


def _owner(x):
    while _up(x) is not None:
        x = _up(x)
    return x


# ---- memory ------------------------------------------------------------------------------------------------


class MemoryPool:
    """CuPy's, as far as it is used."""

    def __init__(self, allocator=None):
        self.forget()
        self.limit = 0

    def forget(self):
        self.kept, self.arrays = [], []

    def malloc(self, size):
        raise AssertionError("to be handed to using_allocator")

    def take(self, memory, keep):
        """Count an array; keep its memory for a graph."""
        if self.limit and self.used_bytes() + memory.nbytes > self.limit:
            raise OutOfMemoryError(memory.nbytes, self.used_bytes(), self.limit)
        self.arrays.append(weakref.ref(memory))
        if keep:
            self.kept.append(_owner(memory))

    def used_bytes(self):
        self.arrays = [memory for memory in self.arrays if memory() is not None]
        return sum(memory().nbytes for memory in self.arrays)

    def total_bytes(self):
        return max(self.used_bytes(), sum(x.nbytes for x in self.kept))

    def free_bytes(self):
        return self.total_bytes() - self.used_bytes()

    def free_all_blocks(self, stream=None):
        STATE.log.append("free_all_blocks")

    def set_limit(self, size=None, fraction=None):
        self.limit = size or 0

    def get_limit(self):
        return self.limit


@contextlib.contextmanager
def using_allocator(allocator=None):
    before, STATE.pool = STATE.pool, allocator.__self__
    try:
        yield
    finally:
        STATE.pool = before


def allocate(x):
    """The new array ``x``, as memory of the device."""
    memory = x.view(Memory)
    STATE.pool.take(memory, keep=recording() is not None and STATE.pool is not STATE.default_pool)
    return memory


class Ref:
    """A device array without a claim to its memory."""

    def __init__(self, x):
        self.type, self.shape, self.strides, self.dtype = type(x), x.shape, x.strides, x.dtype
        self.address = x.__array_interface__["data"][0]
        self.owner = weakref.ref(_owner(memory_of(x)))

    def resolve(self):
        assert self.owner() is not None, f"a graph uses an array {self.shape} {self.dtype} that was freed"
        if not math.prod(self.shape):
            return np.empty(self.shape, self.dtype).view(self.type)
        reach = [(n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True)]
        low, high = sum(min(r, 0) for r in reach), sum(max(r, 0) for r in reach) + self.dtype.itemsize
        buffer = (ctypes.c_char * (high - low)).from_address(self.address + low)
        return np.ndarray(self.shape, self.dtype, buffer, -low, self.strides).view(self.type)


def _each(x, kind, change):
    if isinstance(x, kind):
        return change(x)
    if isinstance(x, list | tuple):
        return type(x)(_each(v, kind, change) for v in x)
    return {key: _each(v, kind, change) for key, v in x.items()} if isinstance(x, dict) else x


# ---- streams and graphs ------------------------------------------------------------------------------------


class Stream:
    """CuPy's, as far as it is used."""

    def __init__(self, null=False, non_blocking=False, ptds=False, priority=None):
        self.ptr = 0 if null else id(self)
        self.non_blocking = non_blocking
        self.graph = None
        self.waiting, self.done_count = [], 0

    def __enter__(self):
        STATE.streams.append(self)
        return self

    def __exit__(self, *exception):
        assert STATE.streams.pop() is self

    def do(self, task):
        """Do a task now, if this is the current stream; otherwise as late as possible."""
        if STATE.streams[-1] is self:
            self.catch_up()
            task()
        else:
            self.waiting.append(task)

    def catch_up(self, count=None):
        """Do what is waiting, up to task number ``count``."""
        while self.waiting and (count is None or self.done_count < count):
            self.done_count += 1
            self.waiting.pop(0)()

    def synchronize(self):
        if self.graph is not None:
            self.graph.valid = False
            raise CUDARuntimeError(
                "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing"
            )
        STATE.log.append("synchronize")
        self.catch_up()

    def record(self, event=None):
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event):
        stream, count = event.stream, event.count
        self.do(lambda: stream is None or stream.catch_up(count))

    def begin_capture(self, mode=None):
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        assert STATE.streams[-1] is self
        assert self.non_blocking
        self.catch_up()
        self.graph = Graph()

    def end_capture(self):
        graph, self.graph = self.graph, None
        if not graph.valid:
            raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated: operation failed due to a previous error")
        return graph

    def is_capturing(self):
        return self.graph is not None


class Event:
    """CuPy's, as far as it is used."""

    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self.stream, self.count = None, 0
        self.timing = not disable_timing

    def record(self, stream=None):
        self.time = time.perf_counter()
        self.stream = stream or STATE.streams[-1]
        self.count = self.stream.done_count + len(self.stream.waiting)

    def catch_up(self):
        if self.stream is not None:
            self.stream.catch_up(self.count)

    synchronize = catch_up


def _elapsed(start, end):
    """Milliseconds between two events."""
    assert start.timing
    assert end.timing
    return (end.time - start.time) * 1000


class Graph:
    """What was recorded, as tasks to be done one after the other."""

    def __init__(self):
        self.tasks, self.valid = [], True

    def add(self, function, *args, **kwargs):
        """Record a call; arrays among the arguments are looked up at every launch."""
        args, kwargs = (_each(x, STATE.ndarray, Ref) for x in (args, kwargs))

        def task():
            function(*_each(args, Ref, Ref.resolve), **_each(kwargs, Ref, Ref.resolve))

        self.tasks.append(task)

    def launch(self, stream=None):
        assert recording() is None
        STATE.log.append("launch")
        with np.errstate(all="ignore"):
            for task in self.tasks:
                task()

    def upload(self, stream=None):
        pass


class State:
    """What the card and its driver know."""

    def __init__(self, ndarray=None):
        self.ndarray = ndarray
        self.null = Stream(null=True)
        self.streams = [self.null]
        self.default_pool = self.pool = MemoryPool()
        self.log = []
        self.device = SimpleNamespace(id=0)


STATE = State()


def recording():
    """The graph that the current stream is capturing, or None."""
    return STATE.streams[-1].graph


def refuse(what="RuntimeError"):
    """Raise what CuPy raises, if the current stream is capturing."""
    if recording() is not None:
        if what == "cuBLAS":
            raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
        raise RuntimeError(SYNCHRONOUS)


def poison(x):
    """Fill a new array with what nobody should see."""
    x.fill(1 if x.dtype.kind in "iub" else np.nan)
    return x


def execute(function, args, kwargs, host, device, out=None, effect=False):
    """Call a NumPy function with device arrays, or record the call.

    ``host`` and ``device`` turn arrays into NumPy's and back; the results go into ``out``, or (``effect``) nowhere.
    """
    graph = recording()
    if getattr(function, "__name__", "") in CUBLAS:
        refuse("cuBLAS")

    def call(args, kwargs, out):
        if out is None:
            return function(*host(args), **host(kwargs))
        return function(*host(args), **host(kwargs), out=host(out, written=True))

    if graph is None:
        result = call(args, kwargs, out)
        return out if out is not None else device(result)
    if effect or out is not None:
        graph.add(call, args, kwargs, out)
        return out
    with np.errstate(all="ignore"):
        result = call(args, kwargs, None)
    owners = []
    _each((args, kwargs), STATE.ndarray, lambda x: owners.append(_owner(x)))
    if any(_owner(x) is owner for x in _arrays(result) for owner in owners):
        return device(result)  # views
    new = device(_each(result, np.ndarray | np.generic, lambda x: poison(np.array(x))))

    def fill(new, args, kwargs):
        for x, value in zip(_arrays(new), _arrays(call(args, kwargs, None)), strict=True):
            host(x, written=True)[...] = value

    graph.add(fill, new, args, kwargs)
    return new


def _arrays(result):
    return (
        [np.asarray(result)]
        if isinstance(result, np.generic)
        else ([result] if isinstance(result, np.ndarray) else [x for part in result for x in _arrays(part)])
    )


def make(ndarray):
    """Return the module ``cupy.cuda`` for arrays of the class ``ndarray``."""
    global STATE
    STATE = State(ndarray)
    Stream.null = STATE.null
    runtime = SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        getDeviceCount=lambda: 1,
        deviceGetAttribute=lambda attribute, device: {97: 227 << 10}[attribute],
        getDevice=lambda: 0,
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13000,
        memGetInfo=lambda: (TOTAL - STATE.default_pool.total_bytes(), TOTAL),
        getDeviceProperties=lambda device: {"name": b"stand-in", "major": 9, "minor": 0, "multiProcessorCount": 132},
        streamCaptureModeThreadLocal=1,
        streamCaptureModeRelaxed=2,
    )
    return SimpleNamespace(
        runtime=runtime,
        nvrtc=SimpleNamespace(getVersion=lambda: (13, 0)),
        Stream=Stream,
        Event=Event,
        get_elapsed_time=_elapsed,
        MemoryPool=MemoryPool,
        using_allocator=using_allocator,
        alloc_pinned_memory=bytearray,
        get_current_stream=lambda: STATE.streams[-1],
        memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        Device=lambda device=0: SimpleNamespace(id=0, compute_capability="90", use=lambda: None),
    )
