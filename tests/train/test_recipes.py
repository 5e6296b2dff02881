"""Recipes: settings by name, and how far a run is from them."""

import numpy as np
import pytest

from tinycnn import optim
from tinycnn.parameter import Parameter
from tinycnn.train import Settings, recipes
from tinycnn.train.recipes import Measured, Published, Recipe, deviations, title


def rates(settings, batches):
    """lr of every step."""
    optimizer = settings.make_optimizer(type("M", (), {"parameters": lambda self: [Parameter(np.zeros(2))]})())
    schedule, found = settings.make_schedule(optimizer, batches), []
    for _ in range(settings.epochs * batches):
        found.append(optimizer.param_groups[0]["lr"])
        schedule.step()
    return found


def test_unknown():
    with pytest.raises(ValueError, match="unknown recipe 'he-cifar-resnet2'; did you mean 'he-cifar-resnet20'"):
        recipes.find("he-cifar-resnet2")


def test_the_schedule_of_64000_steps():
    """391 batches of 128 in each of 164 epochs."""
    lr = rates(recipes.find("he-cifar-resnet20").settings(), 391)
    assert len(lr) == 64_124
    drops = [i for i in range(1, len(lr)) if lr[i] != lr[i - 1]]
    assert drops == [32_062, 48_093]
    assert [lr[0], lr[32_062], lr[-1]] == pytest.approx([0.1, 0.01, 0.001])


def test_the_schedule_with_a_warm_up():
    """lr .01 for 400 of 64,000 steps; the drops stay where they are."""
    lr = rates(recipes.find("he-cifar-resnet110").settings(), 391)
    drops = [i for i in range(1, len(lr)) if lr[i] != lr[i - 1]]
    assert drops == [401, 32_062, 48_093]
    assert [lr[0], lr[401], lr[32_062], lr[-1]] == pytest.approx([0.01, 0.1, 0.01, 0.001])


def test_a_shortened_schedule():
    """A fifth of the images, 79 batches; 10 epochs: 790 steps, half and three quarters of which are 395 and 592.5."""
    settings = recipes.find("he-cifar-resnet20").settings(fraction=0.2, epochs=10)
    lr = rates(settings, 79)
    assert [i for i in range(1, len(lr)) if lr[i] != lr[i - 1]] == [395, 592]
    lr = rates(recipes.find("wrn-28-10").settings(epochs=20), 391)
    assert [i / 391 for i in range(1, len(lr)) if lr[i] != lr[i - 1]] == pytest.approx([6, 12, 16])
    assert lr[-1] == pytest.approx(0.1 * 0.2**3)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "he-cifar-resnet20"),
        ({"seed": 3, "save_every": 100}, "he-cifar-resnet20"),
        ({"fraction": 0.2, "epochs": 10}, "he-cifar-resnet20, shortened: 20 % of the images, 10 of 164 epochs"),
        ({"fraction": 0.125}, "he-cifar-resnet20, shortened: 12.5 % of the images"),
        ({"epochs": 200}, "he-cifar-resnet20, changed: 200 epochs instead of 164"),
        ({"epochs": 1, "lr": 0.2}, "he-cifar-resnet20, shortened: 1 of 164 epochs, lr 0.2 instead of 0.1"),
        ({"augment": ""}, "he-cifar-resnet20, changed: augment none instead of flip"),
        ({"data": "cifar100"}, "he-cifar-resnet20, changed: data cifar100 instead of cifar10"),
        ({"precision": "tf32"}, "he-cifar-resnet20, changed: precision tf32 instead of float32"),
        ({"val_fraction": 0.1}, "he-cifar-resnet20, changed: val_fraction 0.1 instead of 0"),
    ],
)
def test_deviations_are_named(given, words):
    settings = recipes.find("he-cifar-resnet20").settings(**given)
    assert title(settings) == words
    comparable = words == "he-cifar-resnet20"
    assert (recipes.published(settings) is not None) == comparable
    assert ("published" in recipes.describe(settings)) == comparable
    assert ("shortened" in recipes.folder_name(settings)) == ("shortened" in words)
    assert ("changed" in recipes.folder_name(settings)) == ("changed" in words)


def test_another_data_set_of_the_paper_is_no_deviation():
    settings = recipes.find("wrn-28-10").settings(data="cifar100")
    assert (title(settings), deviations(settings)) == ("wrn-28-10", {})
    assert recipes.published(settings).error == 19.25
    assert recipes.folder_name(settings) == "wrn-28-10-cifar100"


def test_one_option_leaves_the_others():
    settings = recipes.find("he-cifar-resnet20").settings(schedule_options={"gamma": 0.2})
    assert settings.schedule_options == {"milestones": [0.5, 0.75], "gamma": 0.2}


def test_what_belongs_to_another_optimizer_or_schedule_is_left_out():
    settings = recipes.find("cifar10-30min").settings(optimizer="adamw", schedule="cosine")
    plain = Settings.choose(optimizer="adamw", data="cifar10")
    assert (settings.lr, settings.momentum, settings.weight_decay) == (plain.lr, None, plain.weight_decay)
    assert settings.schedule_options == {}
    assert set(deviations(settings)) == {"optimizer", "lr", "momentum", "weight_decay", "schedule", "schedule_options"}
    assert recipes.find("wrn-28-10-dropout").settings(model="wrn_16_8").model_options == {}


def test_images_are_not_moved_twice():
    """A recipe's shift is not done beside another change that moves images, unless it is asked for."""
    recipe = recipes.find("he-cifar-resnet20")
    assert recipe.settings(augment="crop4+flip+cutout8").shift == 0
    assert recipe.settings(augment="flip+cutout8").shift == 4
    assert recipe.settings(augment="crop4", shift=2).shift == 2
    assert "shift 0 instead of 4" in title(recipe.settings(augment="crop4"))


def test_without_a_recipe_there_is_nothing_to_say():
    settings = Settings.choose()
    assert (title(settings), deviations(settings), recipes.describe(settings)) == ("", {}, {})
    assert recipes.folder_name(settings) == "lenet5-digits"
    gone = Settings.choose(recipe="of-an-older-version")
    assert (title(gone), recipes.of(gone), recipes.published(gone)) == ("of-an-older-version", None, None)


def test_cost():
    """6 FLOP for each of 416,520 multiply-adds, 90 % of a half of 60,000 images, 3 epochs."""
    settings = Settings.choose(data="mnist", epochs=3, fraction=0.5)
    assert recipes.cost(settings) == pytest.approx(6 * 416_520 * 27_000 * 3)


def test_words():
    assert str(Published(8.75, "one run", "table 6")) == "8.75 % test error (one run; table 6)"
    assert Published(8.75, "one run", "table 6").accuracy == "91.25 %"
    rough = Published(13.5, "one run", "figure 6", about=True)
    assert (rough.percent, rough.accuracy) == ("about 13.5 %", "about 86.5 %")
    assert str(Measured(14.2, 29.5, "two cores")) == "14.20 % test error after 29.5 minutes on two cores"
    assert Recipe("a", {"epochs": 2}, "").settings().epochs == 2


@pytest.mark.parametrize("name", recipes.table())
def test_optimizers_and_schedules_can_be_made(name):
    """With an epoch of one batch, down to the last step."""
    settings = recipes.find(name).settings(epochs=4)
    optimizer = settings.make_optimizer(type("M", (), {"parameters": lambda self: [Parameter(np.zeros(2))]})())
    if settings.optimizer in ("momentum", "nesterov"):
        assert optimizer.defaults["nesterov"] == (settings.optimizer == "nesterov")
    schedule = settings.make_schedule(optimizer, 1)
    assert isinstance(schedule, optim.LRScheduler)
    for _ in range(4):
        schedule.step()
    assert optimizer.param_groups[0]["lr"] < settings.lr
