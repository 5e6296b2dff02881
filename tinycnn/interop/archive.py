"""The members of a zip archive that are stored as they are: where each lies in the file.

PyTorch's archives are zip files that compress nothing, so that tensors can be used where they lie.  Nothing is
unpacked here, then, and no archive can swell: a member that is compressed or encrypted is known as such, and nobody
gets its content.  An archive in which one is named twice, or lies over another, is refused.  The directory at the end
of the file says where members are, and each begins with a header that must agree.

Source: PKWARE's APPNOTE.TXT, "ZIP File Format Specification", 4.3.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from .pickles import RefusedError

MOST_MEMBERS = 200_000
END, END64, LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
LONGEST_END = 22 + 0xFFFF
ENTRY, HEADER = struct.Struct("<4s6H3I5H2I"), struct.Struct("<4s5H3I2H")
PIECE = 8 << 20


@dataclass(frozen=True)
class Member:
    """A member of an archive.

    Attributes:
        name: of it.
        header, start, size: where its header begins, its bytes begin, and how many they are in the archive.
        stored: whether those are its content, neither compressed nor encrypted.
        crc: what the archive says their checksum is.
    """

    name: str
    header: int
    start: int
    size: int
    stored: bool
    crc: int


def members(raw: memoryview) -> dict[str, Member]:
    """Return the members of the archive ``raw``, by name.

    Raises:
        RefusedError: it is damaged, or not of a kind that PyTorch writes.
    """
    try:
        count, start, size = _directory(raw)
        if count > MOST_MEMBERS or start + size > len(raw) or count * ENTRY.size > size:
            raise RefusedError("the archive is truncated, or its directory damaged")
        found = _entries(raw, count, start, start + size)
    except (struct.error, UnicodeDecodeError) as error:
        raise RefusedError(f"the archive's directory is damaged ({error})") from None
    end = 0
    for member in sorted(found.values(), key=lambda m: m.header):
        if member.header < end:
            raise RefusedError(f"the archive's member {member.name!r} lies over another one")
        end = member.start + member.size
    return found


def _directory(raw: memoryview) -> tuple[int, int, int]:
    """Return how many members the directory has, where it begins, and its bytes."""
    tail = bytes(raw[-LONGEST_END:])
    at = tail.rfind(END)
    if at < 0:
        raise RefusedError("the archive is truncated: it has no directory")
    count, size, start, comment = struct.unpack_from("<HIIH", tail, at + 10)
    if at + 22 + comment != len(tail):
        raise RefusedError("the archive is truncated, or has bytes behind its end")
    if tail[max(at - 20, 0) : at][:4] != LOCATOR64:
        return count, start, size
    (place,) = struct.unpack_from("<Q", tail, at - 12)
    if bytes(raw[place : place + 4]) != END64:
        raise RefusedError("the archive's directory is damaged (its place is wrong)")
    count, size, start = struct.unpack_from("<QQQ", raw, place + 32)
    return count, start, size


def _entries(raw: memoryview, count: int, at: int, end: int) -> dict[str, Member]:
    found: dict[str, Member] = {}
    directory = at
    for _ in range(count):
        signature, _, _, flags, method, _, _, crc, packed, size, n, m, k, *_, header = ENTRY.unpack_from(raw, at)
        if signature != b"PK\x01\x02" or at + ENTRY.size + n + m + k > end:
            raise RefusedError("the archive's directory is damaged (it ends too early)")
        name = bytes(raw[at + ENTRY.size : at + ENTRY.size + n])
        extra = raw[at + ENTRY.size + n : at + ENTRY.size + n + m]
        size, packed, header = _large(extra, size, packed, header)
        stored = method == 0 and packed == size and not flags & 1
        member = Member(_text(name), header, _start(raw, header, name), packed, stored, crc)
        if member.start + packed > directory:
            raise RefusedError(f"the archive's member {member.name!r} ends behind the archive: it is truncated")
        if member.name in found:
            raise RefusedError(f"the archive has two members {member.name!r}")
        found[member.name] = member
        at += ENTRY.size + n + m + k
    return found


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _large(extra: memoryview, size: int, packed: int, header: int) -> tuple[int, int, int]:
    """Return sizes and place of a member, those taken from ``extra`` that 32 bits do not hold (zip64)."""
    values, at = [size, packed, header], 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            wide = [i for i, value in enumerate(values) if value == 0xFFFFFFFF]
            for place, i in enumerate(wide):
                (values[i],) = struct.unpack_from("<Q", extra[at + 4 : at + 4 + length], 8 * place)
        at += 4 + length
    return values[0], values[1], values[2]


def _start(raw: memoryview, header: int, name: bytes) -> int:
    """Return where the bytes of a member begin, from its own header."""
    if header + HEADER.size > len(raw):
        raise RefusedError("the archive's directory is damaged (a member lies outside)")
    signature, *_, n, m = HEADER.unpack_from(raw, header)
    first = header + HEADER.size
    if signature != b"PK\x03\x04" or bytes(raw[first : first + n]) != name:
        raise RefusedError(f"the archive's member {_text(name)!r} is not where the directory says")
    return first + n + m


def is_whole(raw: memoryview, member: Member) -> bool:
    """Whether the bytes of a member have the checksum that the archive says."""
    crc = 0
    for at in range(member.start, member.start + member.size, PIECE):
        crc = zlib.crc32(raw[at : min(at + PIECE, member.start + member.size)], crc)
    return crc == member.crc
