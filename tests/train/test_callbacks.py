"""Callbacks: when they are called, stopping early with the best weights, saving on the way, and their memory."""

import json

import numpy as np
import pytest
from small_trainers import loader, make, same

from tinycnn import optim
from tinycnn.train import Callback, EarlyStopping, SaveEvery, evaluate, state
from tinycnn.train.callbacks import load_states, mode_of, states_of

VALIDATION = loader(shuffle=False)


class Notes(Callback):
    """Writes down what it is told."""

    def __init__(self):
        self.seen = []

    def on_train_begin(self, trainer):
        self.seen.append("train")

    def on_epoch_begin(self, trainer):
        self.seen.append(("epoch", trainer.epoch))

    def on_batch_end(self, trainer):
        self.seen.append(trainer.batch)

    def on_epoch_end(self, trainer, row):
        self.seen.append((row["epoch"], trainer.epoch))

    def on_train_end(self, trainer):
        self.seen.append(("done", trainer.done))


def through_a_file(trainer):
    arrays, rest = state.split(trainer.state_dict())
    return state.join({name: x.copy() for name, x in arrays.items()}, json.loads(json.dumps(rest)))


# ---- moments -----------------------------------------------------------------------------------------------


def test_they_are_called_in_order():
    notes = Notes()
    trainer = make(callbacks=[notes])
    trainer.after_epoch.append(lambda t, row: notes.seen.append("after"))
    trainer.fit(loader(), 2)
    epochs = [[("epoch", e), 1, 2, 3, 4, 5, (e + 1, e + 1), "after"] for e in range(2)]
    assert notes.seen == ["train", *epochs[0], *epochs[1], ("done", True)]


def test_an_end_is_told_however_it_comes():
    stopped = make(callbacks=[Notes()], after_batch=[lambda t: t.stop() if t.batch == 2 else None])
    assert not stopped.fit(loader(), 1)
    assert stopped.callbacks[0].seen == ["train", ("epoch", 0), 1, 2, ("done", False)]
    stopped.after_batch = []
    stopped.fit(loader(), 1)
    assert stopped.callbacks[0].seen[5:] == ["train", 3, 4, 5, (1, 1), ("done", True)]
    failing = make(callbacks=[Notes()], after_batch=[lambda t: 1 / 0])
    with pytest.raises(ZeroDivisionError):
        failing.fit(loader(), 1)
    assert failing.callbacks[0].seen[-1] == ("done", False)


def test_a_callback_may_end_the_training():
    class Ends(Callback):
        def on_epoch_end(self, trainer, row):
            trainer.end("enough")

    trainer = make(callbacks=[Ends()])
    assert trainer.fit(loader(), 5)
    assert (trainer.epoch, trainer.ended, trainer.done) == (1, "enough", True)
    again = make()
    again.load_state_dict(through_a_file(trainer))
    assert again.fit(loader(), 5)
    assert again.epoch == 1


# ---- metrics -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("val_loss",), "min"),
        (("train_accuracy",), "max"),
        (("val_top5",), "max"),
        (("val_error", "min"), "min"),
        (("iou", "max"), "max"),
    ],
)
def test_names_say_whether_more_is_better(arguments, expected):
    assert mode_of(*arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("val_accuracy", "min"), "mode 'min' does not suit 'val_accuracy', of which more is better: pass mode='max'"),
        (("val_loss", "max"), "of which less is better: pass mode='min'"),
        (("iou",), "'iou' does not say whether more is better"),
        (("val_loss", "least"), "mode must be 'min', 'max' or 'auto', got 'least'"),
    ],
)
def test_modes_that_do_not_suit(arguments, words):
    with pytest.raises(ValueError, match=words):
        mode_of(*arguments)


def test_a_metric_that_nothing_measures():
    with pytest.raises(ValueError, match=r"nothing has measured 'val_accuracy' here: watch one of train_loss"):
        make(callbacks=[EarlyStopping(monitor="val_accuracy")]).fit(loader(), 1)


# ---- stopping early ----------------------------------------------------------------------------------------


class Says(Callback):
    """Writes the metrics of a story into the rows, for callbacks after it."""

    def __init__(self, *losses):
        self.losses = losses

    def on_epoch_end(self, trainer, row):
        row["story_loss"] = self.losses[row["epoch"] - 1]


@pytest.mark.parametrize(
    ("losses", "patience", "delta", "best", "last"),
    [
        ((5, 4, 3, 2, 1), 1, 0, 5, 5),
        ((5, 4, 4, 3, 3), 1, 0, 2, 3),
        ((5, 6, 7, 4, 5), 2, 0, 1, 3),
        ((5, 6, 4, 5, 3), 2, 0, 5, 5),
        ((5, 4.5, 4.1, 3.9, 3.8), 3, 1, 4, 5),
        ((np.nan, np.inf, 5, np.nan, np.nan), 2, 0, None, 2),
        ((5, np.nan, 4, np.nan, 6), 2, 0, 3, 5),
    ],
)
def test_patience_by_hand(losses, patience, delta, best, last):
    kept, weights = EarlyStopping(patience, "story_loss", min_delta=delta), {}
    trainer = make(callbacks=[Says(*losses), kept])
    trainer.after_epoch.append(lambda t, row: weights.update({t.epoch: t.model.state_dict()}))
    assert trainer.fit(loader(), 5)
    assert (kept.best_epoch, trainer.epoch) == (best, last)
    for name, value in trainer.model.state_dict().items():
        np.testing.assert_array_equal(value, weights[best or last][name], err_msg=name)


@pytest.mark.parametrize("with_averages", [False, True])
@pytest.mark.parametrize("use_buffers", [False, True])
def test_the_best_metric_can_be_measured_again(with_averages, use_buffers):
    stopping = EarlyStopping(2, "val_accuracy")
    trainer = make(epochs=9, callbacks=[stopping])
    if with_averages:
        trainer = make(epochs=9, callbacks=[stopping], ema_of={"decay": 0.8, "use_buffers": use_buffers})
    trainer.fit(loader(), 9, VALIDATION)
    with trainer.averaged():
        assert evaluate(trainer.model, VALIDATION)["accuracy"] == stopping.best
    assert stopping.best == max(row["val_accuracy"] for row in trainer.history)
    assert trainer.history[stopping.best_epoch - 1]["val_accuracy"] == stopping.best


def test_the_last_weights_can_be_kept():
    trainer, weights = make(callbacks=[Says(1, 2, 3), EarlyStopping(2, "story_loss", restore_best=False)]), []
    trainer.after_epoch.append(lambda t, row: weights.append(t.model.state_dict()))
    trainer.fit(loader(), 3)
    np.testing.assert_array_equal(trainer.model[0].weight.data, weights[-1]["0.weight"])


@pytest.mark.parametrize("stop_at", range(1, 20, 3))
def test_interrupted_it_stops_at_the_same_epoch_with_the_same_weights(stop_at):
    def trainer(*after_batch):
        callbacks = [Says(5, 3, 4, 6, 1), EarlyStopping(2, "story_loss")]
        return make(callbacks=callbacks, after_batch=after_batch, ema_of={"decay": 0.9, "use_buffers": True})

    whole = trainer()
    assert whole.fit(loader(), 5, VALIDATION)
    assert whole.epoch == 4
    first = trainer(lambda t: t.stop() if 5 * t.epoch + t.batch == stop_at else None)
    assert not first.fit(loader(), 5, VALIDATION)
    rest = trainer()
    rest.load_state_dict(through_a_file(first))
    assert rest.fit(loader(), 5, VALIDATION)
    same(whole, rest)
    again = trainer()  # and it is over for good
    again.load_state_dict(through_a_file(rest))
    assert again.fit(loader(), 5, VALIDATION)
    same(whole, again)


def test_a_training_that_is_interrupted_keeps_its_own_weights():
    trainer = make(callbacks=[Says(1, 2), EarlyStopping(5, "story_loss")])
    trainer.after_batch.append(lambda t: t.stop() if (t.epoch, t.batch) == (1, 3) else None)
    trainer.fit(loader(), 2)
    plain = make(after_batch=[lambda t: t.stop() if (t.epoch, t.batch) == (1, 3) else None])
    plain.fit(loader(), 2)
    np.testing.assert_array_equal(trainer.model[0].weight.data, plain.model[0].weight.data)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"patience": 0}, "patience must be at least 1, got 0"),
        ({"min_delta": -1}, "min_delta must be at least 0, got -1"),
        ({"monitor": "val_accuracy", "mode": "min"}, "mode 'min' does not suit"),
    ],
)
def test_early_stopping_that_makes_no_sense(arguments, words):
    with pytest.raises(ValueError, match=words):
        EarlyStopping(**arguments)


# ---- saving now and then -----------------------------------------------------------------------------------


def test_saving_every_few_batches():
    seen = []
    trainer = make(callbacks=[SaveEvery(lambda t: seen.append((t.epoch, t.batch)), batches=2)])
    trainer.fit(loader(), 2)
    assert seen == [(0, 2), (0, 4), (1, 1), (1, 3), (1, 5)]


def test_saving_every_few_minutes(monkeypatch):
    seen, now = [], [1000.0]
    monkeypatch.setattr("tinycnn.train.callbacks.time.monotonic", lambda: now[0])

    def a_minute(trainer):
        now[0] += 60

    trainer = make(callbacks=[SaveEvery(lambda t: seen.append(t.batch), minutes=2)], after_batch=[a_minute])
    trainer.fit(loader(), 1)
    assert seen == [3, 5]


@pytest.mark.parametrize("when", [{}, {"minutes": 1, "batches": 1}, {"minutes": 0}, {"batches": -1}])
def test_saving_needs_to_know_when(when):
    with pytest.raises(ValueError, match="give minutes or batches, greater than 0"):
        SaveEvery(print, **when)


def test_a_save_at_any_batch_is_one_to_go_on_from():
    states = []
    whole = make(callbacks=[SaveEvery(lambda t: states.append(through_a_file(t)), batches=1)])
    whole.fit(loader(), 2, VALIDATION)
    assert len(states) == 10
    for saved in states:
        rest = make()
        rest.load_state_dict(saved)
        rest.fit(loader(), 2, VALIDATION)
        same(whole, rest)


# ---- state -------------------------------------------------------------------------------------------------


class Counts(Callback):
    def __init__(self, count=0):
        self.count = count

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_states_go_to_the_callbacks_of_their_classes_in_order():
    saved = states_of([Counts(1), Notes(), EarlyStopping(), Counts(2)])
    assert [one["callback"] for one in saved] == ["Counts", "EarlyStopping", "Counts"]
    mine = [EarlyStopping(), Counts(), Notes(), Counts(), Counts(7)]
    load_states(mine, saved)
    assert [mine[i].count for i in (1, 3, 4)] == [1, 2, 7]


def test_a_state_that_nobody_takes():
    with pytest.raises(ValueError, match="the state has something of a Counts: give the trainer that callback again"):
        load_states([EarlyStopping()], states_of([Counts(1)]))
    with pytest.raises(ValueError, match="the state is of 'val_loss', this one watches 'val_accuracy'"):
        load_states([EarlyStopping(monitor="val_accuracy")], states_of([EarlyStopping()]))


def test_averages_are_needed_where_they_were():
    averaged, plain = make(ema_of={}), make()
    with pytest.raises(ValueError, match="were saved with averages: make the trainer with averages"):
        plain.load_state_dict(averaged.state_dict())
    with pytest.raises(ValueError, match="were saved without averages: make the trainer without averages"):
        averaged.load_state_dict(plain.state_dict())
    assert isinstance(averaged.ema, optim.EMA)
