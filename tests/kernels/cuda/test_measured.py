"""Measuring routes, and remembering the answers."""

import json
import os

import numpy as np
import pytest

from tinycnn import __version__
from tinycnn.kernels.conv.plan import Problem
from tinycnn.kernels.cuda import measured, routes
from tinycnn.kernels.precision import precision
from tinycnn.kernels.window import Window

PROBLEM = Problem((2, 5, 6, 3), 4, Window((3, 2), (2, 1), ((1, 0), (1, 1))))
FLOAT32 = np.dtype(np.float32)


@pytest.fixture
def folder(gpu, monkeypatch, tmp_path):
    monkeypatch.setenv("TINYCNN_CACHE", str(tmp_path / "new"))
    return tmp_path / "new"


@pytest.fixture
def clock(monkeypatch):
    """Routes that take as long as they are told to; what was asked, in order."""
    times, asked = {"64x32": 3.0, "im2col": 2.0, "direct": 1.0}, []

    def seconds(task, like, repeats):
        pass_, route = task.func.__closure__, task.args[0]
        asked.append((next(c.cell_contents for c in pass_ if isinstance(c.cell_contents, str)), route))
        return times[route]

    monkeypatch.setattr(measured, "_seconds", seconds)
    return times, asked


def test_the_fastest_of_each_pass_is_taken_and_kept(gpu, folder, clock):
    like, (times, asked) = gpu.ones(1), clock
    assert measured.fastest(PROBLEM, like, FLOAT32, ["forward", "dw"]) == ("im2col", "implicit", "im2col")
    assert asked == [("forward", "64x32"), ("forward", "im2col"), ("dw", "64x32"), ("dw", "im2col")]
    times["64x32"] = 1.0
    assert measured.fastest(PROBLEM, like, FLOAT32) == ("im2col", "64x32", "im2col"), "dx alone was missing"
    assert len(asked) == 6
    assert measured.fastest(PROBLEM, like, FLOAT32, fresh=True) == ("64x32",) * 3
    times["im2col"] = 0.5
    assert measured.fastest(PROBLEM, like, FLOAT32) == ("64x32",) * 3
    assert len(asked) == 12


def test_what_is_named_is_measured_and_not_kept(gpu, folder, clock):
    like = gpu.ones(1)
    assert measured.fastest(PROBLEM, like, FLOAT32, names=["64x32", "direct"]) == ("64x32",) * 3
    assert measured.fastest(PROBLEM, like, FLOAT32, names=["direct"]) == ("implicit",) * 3, "it cannot be done"
    assert not folder.exists()


def test_the_file(gpu, folder, clock):
    measured.fastest(PROBLEM, gpu.ones(1), FLOAT32)
    other = Problem((1, 4, 4, 12), 12, Window((3, 3)), 12)
    with precision("tf32"):
        assert measured.fastest(other, gpu.ones(1), FLOAT32) == ("direct",) * 3
    (path,) = folder.iterdir()
    name, capability = measured.gpu_name()
    assert all(word in path.name for word in (name.split()[0], *capability.split("."), *__version__.split(".")))
    found = json.loads(path.read_text())
    assert (found["gpu"], found["compute_capability"], found["tinycnn"]) == (name, capability, __version__)
    assert found["routes"] == {
        "x 2,5,6,3 to 4, 3x2 stride 2,1 dilation 1,1 padding 1,0,1,1, float32": dict.fromkeys(routes.PASSES, "im2col"),
        "x 1,4,4,12 to 12, 3x3 stride 1,1 dilation 1,1 padding 0,0,0,0 groups 12, tf32": dict.fromkeys(
            routes.PASSES, "direct"
        ),
    }


@pytest.mark.parametrize("text", ["", "[]", '{"routes": 3}', '{"routes": {"a": 1}}', '{"gpu": "'])
def test_a_file_that_is_broken_is_written_anew(gpu, folder, clock, text):
    folder.mkdir()
    measured.cache_file().write_text(text)
    assert measured.fastest(PROBLEM, gpu.ones(1), FLOAT32) == ("im2col",) * 3
    assert len(measured.read(measured.cache_file())) == 1


def test_an_unknown_route_in_the_file_is_measured_again(gpu, folder, clock):
    key = measured.describe(PROBLEM, FLOAT32)
    measured.write(measured.cache_file(), key, {"forward": "nonsense", "dx": "64x64", "dw": "direct"})
    assert measured.fastest(PROBLEM, gpu.ones(1), FLOAT32) == ("im2col", "64x64", "direct")


def test_where_nothing_can_be_written_nothing_is_kept(gpu, folder, clock, monkeypatch):
    folder.write_text("a file where the folder should be")
    assert measured.fastest(PROBLEM, gpu.ones(1), FLOAT32) == ("im2col",) * 3
    folder.unlink()

    def replace(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", replace)
    assert measured.fastest(PROBLEM, gpu.ones(1), FLOAT32) == ("im2col",) * 3
    assert not [path for path in folder.iterdir() if path.suffix == ".json"]


def test_routes_that_memory_is_short_for_are_left_out(gpu, folder, clock, monkeypatch):
    chosen = measured._seconds

    def seconds(task, like, repeats):
        if task.args == ("im2col",):
            raise MemoryError
        return chosen(task, like, repeats)

    monkeypatch.setattr(measured, "_seconds", seconds)
    assert measured.fastest(PROBLEM, gpu.ones(1), FLOAT32) == ("64x32",) * 3


def test_a_real_measurement(gpu):
    times = measured.measure(PROBLEM, gpu.ones(1), np.dtype(np.float64), "forward", ["implicit", "im2col"], 2)
    assert list(times) == ["implicit", "im2col"]
    assert min(times.values()) > 0


@pytest.mark.parametrize("which", routes.PASSES)
def test_every_pass_can_be_measured(gpu, monkeypatch, which):
    called = []
    for name in ("forward_by", "backward_input_by", "backward_weight_by"):
        monkeypatch.setattr(routes, name, lambda route, *args, name=name: called.append((name, route)))
    measured._task(PROBLEM, gpu.ones(1), FLOAT32, which)("64x64")
    name = dict(zip(routes.PASSES, ("forward_by", "backward_input_by", "backward_weight_by"), strict=True))[which]
    assert called == [(name, "64x64")]


def test_the_folder_is_the_systems(monkeypatch, tmp_path):
    monkeypatch.delenv("TINYCNN_CACHE", raising=False)
    monkeypatch.setattr(measured.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert measured.cache_folder() == tmp_path / "tinycnn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert measured.cache_folder().parts[-2:] == (".cache", "tinycnn")
    monkeypatch.setattr(measured.sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert measured.cache_folder() == tmp_path / "tinycnn" / "cache"
