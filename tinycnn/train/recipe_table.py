"""The recipes: what `recipes` knows.

Papers, and what is theirs:

=========  =============================================================================================================
he         He, Zhang, Ren & Sun 2016, "Deep residual learning for image recognition", section 4.2, table 6, figure 6
preact     He, Zhang, Ren & Sun 2016, "Identity mappings in deep residual networks", appendix, tables 2 and 3
wide       Zagoruyko & Komodakis 2016, "Wide residual networks", section 3, tables 5 and 6
resnext    Xie, Girshick, Dollár, Tu & He 2017, "Aggregated residual transformations for deep neural networks",
           section 5.3, table 7
depth      Huang, Sun, Liu, Sedra & Weinberger 2016, "Deep networks with stochastic depth", section 4, table 1
dense      Huang, Liu, van der Maaten & Weinberger 2017, "Densely connected convolutional networks", section 4, table 2
nin        Lin, Chen & Yan 2014, "Network in network", section 4, tables 1 and 2
vgg        Simonyan & Zisserman 2015, "Very deep convolutional networks for large-scale image recognition"
lenet      LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning applied to document recognition", figure 9
=========  =============================================================================================================

Weight decay is the papers': an L2 penalty on every parameter, biases and BatchNorm's included.
"""

from __future__ import annotations

from typing import Any

from .recipes import Measured, Published, Recipe

# ---- what recipes share ----------------------------------------------------------------------------------------

PADDED = {"shift": 4, "augment": "flip"}
"""A border of four zeros, a random window of 32×32, mirrored half of the time."""

HE: dict[str, Any] = {
    "data": "cifar10",
    "batch_size": 128,
    "optimizer": "momentum",
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "schedule": "multistep",
    "schedule_options": {"milestones": [0.5, 0.75], "gamma": 0.1},
    "epochs": 164,
    "normalize": "per-pixel-mean",
    "val_fraction": 0.0,
    **PADDED,
}
WARM = {
    "schedule_options": {**HE["schedule_options"], "warmup": 1 / 160, "warmup_factor": 0.1, "warmup_mode": "constant"}
}
"""A tenth of lr for the first 400 of 64,000 steps."""

WIDE: dict[str, Any] = {
    **HE,
    "optimizer": "nesterov",
    "weight_decay": 5e-4,
    "schedule_options": {"milestones": [0.3, 0.6, 0.8], "gamma": 0.2},
    "epochs": 200,
    "normalize": "standard",
    "shift": 0,
    "augment": "crop(4, padding_mode='reflect') + flip",
}
RESNEXT: dict[str, Any] = {**HE, "weight_decay": 5e-4, "epochs": 300, "normalize": "standard"}
DENSE: dict[str, Any] = {**HE, "optimizer": "nesterov", "batch_size": 64, "epochs": 300, "normalize": "standard"}

_HE = "He et al. 2016, Deep residual learning for image recognition, section 4.2"
_PREACT = "He et al. 2016, Identity mappings in deep residual networks"
_WIDE = "Zagoruyko & Komodakis 2016, Wide residual networks"
_RESNEXT = "Xie et al. 2017, Aggregated residual transformations for deep neural networks"
_DEPTH = "Huang et al. 2016, Deep networks with stochastic depth"
_DENSE = "Huang et al. 2017, Densely connected convolutional networks"
_NIN = "Lin, Chen & Yan 2014, Network in network"
_VGG = "Simonyan & Zisserman 2015, Very deep convolutional networks for large-scale image recognition"
_LENET = "LeCun et al. 1998, Gradient-based learning applied to document recognition"

_LENGTH = "the paper's 64,000 steps of 128 images are 164 epochs of all 50,000; lr drops after 32,000 and 48,000"
_CHOSEN = "its schedule was chosen on 5,000 images set aside (--val-fraction 0.1)"
_WARMED = "lr 0.01 for 400 steps, until the training error is below 80 %"
_EIGHT = "the paper's batch of 128 was spread over several GPUs, each with BatchNorm statistics of its own part"


def _he(depth: int, error: float) -> Recipe:
    deep = depth == 110
    what = "best of 5 runs, mean 6.61" if deep else "one run"
    return Recipe(
        f"he-cifar-resnet{depth}",
        {**HE, "model": f"resnet{depth}", **(WARM if deep else {})},
        _HE,
        {"cifar10": Published(error, what, "table 6")},
        (_LENGTH, _CHOSEN, *([_WARMED] if deep else [])),
    )


def _plain(depth: int, error: float) -> Recipe:
    return Recipe(
        f"he-cifar-plain{depth}",
        {**HE, "model": f"plain{depth}"},
        _HE,
        {"cifar10": Published(error, "one run, read off the curve", "figure 6", about=True)},
        (_LENGTH, _CHOSEN),
    )


def _preact(depth: int, cifar10: float, cifar100: float | None = None) -> Recipe:
    errors = {"cifar10": cifar10} | ({} if cifar100 is None else {"cifar100": cifar100})
    return Recipe(
        f"preact-resnet{depth}",
        {**HE, "model": f"preact_resnet{depth}", **WARM},
        _PREACT,
        {name: Published(error, "median of 5 runs", "table 3") for name, error in errors.items()},
        (_LENGTH, _WARMED.split(",", maxsplit=1)[0]),
    )


def _wide(name: str, cifar10: float, cifar100: float, dropout: float = 0.0) -> Recipe:
    where = "table 6" if dropout else "table 5"
    return Recipe(
        name + ("-dropout" if dropout else ""),
        {**WIDE, "model": name.replace("-", "_"), **({"model_options": {"dropout": dropout}} if dropout else {})},
        _WIDE,
        {
            data: Published(error, "median of 5 runs", where)
            for data, error in (("cifar10", cifar10), ("cifar100", cifar100))
        },
        ("windows are taken from images continued by reflection, not by zeros",),
    )


def _resnext(groups: int, cifar10: float, cifar100: float) -> Recipe:
    return Recipe(
        f"resnext29-{groups}x64d",
        {**RESNEXT, "model": f"resnext29_{groups}x64d"},
        _RESNEXT,
        {d: Published(e, "average of 10 runs", "table 7") for d, e in (("cifar10", cifar10), ("cifar100", cifar100))},
        (_EIGHT,),
    )


def _dense(name: str, cifar10: float, cifar100: float) -> Recipe:
    return Recipe(
        name,
        {**DENSE, "model": name.replace("-", "_")},
        _DENSE,
        {d: Published(e, "one run, last epoch", "table 2") for d, e in (("cifar10", cifar10), ("cifar100", cifar100))},
        ("without the random windows and mirrors the paper has dropout 0.2: --set model.dropout=0.2",),
    )


PAPERS = [
    *(_he(d, e) for d, e in ((20, 8.75), (32, 7.51), (44, 7.17), (56, 6.97), (110, 6.43))),
    *(_plain(d, e) for d, e in ((20, 9.5), (32, 10.0), (44, 12.0), (56, 13.5))),
    _preact(110, 6.37),
    _preact(164, 5.46, 24.33),
    _preact(1001, 4.92, 22.71),
    _wide("wrn-16-8", 4.27, 20.43),
    _wide("wrn-40-4", 4.53, 21.18),
    _wide("wrn-28-10", 4.00, 19.25),
    _wide("wrn-28-10", 3.89, 18.85, dropout=0.3),
    _resnext(8, 3.65, 17.77),
    _resnext(16, 3.58, 17.31),
    Recipe(
        "stochastic-resnet110",
        {
            **HE,
            "model": "stochastic_resnet110",
            "optimizer": "nesterov",
            "epochs": 500,
            "val_fraction": 0.1,
            "normalize": "standard",
        },
        _DEPTH,
        {
            "cifar10": Published(5.23, "epoch of the lowest validation error", "table 1"),
            "cifar100": Published(24.58, "epoch of the lowest validation error", "table 1"),
        },
        ("5,000 images are set aside to choose the epoch by",),
    ),
    _dense("densenet-bc-100-12", 4.51, 22.27),
    _dense("densenet-40-12", 5.24, 24.42),
    Recipe(
        "nin-cifar10",
        {
            **HE,
            "model": "nin_cifar",
            "epochs": 300,
            "normalize": "gcn-zca",
            "schedule_options": {"milestones": [0.8, 0.9]},
        },
        _NIN,
        {"cifar10": Published(8.81, "one run, with shifted and mirrored images", "table 1")},
        (
            "the paper gives the batch, dropout, whitening, and lr ÷10 twice when training no longer gets better; "
            "lr, its times, weight decay and epochs are chosen here",
        ),
    ),
    Recipe(
        "vgg16-bn-cifar10",
        {**HE, "model": "vgg16_bn_cifar", "lr": 0.05, "weight_decay": 5e-4, "epochs": 200, "normalize": "standard"},
        _VGG,
        {},
        ("the paper has no CIFAR and no BatchNorm: this training is chosen here, with no published result",),
    ),
]

TWO_CORES = "two cores of a shared cloud machine (Xeon, AVX-512)"

SHORT: dict[str, Any] = {
    "batch_size": 128,
    "optimizer": "nesterov",
    "lr": 0.2,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "schedule": "onecycle",
    "schedule_options": {"pct_start": 0.25, "div_factor": 25.0, "cycle_momentum": False},
}
"""One cycle to a high learning rate and back, for few epochs."""

CPU = [
    Recipe(
        "mnist-lenet5",
        {
            "model": "lenet5",
            "data": "mnist",
            "shift": 0,
            "augment": (
                "affine(degrees=10, translate=(0.06, 0.06), scale=(0.9, 1.1), shear=10)",
                "elastic(alpha=20, sigma=4)",
            ),
        },
        _LENET,
        {},
        (
            "for a CPU; the paper's LeNet-5 has 0.95 % test error, 0.8 % with distorted images (figure 9): this is the "
            "net as it is built today, trained in another way",
        ),
        Measured(0.55, 5.2, TWO_CORES),
    ),
    Recipe(
        "fashion-mnist-resnet",
        {
            "model": "resnet20",
            "data": "fashion-mnist",
            **SHORT,
            "epochs": 6,
            "shift": 2,
            "augment": "flip",
        },
        _HE,
        {},
        ("for a CPU; the network is the paper's, the training another",),
        Measured(7.21, 31.0, TWO_CORES),
    ),
    Recipe(
        "cifar10-30min",
        {
            "model": "resnet20",
            "data": "cifar10",
            **SHORT,
            "epochs": 10,
            "val_fraction": 0.1,
            **PADDED,
        },
        _HE,
        {},
        ("for a CPU: half an hour on two cores; the network is the paper's, the training another",),
        Measured(13.26, 28.8, TWO_CORES),
    ),
]

RECIPES = {recipe.name: recipe for recipe in [*PAPERS, *CPU]}
