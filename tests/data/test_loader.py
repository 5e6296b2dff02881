import itertools

import numpy as np
import pytest
from helpers import is_channels_last
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycnn.data import CutMix, Loader, Mixup, Normalize, RandomShift


def numbered(N: int, C: int = 1, H: int = 2, W: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Image i is filled with i."""
    return np.broadcast_to(np.arange(N, dtype=np.float32)[:, None, None, None], (N, C, H, W)), np.arange(N)


def labels_of(batches) -> list[list[int]]:
    return [y.tolist() for _, y in batches]


def same(a, b) -> bool:
    a, b = list(a), list(b)
    return len(a) == len(b) and all(
        np.array_equal(p, q) for left, right in zip(a, b, strict=True) for p, q in zip(left, right, strict=True)
    )


cases = st.fixed_dictionaries(
    {
        "N": st.integers(1, 40),
        "batch_size": st.integers(1, 45),
        "shuffle": st.booleans(),
        "seed": st.integers(0, 2**64 - 1),
        "drop_last": st.booleans(),
    }
)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(case=cases, epoch=st.integers(0, 2**40))
def test_every_example_once(case, epoch):
    N, B, drop = case["N"], case["batch_size"], case["drop_last"]
    if drop and B > N:
        return
    loader = Loader(*numbered(N), B, case["shuffle"], case["seed"], drop)
    batches = list(loader.epoch(epoch))
    assert len(batches) == len(loader)
    seen = list(itertools.chain(*labels_of(batches)))
    assert len(seen) == len(set(seen)) == loader.num_examples == (N // B * B if drop else N)
    assert [len(y) for _, y in batches[:-1]] == [B] * (len(batches) - 1)
    for x, y in batches:
        assert (x == y[:, None, None, None]).all()  # images and labels stay together
    if not case["shuffle"]:
        assert seen == list(range(len(seen)))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(case=cases, epoch=st.integers(0, 3), start=st.integers(0, 45))
def test_resuming_in_the_middle_is_the_tail(case, epoch, start):
    loader = Loader(
        *numbered(case["N"], H=4), case["batch_size"], case["shuffle"], case["seed"], transform=RandomShift(1)
    )
    start = min(start, len(loader))
    again = Loader(
        *numbered(case["N"], H=4), case["batch_size"], case["shuffle"], case["seed"], transform=RandomShift(1)
    )
    assert same(itertools.islice(loader.epoch(epoch), start, None), again.epoch(epoch, start))


def test_the_order_depends_on_seed_and_epoch_and_nothing_else():
    def orders(loader, epochs):
        return {e: labels_of(loader.epoch(e)) for e in epochs}

    a, b = Loader(*numbered(50), 8, seed=5), Loader(*numbered(50), 8, seed=5)
    next(a.epoch(9))  # left in the middle
    np.random.default_rng(0).random()
    assert orders(a, [0, 1, 2]) == orders(b, [2, 0, 1])
    flat = [a.order(e).tolist() for e in range(20)] + [
        Loader(*numbered(50), 8, seed=s).order(0).tolist() for s in (6, 7)
    ]
    assert len({tuple(order) for order in flat}) == 22
    assert Loader(*numbered(50), 16, seed=5).order(3).tolist() == a.order(3).tolist()  # not on the batch size


def test_seed_and_epoch_are_not_interchangeable():
    assert Loader(*numbered(50), 8, seed=1).order(2).tolist() != Loader(*numbered(50), 8, seed=2).order(1).tolist()
    assert Loader(*numbered(50), 8, seed=2**32).order(0).tolist() != Loader(*numbered(50), 8, seed=0).order(1).tolist()


def test_two_iterations_at_once_do_not_disturb_each_other():
    loader = Loader(*numbered(20), 4, transform=RandomShift(1))
    alone = list(loader.epoch(0)), list(loader.epoch(1))
    together = list(zip(loader.epoch(0), loader.epoch(1), strict=True))
    assert same(alone[0], [pair[0] for pair in together])
    assert same(alone[1], [pair[1] for pair in together])


def test_plain_iteration_goes_from_epoch_to_epoch():
    loader = Loader(*numbered(20), 4)
    for e in range(3):
        assert loader.next_epoch == e
        assert same(loader, Loader(*numbered(20), 4).epoch(e))
    loader.next_epoch = 0
    assert same(loader, loader.epoch(0))


def test_shuffling_is_even():
    """Position of example 0 over many epochs."""
    loader = Loader(*numbered(10), 10)
    places = np.bincount([loader.order(e).tolist().index(0) for e in range(2000)], minlength=10)
    assert np.abs(places - 200).max() < 5 * np.sqrt(200)


def test_the_global_generator_is_left_alone():
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    list(Loader(*numbered(20), 4, transform=RandomShift(1)))
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


# ---- what a batch is -----------------------------------------------------------------------------------------

PHOTOS = np.random.default_rng(0).integers(0, 256, (7, 3, 4, 5), dtype=np.uint8)


@pytest.mark.parametrize("memory", ["C", "channels-last", "reversed"])
def test_batches_are_float32_on_channels_last_memory(memory):
    images = {
        "C": PHOTOS,
        "channels-last": np.ascontiguousarray(PHOTOS.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        "reversed": np.ascontiguousarray(PHOTOS[:, :, ::-1, ::-1])[:, :, ::-1, ::-1],
    }[memory]
    before = images.copy()
    for transform in (None, RandomShift(1)):
        for x, _ in Loader(
            images, np.arange(7), 4, normalize=Normalize((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)), transform=transform
        ):
            assert x.dtype == np.float32
            assert is_channels_last(x)
            x[...] = 0  # the caller's own
    np.testing.assert_array_equal(images, before)


def test_normalisation_comes_after_the_transform():
    """Zeros that a shift moves in are background pixels, not average ones."""
    mean, std = np.array([0.1, 0.2, 0.3]), np.array([0.4, 0.5, 0.6])

    def erase(x, rng):
        assert x.dtype == np.uint8
        return np.zeros_like(x)

    loader = Loader(PHOTOS, np.arange(7), 4, transform=erase, normalize=Normalize(tuple(mean), tuple(std)))
    for x, _ in loader:
        np.testing.assert_allclose(x, np.broadcast_to((-mean / std)[:, None, None], x.shape), rtol=1e-6)


def test_bytes_become_0_to_1_and_floats_stay_without_normalize():
    ((x, y),) = Loader(PHOTOS, np.arange(7), 7, shuffle=False)
    np.testing.assert_allclose(x, PHOTOS.astype(np.float64) / 255, rtol=1e-6)
    assert x.dtype == np.float32
    assert y.tolist() == list(range(7))
    for dtype in ("float32", "float64"):
        ((x, _),) = Loader(PHOTOS.astype(dtype), np.arange(7), 7, shuffle=False)
        assert x.dtype == dtype
        np.testing.assert_array_equal(x, PHOTOS)


def test_soft_labels_are_gathered_alike():
    soft = np.random.default_rng(0).random((7, 10))
    loader = Loader(PHOTOS, soft, 3)
    np.testing.assert_array_equal(np.concatenate([y for _, y in loader]), soft[loader.order(0)])


def test_each_batch_has_a_generator_of_its_own():
    drawn = []

    def note(x, rng):
        drawn.append(rng.integers(0, 2**62))
        return x

    for seed in (0, 1):
        for epoch in (0, 1):
            list(Loader(*numbered(12), 4, seed=seed, transform=note).epoch(epoch))
    assert len(drawn) == len(set(drawn)) == 12
    list(Loader(*numbered(12), 4, shuffle=False, transform=note).epoch(0, start=2))
    assert drawn[-1] == drawn[2]


# ---- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((PHOTOS, np.arange(6), 2), r"got uint8 \(7, 3, 4, 5\) and 6 labels"),
        ((PHOTOS[0], np.arange(3), 2), r"images \(N, C, H, W\)"),
        ((PHOTOS[:0], np.arange(0), 2), "N ≥ 1"),
        ((PHOTOS, np.arange(7), 0), "batch_size must be from 1 to the 7 examples there are, got 0"),
        ((PHOTOS, np.arange(7), 8, True, 0, True), "batch_size must be from 1 to the 7 examples there are, got 8"),
        ((PHOTOS, np.arange(7), 2, True, -1), "seed must lie in .* got -1"),
        ((PHOTOS, np.arange(7), 2, True, 2**64), "seed must lie in"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Loader(*arguments)


@pytest.mark.parametrize(("epoch", "start"), [(-1, 0), (0, -1), (0, 5)])
def test_bad_positions_raise_at_once(epoch, start):
    with pytest.raises(ValueError, match=rf"start in 0\.\.4, got epoch {epoch}, start {start}"):
        Loader(PHOTOS, np.arange(7), 2).epoch(epoch, start)


def test_starting_at_the_end_is_an_empty_epoch():
    assert list(Loader(PHOTOS, np.arange(7), 2).epoch(0, start=4)) == []


def test_features_are_batches_of_vectors():
    x, labels = np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32), np.arange(10)
    loader = Loader(x, labels, 4, seed=1)
    batches = list(loader.epoch(0))
    assert [part.shape for part, _ in batches] == [(4, 4), (4, 4), (2, 4)]
    for part, y in batches:
        np.testing.assert_array_equal(part, x[y])
    with pytest.raises(ValueError, match=r"floating-point features \(N, F\).*: got uint8 \(10, 4\) and 10 labels"):
        Loader(x.astype(np.uint8), labels, 4)


def test_what_lies_in_memory_in_order_is_not_copied():
    x = np.zeros((10, 3, 4, 5), np.float32).transpose(0, 3, 1, 2)
    assert np.shares_memory(Loader(x, np.arange(10), 4)._images, x)
    x = np.zeros((10, 4), np.float32)
    assert np.shares_memory(Loader(x, np.arange(10), 4)._images, x)


# ---- what changes labels, too --------------------------------------------------------------------------------


def test_batches_are_mixed_last_with_a_generator_of_their_own():
    """Transforms draw what they would have drawn without, and the loader what it would have drawn otherwise."""
    settings = {
        "batch_size": 3,
        "seed": 4,
        "transform": RandomShift(1),
        "normalize": Normalize((0.5,) * 3, (0.25,) * 3),
    }
    seen, labels = [], np.arange(7)

    def mix(x, y, rng):
        seen.append((x, y, rng.integers(0, 2**62)))
        return -x, np.eye(7)[y]

    mixed, plain = Loader(PHOTOS, labels, **settings, mix=mix), Loader(PHOTOS, labels, **settings)
    for epoch in (0, 1):
        for (x, y), (expected, label) in zip(mixed.epoch(epoch), plain.epoch(epoch), strict=True):
            np.testing.assert_array_equal(x, -expected)
            np.testing.assert_array_equal(y, np.eye(7)[label])
            np.testing.assert_array_equal(seen[-1][0], expected)
    drawn = [number for *_, number in seen]
    assert len(set(drawn)) == 6
    list(mixed.epoch(1, start=2))
    assert seen[-1][2] == drawn[-1]


def test_transform_and_mixture_draw_different_numbers():
    drawn = []

    def note(*batch):
        drawn.append(batch[-1].integers(0, 2**62))
        return batch[:-1] if len(batch) == 3 else batch[0]

    list(Loader(PHOTOS, np.arange(7), 3, transform=note, mix=note))
    assert len(set(drawn)) == 6


def test_soft_targets_come_out_of_the_loader():
    for mix in (Mixup(10), CutMix(10)):
        for x, y in Loader(PHOTOS, np.arange(7), 3, mix=mix):
            assert (x.dtype, y.dtype, y.shape) == ("float32", "float32", (len(x), 10))
            np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-6)
