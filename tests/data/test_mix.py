"""Mixed images and soft targets."""

import numpy as np
import pytest
from helpers import is_channels_last

from tinycnn import CrossEntropyLoss
from tinycnn.backend import to_device
from tinycnn.data import CutMix, Mixup
from tinycnn.data.mix import soft_targets

torch = pytest.importorskip("torch")
K = 5
both = pytest.mark.parametrize("mix", [Mixup(K), CutMix(K)], ids=repr)


def batch(N=8, H=9, W=7, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (N, 3, H, W), dtype=np.uint8)
    return (x if dtype == "uint8" else (x / 255).astype(dtype)), rng.integers(0, K, N)


def partners(N, seed):
    """The first thing drawn."""
    return np.random.default_rng(seed).permutation(N)


def one_hot(y):
    return np.eye(K)[y]


# ---- images and targets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_mixup_blends_images_and_labels_by_the_same_share(seed):
    x, y = batch(seed=seed)
    mixed, targets = Mixup(K)(x, y, np.random.default_rng(seed))
    partner = partners(8, seed)
    for n, other in enumerate(partner):
        if other == n:
            np.testing.assert_allclose(mixed[n], x[n], rtol=0, atol=1e-15)
            continue
        share = ((mixed[n] - x[other]) / (x[n] - x[other] + (x[n] == x[other]))).max()
        np.testing.assert_allclose(mixed[n], share * x[n] + (1 - share) * x[other], rtol=0, atol=1e-12)
        expected = share * one_hot(y[n]) + (1 - share) * one_hot(y[other])
        np.testing.assert_allclose(targets[n], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_cutmix_pastes_a_box_and_mixes_labels_by_area(seed, dtype):
    x, y = batch(N=30, H=20, W=24, dtype=dtype, seed=seed)
    mixed, targets = CutMix(K)(x, y, np.random.default_rng(seed))
    for n, other in enumerate(partners(30, seed)):
        if n == other:
            np.testing.assert_array_equal(mixed[n], x[n])
            continue
        pasted = (mixed[n] == x[other]).all(axis=0) & ~(x[n] == x[other]).all(axis=0)
        kept = (mixed[n] == x[n]).all(axis=0)
        assert (pasted | kept).all()
        rows, cols = np.flatnonzero(pasted.any(axis=1)), np.flatnonzero(pasted.any(axis=0))
        assert pasted.sum() == len(rows) * len(cols)  # a full rectangle
        if len(rows):
            assert rows[-1] - rows[0] + 1 == len(rows)
            assert cols[-1] - cols[0] + 1 == len(cols)
        share = 1 - pasted.sum() / (20 * 24)
        np.testing.assert_allclose(targets[n], share * one_hot(y[n]) + (1 - share) * one_hot(y[other]), atol=1e-6)


def test_cutmix_boxes_have_the_images_shape():
    """Those not cut off, in white pasted into black: √(1 − λ) of both sides, in whole pixels."""
    x = np.stack([np.zeros((1, 60, 90)), np.ones((1, 60, 90))] * 1500)
    mixed, _ = CutMix(2)(x, np.arange(3000) % 2, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    rng.permutation(3000)
    side = np.sqrt(1 - rng.beta(1, 1, 3000))
    changed = (mixed != x)[:, 0]
    height, width = changed.any(axis=2).sum(axis=1), changed.any(axis=1).sum(axis=1)
    whole = (height > 0) & ~changed[:, [0, -1]].any(axis=(1, 2)) & ~changed[:, :, [0, -1]].any(axis=(1, 2))
    assert whole.sum() > 100
    np.testing.assert_array_equal(height[whole], np.floor(60 * side[whole]))
    np.testing.assert_array_equal(width[whole], np.floor(90 * side[whole]))


@both
def test_targets_are_probabilities(mix):
    x, y = batch(N=50)
    _, targets = mix(x, y, np.random.default_rng(1))
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-12)
    assert targets.min() >= 0
    assert ((targets > 0).sum(axis=1) <= 2).all()


@both
def test_soft_targets_are_mixed_as_labels_are(mix):
    x, y = batch()
    for a, b in zip(mix(x, y, np.random.default_rng(2)), mix(x, one_hot(y), np.random.default_rng(2)), strict=True):
        np.testing.assert_array_equal(a, b)


@both
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
def test_types_memory_and_input(mix, dtype):
    x, y = batch(dtype=dtype)
    before = x.copy(), y.copy()
    mixed, targets = mix(x, y, np.random.default_rng(0))
    assert mixed.dtype == dtype
    assert targets.dtype == ("float64" if dtype == "float64" else "float32")
    assert is_channels_last(mixed)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(y, before[1])
    assert (mixed != x).any()


def test_mixed_bytes_are_rounded():
    x, y = batch(dtype="uint8")
    mixed, _ = Mixup(K)(x, y, np.random.default_rng(0))
    exact, _ = Mixup(K)(x.astype(np.float64), y, np.random.default_rng(0))
    assert np.abs(mixed - exact).max() < 0.5 + 1e-4


@both
def test_mixing_commutes_with_normalising(mix):
    x, y = batch()
    scaled, _ = mix((x - 0.4) / 0.2, y, np.random.default_rng(0))
    np.testing.assert_allclose(scaled, (mix(x, y, np.random.default_rng(0))[0] - 0.4) / 0.2, rtol=0, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_are_of_the_beta_distribution(alpha):
    """Of images in pairs 0, 1: the share of a label is λ.  Variance of B(α, α): 1/(8α + 4)."""
    N = 20000
    x, y = np.zeros((N, 1, 1, 1)), np.arange(N)
    _, targets = Mixup(2, alpha)(x, y % 2, np.random.default_rng(0))
    differ = (partners(N, 0) - y) % 2 == 1
    share = targets[np.arange(N), y % 2][differ]
    assert share.mean() == pytest.approx(0.5, abs=0.02)
    assert share.var() == pytest.approx(1 / (8 * alpha + 4), rel=0.04)


# ---- what the loss makes of it -------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_pytorchs_and_linear_in_the_targets(mix, smoothing):
    x, y = batch()
    _, targets = mix(x, y, np.random.default_rng(0))
    logits = np.random.default_rng(1).normal(size=(8, K))
    loss, dlogits = CrossEntropyLoss(label_smoothing=smoothing)(logits, targets)
    tensor = torch.from_numpy(logits).requires_grad_()
    expected = torch.nn.functional.cross_entropy(tensor, torch.from_numpy(targets), label_smoothing=smoothing)
    expected.backward()
    assert float(loss) == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(dlogits, tensor.grad.numpy(), rtol=0, atol=1e-14)
    if not smoothing:
        partner = partners(8, 0)
        share = targets[np.arange(8), y]  # where labels are equal any share is right
        each = CrossEntropyLoss(reduction="none")
        a, b = each(logits, y)[0], each(logits, y[partner])[0]
        assert float(loss) == pytest.approx((share * a + (1 - share) * b).mean(), rel=1e-12)


# ---- on a GPU, and bad input ---------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_gpu_mixes_the_same(gpu, mix, dtype):
    x, y = batch(dtype=dtype)
    mixed, targets = mix(to_device(x, "cuda"), to_device(y, "cuda"), np.random.default_rng(0))
    assert isinstance(mixed, gpu.ndarray)
    assert isinstance(targets, gpu.ndarray)
    expected = mix(x, y, np.random.default_rng(0))
    tolerance = 1 if dtype == "uint8" else 1e-6
    np.testing.assert_allclose(mixed.get().astype(float), expected[0].astype(float), rtol=0, atol=tolerance)
    np.testing.assert_allclose(targets.get(), expected[1], rtol=0, atol=1e-6)


def test_a_gpu_makes_rows_of_bad_labels_nan(gpu):
    targets = soft_targets(to_device(np.array([1, K, -1]), "cuda"), K).get()
    np.testing.assert_array_equal(np.isnan(targets).all(axis=1), [False, True, True])


@both
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, K]), "labels from 0 to 4, got 5"),
        (np.array([-1, 0]), "got -1"),
        (np.zeros((2, K - 1)), r"probabilities \(N, 5\), got float64 \(2, 4\)"),
        (np.zeros(2), "mixing takes integer labels"),
        (np.zeros(3, int), r"got images \(2, 3, 9, 7\) and 3 labels"),
    ],
)
def test_bad_labels(mix, labels, message):
    with pytest.raises(ValueError, match=message):
        mix(batch(N=2)[0], labels, np.random.default_rng(0))


@pytest.mark.parametrize("mix", [Mixup, CutMix])
def test_bad_arguments(mix):
    for bad in (0, 2.5):
        with pytest.raises(
            ValueError, match=f"{mix.__name__}: num_classes must be a whole number from 1 on, got {bad}"
        ):
            mix(bad)
    for bad in (0.0, -1.0, float("inf")):
        with pytest.raises(ValueError, match=f"{mix.__name__}: alpha must be a positive number, got {bad}"):
            mix(10, bad)
