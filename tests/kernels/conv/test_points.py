"""Winograd's matrices against their construction in exact fractions; the filters at the points, and how work is cut."""

from fractions import Fraction

import numpy as np
import pytest

from tinycnn import parallel
from tinycnn.kernels.conv import points
from tinycnn.kernels.window import Window

POINTS = {2: "0 1 -1", 4: "0 5/8 -5/8 3/2 -3/2"}
TILES = pytest.mark.parametrize("m", [2, 4])


def polynomial(roots):
    """Coefficients of Π (x − root), lowest first, in fractions."""
    c = [Fraction(1)]
    for root in roots:
        c = [high - root * low for low, high in zip([*c, 0], [0, *c], strict=True)]
    return c


@TILES
def test_matrices_are_toom_and_cooks_in_exact_fractions(m):
    at = [Fraction(p) for p in POINTS[m].split()]
    A, B, G = (matrix.astype(object) for matrix in points.matrices(m))
    for i, p in enumerate(at):
        others = [q for q in at if q != p]
        scale = Fraction(1)
        for q in others:
            scale /= p - q
        # Each point may be scaled at will, as long as the three scales cancel.
        a, b = Fraction(A[i, 0]), Fraction(B[len(at) - 1, i])
        assert [Fraction(v) for v in A[i]] == [a * p**k for k in range(m)]
        assert [Fraction(v) for v in B[:, i]] == [*(b * v for v in polynomial(others)), 0]
        np.testing.assert_allclose(
            np.array(G[i], float), [float(scale * p**k / (a * b)) for k in range(3)], rtol=1e-15, atol=0
        )
    assert [*A[-1], *G[-1]] == [0] * (m - 1) + [1, 0, 0, 1]
    assert [Fraction(v) for v in B[:, -1]] == polynomial(at)


@TILES
def test_one_dimension_by_hand(m):
    """Aᵀ[(G g) ⊙ (Bᵀ d)] is the sliding dot product of g over d."""
    A, B, G = points.matrices(m)
    d, g = np.random.default_rng(0).standard_normal(m + 2), np.array([2.0, -3.0, 5.0])
    wanted = [2 * d[i] - 3 * d[i + 1] + 5 * d[i + 2] for i in range(m)]
    np.testing.assert_allclose(A.T @ ((G @ g) * (B.T @ d)), wanted, rtol=1e-13)


@TILES
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_filters_and_pixels_take_both_dimensions_at_once(m, dtype):
    """G w Gᵀ and Aᵀ M A + b of single tiles, against the two products that they stand for."""
    rng = np.random.default_rng(0)
    A, _, G = points.matrices(m)
    plan = points.make_plan(np.zeros((1, 8, 8, 3), dtype), Window((3, 3)), m)
    w = rng.standard_normal((5, 3, 3, 3)).astype(dtype)
    U = np.full((plan.P, 3, 5), np.nan, dtype)
    points.filters_to_points(w, points.FOR_FORWARD, plan, U)
    # (OC, 3, 3, C) -> (C, OC, 3, 3);  t×t at the points of each
    wanted = G @ w.transpose(3, 0, 1, 2) @ G.T
    np.testing.assert_allclose(U, wanted.reshape(3, 5, -1).transpose(2, 0, 1), rtol=0, atol=20 * np.finfo(dtype).eps)
    M, b = rng.standard_normal((m + 2, m + 2)), 7.0
    pixels = plan.AA.astype(float) @ np.append(M.ravel(), b)
    np.testing.assert_allclose(pixels.reshape(m, m), A.T @ M @ A + b, rtol=1e-12)


def test_plans_are_made_once_for_all_images_of_a_size():
    window = Window((3, 3), padding=((1, 1), (2, 0)))
    plan = points.make_plan(np.zeros((4, 13, 9, 2), np.float32), window, 4)
    assert points.make_plan(np.zeros((1, 13, 9, 5), np.float32), window, 4) is plan
    assert points.make_plan(np.zeros((1, 13, 9, 5), np.float64), window, 4).A.dtype == np.float64
    assert (plan.outputs.TH, plan.outputs.TW, plan.outputs.top) == (4, 3, 0)
    assert (plan.inputs.top, plan.inputs.left) == (1, 2)


def test_a_band_begins_where_the_one_above_it_ends():
    plan = points.make_plan(np.zeros((1, 32, 9, 2), np.float32), Window((3, 3), padding=((1, 1), (1, 1))), 4)
    inputs, outputs = plan.band(slice(3, 5))
    assert (inputs.TH, inputs.top, outputs.TH, outputs.top) == (2, 1 - 12, 2, -12)


def test_weights_are_cut_between_groups(monkeypatch):
    monkeypatch.setattr(parallel, "SERIAL_BYTES", 1)
    monkeypatch.setattr(parallel, "SLICE_BYTES", 1 << 10)
    parts = []
    points.each_group(parts.append, 70, 1 << 10, np.zeros(1))
    assert sorted((s.start, s.stop) for s in parts) == [(0, 16), (16, 32), (32, 48), (48, 64), (64, 70)]
    parts.clear()
    points.each_group(parts.append, 70, 1 << 10, np.zeros(1), group=32, least_bytes=1 << 15)
    assert {s.start % 32 for s in parts} == {0}
    assert 1 < len(parts) < 4
