"""Mistakes planted one at a time into the kernels: each must be caught by the test named beside it."""

from pathlib import Path

import mutants
import pytest
from mutants import Mutant

MAX = "test_pool.py::test_maximum_and_the_way_back_are_their_specification[float32-0]"
NAN = "test_pool.py::test_nan_and_infinity_are_treated_as_in_numpy"
MEAN = "test_pool.py::test_mean_and_the_way_back_are_their_specification[float32-0]"
BINS = "test_pool.py::test_bins_and_the_way_back_are_their_specification[float32-0]"
ROWS = [
    Mutant(
        "pool.cu",
        "if (w < 0 || w >= W) continue;\n            int r",
        "if (w < 0 || w > W) continue;\n            int r",
        MAX,
    ),
    Mutant("pool.cu", "int h = oh * SH + kh * DH - PH;", "int h = oh * SW + kh * DH - PH;", MAX),
    Mutant("pool.cu", "c = (int)(i % packs) * V,", "c = (int)(i % packs),", MAX),
    Mutant("pool.cu", "if (v > best[k] || v != v)", "if (v > best[k])", NAN),
    Mutant("pool.cu", "if (v > best[k] || v != v)", "if (v >= best[k] || v != v)", MAX),
    Mutant("pool.cu", "if (rank[k] < 0 || best[k] != best[k])", "if (rank[k] < 0)", NAN),
    Mutant("pool.cu", "last = min((h + P) / S, O - 1);", "last = (h + P) / S;", MAX),
    Mutant("pool.cu", "(before + S - 1) / S : 0", "before / S : 0", MAX),
    Mutant("pool.cu", "offset % D == 0 ? offset / D : -1", "offset / D", MAX),
    Mutant("pool.cu", "min(end, H) - max(start, 0)", "min(end, H) - start", MEAN),
    Mutant("pool.cu", "((i + 1) * (H % O) + O - 1) / O;", "((i + 1) * (H % O)) / O;", BINS),
    Mutant(
        "pool.cu",
        "__syncthreads();  // the parts of the bin before this one may still be read",
        "",
        "test_pool.py -k bin",
    ),
    Mutant("pool.cu", "half /= 2) {\n            __syncthreads();", "half /= 2) {", "test_pool.py -k bin"),
    Mutant("pool.py", "*window.kernel, *window.stride,", "*window.stride, *window.kernel,", MAX),
    Mutant(
        "common.cuh", "i += (long long)gridDim.x * blockDim.x", "i += (long long)blockDim.x", "test_module.py -k sums"
    ),
    Mutant(
        "common.cuh",
        "    if (lane == 0) parts[threadIdx.x / 32] = x;\n    __syncthreads();",
        "    if (lane == 0) parts[threadIdx.x / 32] = x;",
        "test_module.py -k sums",
    ),
    Mutant("common.cuh", "__syncthreads();  // an earlier call may still be read", "", "test_module.py -k sums"),
]


@pytest.fixture(scope="module")
def outcomes(request):
    """What became of all mutants whose tests were asked for."""
    own = [item for item in request.session.items if item.path == Path(__file__) and "mutant" in item.fixturenames]
    return mutants.outcomes([item.callspec.params["mutant"] for item in own])


@pytest.mark.parametrize("mutant", ROWS, ids=str)
def test_a_planted_mistake_is_caught(mutant, outcomes):
    assert outcomes[str(mutant)] == "caught"


def test_what_is_no_mistake_or_none_at_all_is_told_apart():
    harmless = Mutant("pool.cu", "best[k] = -INFINITY,", "best[k] = -INFINITY + 0,", NAN)
    gone = Mutant("pool.cu", "no such text", "", NAN)
    broken = Mutant("pool.cu", "best[k] = -INFINITY,", "worst[k] = -INFINITY,", NAN)
    untested = Mutant("pool.cu", "best[k] = -INFINITY,", "best[k] = 1,", "test_pool.py -k no_such_test")
    found = mutants.outcomes([harmless, gone, broken, untested])
    assert found[str(harmless)] == "not noticed"
    assert "stands there 0 times" in found[str(gone)]
    assert "does not compile" in found[str(broken)]
    assert "could not be run" in found[str(untested)]
