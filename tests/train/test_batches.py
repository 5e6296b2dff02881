"""Whatever gives batches can be trained on."""

import numpy as np
import pytest
from small_trainers import loader, make, same

from tinycnn.train.batches import as_batches, opened


def test_a_loader_is_left_as_it_is():
    own = loader()
    assert as_batches(own) is own


def test_a_list_is_an_epoch_every_time():
    batches = as_batches([("a", 1), ("b", 2), ("c", 3)])
    assert len(batches) == 3
    for epoch in range(2):
        assert list(batches.epoch(epoch)) == [("a", 1), ("b", 2), ("c", 3)]
    assert list(batches.epoch(1, start=2)) == [("c", 3)]


@pytest.mark.parametrize("wrong", [5, iter([1]), None])
def test_what_is_no_loader_is_refused(wrong):
    with pytest.raises(TypeError, match="batches come from a tinycnn"):
        as_batches(wrong)


def test_training_on_a_list_is_training_on_its_loader():
    own = loader(shuffle=False)
    one, other = make(), make()
    assert one.fit(own, 2, own)
    assert other.fit(list(own.epoch(0)), 2, list(own.epoch(0)))
    same(one, other)


def test_a_loader_that_is_left_in_the_middle_can_clean_up():
    closed = []

    class Cleans:
        def __len__(self):
            return 3

        def epoch(self, epoch, start=0):
            try:
                for i in range(start, 3):
                    yield np.full((2, 1, 6, 6), i, np.float32), np.array([0, 1])
            finally:
                closed.append(epoch)

    with opened(Cleans(), 4, 0, None) as batches:
        next(batches)
        assert closed == []
    assert closed == [4]
    make(after_batch=[lambda t: t.stop()]).fit(Cleans(), 2)
    assert closed == [4, 0]
    with pytest.raises(ZeroDivisionError):
        make(after_batch=[lambda t: 1 / 0]).fit(Cleans(), 2)
    assert closed == [4, 0, 0]


@pytest.mark.parametrize("says", [4, 2])
def test_a_loader_that_miscounts_is_told(says):
    class Miscounts(list):
        def __len__(self):
            return says

    with pytest.raises(ValueError, match=rf"the loader gave 3 batches in an epoch, and says that it has {says}"):
        make().fit(Miscounts(list(loader(batch=32).epoch(0))), 1)
