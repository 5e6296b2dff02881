"""Reading a pickle by a machine that can build containers and numbers, and nothing else.

A pickle is a program for a stack machine, and Python's own machine runs what the program says: it imports any name and
calls it.  It is also careless of memory, as programs are trusted: five bytes may ask it for a table of 4 billion
places.  This one knows the instructions that PyTorch writes and a few besides.  A name is looked up in a table that
the caller gives, never imported; nothing but what that table offers can be called; and what a program may use is
limited by its own length:

* each instruction adds at most what it has read from the file, or what was on the stack;
* functions get arguments of as many items, all calls together, as the pickle has bytes;
* keys are plain values, since comparing nested ones takes time that doubles with every level;
* there are `MOST_INSTRUCTIONS` of them, which takes seconds.

There is no recursion, so none can be too deep; a container may hold itself, which is for the caller to mind.

Source: the opcodes are described in the standard library's ``pickletools``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

MOST_INSTRUCTIONS = 3_000_000
"""A network of 1,000 tensors with an optimizer's state takes 100,000."""
LONGEST_NAME = 256
FREE_ITEMS = 1 << 16
"""Items that calls may have beside those that the length of the pickle allows."""
MOST_EXACT_KEY = 1 << 60
"""Integers up to here differ in their hashes; more of them with one hash would make a dict slow."""

CONTAINERS = (str, bytes, tuple, list, dict, set, frozenset)
"""What the items of are counted; arrays, which are handed on as they are, are not."""

Buffer: TypeAlias = bytes | memoryview
Instruction: TypeAlias = Callable[["Machine"], Any]


class RefusedError(ValueError):
    """The pickle wants what it must not have, or makes no sense; the message says what, and knows no file."""


@dataclass(frozen=True)
class Function:
    """What a pickle may call; `Machine` hands over its arguments."""

    call: Callable[..., Any]


@dataclass
class Global:
    """Anything else that has a name, such as a type of numbers; the machine makes nothing of it."""

    value: Any


class Machine:
    """Runs one pickle.

    Args:
        raw: what it is in.
        names: ``module.name`` -> what the pickle gets; any other is refused.
        persistent: makes an object of a persistent id (PyTorch's storages).
        start: where in ``raw`` it begins.

    Attributes:
        position: where the pickle ends, after `run`.
    """

    def __init__(
        self,
        raw: Buffer,
        names: Mapping[str, Any],
        persistent: Callable[[Any], Any] | None = None,
        start: int = 0,
    ) -> None:
        self.raw, self.names, self.persistent, self.position = raw, names, persistent, start
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.items_left = len(raw) - start + FREE_ITEMS

    def run(self) -> Any:
        """Return the object that the pickle describes.

        Raises:
            RefusedError: it names or does what it must not, or is damaged.
        """
        try:
            for _ in range(MOST_INSTRUCTIONS):
                code = self.take(1)
                if code == b".":
                    return self.stack.pop()
                INSTRUCTIONS[code](self)
        except KeyError as error:
            key = error.args[0]
            what = f"has the instruction {key!r}" if isinstance(key, bytes) else "asks for what it has not stored"
            raise RefusedError(f"the pickle {what}, which torch.save writes none of") from None
        except RefusedError:
            raise
        except Exception as error:  # a damaged pickle can fail in any way whatever
            raise RefusedError(f"the pickle is damaged ({type(error).__name__})") from None
        raise RefusedError(f"the pickle has more than {MOST_INSTRUCTIONS:,} instructions")

    # ---- reading -------------------------------------------------------------------------------------------

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        end = self.position + count
        if count < 0 or end > len(self.raw):
            raise RefusedError("the pickle is truncated")
        taken = bytes(self.raw[self.position : end])
        self.position = end
        return taken

    def number(self, form: str) -> Any:
        """Return the next number."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        """Return the rest of the line."""
        text = bytes(self.raw[self.position : self.position + LONGEST_NAME])
        length = text.find(b"\n")
        if length < 0:
            raise RefusedError("the pickle has a name that does not end")
        self.position += length + 1
        return text[:length].decode("utf-8", "replace")

    def since_mark(self) -> list[Any]:
        """Take everything off the stack down to the last mark."""
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    # ---- names and calls -----------------------------------------------------------------------------------

    def named(self, module: str, name: str) -> None:
        """Push what the table has for a name."""
        full = f"{module}.{name}"
        if full not in self.names:
            raise RefusedError(f"the pickle refers to {shown(full[:LONGEST_NAME])}, and weights need no such thing")
        self.push(self.names[full])

    def call(self) -> None:
        """REDUCE: function and arguments are on the stack."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Function) or not isinstance(arguments, tuple):
            raise RefusedError("the pickle calls what is no function")
        self.items_left -= 1 + sum(len(a) for a in arguments if isinstance(a, CONTAINERS))
        if self.items_left < 0:
            raise RefusedError("the pickle says the same things over and over")
        self.push(function.call(*arguments))

    def set_state(self) -> None:
        """BUILD: attributes for an object.  An OrderedDict of PyTorch's has some, which nothing depends on."""
        state, owner = self.stack.pop(), self.stack[-1]
        if hasattr(owner, "set_state"):
            owner.set_state(state)
        elif not isinstance(owner, dict):
            raise RefusedError("the pickle sets attributes of what has none")

    def persistent_object(self) -> None:
        """BINPERSID: an object that the file has elsewhere."""
        if self.persistent is None:
            raise RefusedError("the pickle refers to an object outside of it")
        self.push(self.persistent(self.stack.pop()))

    # ---- containers ----------------------------------------------------------------------------------------

    def container(self, kind: type) -> Any:
        """Return what is on top, which must be of a kind."""
        if not isinstance(self.stack[-1], kind):
            raise RefusedError(f"the pickle fills a {kind.__name__} that is none")
        return self.stack[-1]

    def set_items(self, items: list[Any]) -> None:
        """Put keys and values, by turns, into the dict on top."""
        self.container(dict).update(zip(plain(items[::2]), items[1::2], strict=True))

    def set_one(self) -> None:
        """SETITEM: key and value."""
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def append_one(self) -> None:
        """APPEND: an item to the list below it."""
        item = self.stack.pop()
        self.container(list).append(item)

    def tuple_of(self, count: int) -> None:
        """TUPLE1 to TUPLE3: the last items."""
        if len(self.stack) < count:
            raise RefusedError("the pickle takes what is not there")
        self.stack[-count:] = [tuple(self.stack[-count:])]


def shown(name: str) -> str:
    """Return a name from a file as it may be shown: a terminal does what control characters in it say.

    >>> shown("os.system"), shown("a\\x1b[2J")
    ('os.system', "'a\\\\x1b[2J'")
    """
    return name if name.isprintable() else ascii(name)


def plain(keys: Collection[Any]) -> Collection[Any]:
    """Return keys of a dict or a set, after making sure that to look one up takes no time worth speaking of.

    Raises:
        RefusedError: it might.
    """
    for key in keys:
        if type(key) not in (str, bytes, int, float, bool, type(None)) or (
            type(key) is int and abs(key) > MOST_EXACT_KEY
        ):
            raise RefusedError("the pickle has a key that is neither text nor a number")
    return keys


def _refuse_instance(machine: Machine) -> None:
    machine.named(machine.line(), machine.line())
    raise RefusedError("the pickle makes an object of a class")


def _skip_protocol(machine: Machine) -> None:
    if machine.take(1)[0] > 5:
        raise RefusedError("the pickle is of a protocol after 5")


def _stack_global(machine: Machine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise RefusedError("the pickle refers to a name that is no text")
    machine.named(module, name)


def _number(form: str) -> Instruction:
    return lambda m: m.push(m.number(form))


def _text(form: str, encoding: str = "utf-8") -> Instruction:
    return lambda m: m.push(m.take(m.number(form)).decode(encoding))


def _bytes(form: str) -> Instruction:
    return lambda m: m.push(m.take(m.number(form)))


def _value(value: Any) -> Instruction:
    return lambda m: m.push(value)


def _empty(make: Callable[[], Any]) -> Instruction:
    return lambda m: m.push(make())


def _tuple(count: int) -> Instruction:
    return lambda m: m.tuple_of(count)


def _get(form: str) -> Instruction:
    return lambda m: m.push(m.memo[m.number(form)])


def _put(form: str) -> Instruction:
    return lambda m: m.memo.__setitem__(m.number(form), m.stack[-1])


def _integer(machine: Machine) -> None:
    machine.push(int.from_bytes(machine.take(machine.number("<B")), "little", signed=True))


INSTRUCTIONS: dict[bytes, Instruction] = {
    **{b"J": _number("<i"), b"K": _number("<B"), b"M": _number("<H"), b"G": _number(">d")},
    **{b"X": _text("<I"), b"\x8c": _text("<B"), b"\x8d": _text("<Q")},
    **{b"T": _text("<i", "latin1"), b"U": _text("<B", "latin1")},  # of Python 2
    **{b"B": _bytes("<I"), b"C": _bytes("<B"), b"\x8e": _bytes("<Q"), b"\x96": _bytes("<Q")},
    **{b"N": _value(None), b"\x88": _value(True), b"\x89": _value(False), b")": _value(())},
    **{b"]": _empty(list), b"}": _empty(dict), b"\x8f": _empty(set)},
    **{b"\x85": _tuple(1), b"\x86": _tuple(2), b"\x87": _tuple(3)},
    **{b"q": _put("<B"), b"r": _put("<I"), b"h": _get("<B"), b"j": _get("<I")},
    b"\x8a": _integer,  # LONG1
    b"\x94": lambda m: m.memo.__setitem__(len(m.memo), m.stack[-1]),  # MEMOIZE
    b"\x80": _skip_protocol,
    b"\x95": lambda m: m.number("<Q"),  # FRAME
    b"(": lambda m: m.marks.append(len(m.stack)),
    b"t": lambda m: m.push(tuple(m.since_mark())),
    b"l": lambda m: m.push(m.since_mark()),
    b"0": lambda m: m.stack.pop(),
    b"1": lambda m: m.since_mark(),
    b"s": Machine.set_one,
    b"u": lambda m: m.set_items(m.since_mark()),
    b"a": Machine.append_one,
    b"e": lambda m: (items := m.since_mark(), m.container(list).extend(items)),
    b"\x90": lambda m: (items := m.since_mark(), m.container(set).update(plain(items))),
    b"\x91": lambda m: m.push(frozenset(plain(m.since_mark()))),
    b"c": lambda m: m.named(m.line(), m.line()),
    b"\x93": _stack_global,
    b"i": _refuse_instance,
    b"R": Machine.call,
    b"b": Machine.set_state,
    b"Q": Machine.persistent_object,
}
"""Opcode -> what it does."""
