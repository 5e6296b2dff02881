"""The machine that reads pickles: Python's own reading is the oracle for what it admits, a canary for the rest."""

import math
import os
import pickle
import struct
import time
from collections import OrderedDict

import numpy as np
import pytest

from tinycnn.interop.pickles import MOST_INSTRUCTIONS, Function, Machine, RefusedError
from tinycnn.interop.torch_file import CONTAINERS


def run(raw, names=CONTAINERS, **options):
    return Machine(raw, names, **options).run()


VALUES = [
    None,
    True,
    False,
    0,
    255,
    65536,
    -1,
    2**31,
    -(2**40),
    2**200,
    1.5,
    -math.inf,
    "",
    "ü" * 300,
    b"",
    b"\xff" * 300,
    (),
    (1,),
    (1, 2),
    (1, 2, 3),
    (1, (2, [3, {}]), 4),
    [],
    [1],
    [1, 2],
    {},
    {"a": 1},
    {"a": {"b": [1]}, 2: None, None: 3, True: 4},
    set(),
    {1, 2},
    frozenset({1}),
    OrderedDict(a=1, b=2),
    1 + 2j,
    np.float64(0.25),
    np.int64(-3),
    np.bool_(True),
]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("value", VALUES, ids=lambda v: repr(v)[:20])
def test_containers_and_numbers_come_back(value, protocol):
    raw = pickle.dumps([value, value, "end"], protocol)
    machine = Machine(b"xx" + raw + b"yyy", CONTAINERS, start=2)
    found = machine.run()
    assert found == [value, value, "end"]
    assert machine.position == 2 + len(raw)
    assert found[0] is found[1] or not isinstance(value, list | dict | set)


def test_strings_of_python_2():
    assert run(b"\x80\x02(U\x02\xff\x01T\x03\x00\x00\x00abct.") == ("\xff\x01", "abc")


class Evil:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_os_system_is_refused_by_name_and_not_run(tmp_path, protocol):
    raw = pickle.dumps({"data": Evil(os.system, f"touch {tmp_path}/canary")}, protocol)
    with pytest.raises(RefusedError, match=rf"refers to {os.system.__module__}\.system" if protocol else "instruction"):
        run(raw)
    assert not (tmp_path / "canary").exists()
    pickle.loads(raw)  # the payload works
    assert (tmp_path / "canary").exists()


NAMES = {
    "eval": pickle.dumps(Evil(eval, "1"), 2),
    "builtins.getattr": pickle.dumps(Evil(getattr, "", "format"), 4),
    "numpy.load": pickle.dumps(np.load, 2),
    "posix.system": b"\x80\x02cposix\nsystem\nX\x01\x00\x00\x00a\x85R.",
    "os.system": b"(ios\nsystem\n.",
    "torch.hub.load": b"\x80\x04\x8c\x09torch.hub\x8c\x04load\x93.",
    "torch.FloatStorage.__init__": b"\x80\x04\x8c\x05torch\x8c\x15FloatStorage.__init__\x93.",
    "torch.nn.modules.linear.Linear": b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81.",
    "__builtin__.eval": b"c__builtin__\neval\n.",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_are_refused_by_name(name):
    with pytest.raises(RefusedError, match=rf"refers to .*{name.replace('.', chr(92) + '.')}, "):
        run(NAMES[name])


DEEP = b"".join((b"\x80\x02)", *[b"q\x00h\x00h\x00\x86"] * 200))
"""A tuple of twice the tuple before, 200 times: to compare, print or hash it would take 2²⁰⁰ steps."""
HOSTILE = {
    "text longer than the file": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "bytes of 2⁶³": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 63) + b".",
    "a negative length": b"\x80\x02T\xff\xff\xff\xffabc.",
    "an integer of 2 GiB": b"\x80\x02\x8b\xff\xff\xff\x7f1.",
    "a memo of 4 billion, empty": b"\x80\x02j\xff\xff\xff\xff.",
    "an empty stack": b"\x80\x02.",
    "no mark": b"\x80\x02NNt.",
    "no end": b"\x80\x02N",
    "a name without end": b"\x80\x02c" + b"a" * 1000,
    "a call of a tuple": b"\x80\x02))R.",
    "a call without a tuple": b"\x80\x02ccollections\nOrderedDict\nNR.",
    "a call with too many": b"\x80\x02ccollections\nOrderedDict\n(KKKKKKtR.",
    "keys without values": b"\x80\x02}(NNNu.",
    "items for a number": b"\x80\x02K\x01(NNu.",
    "items for a tuple": b"\x80\x02)(Ne.",
    "attributes of a number": b"\x80\x02K\x01}b.",
    "a deep key": DEEP[:2] + b"}" + DEEP[2:] + b"Ns.",
    "a deep key in a list": DEEP + b"q\x01ccollections\nOrderedDict\n(]h\x01N\x86aetR.",
    "a deep item of a set": DEEP[:2] + b"\x8f(" + DEEP[2:] + b"\x90.",
    "a deep device": DEEP + b"q\x01ctorch\ndevice\nh\x01\x85R.",
    "a list as a key": b"\x80\x02}]Ns.",
    "integers of one hash": b"\x80\x02}\x8a\x09" + (2**61 - 1).to_bytes(9, "little") + b"Ns.",
    "an object outside": b"\x80\x02NQ.",
    "an extension": b"\x80\x02\x82\x01.",
    "a later protocol": b"\x80\x06N.",
    "buffers outside": b"\x80\x05\x97.",
    "text that is none": b"\x80\x02X\x01\x00\x00\x00\xff.",
    "a name that is no text": b"\x80\x04NN\x93.",
    "bytes of a strange encoding": b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.",
    "a type of strings": b"\x80\x02cnumpy\ndtype\nX\x03\x00\x00\x00S99\x85R.",
    "a number that is too short": b"\x80\x02cnumpy._core.multiarray\nscalar\n"
    b"cnumpy\ndtype\nX\x02\x00\x00\x00f8\x85RC\x01a\x86R.",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_pickles_are_refused_at_once(what):
    start = time.perf_counter()
    with pytest.raises(RefusedError):
        run(HOSTILE[what])
    assert time.perf_counter() - start < 0.5


def test_a_negative_length_does_not_go_back():
    """Four bytes back from behind the length is the length again, whose bytes are harmless instructions."""
    with pytest.raises(RefusedError, match="truncated"):
        run(b"\x80\x02" + b"T" + struct.pack("<i", -3) + b"NNN.")
    with pytest.raises(RefusedError, match="truncated"):
        run(b"\x80\x02NT" + struct.pack("<i", -1) + b"0.")


def test_saying_the_same_over_and_over_is_refused():
    """A text of 1 MB, encoded 10,000 times, would be 10 GB."""
    text = b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) + b"q\x00"
    once = b"c_codecs\nencode\nh\x00X\x05\x00\x00\x00ascii\x86R"
    with pytest.raises(RefusedError, match="over and over"):
        run(b"\x80\x02" + text + once * 10_000 + b".")
    assert run(b"\x80\x02" + text + once + b".") == b"a" * (1 << 20)


def test_too_many_instructions_are_refused():
    with pytest.raises(RefusedError, match=r"more than .* instructions"):
        run(b"N0" * (MOST_INSTRUCTIONS // 2 + 1) + b".")


def test_containers_that_hold_themselves_are_no_harm():
    found = run(b"\x80\x02]q\x00h\x00a.")
    assert found[0] is found


def test_a_high_place_in_the_memo_takes_no_memory():
    assert run(b"\x80\x02Nr\xff\xff\xff\xff0j\xff\xff\xff\xff.") is None


def test_only_functions_of_the_table_are_called():
    called = []
    names = {"a.f": Function(lambda *args: called.append(args)), "a.g": print}
    run(b"\x80\x02ca\nf\nK\x01K\x02\x86R.", names)
    assert called == [(1, 2)]
    with pytest.raises(RefusedError, match="calls what is no function"):
        run(b"\x80\x02ca\ng\n)R.", names)


def test_truncated_anywhere():
    for protocol in (2, 4):
        raw = pickle.dumps(VALUES, protocol)
        for n in range(len(raw)):
            with pytest.raises(RefusedError):
                run(raw[:n])


def test_names_are_shown_without_what_a_terminal_would_obey():
    with pytest.raises(RefusedError) as caught:
        run(b"\x80\x04\x8c\x05a\x1b[2J\x8c\x02b\n\x93.")
    assert r"refers to 'a\x1b[2J.b\n'" in str(caught.value)
