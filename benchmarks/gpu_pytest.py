"""A plugin for pytest that leaves only the tests that run on a GPU: ``pytest -p benchmarks.gpu_pytest``.

These are the tests with the fixture ``gpu``, and those of which a parameter says ``cuda``.
"""

from __future__ import annotations

from typing import Any


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Deselect what runs on the CPU alone."""
    kept = [item for item in items if runs_on_a_gpu(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def runs_on_a_gpu(item: Any) -> bool:
    """Whether a test uses the GPU that there is."""
    values = getattr(getattr(item, "callspec", None), "params", {}).values()
    return "gpu" in getattr(item, "fixturenames", ()) or any(isinstance(v, str) and v == "cuda" for v in values)
