"""Settings: defaults that depend on each other, and values that are refused."""

import json

import pytest

from tinycnn import models, optim
from tinycnn.train import Settings


def test_defaults():
    settings = Settings.choose()
    assert (settings.model, settings.data, settings.precision, settings.seed) == ("lenet5", "digits", "float32", 0)
    assert Settings.choose(data="mnist").epochs <= 12


@pytest.mark.parametrize("name", optim.names())
def test_every_optimizer_has_working_defaults(name):
    settings = Settings.choose(optimizer=name)
    made = settings.make_optimizer(models.create("lenet5"))
    assert made.defaults["lr"] == settings.lr
    assert (settings.momentum is None) == ("momentum" not in made.defaults)
    assert made.defaults.get("momentum") == settings.momentum


@pytest.mark.parametrize("name", optim.schedule_names())
def test_every_schedule_lasts_to_the_end(name):
    settings = Settings.choose(schedule=name, epochs=2)
    made = settings.make_optimizer(models.create("lenet5"))
    schedule = settings.make_schedule(made, 3)
    assert (schedule is None) == (name == "none")
    for _ in range(0 if name in ("none", "plateau") else 6):
        schedule.step()


def test_what_is_given_reaches_the_optimizer():
    settings = Settings.choose(optimizer="sgd", lr=0.3, momentum=0.5, weight_decay=0.25)
    made = settings.make_optimizer(models.create("lenet5"))
    (group,) = made.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.3, 0.5, 0.25)


def test_through_json_and_back():
    settings = Settings.choose(lr=0.1, data="mnist", algorithms={"conv1": "strips"})
    assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model": "lenet4"}, "unknown model 'lenet4'; did you mean 'lenet5'"),
        ({"data": "mnits"}, "unknown dataset 'mnits'; did you mean 'mnist'"),
        ({"optimizer": "adan"}, "unknown optimizer 'adan'; did you mean 'adam'"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin'; did you mean 'cosine'"),
        ({"optimizer": "adam", "momentum": 0.9}, "'adam' takes no momentum"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"lr": -1.0}, "lr must be a number greater than 0, got -1.0"),
        ({"lr": float("nan")}, "lr must be a number greater than 0, got nan"),
        ({"shift": -1}, "shift must be at least 0 and less than 16, half of the input, got -1"),
        ({"val_fraction": 1.0}, "val_fraction must be at least 0 and less than 1, got 1.0"),
        ({"seed": 1.5}, "seed must be an integer, got 1.5"),
        ({"epochs": True}, "epochs must be an integer, got True"),
        ({"shift": 16}, "shift must be at least 0 and less than 16"),
        ({"seed": -1}, "seed must lie in 0..2⁶⁴ − 1, got -1"),
        ({"precision": "float16"}, "precision must be one of float32, float64, tf32, bf16, fp16, got 'float16'"),
        ({"algorithms": "im2col"}, "algorithms must map paths of convolutions to names, got 'im2col'"),
        ({"algorithms": {"conv1": 3}}, "algorithms must map paths"),
    ],
)
def test_refused(given, words):
    with pytest.raises(ValueError, match=words):
        Settings.choose(**given)
