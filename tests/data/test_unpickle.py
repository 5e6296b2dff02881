import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from tinycnn.data import DataError
from tinycnn.data.unpickle import restricted_loads


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("dtype", ["uint8", ">i2", "float64"])
def test_arrays_and_containers_come_back(protocol, dtype):
    x = np.arange(6).reshape(2, 3).astype(dtype)
    y = restricted_loads(pickle.dumps({b"x": x, "rest": [1, 2.5, None, (True, b"\xff")]}, protocol), "f")
    assert y["rest"] == [1, 2.5, None, (True, b"\xff")]
    assert y[b"x"].dtype.name == x.dtype.name
    np.testing.assert_array_equal(y[b"x"], x)


def test_strings_of_python_2_are_bytes():
    assert restricted_loads(b"\x80\x02U\x02\xff\x01.", "f") == b"\xff\x01"


class Evil:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_os_system_is_refused_and_not_run(tmp_path, protocol):
    victim = tmp_path / "victim"
    raw = pickle.dumps({"data": Evil(os.system, f"touch {victim}")}, protocol)
    with pytest.raises(DataError, match=rf"^batch: refused: the pickle refers to {os.name}\.?\w*system, .*download"):
        restricted_loads(raw, "batch")
    assert not victim.exists()
    pickle.loads(raw)  # the payload works
    assert victim.exists()


@pytest.mark.parametrize(
    "refused",
    [
        Evil(eval, "1"),
        Evil(getattr, "", "format"),
        Evil(np.fromfile, "/dev/null"),
        OrderedDict(a=1),
        Evil(print),
        np.load,
    ],
)
def test_anything_but_arrays_is_refused(refused):
    with pytest.raises(DataError, match="refused: the pickle refers to"):
        restricted_loads(pickle.dumps(refused), "f")


def test_names_reached_through_dots_are_refused():
    """Protocol 4 lets a name walk down attributes: numpy → ndarray → tofile."""
    raw = b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93."
    assert pickle.loads(raw) is np.ndarray.tofile
    with pytest.raises(DataError, match=r"numpy\.ndarray\.tofile"):
        restricted_loads(raw, "f")


def test_persistent_objects_and_extensions_are_refused():
    for raw in (b"\x80\x02U\x01aQ.", b"Pname\n.", b"\x80\x02\x82\x01."):
        with pytest.raises(DataError, match="not a readable pickle"):
            restricted_loads(raw, "f")


def test_truncated_anywhere():
    raw = pickle.dumps({b"data": np.arange(5), b"labels": [1, 2]}, 4)
    for n in range(len(raw)):
        with pytest.raises(DataError, match=r"^f: not a readable pickle .*: download the file again$"):
            restricted_loads(raw[:n], "f")
