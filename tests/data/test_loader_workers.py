"""Batches made ahead of time, by any number of threads: the same to the bit, and new memory each."""

import itertools
import re
import threading
import traceback

import numpy as np
import pytest
from helpers import is_channels_last
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tinycnn.data import (
    ArraySource,
    ColorJitter,
    Compose,
    CutMix,
    DataError,
    ElasticTransform,
    Loader,
    Mixup,
    Normalize,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomShift,
    loader,
    open_folder,
    open_images,
)

pytestmark = pytest.mark.usefixtures("in_time")
RNG = np.random.default_rng(0)
PHOTOS = RNG.integers(0, 256, (23, 3, 12, 10), dtype=np.uint8)
LABELS = RNG.integers(0, 10, 23)
TRANSFORMS = {
    "nothing": None,
    "shift": RandomShift(2),
    "heavy": Compose([ElasticTransform(8, 2), ColorJitter(0.4, 0.4, 0.4, 0.1), RandomHorizontalFlip()]),
    "crops": RandomResizedCrop((8, 9)),
}


def equal(some, others):
    """Whether two lists of batches are equal to the bit, types included."""
    return len(some) == len(others) and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for left, right in zip(some, others, strict=True)
        for a, b in zip(left, right, strict=True)
    )


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    workers=st.sampled_from([1, 2, 3, 7]),
    ahead=st.integers(0, 3),
    batch_size=st.integers(1, 25),
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 5),
    start=st.integers(0, 23),
    transform=st.sampled_from(sorted(TRANSFORMS)),
    mix=st.sampled_from([None, Mixup(10), CutMix(10)]),
    shuffle=st.booleans(),
)
def test_any_number_of_workers_makes_the_same_batches(
    workers, ahead, batch_size, seed, epoch, start, transform, mix, shuffle
):
    how = {
        "shuffle": shuffle,
        "seed": seed,
        "transform": TRANSFORMS[transform],
        "mix": mix,
        "normalize": Normalize((0.5,) * 3, (0.25,) * 3),
    }
    alone = Loader(PHOTOS, LABELS, batch_size, **how)
    several = Loader(PHOTOS, LABELS, batch_size, **how, workers=workers, ahead=ahead)
    start = min(start, len(alone))
    expected = list(itertools.islice(alone.epoch(epoch), start, None))
    assert equal(list(several.epoch(epoch, start)), expected)


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_plain_iteration_and_epochs_side_by_side(workers):
    alone, several = (Loader(PHOTOS, LABELS, 4, transform=RandomShift(1), workers=n) for n in (0, workers))
    for _ in range(2):
        assert equal(list(several), list(alone))
    assert several.next_epoch == 2
    left = several.epoch(7)
    next(left)
    together = list(zip(several.epoch(0), several.epoch(1), strict=True))
    for epoch in (0, 1):
        assert equal([pair[epoch] for pair in together], list(alone.epoch(epoch)))


def until_error(batches):
    """The batches that come before the first error, and that."""
    found = []
    try:
        for batch in batches:
            found.append(batch)
    except Exception as error:
        return found, error
    return found, None


def batches_of(workers, transform, **how):
    """The labels that come, where the transform makes batches that end in another order than they begin."""
    return [y.tolist() for _, y in Loader(PHOTOS, np.arange(23), 6, workers=workers, transform=transform, **how)]


def test_slow_batches_keep_their_place():
    """The first batch is not ready before the second and the third are."""
    ready, waited = threading.Semaphore(0), []

    def transform(x, rng):
        if len(x) == 6 and np.array_equal(x, first):
            waited.extend(ready.acquire(timeout=20) for _ in range(2))
        else:
            ready.release()
        return x

    alone = Loader(PHOTOS, np.arange(23), 6)
    first = PHOTOS[alone.order(0)[:6]]
    expected = [y.tolist() for _, y in alone]
    assert batches_of(3, transform) == expected
    assert waited == [True, True]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("which", range(4))
def test_a_transform_that_fails(workers, which):
    bad = Loader(PHOTOS, LABELS, 6).order(0)[6 * which]

    def transform(x, rng):
        if (x == PHOTOS[bad]).all(axis=(1, 2, 3)).any():
            raise ZeroDivisionError("by the transform")
        return x

    found, error = until_error(Loader(PHOTOS, LABELS, 6, transform=transform, workers=workers).epoch(0))
    assert len(found) == which
    assert isinstance(error, ZeroDivisionError)
    assert traceback.extract_tb(error.__traceback__)[-1].name == "transform"


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_batch_is_its_takers_own(workers):
    """It may be kept, and written to, for ever."""
    before, how = PHOTOS.copy(), {"transform": TRANSFORMS["shift"], "mix": Mixup(10)}
    expected = list(Loader(PHOTOS, LABELS, 4, **how).epoch(0))
    batches = Loader(PHOTOS, LABELS, 4, **how, workers=workers).epoch(0)
    kept = list(batches)
    assert equal(kept, expected)
    for i, (x, y) in enumerate(kept):
        x[...], y[...] = -1, -1
        assert equal(kept[i + 1 :], expected[i + 1 :])
    np.testing.assert_array_equal(PHOTOS, before)


def test_a_batch_without_any_transform_is_new_memory_too():
    images = np.ascontiguousarray(RNG.random((9, 4, 5, 3), np.float32)).transpose(0, 3, 1, 2)
    labels = np.arange(9)
    for shuffle, workers in itertools.product((False, True), (0, 1)):
        for x, y in Loader(images, labels, 3, shuffle, workers=workers):
            assert not np.shares_memory(x, images)
            assert not np.shares_memory(y, labels)


# ---- sources ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1, 2, 7])
def test_sources_in_memory_and_in_mapped_files(tmp_path, workers):
    np.save(tmp_path / "x.npy", PHOTOS.transpose(0, 2, 3, 1))
    np.save(tmp_path / "y.npy", LABELS)
    how = {"transform": TRANSFORMS["heavy"], "seed": 5}
    expected = list(Loader(PHOTOS, LABELS, 4, **how).epoch(1))
    mapped = open_images(tmp_path / "x.npy", tmp_path / "y.npy")
    for source in (ArraySource(PHOTOS, LABELS), mapped):
        assert equal(list(Loader(source, batch_size=4, **how, workers=workers).epoch(1)), expected)
    several = Loader(mapped, LABELS * 2, 4, workers=workers)
    assert (several.labels == LABELS * 2).all(), "other labels than the source's"
    assert (len(several), several.num_examples) == (6, 23)


@pytest.mark.parametrize("labels", [None, LABELS[:-1]])
def test_labels_that_do_not_fit(labels):
    with pytest.raises(ValueError, match=r"and N labels, N ≥ 1: got uint8 \(23, 3, 12, 10\) and (0|22) labels"):
        Loader(PHOTOS, labels, 4)
    if labels is not None:
        with pytest.raises(ValueError, match=r"got uint8 \(23, 3, 12, 10\) and 22 labels"):
            Loader(ArraySource(PHOTOS, LABELS), labels, 4)


@pytest.mark.parametrize(("workers", "ahead"), [(-1, 2), (1, -1)])
def test_fewer_workers_than_none(workers, ahead):
    with pytest.raises(ValueError, match=f"workers and ahead must be at least 0, got {workers} and {ahead}"):
        Loader(PHOTOS, LABELS, 4, workers=workers, ahead=ahead)


@pytest.fixture
def photographs(tmp_path):
    """Five pictures in each of two classes, no two of one size or of one colour."""
    for c, name in enumerate(("ants", "bees")):
        folder = tmp_path / "train" / name
        folder.mkdir(parents=True)
        for i in range(5):
            noise = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((60 + 9 * i, 50 + 7 * c)).save(folder / f"{i}.{'png' if i % 2 else 'jpg'}")
    return tmp_path


@pytest.mark.parametrize("workers", [0, 1, 2, 7])
def test_a_folder_of_photographs(photographs, workers):
    """Nothing is decoded before it is needed; the pixels are those of the decoded set."""
    source = open_folder(photographs, size=(32, 40))
    how = {"transform": RandomResizedCrop(24), "normalize": source.normalize, "seed": 2}
    decoded = source.load()
    expected = list(Loader(decoded.images, decoded.labels, 3, **how).epoch(0))
    found = list(Loader(source, batch_size=3, **how, workers=workers).epoch(0))
    assert equal(found, expected)
    assert all(x.shape[1:] == (3, 24, 24) and is_channels_last(x) for x, _ in found)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_damaged_photograph_is_named_when_it_is_its_turn(photographs, workers):
    source = open_folder(photographs, size=(32, 40))
    batches = Loader(source, batch_size=2, seed=3, workers=workers)
    where = batches.order(0).tolist().index(6) // 2
    assert where > 0
    (photographs / "train" / "bees" / "1.png").write_bytes(b"\x89PNG no more than that")
    found, error = until_error(batches.epoch(0))
    assert len(found) == where
    assert isinstance(error, DataError)
    assert re.search(r"bees/1\.png: .*is it whole", str(error))


def test_no_more_pictures_are_decoded_than_may_be_ahead(photographs):
    """However many there are, memory holds those of a few batches."""
    taken = []

    class Counting:
        shape, labels = (3, 8, 8), np.arange(100)

        def __len__(self):
            return 100

        def get(self, indices):
            taken.append(len(indices))
            return np.zeros((len(indices), 3, 8, 8), np.uint8)

    batches = Loader(Counting(), batch_size=2, workers=2, ahead=1)
    for used, _ in enumerate(batches, start=1):
        assert len(taken) <= used + 3
    assert sum(taken) == 100


# ---- planted mistakes ------------------------------------------------------------------------------------------


class ByThread(Loader):
    """Draws numbers that depend on which thread makes the batch."""

    def _rng(self, epoch, i):
        worker = threading.get_ident() if threading.current_thread().name.startswith("tinycnn") else 0
        return loader._generator(self.seed + worker, epoch, 2, i)


class OneAfterTheOther(Loader):
    """Draws from one generator for all batches of an epoch."""

    def _rng(self, epoch, i):
        if not hasattr(self, "stream"):
            self.stream = loader._generator(self.seed, epoch, 2)
        return self.stream


@pytest.mark.parametrize("mistaken", [ByThread, OneAfterTheOther])
def test_other_random_numbers_are_caught(mistaken):
    how = {"batch_size": 4, "transform": RandomShift(3)}
    expected = list(Loader(PHOTOS, LABELS, **how).epoch(0))
    assert equal(list(Loader(PHOTOS, LABELS, **how, workers=2).epoch(0)), expected)
    assert not equal(list(mistaken(PHOTOS, LABELS, **how, workers=2).epoch(0, 1)), expected[1:])
