"""``tinycnn explain``: a page that shows one image going through a network and its gradient coming back."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ..messages import counted, nearest
from .data import ready
from .errors import bad_input
from .images import read_image
from .trained import Trained, as_input, images_of, looks_inverted, newest_run, open_trained

DEFAULT_IMAGES = (7, 8, 9)


def explain(
    target: Annotated[
        str | None,
        typer.Argument(help="A model, a run, a checkpoint or a layer. [default: the newest in runs, or lenet5]"),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Dataset of the images. [default: the run's, or digits]")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the data files. [default: $TINYCNN_DATA]")] = None,
    index: Annotated[list[int] | None, typer.Option(help="Of a test image; several if given again. [7 8 9]")] = None,
    image: Annotated[Path | None, typer.Option(help="A picture of your own; see --class.")] = None,
    invert: Annotated[bool, typer.Option("--invert", help="Exchange dark and bright of --image.")] = False,
    target_class: Annotated[
        str | None, typer.Option("--class", help="Whose loss is sent back first. [default: the true one]")
    ] = None,
    layer: Annotated[list[str] | None, typer.Option(help="Show the numbers of these alone; * for anything.")] = None,
    evaluation: Annotated[bool, typer.Option("--evaluation", help="Layers behave as in evaluation.")] = False,
    checks: Annotated[bool, typer.Option(help="Check each layer's gradient.")] = True,
    out: Annotated[Path, typer.Option(help="The HTML file to write; replaced if it is there.")] = Path("explain.html"),
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Write a page on which every number of a forward and a backward pass can be looked at.

    A model starts from random weights; a run's are trained.  A layer, such as Conv2d or "Conv2d stride", is shown by
    itself (tinycnn gradcheck lists them).  The page needs no network: open it in any browser.
    """
    target = target or newest_run() or "lenet5"
    with bad_input():
        if image is not None and index:
            raise ValueError("--image and --index are both given: leave one out")
        if Path(target).exists() or _is_model(target):
            network = _network(target, data, data_dir)
            images = _own_image(network, image, invert, target_class) if image is not None else None
            images = images or _test_images(network, data, data_dir, index, target_class)
            study = _study(network, images, target, not evaluation, layer or [], checks)
        else:
            study = _study_layer(target, checks)
        from ..explain import write

        path = write(study, out)
    print(f"{path}: {_words(study)}, {path.stat().st_size / 1e6:.1f} MB" + ("" if show else ": open it in a browser"))
    for note in study.said:
        print(f"note: {note}", file=sys.stderr)
    if show and not webbrowser.open(path.resolve().as_uri()):
        print(f"note: no browser was found here: open {path.resolve()} in one", file=sys.stderr)


def _words(study: Any) -> str:
    """Say what is on the page."""
    layers, title = study.data["layers"], study.data["title"]
    shown = sum(one["shown"] for one in layers)
    if shown == len(layers):
        return f"{title}, {counted(shown, 'layer')}"
    first, last = ([one["path"] for one in layers if one["shown"]][i] for i in (0, -1))
    return f"{title}, {shown} of {len(layers)} layers with their numbers ({first} … {last})"


def _is_model(name: str) -> bool:
    from .. import models

    return name in models.names()


# ---- what is explained -----------------------------------------------------------------------------------------


def _study_layer(target: str, checks: bool) -> Any:
    from .. import models
    from ..contract import CASES
    from ..explain import study_layer

    known = {case.lower(): case for case in CASES}
    if target.lower() not in known:
        near = nearest(target, [*models.names(), *CASES])
        raise ValueError(f"{target!r} is no file, no model and no layer{near} (tinycnn models, tinycnn gradcheck)")
    case, rng = CASES[known[target.lower()]], np.random.default_rng(0)
    return study_layer(case.build(rng), case.input(rng), known[target.lower()], checks=checks)


def _study(network: Trained, examples: list[Any], target: str, training: bool, layers: list[str], checks: bool) -> Any:
    from ..explain import ROOM, study_network, training_of

    path, classes = Path(target), [str(name) for name in network.how["classes"]]
    learnt = training_of(path) if path.exists() else None
    study = study_network(
        network.model,
        examples,
        classes,
        path.name if path.exists() else f"{target}, untrained",
        training=training,
        layers=layers,
        checks=checks,
        room=ROOM - (0 if learnt is None else learnt["room"]),
    )
    study.training = learnt
    if learnt is None and path.is_dir():
        study.said.append(
            f"{target} has no records of its training, so the page has no slider over its steps: runs of tinycnn "
            "train --record 24, which is its default, have them"
        )
    return study


def _network(target: str, name: str | None, data_dir: Path | None) -> Trained:
    """Return the network, and how images are prepared for it."""
    from .. import data, models

    if Path(target).exists():
        return open_trained(Path(target), "cpu", None)
    name = name or "digits"
    ready(name, data_dir)
    dataset = data.load(name, "test", data_dir)
    model = models.create(target, dataset.num_classes, dataset.shape[0])
    size = models.architecture(target).input_shape[1:]
    how = {"data": name, "classes": dataset.classes, "mean": dataset.mean, "image_size": dataset.shape[1:]}
    how["input_size"] = size
    scale = data.Normalize(tuple(dataset.mean), tuple(dataset.std), str(next(model.parameters()).dtype))
    return Trained(Path(target), model, model.architecture, how, scale, {})


# ---- images ----------------------------------------------------------------------------------------------------


def _own_image(network: Trained, image: Path, invert: bool, target_class: str | None) -> list[Any]:
    from ..explain import Example

    raw = read_image(image, network.architecture["in_channels"], invert)
    classes = [str(name) for name in network.how["classes"]]
    wanted = None if target_class is None else _number(target_class, classes)
    (H, W), (h, w) = network.input_size, raw.shape[2:]
    x = as_input(network, raw)
    believed = int(network.model.eval().forward(x)[0].argmax())
    words = []
    if (h, w) != (H, W):
        words.append(f"{image.name} has {h}×{w} pixels and was brought to {H}×{W}, which the network takes.")
    if wanted is None:
        words.append(
            f"Nobody has said what {image.name} shows: the loss is that of class {classes[believed]}, which the "
            "network believes in most; --class NAME takes another."
        )
    if not invert and looks_inverted(network, raw):
        words.append(f"{image.name} is bright at its border: if it is ink on paper, use --invert.")
    return [Example(x, believed if wanted is None else wanted, image.name, notes=tuple(words))]


def _test_images(
    network: Trained, name: str | None, data_dir: Path | None, index: list[int] | None, target_class: str | None
) -> list[Any]:
    from ..explain import Example
    from ..train.images import fitted, for_evaluation

    how = network.how
    dataset, name = images_of(network, name, data_dir), name or how["data"]
    target = None if target_class is None else _number(target_class, [str(name) for name in how["classes"]])
    wanted = index or [i for i in DEFAULT_IMAGES if i < len(dataset)] or [0]
    for i in wanted:
        if not 0 <= i < len(dataset):
            raise ValueError(f"--index must lie between 0 and {len(dataset) - 1}, got {i}: {name} has no more")
    chosen = fitted(dataset.subset(np.array(wanted)), network.input_size)
    loader = for_evaluation(chosen, network.scale, how.get("normalize", "standard"), "cpu")
    xs = np.concatenate([x for x, _ in loader.epoch(0)])
    return [Example(xs[k : k + 1], int(chosen.labels[k]), f"{name} {i}", target) for k, i in enumerate(wanted)]


def _number(name: str, classes: list[str]) -> int:
    if name not in classes:
        raise ValueError(f"--class: unknown class {name!r}{nearest(name, classes)} (classes: {', '.join(classes)})")
    return classes.index(name)
