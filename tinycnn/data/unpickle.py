"""Reading the pickles that some datasets are published as, without trusting them.

A pickle is a program: its opcodes may call anything that can be imported, ``os.system`` included.  The one
here may name what an array of numbers is rebuilt from, and nothing else.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

from .files import DataError, PathLike

_reconstruct: Any = np.empty(0).__reduce__()[0]  # private, and its module was renamed in NumPy 2
ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
"""(module, name) that a pickle may refer to -> what it gets."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, raw: bytes, path: PathLike) -> None:
        super().__init__(io.BytesIO(raw), encoding="bytes")
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise DataError(
                f"{self.path}: refused: the pickle refers to {module}.{name}, and a dataset needs NumPy arrays and "
                "built-in containers only: do not open it otherwise, download the file again"
            )
        return ALLOWED[module, name]


def restricted_loads(raw: bytes, path: PathLike) -> Any:
    """Return the object that the pickle ``raw``, read from ``path``, describes.

    Containers, numbers, strings and NumPy arrays are all there can be.  Strings of Python 2 become bytes.

    Raises:
        DataError: the pickle refers to anything else, or is damaged.
    """
    try:
        return _Unpickler(raw, path).load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way whatever
        raise DataError(f"{path}: not a readable pickle ({error!r}): download the file again") from None
