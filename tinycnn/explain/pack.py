"""Arrays as text within a page: each once, compressed, in as many bytes per number as there is room for.

The bytes of a float32 are not equally worth their room: sign and exponent come first, the last byte is the end of the
mantissa.  `Store` keeps the first three or all four, sorted so that all first bytes stand together, then all second
ones: exponents are alike and compress well, mantissas do not.  Three bytes are 16 bits of mantissa, a relative error
of at most 2⁻¹⁶.
"""

from __future__ import annotations

import base64
import hashlib
import zlib

import numpy as np


class Store:
    """Collects arrays in groups, which a page decodes one by one.

    Args:
        kept: bytes of each number, 3 or 4.

    Attributes:
        places: (group, first number, count) of every array, by its number.
        groups: what stands in the page.
    """

    def __init__(self, kept: int = 4) -> None:
        self.kept = kept
        self.places: list[tuple[int, int, int]] = []
        self.groups: list[str] = []
        self._known: dict[bytes, int] = {}
        self._open: list[np.ndarray] = []
        self._opened = 0

    @property
    def size(self) -> int:
        """Characters of all closed groups."""
        return sum(map(len, self.groups))

    @property
    def open_size(self) -> int:
        """Characters of the open group if it were not compressed."""
        return sum(part.size for part in self._open) * self.kept * 4 // 3

    def add(self, a: np.ndarray | None) -> int | None:
        """Return the number of an array, which is put into the open group unless it is there already."""
        if a is None:
            return None
        flat = np.ascontiguousarray(a, np.float32).ravel()
        digest = hashlib.blake2b(flat.tobytes(), digest_size=16).digest()
        if digest not in self._known:
            first = sum(part.size for part in self._open)
            self._known[digest] = len(self.places)
            self.places.append((len(self.groups), first, flat.size))
            self._open.append(flat)
        return self._known[digest]

    def close(self, limit: float = float("inf")) -> bool:
        """End the group; if it would make more than ``limit`` characters with all before, forget it, return False."""
        text = encode(np.concatenate([np.empty(0, np.float32), *self._open]), self.kept)
        self._open = []
        fits = self.size + len(text) <= limit
        if fits:
            self.groups.append(text)
        else:
            del self.places[self._opened :]
            self._known = {digest: n for digest, n in self._known.items() if n < self._opened}
        self._opened = len(self.places)
        return fits


def encode(numbers: np.ndarray, kept: int) -> str:
    """Return float32 numbers as text: their first ``kept`` bytes, rounded, plane by plane, deflated, in base 64."""
    bits = numbers.astype("<f4").view("<u4").astype(np.uint64)
    dropped = 8 * (4 - kept)
    if dropped:
        bits = np.minimum(bits + (1 << (dropped - 1)), 0xFFFFFFFF) >> np.uint64(dropped) << np.uint64(dropped)
    # (n,) -> (n, 4) bytes, the last of them first; -> (kept, n), exponents first
    planes = bits.astype("<u4").view(np.uint8).reshape(-1, 4)[:, ::-1][:, :kept].T
    return base64.b64encode(zlib.compress(planes.tobytes(), 6)).decode("ascii")


def decode(text: str, kept: int) -> np.ndarray:
    """Undo `encode`; the page does the same."""
    planes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(kept, -1)
    quads = np.zeros((planes.shape[1], 4), np.uint8)
    quads[:, 4 - kept :] = planes[::-1].T
    return quads.reshape(-1).view("<f4")
