"""Plants mistakes into the CUDA kernels, one at a time, and runs the test that must notice.

A mistake is one text replaced in one file of `tinycnn/kernels/cuda`: of a ``.cu`` or ``.cuh`` in a copy that the
kernels are then compiled from, of a ``.py`` in the module as it lies in memory.  Each runs in a forked process, as many
at a time as there are cores.  Started by `tests/kernels/cuda/test_mutants.py`, where the mistakes are.
"""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parent
SECONDS = 60
"""For one test: a kernel that runs for longer has lost its way, and that is being noticed."""
PYTEST = ["-q", "-x", "-p", "no:cacheprovider", "--hypothesis-profile=mutants", "--tb=short"]
PYTEST += ["-W", "ignore:Module already imported"]  # hypothesis, that is, which pytest would rather import itself


class Mutant(NamedTuple):
    """A mistake.

    Attributes:
        file: of `tinycnn/kernels/cuda`.
        old, new: a text that stands there exactly once, and what takes its place.
        test: what pytest is to run: a file of `tests/kernels/cuda` or a test in it, and options after blanks.
    """

    file: str
    old: str
    new: str
    test: str

    def __str__(self):
        return f"{self.file}: {' '.join(self.old.split())} -> {' '.join(self.new.split()) or 'nothing'}"


def outcomes(mutants):
    """What became of each, by its words: "caught", or why it was not."""
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps([list(mutant) for mutant in mutants]),
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def main():
    """Read mutants, run them, print the outcomes."""
    waiting = [Mutant(*row) for row in json.load(sys.stdin)]
    sys.path.insert(0, str(TESTS))
    for name in ("numpy", "pytest", "hypothesis", "strict_cupy", "helpers", "tinycnn"):  # once, for all children
        importlib.import_module(name)
    found, running = {}, {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    while waiting or running:
        while waiting and len(running) < cores:
            mutant, log = waiting.pop(0), tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed when it was read)
            running[_fork(mutant, log)] = mutant, log, time.monotonic()
        for pid, (mutant, log, start) in list(running.items()):
            if time.monotonic() - start > SECONDS:
                os.kill(pid, signal.SIGKILL)
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del running[pid]
                found[str(mutant)] = _verdict(os.waitstatus_to_exitcode(status), log)
        time.sleep(0.01)
    json.dump(found, sys.stdout)


def _fork(mutant, log):
    """Start a process that plants the mutant, runs its test, and exits with what pytest says."""
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        with tempfile.TemporaryDirectory() as folder:
            code = _run(mutant, Path(folder))
    except BaseException as error:  # nothing may come back from here
        print(f"{type(error).__name__}: {error}", flush=True)
    finally:
        sys.stdout.flush()
        os._exit(code)


def _run(mutant, folder):
    import pytest

    from tinycnn.kernels.cuda import module

    text = (module.HERE / mutant.file).read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(f"the text stands there {text.count(mutant.old)} times: plant the mistake anew")
    text = text.replace(mutant.old, mutant.new)
    if mutant.file.endswith(".py"):
        twin = importlib.import_module(f"tinycnn.kernels.cuda.{mutant.file.removesuffix('.py')}")
        exec(compile(text, f"mutant of {mutant.file}", "exec"), vars(twin))
    else:
        for path in module.HERE.glob("*.cu*"):
            shutil.copy(path, folder)
        (folder / mutant.file).write_text(text, encoding="utf-8")
        module.HERE = folder
    test, *options = mutant.test.split()
    return int(pytest.main([*PYTEST, str(TESTS / "kernels" / "cuda" / test), *options]))


def _verdict(code, log):
    """Failed tests, and the end of a process by a signal, are what is wanted."""
    log.seek(0)
    said = log.read()
    log.close()
    if code < 0:
        return "caught"
    if code == 1:
        return f"it does not compile: {said[-2000:]}" if "does not compile" in said else "caught"
    return "not noticed" if code == 0 else f"its test could not be run: {said[-2000:]}"


if __name__ == "__main__":
    main()
