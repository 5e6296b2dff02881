"""``tests``: the tests that run on a GPU, file by file, each file in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).parent.parent
ON_A_GPU = re.compile(r"\bgpu\b|\bdevices\(\)")
SECONDS = 170
"""For one file."""
OPTIONS = ("-p", "benchmarks.gpu_pytest", "-p", "no:cacheprovider", "-o", "filterwarnings=default", "--maxfail=20")
SHOWN = 4000
"""Characters of what pytest says of failures that are kept."""


def cases(rig: Any) -> list[str]:
    """Return the files that have such tests; those of the kernels first."""
    files = [path for path in ROOT.glob("tests/**/test_*.py") if ON_A_GPU.search(path.read_text(encoding="utf-8"))]
    names = [path.relative_to(ROOT).as_posix() for path in files]
    return sorted(names, key=lambda name: ("kernels/cuda" not in name, name))


def measure(rig: Any, case: str) -> dict[str, Any]:
    """Run one file's tests, and count.

    Raises:
        AssertionError: some failed; the message says which, and the beginning of what pytest says.
    """
    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder) / "results.xml"
        command = [sys.executable, "-m", "pytest", *OPTIONS, f"--junitxml={xml}", "--tb=short", case]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
        row = {"file": case, **count(xml)} if xml.exists() else {"file": case, "tests": 0, "failed": 0}
    if done.returncode not in (0, 5):  # 5: there were none
        said = (done.stdout + done.stderr)[-SHOWN:]
        raise AssertionError(f"{row['failed']} of {row['tests']} tests fail, exit code {done.returncode}\n{said}")
    return row


def count(xml: Path) -> dict[str, Any]:
    """Return how many tests a report of pytest's has, how many failed and were skipped, and the seconds."""
    suites = list(ElementTree.parse(xml).getroot().iter("testsuite"))

    def total(*names: str) -> int:
        return sum(int(suite.get(name, 0)) for suite in suites for name in names)

    seconds = sum(float(suite.get("time", 0)) for suite in suites)
    failed = total("failures", "errors")
    return {"tests": total("tests"), "failed": failed, "skipped": total("skipped"), "seconds": round(seconds, 1)}
