"""How fast a convolution is, from six loops to Winograd: the table of docs/from_loops_to_winograd.md.

    python scripts/conv_ladder.py benchmarks/results/ladder.json

A layer of ResNet-18, 8×64×56×56 with 64 filters of 3×3.  What would take minutes is timed on a share of the outputs.
All of it in one thread, and the least of several times counts: whatever else runs on the machine only adds to it.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from tinycnn import Conv2d, im2col, set_num_threads
from tinycnn.kernels.conv import plan

N, C, H, W, OC = 8, 64, 56, 56, 64
MACS = N * OC * H * W * C * 9


def six_loops(x, w, y, share):
    """One output of `share`: plain Python on lists, sums over c, kh, kw inside loops over o, oh, ow of an image."""
    image, filters = x[0].tolist(), w.tolist()
    for o in range(OC):
        for oh in range(H // share):
            for ow in range(W):
                total = 0.0
                for c in range(C):
                    for kh in range(3):
                        for kw in range(3):
                            total += image[c][oh + kh][ow + kw] * filters[o][c][kh][kw]
                y[0, o, oh, ow] = total
    return N * share


def patch_by_patch(x, w, y, share):
    for o in range(OC):
        for oh in range(H // share):
            for ow in range(W):
                y[0, o, oh, ow] = np.vdot(x[0, :, oh : oh + 3, ow : ow + 3], w[o])
    return N * share


def filters_at_once(x, w, y, share):
    flat = np.ascontiguousarray(w.reshape(OC, -1))
    for n in range(N // share):
        for oh in range(H):
            for ow in range(W):
                y[n, :, oh, ow] = flat @ x[n, :, oh : oh + 3, ow : ow + 3].ravel()
    return share


def one_product(x, w, y, share):
    # (OC, C, KH, KW) -> (OC, KH, KW, C) -> (OC, KH·KW·C), the order of im2col's columns
    flat = np.ascontiguousarray(w.transpose(0, 2, 3, 1).reshape(OC, -1))
    # (N·H·W, OC) -> (N, H, W, OC) -> (N, OC, H, W)
    y[...] = (im2col(x, 3) @ flat.T).reshape(N, H, W, OC).transpose(0, 3, 1, 2)
    return share


BY_HAND = {
    "six loops in Python": (six_loops, 28, 1),
    "one dot product for each output": (patch_by_patch, 8, 4),
    "all filters at once, patch by patch": (filters_at_once, 8, 10),
    "im2col, one matrix product": (one_product, 1, 60),
}


def least(repeats, call):
    best, factor = float("inf"), 1
    for _ in range(repeats):
        start = time.perf_counter()
        factor = call()
        best = min(best, time.perf_counter() - start)
    return best * (factor or 1)


def rows(x, padded, w):
    """(name, ms of a forward, ms of forward and backward or None), after a look at whether the result is right."""
    layer = Conv2d(C, OC, 3, padding=1, bias=False, algorithm="im2col")
    layer.weight.data[...] = w
    wanted = layer(x)
    for name, (function, share, repeats) in BY_HAND.items():
        y = wanted.copy()
        ms = 1e3 * least(repeats, lambda f=function, s=share, y=y: f(padded, w, y, s))
        assert np.allclose(y, wanted, atol=1e-3), name
        yield name, ms, None
    for name in ("im2col", "winograd2", "winograd4"):
        with plan.prefer(name):
            layer.algorithm = name
            y = layer(x)
            assert np.allclose(y, wanted, atol=1e-3), name
            forward = 1e3 * least(150, lambda: layer(x) is None)
            both = 1e3 * least(80, lambda: layer.backward(layer(x)) is None)
        yield f"this package, `{name}`", forward, both


def cpu():
    lines = Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def main(out):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, C, H, W), np.float32)
    w = rng.standard_normal((OC, C, 3, 3), np.float32) / 24
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    set_num_threads(1)
    with threadpool_limits(1):
        times = list(rows(x, padded, w))
    found = [{"name": name, "forward_ms": f, "both_ms": b, "gflops": 2e-6 * MACS / f} for name, f, b in times]
    facts = {"cpu": cpu(), "threads": 1, "numpy": np.__version__, "macs": MACS, "rows": found}
    Path(out).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    for row in found:
        print(f"{row['name']:40} {row['forward_ms']:12.1f} ms {row['gflops']:9.3f} GFLOP/s")


if __name__ == "__main__":
    main(sys.argv[1])
