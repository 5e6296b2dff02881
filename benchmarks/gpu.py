"""``gpu``: everything there is to measure on one NVIDIA GPU, against PyTorch, in ten minutes at most.

Work is cut into parts (`gpu_worker.PARTS`) and each part into cases, which processes of their own measure: a kernel
that crashes or hangs takes one case with it and nothing else.  Every result is written to the file at once; started
again, the command goes on with what is missing or failed, as long as the sources and the card are the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .gpu_table import failed, tables
from .gpu_worker import PARTS, UNUSABLE, Part
from .header import commit, now, version
from .report import Report

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "benchmarks.gpu_worker"]
POLL = 0.05
TITLE = "tinycnn on a GPU"

Rows = dict[str, dict[str, Any]]
"""By case; a case that failed has an ``error``."""
Results = dict[str, Rows]
"""By part."""
Say = Callable[[str], None]


@dataclass
class Worker:
    """A process that measures cases, and what is known of it."""

    process: subprocess.Popen[str]
    path: Path
    cases: list[str]
    position: int = 0
    current: str | None = None
    since: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls, name: str, cases: list[str], folder: Path) -> Worker:
        """Start one."""
        path = folder / f"{name}-{len(list(folder.iterdir()))}.jsonl"
        path.touch()
        with path.with_suffix(".err").open("w") as errors:
            process = subprocess.Popen(
                COMMAND,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it may have died; that is noticed later
            process.stdin.write(json.dumps({"part": name, "cases": cases, "into": str(path)}))
            process.stdin.close()
        return cls(process, path, list(cases))

    def read(self) -> Rows:
        """Return what it has measured since the last time."""
        found: Rows = {}
        with self.path.open(encoding="utf-8") as file:
            file.seek(self.position)
            while (line := file.readline()).endswith("\n"):
                self.position, said = file.tell(), json.loads(line)
                self.since = time.monotonic()
                if "start" in said:
                    self.current = said["start"]
                else:
                    case, self.current = said.pop("case"), None
                    self.cases.remove(case)
                    found[case] = said.get("row") or said
        return found

    def blame(self, ended: bool, hung: float | None) -> Rows:
        """Return an error for the case that it died of.

        Args:
            ended: it did so by itself.
            hung: after so many seconds without a word it was ended.
        """
        case, code = self.current, self.process.returncode
        if hung is not None:
            words = f"it hung: nothing for {hung:.0f} s"
        elif ended and case is not None:
            words = f"the process ended with code {code}"
        elif ended and self.cases and code != UNUSABLE:
            words = f"the process could not begin, it ended with code {code}"
        else:
            return {}
        return {case or self.cases[0]: {"error": words, "traceback": self.last_words()}} if self.cases else {}

    def last_words(self) -> str:
        """Return the end of what it wrote to standard error."""
        return self.path.with_suffix(".err").read_text(encoding="utf-8", errors="replace")[-2000:].strip()

    def kill(self) -> None:
        """End it and what it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def measure(name: str, part: Part, cases: list[str], seconds: float, keep: Callable[[Rows], None]) -> None:
    """Have cases of a part measured.

    Args:
        name, part: which.
        cases: of it.
        seconds: that there are.
        keep: called with results as they come.
    """
    deadline, waiting = time.monotonic() + seconds, list(cases)
    with tempfile.TemporaryDirectory() as folder:
        while waiting and time.monotonic() < deadline:
            chunks = [waiting[i :: part.workers] for i in range(min(part.workers, len(waiting)))]
            running = [Worker.start(name, chunk, Path(folder)) for chunk in chunks]
            found: Rows = {}
            try:
                while running:
                    time.sleep(POLL)
                    late = time.monotonic() > deadline
                    for worker in list(running):
                        ended = worker.process.poll() is not None  # asked first: what it wrote is then all there
                        rows = worker.read()
                        hangs = time.monotonic() - worker.since > part.stall
                        if ended or late or hangs:
                            worker.kill()
                            running.remove(worker)
                            rows |= worker.blame(ended, part.stall if hangs and not late else None)
                        if rows:
                            found |= rows
                            keep(rows)
            finally:
                for worker in running:
                    worker.kill()
            if not found:
                return
            waiting = [case for case in waiting if case not in found]


# ---- the whole -------------------------------------------------------------------------------------------------


def run(out: Path, names: list[str], budget: float, again: bool, gpu: str, tiny: bool, say: Say) -> Report:
    """Measure parts, write what is found to ``out``.json and .md, and return it.

    Args:
        out: the files' name without a suffix.
        names: of parts.
        budget: seconds, in all.
        again: measure also what is in the file already.
        gpu: name of the card.
        tiny: pass to the parts that they should list their smallest cases.
        say: told how it goes.
    """
    path, key = out.with_name(f"{out.name}.json"), fingerprint(gpu)
    results: Results = {} if again else _earlier(path, key)
    begin = time.monotonic()
    for name in names:
        part = PARTS[name]
        rows = results.setdefault(name, {})
        cases = part.function(part.cases)(_Size(tiny))
        todo = [case for case in cases if failed(rows.get(case))]
        left = min(part.seconds, budget - (time.monotonic() - begin))
        started = time.monotonic()

        def keep(found: Rows, rows: Rows = rows) -> None:
            rows.update(found)
            _write(path, _report(gpu, results), results, key)

        if todo and left > 0:
            measure(name, part, todo, left, keep)
        results[name] = {case: rows.get(case, {"error": "not measured: out of time"}) for case in cases}
        missing = sum(failed(results[name][case]) for case in cases)
        say(f"{name}: {len(cases) - missing} of {len(cases)}, {time.monotonic() - started:.0f} s")
    report = _report(gpu, results)
    _write(path, report, results, key)
    report.write(out.with_name(f"{out.name}.md"))
    return report


@dataclass(frozen=True)
class _Size:
    """What a part must know to list its cases."""

    tiny: bool


def _report(gpu: str, results: Results) -> Report:
    return Report(header(gpu), tables(results), f"{TITLE}: {gpu}")


def _earlier(path: Path, key: dict[str, str]) -> Results:
    """Return what the file has of the same sources on the same card."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return dict(found["parts"]) if found.get("key") == key else {}


def _write(path: Path, report: Report, results: Results, key: dict[str, str]) -> None:
    """Write the JSON file in one go: whoever reads it finds the old one or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = json.loads(report.to_json()) | {"key": key, "parts": results}
    new = path.with_suffix(".new")
    new.write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    new.replace(path)


def fingerprint(gpu: str) -> dict[str, str]:
    """Return what results depend on: the card, the libraries, and the sources."""
    digest = hashlib.sha256()
    for folder in ("tinycnn", "benchmarks", "tests"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".cu", ".cuh"):
                digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return {"gpu": gpu, "libraries": _libraries(), "sources": digest.hexdigest()[:16]}


def _libraries() -> str:
    names = ("cupy-cuda13x", "cupy-cuda12x", "torch", "numpy")
    return ", ".join(f"{name} {version(name)}" for name in names if version(name))


def header(gpu: str) -> dict[str, str]:
    """Return where and how it was measured."""
    return {
        "machine": f"{gpu}, {_driver()}",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": f"tinycnn{commit()}, {_libraries()}, {_cuda()}",
        "precision": "the same on both sides: float32 is strict (allow_tf32 off, no tensor cores); tf32 has products of"
        " float32 on tensor cores, in matmul and cuDNN; bf16 has activations of 16 bits (PyTorch: autocast) and float32"
        " parameters",
        "memory format": "tinycnn: channels-last; PyTorch: the better of contiguous and channels_last, both timed, with"
        " cudnn.benchmark",
        "timing": "CUDA events, in turns (A B A B …), each after calls of its own that do not count",
        "numbers": "median ±half the distance between the quartiles; ratio: PyTorch's best median ÷ tinycnn's, so above"
        " 1 tinycnn is the faster",
        "date": now(),
    }


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        found = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout.splitlines()
        return "driver {}, {}".format(*found[0].split(", "))
    return "driver unknown"


def _cuda() -> str:
    import torch

    return f"PyTorch's CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
