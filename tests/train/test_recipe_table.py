"""The recipes' facts, typed from the papers a second time."""

import pytest

from tinycnn import models
from tinycnn.train import recipes

# name: model, batch, optimizer, lr, weight decay, epochs, where lr drops, by what; PFLOP; CIFAR-10, CIFAR-100 error
FACTS = {
    "he-cifar-resnet20": ("resnet20", 128, "momentum", 0.1, 1e-4, 164, (32, 48, 64), 0.1, 2.0, 8.75, None),
    "he-cifar-resnet32": ("resnet32", 128, "momentum", 0.1, 1e-4, 164, (32, 48, 64), 0.1, 3.4, 7.51, None),
    "he-cifar-resnet44": ("resnet44", 128, "momentum", 0.1, 1e-4, 164, (32, 48, 64), 0.1, 4.8, 7.17, None),
    "he-cifar-resnet56": ("resnet56", 128, "momentum", 0.1, 1e-4, 164, (32, 48, 64), 0.1, 6.2, 6.97, None),
    "he-cifar-resnet110": ("resnet110", 128, "momentum", 0.1, 1e-4, 164, (32, 48, 64), 0.1, 12.4, 6.43, None),
    "he-cifar-plain20": ("plain20", 128, "momentum", 0.1, 1e-4, 164, (32, 48, 64), 0.1, 2.0, 9.5, None),
    "he-cifar-plain32": ("plain32", 128, "momentum", 0.1, 1e-4, 164, (32, 48, 64), 0.1, 3.4, 10, None),
    "he-cifar-plain44": ("plain44", 128, "momentum", 0.1, 1e-4, 164, (32, 48, 64), 0.1, 4.8, 12, None),
    "he-cifar-plain56": ("plain56", 128, "momentum", 0.1, 1e-4, 164, (32, 48, 64), 0.1, 6.2, 13.5, None),
    "preact-resnet110": ("preact_resnet110", 128, "momentum", 0.1, 1e-4, 164, (32, 48, 64), 0.1, 12.4, 6.37, None),
    "preact-resnet164": ("preact_resnet164", 128, "momentum", 0.1, 1e-4, 164, (32, 48, 64), 0.1, 12.0, 5.46, 24.33),
    "preact-resnet1001": ("preact_resnet1001", 128, "momentum", 0.1, 1e-4, 164, (32, 48, 64), 0.1, 73.2, 4.92, 22.71),
    "wrn-16-8": ("wrn_16_8", 128, "nesterov", 0.1, 5e-4, 200, (60, 120, 160, 200), 0.2, 92.9, 4.27, 20.43),
    "wrn-40-4": ("wrn_40_4", 128, "nesterov", 0.1, 5e-4, 200, (60, 120, 160, 200), 0.2, 77.9, 4.53, 21.18),
    "wrn-28-10": ("wrn_28_10", 128, "nesterov", 0.1, 5e-4, 200, (60, 120, 160, 200), 0.2, 314.6, 4.00, 19.25),
    "wrn-28-10-dropout": ("wrn_28_10", 128, "nesterov", 0.1, 5e-4, 200, (60, 120, 160, 200), 0.2, 314.6, 3.89, 18.85),
    "resnext29-8x64d": ("resnext29_8x64d", 128, "momentum", 0.1, 5e-4, 300, (150, 225, 300), 0.1, 484.9, 3.65, 17.77),
    "resnext29-16x64d": ("resnext29_16x64d", 128, "momentum", 0.1, 5e-4, 300, (150, 225, 300), 0.1, 962, 3.58, 17.31),
    "stochastic-resnet110": (
        *("stochastic_resnet110", 128, "nesterov", 0.1, 1e-4, 500, (250, 375, 500), 0.1, 34.1, 5.23, 24.58),
    ),
    "densenet-bc-100-12": (
        *("densenet_bc_100_12", 64, "nesterov", 0.1, 1e-4, 300, (150, 225, 300), 0.1, 25.9, 4.51, 22.27),
    ),
    "densenet-40-12": ("densenet_40_12", 64, "nesterov", 0.1, 1e-4, 300, (150, 225, 300), 0.1, 23.8, 5.24, 24.42),
}
NORMALIZED = {"per-pixel-mean": ("he-", "preact-"), "gcn-zca": ("nin-",), "standard": ("wrn-", "resnext", "densenet")}


@pytest.mark.parametrize("name", FACTS)
def test_facts(name):
    model, batch, optimizer, lr, decay, epochs, times, gamma, pflop, cifar10, cifar100 = FACTS[name]
    recipe = recipes.find(name)
    s = recipe.settings()
    assert (s.model, s.batch_size, s.optimizer, s.lr) == (model, batch, optimizer, lr)
    assert (s.weight_decay, s.momentum, s.epochs, s.data) == (decay, 0.9, epochs, "cifar10")
    *drops, end = times
    assert s.schedule == "multistep"
    assert s.schedule_options["milestones"] == [drop / end for drop in drops]
    assert s.schedule_options["gamma"] == gamma
    assert recipe.flop / 1e15 == pytest.approx(pflop, abs=0.06)
    assert recipe.published["cifar10"].error == cifar10
    assert (recipe.published["cifar100"].error if "cifar100" in recipe.published else None) == cifar100


def test_all_with_a_published_result_are_above():
    assert {name for name, recipe in recipes.table().items() if recipe.published} - set(FACTS) == {"nin-cifar10"}
    assert recipes.find("nin-cifar10").published["cifar10"].error == 8.81


def test_particulars():
    warm = {name for name, r in recipes.table().items() if r.settings().schedule_options.get("warmup")}
    assert warm == {"he-cifar-resnet110", "preact-resnet110", "preact-resnet164", "preact-resnet1001"}
    assert recipes.find("wrn-28-10-dropout").settings().model_options == {"dropout": 0.3}
    assert recipes.find("wrn-28-10").settings().augment == ("crop(4, padding_mode='reflect')", "flip")
    assert recipes.find("he-cifar-resnet20").settings().val_fraction == 0
    assert recipes.find("stochastic-resnet110").settings().val_fraction == 0.1
    for normalize, starts in NORMALIZED.items():
        found = {r.settings().normalize for name, r in recipes.table().items() if name.startswith(starts)}
        assert found == {normalize}


@pytest.mark.parametrize("name", recipes.table())
def test_names_are_in_order(name):
    recipe = recipes.table()[name]
    assert recipe.name == name
    s = recipe.settings()
    assert models.architecture(s.model)
    assert s.recipe == name
    assert recipe.source
