"""Words for what went wrong: one line on standard error, and an exit code.

2 is for what the user asked (a name, a file, a value), 1 for a training that failed, 130 (128 + SIGINT) for
an interruption.  Anything unforeseen is a bug, and keeps its traceback.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator
from contextlib import contextmanager

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
OUT_OF_MEMORY = "out of memory: use a smaller batch, image or network"

_CURES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free some space, or choose another place"),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "there is a file where a folder is needed: name a folder"),
}


class CommandError(Exception):
    """A command ends with one line: the message, in which what a file says cannot move a terminal's cursor.

    Attributes:
        code: the exit code.
    """

    def __init__(self, message: str, code: int = BAD_INPUT) -> None:
        line = " ".join(message.split())
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line))
        self.code = code


@contextmanager
def bad_input(options: Collection[str] = ()) -> Iterator[None]:
    """Around the part of a command that looks at what the user gave it: errors there are about the input.

    Args:
        options: names of arguments in Python that errors are to call by their names here: ``--batch-size``.
    """
    from ..backend import DeviceError

    try:
        yield
    except OSError as error:
        raise CommandError(words_of(error)) from error
    except MemoryError as error:
        raise CommandError(OUT_OF_MEMORY) from error
    except (ValueError, DeviceError) as error:
        name, space, rest = str(error).partition(" ")
        name = f"--{name.replace('_', '-')}" if name in options else name
        raise CommandError(name + space + rest) from error


def words_of(error: OSError) -> str:
    """Return what the system said, file first: ``runs/a: Permission denied``."""
    if error.strerror is None:
        return str(error)
    file = error.filename2 or error.filename  # of a renaming, the name that was meant
    where = f"{file}: " if file else ""
    cure = _CURES.get(error.errno or 0, "choose another place, or check permissions")
    return f"{where}{error.strerror}: {cure}"
