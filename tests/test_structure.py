"""The rules of the house, read off the source: who imports whom, CuPy in one file, a test for every file."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "tinycnn"
FILES = sorted(p for p in PACKAGE.rglob("*.py"))

# Each room may import from those above it, and from itself.
ROOMS = [
    ["messages"],
    ["files"],
    ["backend"],
    ["parallel"],
    ["parameter", "initializers"],
    ["kernels"],
    ["layers"],
    ["losses", "optim", "data"],
    ["models"],
    ["gradcheck", "contract"],
    ["evaluation"],
    ["train"],
    ["interop", "report", "explain"],
    ["cli"],
]
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
# Narrower than the order of the rooms: what these may import from at all.
ONLY = {
    "kernels": {"backend", "parallel"},
    "losses": {"backend", "kernels"},
    "optim": {"parameter", "parallel", "backend", "kernels"},
    "data": {"files", "backend", "parallel", "parameter", "kernels"},
    "models": {"layers", "parameter", "initializers", "backend", "kernels"},
}


def room_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports(path):
    """Every module that a file imports, as a dotted path; relative ones resolved."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *((node.module or "").split(".") if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def inner_imports(path):
    rooms = {name.split(".")[1] for name in imports(path) if name.startswith("tinycnn.")}
    return {room for room in rooms if room in LEVEL} - {room_of(path)}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_upwards(path):
    room = room_of(path)
    if room in ("__init__", "__main__"):
        return
    assert room in LEVEL, f"{path.name} is in no room: add it to ROOMS"
    wrong = {other for other in inner_imports(path) if LEVEL[other] > LEVEL[room]}
    same = {other for other in inner_imports(path) if LEVEL[other] == LEVEL[room] and len(ROOMS[LEVEL[room]]) > 1}
    assert not wrong, f"{room} may not import from {wrong}"
    assert not same or room == "contract", f"{room} may not import from its neighbour {same}"
    if room in ONLY:
        assert inner_imports(path) <= ONLY[room] | {"messages"}


def test_one_file_imports_cupy():
    users = {str(p.relative_to(PACKAGE)) for p in FILES for name in imports(p) if name.split(".")[0] == "cupy"}
    assert users == {"backend.py"}


def test_every_file_has_its_test():
    exempt = {"__init__.py", "__main__.py"}
    missing = []
    for path in FILES:
        if path.name in exempt:
            continue
        relative = path.relative_to(PACKAGE)
        test = ROOT / "tests" / relative.parent / f"test_{path.name}"
        if not test.exists():
            missing.append(str(test.relative_to(ROOT)))
    assert not missing, f"no tests: {missing}"


def test_no_file_is_long():
    long = {str(p.relative_to(PACKAGE)): n for p in FILES if (n := len(p.read_text().splitlines())) > 400}
    assert not long


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_randomness_is_explicit(path):
    """No global generator: random numbers come from a `numpy.random.Generator` that somebody seeded."""
    legacy = re.findall(r"np\.random\.(?!default_rng|Generator|Philox|SeedSequence|PCG64)\w+", path.read_text())
    assert not legacy


def test_importing_is_light():
    code = "import sys, tinycnn; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"cupy", "torch", "matplotlib", "typer", "rich", "PIL"} & set(out.split())
