"""``tinycnn explain``: a page that shows one image going through a network and its gradient coming back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ..messages import nearest
from .data import ready
from .errors import bad_input
from .images import read_image

DEFAULT_IMAGES = (7, 8, 9)


def explain(
    target: Annotated[str, typer.Argument(help="A model, a run folder or checkpoint, or a layer.")] = "lenet5",
    data: Annotated[str | None, typer.Option(help="Dataset of the images. [default: the run's, or digits]")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the data files. [default: $TINYCNN_DATA]")] = None,
    index: Annotated[list[int] | None, typer.Option(help="Of a test image; several if given again. [7 8 9]")] = None,
    image: Annotated[Path | None, typer.Option(help="A picture of your own; see --class.")] = None,
    target_class: Annotated[
        str | None, typer.Option("--class", help="Whose loss is sent back first. [default: the true one]")
    ] = None,
    layer: Annotated[list[str] | None, typer.Option(help="Show the numbers of these alone; * for anything.")] = None,
    evaluation: Annotated[bool, typer.Option("--evaluation", help="Layers behave as in evaluation.")] = False,
    checks: Annotated[bool, typer.Option(help="Check each layer's gradient.")] = True,
    out: Annotated[Path, typer.Option(help="The HTML file to write; replaced if it is there.")] = Path("explain.html"),
) -> None:
    """Write a page on which every number of a forward and a backward pass can be looked at.

    A model starts from random weights; a run's are trained.  A layer, such as Conv2d or "Conv2d stride", is shown by
    itself (tinycnn gradcheck lists them).  The page needs no network: open it in any browser.
    """
    with bad_input():
        study = _study(target, data, data_dir, index, image, target_class, layer or [], evaluation, checks)
    try:
        from ..explain import write

        path = write(study, out)
    except OSError as error:
        with bad_input():
            raise error
    shown = sum(one["shown"] for one in study.data["layers"])
    print(f"{path}: {study.data['title']}, {shown} layers, {path.stat().st_size / 1e6:.1f} MB: open it in a browser")


def _study(
    target: str,
    name: str | None,
    data_dir: Path | None,
    index: list[int] | None,
    image: Path | None,
    target_class: str | None,
    layers: list[str],
    evaluation: bool,
    checks: bool,
) -> Any:
    from .. import models
    from ..contract import CASES
    from ..explain import study_layer, study_network

    known = {case.lower(): case for case in CASES}
    if not Path(target).exists() and target not in models.names():
        if target.lower() not in known:
            near = nearest(target, [*models.names(), *CASES])
            raise ValueError(f"{target!r} is no file, no model and no layer{near} (tinycnn models, tinycnn gradcheck)")
        case, rng = CASES[known[target.lower()]], np.random.default_rng(0)
        return study_layer(case.build(rng), case.input(rng), known[target.lower()], checks=checks)
    model, how = _network(target, name, data_dir)
    examples = _examples(model, how, index, image, target_class, data_dir)
    return study_network(
        model, examples, how["classes"], _title(target), training=not evaluation, layers=layers, checks=checks
    )


def _title(target: str) -> str:
    return Path(target).name if Path(target).exists() else f"{target}, untrained"


def _network(target: str, name: str | None, data_dir: Path | None) -> tuple[Any, dict[str, Any]]:
    """Return the network, and how images are prepared for it."""
    from .. import data, models
    from ..train.checkpoint import WEIGHTS, build, preprocessing_of, read

    if Path(target).exists():
        saved = read(target, WEIGHTS)
        how = preprocessing_of(saved)
        return build(saved), {**how, "data": name or how["data"]}
    name = name or "digits"
    ready(name, data_dir)
    dataset = data.load(name, "test", data_dir)
    model = models.create(target, dataset.num_classes, dataset.shape[0])
    size = models.architecture(target).input_shape[1:]
    how = {"data": name, "classes": dataset.classes, "mean": dataset.mean, "std": dataset.std}
    return model, {**how, "image_size": dataset.shape[1:], "input_size": size}


def _examples(
    model: Any,
    how: dict[str, Any],
    index: list[int] | None,
    image: Path | None,
    target_class: str | None,
    data_dir: Path | None,
) -> list[Any]:
    from .. import data
    from ..explain.study import Example

    normalize = data.Normalize(tuple(how["mean"]), tuple(how["std"]), str(next(model.parameters()).dtype))
    size, classes = tuple(how["input_size"]), [str(name) for name in how["classes"]]
    target = None if target_class is None else _number(target_class, classes)
    if image is not None:
        pixels = data.fit_images(read_image(image, len(how["mean"])), tuple(how["image_size"]))
        x = normalize(data.fit_images(pixels, size))
        believed = int(model.eval().forward(x)[0].argmax())
        return [Example(x, believed if target is None else target, image.name)]
    ready(how["data"], data_dir)
    dataset = data.load(how["data"], "test", data_dir)
    if dataset.shape[0] != len(how["mean"]):
        raise ValueError(
            f"{how['data']}: its images have {dataset.shape[0]} channels, the network takes {len(how['mean'])}: choose "
            "another dataset with --data"
        )
    wanted = index or [i for i in DEFAULT_IMAGES if i < len(dataset)]
    for i in wanted:
        if not 0 <= i < len(dataset):
            raise ValueError(f"--index must lie between 0 and {len(dataset) - 1}, got {i}: {how['data']} has no more")
    chosen = data.prepare(dataset.subset(np.array(wanted)), size)
    xs = normalize(chosen.images)
    names = [f"{how['data']} {i}" for i in wanted]
    return [Example(xs[k : k + 1], int(chosen.labels[k]), names[k], target) for k in range(len(wanted))]


def _number(name: str, classes: list[str]) -> int:
    if name not in classes:
        raise ValueError(f"--class: unknown class {name!r}{nearest(name, classes)} (classes: {', '.join(classes)})")
    return classes.index(name)
