"""The way from pixels to points and back, against loops over tiles, exactly on integers."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tinycnn.kernels.conv.tiles import Tiles, from_points, put_tiles, to_points

# Any K will do, so small integers make every sum exact.
TILES = st.builds(Tiles, st.integers(1, 4), st.integers(1, 4), st.sampled_from([2, 4]), st.integers(-3, 7), st.just(0))
IMAGES = st.tuples(st.integers(1, 3), st.integers(1, 13), st.integers(1, 13), st.integers(1, 3))


def draw(tiles, shape, overlap, left, seed):
    """Return x, V, K and the tiles, moved to the left, as far as they cover the image's width."""
    rng = np.random.default_rng(seed)
    k, t = tiles.step + overlap, tiles.step + 2
    n, _, W, C = shape
    assume(left + W <= tiles.step * tiles.TW + overlap)
    x = rng.integers(-4, 5, shape).astype(np.float64)
    V = rng.integers(-4, 5, (t * t, n * tiles.TH * tiles.TW, C)).astype(np.float64)
    return x, V, rng.integers(-4, 5, (t, k)).astype(np.float64), tiles._replace(left=left)


def each_tile(tiles):
    for r, c in np.ndindex(tiles.TH, tiles.TW):
        yield r, c, tiles.step * r - tiles.top, tiles.step * c - tiles.left


@settings(max_examples=60)
@given(TILES, IMAGES, st.sampled_from([0, 2]), st.integers(0, 3), st.integers(0, 99))
def test_to_points_is_a_product_for_every_tile(tiles, shape, overlap, left, seed):
    x, V, K, tiles = draw(tiles, shape, overlap, left, seed)
    (t, k), far = K.shape, 40
    padded = np.pad(x, ((0, 0), (far, far), (far, far), (0, 0)))
    wanted = np.empty((t, t, len(x), tiles.TH, tiles.TW, x.shape[3]))
    for r, c, h, w in each_tile(tiles):
        d = padded[:, h + far : h + far + k, w + far : w + far + k]
        wanted[:, :, :, r, c] = np.einsum("ip,npqc,jq->ijnc", K, d, K)
    to_points(x, K, tiles, V)
    np.testing.assert_array_equal(V, wanted.reshape(V.shape))


@settings(max_examples=60)
@given(TILES, IMAGES, st.sampled_from([0, 2]), st.integers(0, 3), st.integers(0, 99))
def test_from_points_adds_up_the_tiles(tiles, shape, overlap, left, seed):
    x, V, K, tiles = draw(tiles, shape, overlap, left, seed)
    t, far = len(K), 40
    padded = np.pad(np.zeros(shape), ((0, 0), (far, far), (far, far), (0, 0)))
    M = V.reshape(t, t, len(x), tiles.TH, tiles.TW, -1)
    for r, c, h, w in each_tile(tiles):
        tile = np.einsum("ip,ijnc,jq->npqc", K, M[:, :, :, r, c], K)
        padded[:, h + far : h + far + K.shape[1], w + far : w + far + K.shape[1]] += tile
    covered = slice(max(-tiles.top, 0), max(tiles.step * tiles.TH - tiles.top, 0))
    y = np.zeros(shape)
    y[:, covered] = np.nan  # what tiles cover is written, not added to
    from_points(V, K.T, tiles, y)
    np.testing.assert_array_equal(y, padded[:, far : far + shape[1], far : far + shape[2]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("step", "overlap"), [(2, 0), (2, 2), (4, 0), (4, 2)])
def test_they_are_adjoint_exactly(step, overlap, dtype):
    rng = np.random.default_rng(0)
    tiles = Tiles(3, 2, step, 1, 1)
    K = rng.integers(-2, 3, (step + 2, step + overlap)).astype(dtype)
    x = rng.integers(-2, 3, (2, 3 * step, 2 * step - 1, 3)).astype(dtype)
    V, M = np.empty((2, len(K) ** 2, 12, 3), dtype)
    M[...] = rng.integers(-2, 3, M.shape)
    y = np.zeros_like(x)
    to_points(x, K, tiles, V)
    from_points(M, K.T, tiles, y)
    assert (V * M).sum() == (x * y).sum() != 0


@given(
    st.integers(1, 4), st.integers(1, 4), st.sampled_from([2, 4]), st.integers(0, 3), st.integers(0, 3), st.booleans()
)
def test_tiles_are_put_side_by_side_without_what_is_beyond_the_edges(TH, TW, m, less_h, less_w, second):
    """Of an image in bands, the last band is cut at the lower edge, as all are on the right."""
    H, W, first = m * TH - min(less_h, m - 1), m * TW - min(less_w, m - 1), TH // 2 if second else 0
    pixels = np.random.default_rng(0).standard_normal((m * m, 2 * (TH - first) * TW, 3))
    y = np.full((2, H, W, 3), np.nan)
    put_tiles(pixels, Tiles(TH - first, TW, m, top=-m * first), y)
    wanted = np.full((2, m * TH, m * TW, 3), np.nan)
    for i, j, n, r, c in np.ndindex(m, m, 2, TH - first, TW):
        wanted[n, m * (first + r) + i, m * c + j] = pixels.reshape(m, m, 2, TH - first, TW, 3)[i, j, n, r, c]
    np.testing.assert_array_equal(y, wanted[:, :H, :W])
