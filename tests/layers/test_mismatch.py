"""What does not fit, and the renaming that would help."""

import pytest

from tinycnn.layers.mismatch import guess_rename, renamed, words_for


def test_everything_is_said_at_once():
    own = {"a.weight": (2, 3), "a.bias": (2,), "b": (1,), "c": (4,)}
    given = {"a.weight": (2, 3), "a.bias": (3,), "d": (9,), "c": (5,)}
    words = words_for(own, given, ["b"], ["d"])
    assert words == (
        "missing b; unexpected d; a.bias has shape (2,), the state's has (3,), c has shape (4,), the state's has (5,)"
    )
    assert words_for(own, own, [], []) == ""


def test_long_lists_are_cut_and_counted():
    own = {f"n{i}": (i,) for i in range(100)}
    assert words_for(own, {}, list(own), []) == "missing n0, n1, n2, n3 and 96 more (100 of 100)"


@pytest.mark.parametrize(
    ("missing", "unexpected", "expected"),
    [
        ({"fc.weight": (2, 3), "fc.bias": (2,)}, {"linear.weight": (2, 3), "linear.bias": (2,)}, {"linear": "fc"}),
        ({"fc.weight": (2, 3)}, {"linear.weight": (2, 4)}, {}),  # another shape
        ({"fc.weight": (2,)}, {"fc.bias": (2,)}, {}),  # another part
        ({"conv1.weight": (2,), "fc.weight": (3,)}, {"net.conv1.weight": (2,), "net.fc.weight": (3,)}, {"net": ""}),
        ({"net.a.weight": (2,), "net.b.weight": (3,)}, {"a.weight": (2,), "b.weight": (3,)}, {"": "net"}),
        ({"a": (2,)}, {}, {}),
    ],
)
def test_the_renaming_that_would_help(missing, unexpected, expected):
    assert guess_rename(missing, unexpected) == expected
    assert {renamed(n, expected) for n in unexpected} == set(missing) or not expected


def test_the_renaming_that_helps_most_is_named():
    missing = {"fc.weight": (2,), "fc.bias": (2,), "x.weight": (2,)}
    unexpected = {"y.weight": (2,), "y.bias": (2,)}
    assert guess_rename(missing, unexpected) == {"y": "fc"}
    words = words_for(missing, unexpected, missing, unexpected)
    assert words.endswith("renaming y to fc would help")


def test_paths_are_renamed_whole():
    assert renamed("a.b.c", {"a.b": "x"}) == "x.c"
    assert renamed("a.bc.c", {"a.b": "x"}) == "a.bc.c"
    assert renamed("a.b", {"a.b.": "x."}) == "x"
    assert renamed("a.b", {"a": ""}) == "b"
    assert renamed("a.b", {"": "net"}) == "net.a.b"
    assert renamed("a.b", {"a": "b", "a.b": "c"}) == "b.b"


def test_many_names_take_no_time():
    missing = {f"a{i}.b{i}.weight": (3,) for i in range(3000)}
    unexpected = {f"c{i}.d{i}.weight": (3,) for i in range(3000)}
    assert len(guess_rename(missing, unexpected)) == 1
