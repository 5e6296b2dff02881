"""Mistakes planted one at a time into the kernels: each must be caught by the test named beside it.

With ``TINYCNN_ALL_MUTANTS=1`` those of ``planted.json`` are tried too, which takes minutes.
"""

import json
import os
from pathlib import Path

import mutants
import pytest
from mutants import Mutant

MAX = "test_pool.py::test_maximum_and_the_way_back_are_their_specification[float32-0]"
NAN = "test_pool.py::test_nan_and_infinity_are_treated_as_in_numpy"
MEAN = "test_pool.py::test_mean_and_the_way_back_are_their_specification[float32-0]"
BINS = "test_pool.py::test_bins_and_the_way_back_are_their_specification[float32-0]"
CONV = "test_conv.py::test_float64_agrees_to_the_last_digits[0]"
TF32 = "test_conv.py::test_sums_are_as_exact_as_float32[tf32]"
NORM = "test_batchnorm.py -k specification"
DEPTHWISE = "test_depthwise.py -k float32"
GROUPED = "test_depthwise.py -k groups_of_any_kind"
IM2COL = "test_im2col.py -k their_specifications"
SUMS = "test_elementwise.py -k sums_over_pixels"
LOSS = "test_loss.py"
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
    Mutant("conv.cu", "int h = cell.high * down.dilation, w", "int h = cell.high * across.dilation, w", CONV),
    Mutant("conv.cu", "r += BLOCK) out[r] = row + r < rows ? row + r : -1;", "r += BLOCK) out[r] = row + r;", CONV),
    Mutant("conv.cu", "int end = min(begin + steps * BK, depth);", "int end = begin + steps * BK;", CONV),
    Mutant("conv.cu", "if (bias) sum += get(bias[n + e]);\n                if (add)", "if (add)", CONV),
    Mutant(
        "gemm.cuh", "if (d.low >= low) d.low -= low, d.middle++;", "if (d.low > low) d.low -= low, d.middle++;", CONV
    ),
    Mutant(
        "gemm.cuh", "if (d.middle >= middle) d.middle -= middle, d.high++;", "if (d.middle >= middle) d.high++;", CONV
    ),
    Mutant("gemm.cuh", "__syncthreads();  // step i is there", "// step i is there", CONV),
    Mutant(
        "gemm.cuh",
        "a[2] = at[4 * STRIDE], a[3] = at[4 * STRIDE + 8];",
        "a[2] = at[8 * STRIDE], a[3] = at[4 * STRIDE + 8];",
        TF32,
    ),
    Mutant("gemm.cuh", "n = warp % WARPS_N * WN + lane % 4 * 2;", "n = warp % WARPS_N * WN + lane % 4;", TF32),
    Mutant("norm.cuh", "__syncthreads();  // what was there before has been read", "", NORM),
    Mutant(
        "norm.cuh", "        __syncthreads();\n        if (ty < size - half)", "        if (ty < size - half)", NORM
    ),
    Mutant("norm.cuh", "int half = (size + 1) / 2;", "int half = size / 2;", NORM),
    Mutant("norm.cuh", "s1[v] += n * by;", "s1[v] -= n * by;", NORM),
    Mutant("batchnorm.cu", "if (relu && value < 0) value = 0;", "if (relu && value < 1) value = 0;", NORM),
    Mutant("batchnorm.cu", "open[u] >> v & 1", "open[u] >> (V - 1 - v) & 1", NORM),
    Mutant("depthwise.cu", "if (ow + j < OW)", "if (ow + j <= OW)", DEPTHWISE),
    Mutant("grouped.cu", "u % SW != 0 || ow >= OW", "u % SH != 0 || ow >= OW", GROUPED),
    Mutant("im2col.cu", "if (h >= 0 && h < H && w >= 0 && w < W)", "if (h >= 0 && h < H && w > 0 && w < W)", IM2COL),
    Mutant("im2col.cu", "t % SH != 0 || oh >= OH", "t % SW != 0 || oh >= OH", IM2COL),
    Mutant("norm.cuh", "== gridDim.y - 1;", "== gridDim.y - 2;", "test_batchnorm.py"),
    Mutant("conv.cu", "n + e < columns; e++", "n + e <= columns; e++", "test_conv.py"),
    Mutant(
        "depthwise.cu",
        "__syncthreads();  // the last cell may still be read",
        "",
        "test_depthwise.py -k order_of_threads",
    ),
    Mutant("depthwise.cu", "((j - kw) % STRIDE == 0)", "((j + kw + 1) % STRIDE == 0)", DEPTHWISE),
    Mutant("grouped.cu", "h >= H || v < 0 || v >= W) continue;", "h >= H || v < 0 || v > W) continue;", GROUPED),
    Mutant(
        "grouped.cu",
        "chunk < chunks; chunk += blockDim.y",
        "chunk < chunks - 1; chunk += blockDim.y",
        "test_grouped.py",
    ),
    Mutant("parts.cu", "__syncthreads();  // all is read before the next elements are written", "", "test_parts.py"),
    Mutant("parts.cu", "s < splits; s += lanes", "s < splits - 1; s += lanes", "test_parts.py"),
    Mutant("elementwise.cu", "        __syncthreads();\n", "", SUMS),
    Mutant("elementwise.cu", "row + half < step", "row + half <= step", SUMS),
    Mutant(
        "loss.cu",
        "if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;\n        __syncthreads();",
        "if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;",
        LOSS,
    ),
    Mutant(
        "loss.cu",
        "for (int c = team.thread; c < C; c += team.size) top",
        "for (int c = team.thread + 1; c < C; c += team.size) top",
        LOSS,
    ),
    Mutant("dropout.cu", "round < 10; round++", "round < 9; round++", "test_dropout.py -k last_bit"),
    Mutant(
        "dropout.cu",
        "bits >> k & 1 ? scale : (A)0));\n        ",
        "bits >> k & 1 ? (A)1 : (A)0));\n        ",
        "test_dropout.py -k last_bit",
    ),
    Mutant(
        "optim.cu",
        "if (decay != 0) grad += mul(P.x[k], decay);",
        "if (decay != 0) grad += mul(P.x[k], -decay);",
        "test_optim.py -k last_bit",
    ),
    Mutant("clip.cu", "__syncthreads();  // an earlier call may still be read", "", "test_clip.py -k specification"),
    Mutant(
        "clip.cu",
        "i < n; i += blockDim.x) {\n        ",
        "i < n - 1; i += blockDim.x) {\n        ",
        "test_clip.py -k specification",
    ),
    Mutant(
        "groupnorm.cu",
        "i < (id + 1) * tile.D; i++)",
        "i < (id + 1) * tile.D - 1; i++)",
        "test_groupnorm.py -k specification",
    ),
    Mutant(
        "layernorm.cu",
        "if (ty == 0) base = moments.k[0];\n    __syncthreads();",
        "if (ty == 0) base = moments.k[0];",
        "test_layernorm.py -k specification",
    ),
    Mutant(
        "lrn.cu",
        "o <= min(before, C - 1 - c); o++)",
        "o <= min(after, C - 1 - c); o++)",
        "test_lrn.py -k specification",
    ),
    Mutant("lrn.cu", "__syncthreads();  // the sums before are done", "", "test_lrn.py"),
    Mutant(
        "augment.cu",
        "if (moves[3 * N + n] != 0) h = H - 1 - h;",
        "if (moves[3 * N + n] != 0) h = H - h;",
        "test_augment.py -k specification",
    ),
    Mutant(
        "metrics.cu",
        "if (x_nan || x == y) return i < j;",
        "if (x_nan || x == y) return i > j;",
        "test_metrics.py -k counts",
    ),
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


if os.environ.get("TINYCNN_ALL_MUTANTS"):
    ROWS += [Mutant(*row) for row in json.loads(Path(__file__).with_name("planted.json").read_text(encoding="utf-8"))]


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
