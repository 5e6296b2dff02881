"""The CUDA twins of the NumPy kernels.

A function of `tinycnn.kernels` (and some of `tinycnn.layers`, `tinycnn.losses` and `tinycnn.optim`) is written in
NumPy, to be read and to run on a CPU.  Where its steps, run one by one on a GPU, would cost too many launches or passes
over memory, it has a *twin* here: a function of the same name and arguments that does the same with kernels written in
CUDA C.  The decorator `twin` names it; the NumPy function remains its specification::

    @twin("pool")                                  # tinycnn/kernels/cuda/pool.py, kernels in pool.cu
    def max_pool(x, window, y):
        ...

Called with arrays on a GPU, ``max_pool`` runs its twin; `tests/kernels/cuda` compare the two on shapes drawn at random.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from ...backend import is_device_array

Function = TypeVar("Function", bound=Callable[..., Any])


class Twin(NamedTuple):
    """A NumPy function and where its twin is."""

    specification: Callable[..., Any]
    module: str

    def load(self) -> Callable[..., Any]:
        """Return the twin."""
        module = importlib.import_module(f"{__name__}.{self.module}")
        return getattr(module, self.specification.__name__)


TWINS: list[Twin] = []
"""All of them, so that tests find them."""


def twin(module: str) -> Callable[[Function], Function]:
    """Let the function of the same name in ``tinycnn.kernels.cuda.<module>`` take calls with GPU arrays.

    The first positional argument decides.
    """

    def decorate(specification: Function) -> Function:
        own = Twin(specification, module)
        TWINS.append(own)

        @functools.wraps(specification)
        def dispatch(x: Any, *args: Any, **kwargs: Any) -> Any:
            if is_device_array(x):
                return own.load()(x, *args, **kwargs)
            return specification(x, *args, **kwargs)

        return dispatch  # type: ignore[return-value]

    return decorate
