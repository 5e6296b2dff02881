"""Settings: defaults that depend on each other, and values that are refused."""

import json

import numpy as np
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


@pytest.mark.parametrize(
    "given",
    [
        {"lr": 0.1, "data": "mnist", "algorithms": {"conv1": "strips"}},
        {"augment": "crop4+flip", "mix": "mixup(0.2)", "ema": 0.99, "recipe": "a", "fraction": 0.5, "patience": 2},
        {"schedule": "multistep", "schedule_options": {"milestones": (0.5, 0.75)}, "data_options": {"labels": "fine"}},
    ],
)
def test_through_json_and_back(given):
    settings = Settings.choose(**given)
    assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert json.loads(json.dumps(settings.to_dict())) == settings.to_dict()


def test_settings_of_older_versions_have_the_defaults():
    names = ("model", "data", "epochs", "batch_size", "optimizer", "lr", "momentum", "weight_decay", "schedule")
    settings = Settings.choose()
    old = {name: getattr(settings, name) for name in (*names, "shift", "val_fraction", "seed", "precision")}
    assert Settings.from_dict(old) == settings


def rates(batches, **given):
    settings = Settings.choose(optimizer="sgd", lr=1.0, momentum=0.0, **given)
    made = settings.make_optimizer(models.create("lenet5"))
    schedule, found = settings.make_schedule(made, batches), []
    for _ in range(settings.epochs * batches):
        found.append(round(made.param_groups[0]["lr"], 6))
        schedule.step()
    return found


def test_times_are_epochs_or_parts_of_the_training():
    """Two batches an epoch: the first epoch ends after step 2, three quarters of 4 epochs after step 6."""
    chosen = {"schedule": "multistep", "epochs": 4}
    assert rates(2, **chosen, schedule_options={"milestones": [1, 0.75]}) == [1, 1, *[0.1] * 4, 0.01, 0.01]
    assert rates(2, schedule="step", epochs=4, schedule_options={"step_size": 2, "gamma": 0.5}) == [1] * 4 + [0.5] * 4


def test_a_warm_up_comes_first_and_leaves_the_milestones_where_they_are():
    chosen = {"schedule": "multistep", "epochs": 2}
    ramp = {"milestones": [0.5], "warmup": 0.25}
    constant = {**ramp, "warmup_factor": 0.5, "warmup_mode": "constant"}
    assert rates(4, **chosen, schedule_options=constant) == [0.5, 0.5, 1, 1, *[0.1] * 4]
    assert rates(4, **chosen, schedule_options={**ramp, "warmup_factor": 0.2}) == [0.2, 0.6, 1, 1, *[0.1] * 4]
    assert rates(2, schedule="none", epochs=2, schedule_options={"warmup": 1, "warmup_factor": 0.5}) == [
        0.5,
        0.75,
        1,
        1,
    ]


def test_options_reach_what_they_are_of():
    settings = Settings.choose(
        model="wrn_16_8",
        data="cifar10",
        optimizer="rmsprop",
        optimizer_options={"alpha": 0.9, "eps": 1.0},
        model_options={"dropout": 0.25},
    )
    made = settings.make_optimizer(models.create("lenet5"))
    assert (made.defaults["alpha"], made.defaults["eps"]) == (0.9, 1.0)
    assert settings.make_model(10, 3).architecture["dropout"] == 0.25
    with pytest.raises(ValueError, match="dropuot"):
        Settings.choose(model_options={"dropuot": 0.25}).make_model(10, 1)


def test_what_moves_images_already_is_not_shifted_by_default():
    assert Settings.choose(data="cifar10").shift == 4
    assert Settings.choose(data="cifar10", augment="flip").shift == 4
    assert Settings.choose(data="cifar10", augment="crop4+flip").shift == 0
    assert Settings.choose(data="cifar10", augment="crop4+flip", shift=1).shift == 1


def test_colours_are_learnt_from_the_images():
    x = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 5), dtype=np.uint8)
    transform = Settings.choose(model="resnet20", data="cifar10", shift=0, augment="lighting").make_transform(x)
    flat = x.transpose(1, 0, 2, 3).reshape(3, -1) / 255
    assert np.allclose(transform.covariance, np.cov(flat, bias=True))


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
        ({"lr": "ten"}, "lr must be a number, got 'ten'"),
        ({"model": 3}, "model must be a name, got 3"),
        ({"ema": True}, "ema must be a number, got True"),
        ({"patience": 1.5}, "patience must be an integer, got 1.5"),
        ({"augment": 3}, "augment: cannot read 3"),
        ({"augment": [3]}, "augment: cannot read 3"),
        ({"fraction": 0}, "fraction must be greater than 0 and at most 1, got 0"),
        ({"fraction": 1.1}, "fraction must be greater than 0 and at most 1, got 1.1"),
        ({"augment": "flop"}, "unknown augment 'flop'; did you mean 'flip'"),
        ({"augment": "crop(size=3)"}, r"crop\(size=3\): got an unexpected keyword argument 'size'"),
        ({"mix": "mixap"}, "unknown mix 'mixap'; did you mean 'mixup'"),
        ({"normalize": "per-pixel"}, "unknown normalize 'per-pixel'; did you mean 'per-pixel-mean'"),
        ({"normalize": "gcn-zca", "augment": "flip+jitter(0.1)"}, "jitter.* changes pixels between black and white"),
        ({"label_smoothing": 1.0}, "label_smoothing must be at least 0 and less than 1"),
        ({"clip_norm": 0.0}, "clip_norm must be greater than 0"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"accumulate": 1.5}, "accumulate must be an integer"),
        ({"ema": 1.0}, "ema must lie between 0 and 1"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"patience": 3, "val_fraction": 0.0}, "patience needs a part set aside"),
        ({"save_every": -1}, "save_every must be at least 0"),
        ({"recompute_statistics": 1}, "recompute_statistics must be true or false"),
        ({"optimizer_options": {"beta": 1}}, "unknown option of optimizer adamw 'beta'; did you mean 'betas'"),
        ({"optimizer_options": {"lr": 1}}, "lr is a setting of its own: give --lr"),
        ({"optimizer": "rmsprop", "optimizer_options": {"alpha": 2}}, "alpha"),
        ({"schedule": "step", "schedule_options": {"gama": 1}}, "takes no 'gama'; did you mean 'gamma'"),
        ({"schedule": "multistep", "schedule_options": {"milestones": 3}}, "milestones must be a list of times, got 3"),
        ({"schedule": "step", "schedule_options": {"step_size": -1}}, "a time is a number of epochs, or a part"),
        ({"schedule": "multistep", "schedule_options": {"milestones": None}}, "milestones must be a list of times"),
        (
            {"schedule": "multistep", "schedule_options": {"gamma": "a"}},
            "multistep cannot do with {'gamma': 'a'}: give",
        ),
        ({"schedule": "cosine", "schedule_options": {"warmup": 1, "warmup_factor": "a"}}, "cosine cannot do with"),
        (
            {"schedule": "multistep", "epochs": 9, "schedule_options": {"milestones": [0.5, 9]}},
            "epoch 9 is not before the end of 9 epochs: give parts of the training",
        ),
        (
            {"schedule": "cosine", "epochs": 1, "schedule_options": {"warmup": 1.0}},
            "epoch 1 is not before the end of 1 epoch: give parts",
        ),
        (
            {"schedule": "cosine", "schedule_options": {"warmup_factor": 0.1}},
            "warmup_factor is of a warmup, and there is",
        ),
        ({"schedule": "none", "schedule_options": {"gamma": 0.1}}, "schedule 'none' takes no 'gamma'"),
        ({"schedule_options": {"warmup": 0.1}}, "onecycle has its own"),
        (
            {"schedule": "step", "schedule_options": {"warmup": 0.1, "warmup_mode": "linar"}},
            "warmup_mode must be 'linear' or 'constant', got 'linar'",
        ),
        ({"model_options": 3}, "model_options must map names to values, got 3"),
        ({"model_options": {"dropout": object()}}, "model_options must hold numbers"),
    ],
)
def test_refused(given, words):
    with pytest.raises(ValueError, match=words):
        Settings.choose(**given)
