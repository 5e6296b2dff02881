"""Settings of the whole suite."""

import gc
import os
import signal

import hypothesis
import pytest
import strict_cupy
from small_tasks import still_alive, threads

from tinycnn import backend, parallel

# PyTorch, which is imported later, is to use one thread: several would go on spinning on cores that others need
os.environ.setdefault("OMP_NUM_THREADS", "1")

# what runs behind `nohup` or a shell's `&` ignores these; tests that send them want what a terminal has
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

hypothesis.settings.register_profile("tinycnn", derandomize=True, deadline=None, max_examples=40)
hypothesis.settings.register_profile("few", derandomize=True, deadline=None, max_examples=4)
hypothesis.settings.register_profile(
    "mutants", derandomize=True, deadline=None, max_examples=40, phases=[hypothesis.Phase.generate], database=None
)
hypothesis.settings.load_profile("tinycnn")

ENOUGH = 60
"""Seconds after which a test of threads hangs."""


def pytest_collection_modifyitems(items):
    """Names of tests are the same in every process: by them pytest-xdist deals tests out."""
    addresses = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if addresses:
        raise pytest.UsageError(f"{addresses[0]}: a test's name may not hold an address: give the case an id")


@pytest.fixture(autouse=True)
def _no_network_and_a_cache_of_its_own(request, tmp_path_factory):
    """What a test downloads comes from a server of its own; nothing is found in, or left in, the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYCNN_OFFLINE", "1")
        # a folder that is not there: making it would cost each of thousands of tests some time
        patch.setenv("TINYCNN_CACHE", str(tmp_path_factory.getbasetemp() / f"cache of {id(request.node):x}"))
        yield


class Hangs(BaseException):
    """No `Exception`, nor pytest's own: neither a test nor Hypothesis may take it for a result, and try again."""


@pytest.fixture
def in_time():
    """A test that waits for what never comes fails, where the system can interrupt it."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def give_up(*_):
        raise Hangs(f"not done in {ENOUGH} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(ENOUGH)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def no_thread_is_left():
    """A test that leaves threads of a loader behind fails."""
    before = threads()
    yield
    gc.collect()
    assert not still_alive(threads() - before)


@pytest.fixture
def kept_cache(request, tmp_path_factory, monkeypatch):
    """A cache that tests of the real CIFAR-10 share, since unpacking that takes ten seconds."""
    folder = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):  # one process of several, which have folders in one
        folder = folder.parent
    folder = folder / "kept cache"
    monkeypatch.setenv("TINYCNN_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def _ask_for_gpus_anew():
    """Whether a GPU is usable is remembered for the process; a test may have told a stand-in's answer."""
    yield
    for cache in (backend.cuda_problem, backend._compiled_kernel, backend._compiled_module):
        cache.cache_clear()


@pytest.fixture(autouse=True)
def _threads_as_they_were():
    """A test may set the number of threads; the next one finds the default again."""
    before = parallel._num_threads
    yield
    if parallel._num_threads != before:
        parallel._num_threads = before
        parallel._forget_helpers()


@pytest.fixture
def gpu(monkeypatch):
    """CuPy where there is a GPU; elsewhere its stand-in, with kernels running on the CPU."""
    if backend.cuda_problem() is None:
        return backend._import_cupy()
    return strict_cupy.install(monkeypatch)
