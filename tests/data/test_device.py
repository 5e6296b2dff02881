"""Batches on a GPU are the CPU's, to the bit, whether the images are there or travel."""

import gc
import itertools
import threading
import weakref

import fake_cuda
import numpy as np
import pytest
import strict_cupy
from helpers import is_channels_last

from tinycnn.data import (
    ArraySource,
    Augment,
    Compose,
    CutMix,
    Cutout,
    DataError,
    DeviceLoader,
    Loader,
    Normalize,
    PerPixelMean,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomShift,
    device,
    pixel_covariance,
)

pytestmark = pytest.mark.usefixtures("in_time")
PHOTOS = np.random.default_rng(0).integers(0, 256, (23, 3, 5, 6), dtype=np.uint8)
LABELS = np.random.default_rng(1).integers(0, 10, 23)
NORMALIZE = Normalize((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
EVERYTHING = Augment(2, True, True, 0.4, 0.4, 0.4, 0.1, pixel_covariance(PHOTOS))
resident = pytest.mark.parametrize("resident", [True, False])


def squares(x, rng):
    """A transform of a user's own."""
    return x * x


def same(batches, expected):
    """Whether batches on the GPU are those on the CPU, types and all."""
    for (x, y), (p, q) in zip(batches, expected, strict=True):
        assert (x.dtype, y.dtype) == (p.dtype, q.dtype)
        assert is_channels_last(x)
        np.testing.assert_array_equal(x.get(), p)
        np.testing.assert_array_equal(y.get(), q)


@resident
@pytest.mark.parametrize("transform", [None, RandomShift(1), EVERYTHING], ids=["plain", "shift", "everything"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_two_epochs_shuffled_with_an_odd_last_batch(gpu, resident, transform, dtype):
    normalize = Normalize(NORMALIZE.mean, NORMALIZE.std, dtype)
    settings = {"batch_size": 5, "seed": 7, "transform": transform, "normalize": normalize}
    ours = DeviceLoader(PHOTOS, LABELS, **settings, resident=resident)
    cpu = Loader(PHOTOS, LABELS, **settings)
    assert ours.resident is resident
    for _ in range(2):
        same(ours, cpu)
    assert ours.next_epoch == 2


@resident
def test_resuming_in_the_middle_is_the_tail(gpu, resident):
    settings = {"batch_size": 4, "seed": 2, "transform": EVERYTHING, "normalize": NORMALIZE}
    cpu = Loader(PHOTOS, LABELS, **settings)
    for start in range(len(cpu) + 1):
        ours = DeviceLoader(PHOTOS, LABELS, **settings, resident=resident)
        same(ours.epoch(3, start), itertools.islice(cpu.epoch(3), start, None))


@resident
def test_what_was_left_in_the_middle_disturbs_nothing(gpu, resident):
    settings = {"batch_size": 4, "transform": EVERYTHING, "normalize": NORMALIZE}
    ours, cpu = DeviceLoader(PHOTOS, LABELS, **settings, resident=resident), Loader(PHOTOS, LABELS, **settings)
    left = ours.epoch(0)
    next(left), next(left)
    same(ours.epoch(1), cpu.epoch(1))
    together = list(zip(ours.epoch(0), ours.epoch(1), strict=True))
    same([one for one, _ in together], cpu.epoch(0))
    same([other for _, other in together], cpu.epoch(1))
    del left


@resident
def test_batches_stay_when_later_ones_are_made(gpu, resident):
    loader = DeviceLoader(PHOTOS, LABELS, 4, normalize=NORMALIZE, resident=resident)
    same(list(loader.epoch(0)), Loader(PHOTOS, LABELS, 4, normalize=NORMALIZE).epoch(0))


@resident
@pytest.mark.parametrize("labels", ["soft", "int32"])
def test_labels_of_other_kinds(gpu, resident, labels):
    labels = np.random.default_rng(0).random((23, 10)) if labels == "soft" else LABELS.astype(np.int32)
    same(DeviceLoader(PHOTOS, labels, 4, resident=resident), Loader(PHOTOS, labels, 4))


@resident
@pytest.mark.parametrize("case", ["floats", "shifted floats", "own transform"])
def test_what_is_not_one_kernel(gpu, resident, case):
    images = PHOTOS if case == "own transform" else (PHOTOS / 255).astype(np.float32)
    transform = {"floats": None, "shifted floats": RandomShift(2), "own transform": squares}[case]
    settings = {"batch_size": 4, "transform": transform, "normalize": NORMALIZE if case != "floats" else None}
    same(DeviceLoader(images, LABELS, **settings, resident=resident), Loader(images, LABELS, **settings))


CROPS = Compose([RandomCrop((5, 6), padding=1, padding_mode="reflect"), RandomHorizontalFlip(), Cutout(2)])


@resident
@pytest.mark.parametrize("transform", [None, EVERYTHING, CROPS], ids=["plain", "one kernel", "composed"])
@pytest.mark.parametrize("mix", [None, CutMix(10)], ids=["labels", "mixed"])
def test_transforms_and_mixtures_are_the_cpus(gpu, resident, transform, mix):
    settings = {"batch_size": 5, "seed": 7, "transform": transform, "normalize": NORMALIZE, "mix": mix}
    same(DeviceLoader(PHOTOS, LABELS, **settings, resident=resident), Loader(PHOTOS, LABELS, **settings))


def test_mixed_batches_are_written_where_asked(gpu):
    settings = {"batch_size": 5, "transform": EVERYTHING, "normalize": NORMALIZE, "mix": CutMix(10)}
    x = gpu.full((5, 5, 6, 3), np.nan, np.float32).transpose(0, 3, 1, 2)
    y = gpu.full((5, 10), np.nan, np.float32)
    batches = DeviceLoader(PHOTOS, LABELS, **settings).epoch(0, into=lambda: (x, y))
    for got, expected in zip(batches, Loader(PHOTOS, LABELS, **settings).epoch(0), strict=True):
        same([got], [expected])
        assert (got[0] is x) == (got[1] is y) == (len(got[0]) == 5)


@resident
def test_other_scales_than_normalize(gpu, resident):
    settings = {"batch_size": 5, "normalize": PerPixelMean.fit(PHOTOS)}
    same(DeviceLoader(PHOTOS, LABELS, **settings, resident=resident), Loader(PHOTOS, LABELS, **settings))


@resident
@pytest.mark.parametrize("transform", [EVERYTHING, squares], ids=["everything", "own"])
def test_full_batches_are_written_where_asked(gpu, resident, transform):
    settings = {"batch_size": 5, "transform": transform, "normalize": NORMALIZE}
    ours = DeviceLoader(PHOTOS, LABELS, **settings, resident=resident)
    x = gpu.full((5, 5, 6, 3), np.nan, np.float32).transpose(0, 3, 1, 2)
    y = gpu.full(5, -1, np.int64)
    count = 0
    targets = iter([(x, y), None, (x, y), (x, y), (x, y)])
    batches = ours.epoch(0, into=lambda: next(targets))
    for i, (got, expected) in enumerate(zip(batches, Loader(PHOTOS, LABELS, **settings).epoch(0), strict=True)):
        same([got], [expected])
        if i in (0, 2, 3):
            assert got[0] is x
            assert got[1] is y
            count += 1
    assert count == 3
    assert got[0].shape == (3, 3, 5, 6)


def test_whatever_is_given_on_the_gpu_stays_there(gpu):
    ours = DeviceLoader(gpu.asarray(PHOTOS), gpu.asarray(LABELS), 4, normalize=NORMALIZE, resident=False)
    assert ours.resident
    same(ours, Loader(PHOTOS, LABELS, 4, normalize=NORMALIZE))


@pytest.mark.parametrize(("free", "fits"), [(2 * PHOTOS.nbytes, True), (2 * PHOTOS.nbytes - 1, False)])
def test_images_stay_on_the_gpu_if_they_fit(gpu, monkeypatch, free, fits):
    monkeypatch.setattr(device, "free_memory", lambda: free)
    assert DeviceLoader(PHOTOS, LABELS, 4).resident is fits


def test_bad_arguments(gpu):
    with pytest.raises(ValueError, match="Normalize has 1 means, the images 3 channels"):
        DeviceLoader(PHOTOS, LABELS, 4, normalize=Normalize((0.1,), (0.2,)))
    loader = DeviceLoader(PHOTOS, LABELS, 4)
    for place in ((-1, 0), (0, 7)):
        with pytest.raises(ValueError, match="start in 0"):
            loader.epoch(*place)
    x, y = gpu.zeros((4, 3, 5, 6), np.float32), gpu.zeros(4, np.int64)
    with pytest.raises(ValueError, match="assemble writes contiguous images"):
        next(loader.epoch(0, into=lambda: (x, y)))  # not channels-last


# ---- made ahead of time ----------------------------------------------------------------------------------------


@resident
@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("transform", [None, EVERYTHING, CROPS], ids=["plain", "one kernel", "composed"])
def test_any_number_of_workers_makes_the_same_batches(gpu, resident, workers, transform):
    settings = {"batch_size": 2, "seed": 7, "transform": transform, "normalize": NORMALIZE}
    ours = DeviceLoader(PHOTOS, LABELS, **settings, resident=resident, workers=workers, ahead=1)
    cpu = Loader(PHOTOS, LABELS, **settings)
    for start in (0, 3, 11, 12):
        same(list(ours.epoch(1, start)), itertools.islice(cpu.epoch(1), start, None))


@pytest.mark.parametrize("workers", [0, 1, 7])
@pytest.mark.parametrize("count", [1, 7, 16, 23])
def test_a_last_batch_that_is_smaller_may_have_a_buffer_of_its_own(gpu, workers, count):
    """And its table be shorter than that on the GPU."""
    images, labels = PHOTOS[:count], np.random.default_rng(0).random((count, 70))
    settings = {"batch_size": 5, "transform": EVERYTHING, "normalize": NORMALIZE}
    ours = DeviceLoader(images, labels, **settings, resident=False, workers=workers)
    cpu = Loader(images, labels, **settings)
    for start in range(len(cpu)):
        same(list(ours.epoch(0, start)), itertools.islice(cpu.epoch(0), start, None))


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("transform", [None, EVERYTHING, CROPS], ids=["plain", "one kernel", "composed"])
def test_sources_travel(gpu, workers, transform):
    source = ArraySource(PHOTOS, LABELS)
    settings = {"batch_size": 4, "seed": 7, "transform": transform, "normalize": NORMALIZE}
    ours = DeviceLoader(source, **settings, workers=workers)
    assert not ours.resident
    same(ours, Loader(PHOTOS, LABELS, **settings))
    with pytest.raises(ValueError, match="a Source is read as it is needed"):
        DeviceLoader(source, **settings, resident=True)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_comes_after_the_batches_before_it(gpu, workers):
    """Though batches are sent to the GPU two ahead."""

    class Broken(ArraySource):
        def get(self, indices):
            if bad in indices:
                raise DataError("photo.jpg: damaged")
            return super().get(indices)

    loader = DeviceLoader(Broken(PHOTOS, LABELS), batch_size=4, workers=workers)
    expected = list(Loader(PHOTOS, LABELS, 4).epoch(0))
    for which in range(6):
        bad, batches = loader.order(0)[4 * which], loader.epoch(0)
        same(itertools.islice(batches, which), expected[:which])
        with pytest.raises(DataError, match=r"photo\.jpg"):
            next(batches)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_leaves_no_memory_behind(gpu, workers):
    """Its traceback holds the frame that raised it, and that the buffers: not in a circle."""

    class Broken(ArraySource):
        def get(self, indices):
            raise DataError("photo.jpg: damaged")

    gc.collect()
    gc.disable()
    try:
        errors = []
        with pytest.raises(DataError) as caught:
            next(DeviceLoader(Broken(PHOTOS, LABELS), batch_size=4, workers=workers).epoch(0))
        errors.append(weakref.ref(caught.value))
        del caught
        for thread in threading.enumerate():
            if thread.name.startswith("tinycnn-loader"):
                thread.join(20)
        assert errors[0]() is None
    finally:
        gc.enable()


@resident
def test_an_error_elsewhere_ends_the_threads_too(gpu, resident):
    """Though its traceback holds on to all that was there."""

    def into():
        raise ZeroDivisionError

    before = threading.active_count()
    batches = DeviceLoader(PHOTOS, LABELS, 2, resident=resident, workers=2).epoch(0, into=into)
    with pytest.raises(ZeroDivisionError) as caught:
        next(batches)
    for thread in threading.enumerate():
        if thread.name.startswith("tinycnn-loader"):
            thread.join(20)
    assert threading.active_count() == before
    assert caught.tb


def test_images_of_another_size_than_stored_are_written_where_asked(gpu):
    settings = {"batch_size": 5, "transform": RandomResizedCrop((3, 4)), "normalize": NORMALIZE}
    x, y = gpu.empty((5, 3, 4, 3), np.float32).transpose(0, 3, 1, 2), gpu.empty(5, np.int64)
    batches = DeviceLoader(ArraySource(PHOTOS, LABELS), **settings).epoch(0, into=lambda: (x, y))
    for got, expected in zip(batches, Loader(PHOTOS, LABELS, **settings).epoch(0), strict=True):
        same([got], [expected])
        assert (got[0] is x) == (got[1] is y) == (len(got[0]) == 5)


def test_no_pinned_buffer_is_filled_before_it_has_been_copied(monkeypatch):
    """Workers fill buffers that the copies of several batches ago were made from."""
    strict_cupy.install(monkeypatch)
    fill, copied, filled = DeviceLoader._fill, fake_cuda.Event.synchronize, []
    waited = set()

    def synchronize(event):
        waited.add(id(event))
        copied(event)

    def filling(loader, pinned, *place):
        filled.append((id(pinned.pixels), id(pinned.copied) in waited, threading.current_thread().name))
        waited.discard(id(pinned.copied))
        return fill(loader, pinned, *place)

    monkeypatch.setattr(fake_cuda.Event, "synchronize", synchronize)
    monkeypatch.setattr(DeviceLoader, "_fill", filling)
    list(DeviceLoader(PHOTOS, LABELS, 1, resident=False, workers=1, ahead=1).epoch(0))
    assert len(filled) == 23
    assert len({buffer for buffer, *_ in filled}) == 4
    assert all(ready for _, ready, _ in filled)
    assert {name for *_, name in filled} == {"tinycnn-loader-0"}


def test_no_buffer_is_written_while_it_is_read(monkeypatch):
    """On the stand-in, copies are made as late as events allow (so the tests above see one that is made too late);
    here: that none may be made too early."""
    strict_cupy.install(monkeypatch)
    log, current = [], fake_cuda.STATE.null
    wait, record, assemble = fake_cuda.Stream.wait_event, fake_cuda.Event.record, device.assemble
    synchronize = fake_cuda.Event.synchronize

    def wait_event(stream, event):
        log.append(("arrived" if stream is current else "wait", id(event)))
        wait(stream, event)

    def record_event(event, stream=None):
        log.append(("used" if stream is current else "copied", id(event)))
        record(event, stream)

    def synchronized(event):
        log.append(("free", id(event)))
        synchronize(event)

    def assembled(*args):
        log.append(("assemble", None))
        assemble(*args)

    monkeypatch.setattr(fake_cuda.Stream, "wait_event", wait_event)
    monkeypatch.setattr(fake_cuda.Event, "record", record_event)
    monkeypatch.setattr(fake_cuda.Event, "synchronize", synchronized)
    monkeypatch.setattr(device, "assemble", assembled)
    loader = DeviceLoader(PHOTOS, LABELS, 4, resident=False)
    list(loader.epoch(0))
    # a buffer on the GPU is marked as used when it is made: what had its memory before may still be at work
    first, sending = ["free", "used", "wait", "copied"], ["free", "wait", "copied"]
    forming = ["arrived", "assemble", "used"]
    assert [what for what, _ in log] == first * 2 + (forming + sending) * 4 + forming * 2
    events = {what: [event for other, event in log if other == what] for what, _ in log}
    assert events["wait"] == events["used"][:6]  # each waits for the mark set last for its own buffers
    assert events["arrived"] == events["copied"]
    assert events["free"][2:] == events["copied"][:4]


def test_no_copy_is_under_way_when_an_epoch_is_left(monkeypatch):
    """Its buffers are then free for others."""
    strict_cupy.install(monkeypatch)
    streams = []
    monkeypatch.setattr(device, "new_stream", lambda: streams.append(fake_cuda.Stream()) or streams[-1])
    batches = DeviceLoader(PHOTOS, LABELS, 4, resident=False).epoch(0)
    next(batches), next(batches)
    assert streams[0].waiting
    batches.close()
    assert not streams[0].waiting
