"""The parts of a report, from top to bottom."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..evaluation import Predictions
from . import charts, pictures
from .charts import Line, percent
from .evidence import Evidence, first_filters
from .html import Html, scrolling, table, tag
from .story import Story

SMALL = 30
"""Up to so many classes the confusion matrix is a table; of more it is a picture."""
FILTERS = 128
"""Filters that are shown."""
CONFUSIONS = 20
"""Pairs of classes that are named where there are many."""


def section(title: str, *content: Any) -> Html:
    """Return a part with its heading, which can be linked to."""
    name = "".join(letter if letter.isalnum() else "-" for letter in title.lower())
    return tag("section", tag("h2", title, id=name), *content, aria_labelledby=name)


# ---- the result --------------------------------------------------------------------------------------------


def result(story: Story, evidence: Evidence) -> Html:
    """Return the top of the page: what was trained, and how good it is."""
    recipe = tag("p", "recipe ", tag("b", story.recipe), class_="recipe") if story.recipe else None
    head = tag("p", "tinycnn · ", story.folder.resolve().name, class_="kicker"), tag("h1", story.title)
    return tag("header", *head, recipe, _headline(story, evidence), _tiles(_facts(story, evidence)))


def _headline(story: Story, evidence: Evidence) -> Html:
    accuracy, found = story.result.get("test_accuracy"), evidence.predictions
    if not isinstance(accuracy, float):
        of = story.settings.get("epochs")
        return tag("p", f"not finished: {len(story.history)} of {of} epochs are done", class_="headline unfinished")
    big = tag("b", f"{100 * accuracy:.2f} %", id="test-accuracy")
    if found is None:
        return tag("p", big, tag("span", "of the test images are told right"), class_="headline")
    low, high = found.interval()
    small = f"{100 * low:.2f} to {100 * high:.2f} % is the 95 % interval."
    words = f"of {len(found):,} test images are told right. "
    if abs(found.accuracy - accuracy) * len(found) > 0.5:
        small = f"Looking at each image once, it is {100 * found.accuracy:.2f} %, of which the rest of this page tells."
    return tag("p", big, tag("span", words, tag("small", small)), class_="headline")


def _facts(story: Story, evidence: Evidence) -> Iterable[tuple[str, str | None]]:
    found, result = evidence.predictions, story.result
    yield "published accuracy", story.published_accuracy
    if found is not None:
        yield "mistakes", f"{len(found) - int(found.correct.sum()):,}"
        yield "top-5 accuracy", percent(found.top(5)) if len(found.classes) > 5 else None
        yield "calibration error", percent(found.calibration().error)
    yield "test loss", _number(result.get("test_loss"))
    yield "validation accuracy", _percent(result.get("val_accuracy") if result else _last(story, "val_accuracy"))
    yield "weights of epoch", f"{story.best or evidence.epoch or '–'} of {len(story.history)}"
    seconds = sum(story.points("seconds").values())
    yield "time of training", duration(seconds) if seconds else None
    if evidence.summary is not None:
        yield "parameters", f"{evidence.summary.parameters:,}"
        yield "multiply-adds", f"{evidence.summary.macs:,}"


def _tiles(facts: Iterable[tuple[str, str | None]]) -> Html:
    tiles = [tag("div", tag("dt", name), tag("dd", value)) for name, value in facts if value is not None]
    return tag("dl", *tiles, class_="tiles")


def _last(story: Story, name: str) -> float | None:
    return next(reversed(story.points(name).values()), None)


def _percent(value: Any) -> str | None:
    return f"{100 * value:.2f} %" if isinstance(value, float) else None


def _number(value: Any) -> str | None:
    return f"{value:.4f}" if isinstance(value, float) else None


def duration(seconds: float) -> str:
    """Return a time as people say it.

    >>> duration(12.34), duration(754), duration(8000)
    ('12.3 s', '12 min 34 s', '2 h 13 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, hours = round(seconds) // 60, round(seconds) // 3600
    return f"{minutes} min {round(seconds) % 60} s" if not hours else f"{hours} h {minutes % 60} min"


# ---- the training ------------------------------------------------------------------------------------------


def curves(story: Story) -> Html | None:
    """Return loss, accuracy and learning rate by epoch."""
    if not story.history:
        return None
    drawn = [
        _chart(story, "Loss", {"training": "train_loss", "validation": "val_loss"}, log=True),
        _chart(story, "Accuracy", {"training": "train_accuracy", "validation": "val_accuracy"}, words=percent),
        _chart(story, "Learning rate", {"learning rate": "lr"}),
    ]
    hint = "Point at a chart for the numbers of an epoch; all are in the table."
    if story.best:
        hint += f" The dotted line is epoch {story.best}, whose weights count."
    return section("Training", tag("div", *drawn, class_="charts"), tag("p", hint, class_="note"), _epochs(story))


def _chart(story: Story, title: str, names: dict[str, str], **options: Any) -> Html | None:
    lines = [Line(name, name.split()[0], points) for name, key in names.items() if (points := story.points(key))]
    return charts.of_epochs(title, lines, mark=story.best, **options) if lines else None


def _epochs(story: Story) -> Html:
    names = list(dict.fromkeys(name for row in story.history for name in row))
    rows = [[_cell(row.get(name)) for name in names] for row in story.history]
    content = table([name.replace("_", " ") for name in names], rows, "Every epoch", class_="numbers")
    return _details(f"All {len(rows):,} epochs in numbers", content)


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)


def _details(title: str, *content: Any) -> Html:
    return tag("details", tag("summary", title), *content)


# ---- the mistakes ------------------------------------------------------------------------------------------


def confusion(found: Predictions) -> Html:
    """Return which classes are taken for which."""
    names, counts = found.classes, found.confusion()
    note = "Rows are the true classes, columns what the network says."
    if len(names) > SMALL:
        words = "Confusion matrix; the table has the largest numbers beside the diagonal"
        parts = [tag("div", _picture(pictures.heat(counts), words), class_="matrix"), _frequent(names, counts)]
        return section(
            "Confusion", tag("p", note, class_="note"), tag("div", *parts, class_="columns"), _classes(found)
        )
    parts = [_matrix(names, counts), _classes(found)]
    return section("Confusion", tag("p", note, class_="note"), tag("div", *parts, class_="side-by-side"))


def _matrix(names: tuple[str, ...], counts: np.ndarray) -> Html:
    share = np.sqrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    rows = []
    for j, name in enumerate(names):
        cells = [
            _heat_cell(counts[j, k], share[j, k], j == k, f"{name}, said to be {said}") for k, said in enumerate(names)
        ]
        rows.append(tag("tr", tag("th", name, scope="row", title=name), *cells))
    columns = [tag("th", tag("span", name, title=name), scope="col") for name in names]
    head = tag("thead", tag("tr", tag("td"), *columns))
    upright = "confusion upright" if max(map(len, names)) > 3 else "confusion"
    caption = tag("caption", "Confusion matrix")
    return scrolling(tag("table", caption, head, tag("tbody", *rows), class_=upright), "Confusion matrix")


def _heat_cell(count: int, share: float, right: bool, title: str) -> Html:
    kind = "right" if right else "wrong" if count else "zero"
    return tag("td", f"{count:,}", class_=kind, style=f"--heat:{share:.3f}" if count else None, title=title)


def _frequent(names: tuple[str, ...], counts: np.ndarray) -> Html:
    wrong = counts - np.diag(counts.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
    rows = [[names[i // len(names)], names[i % len(names)], f"{wrong.flat[i]:,}"] for i in order if wrong.flat[i]]
    return table(["true class", "said to be", "images"], rows, "Most frequent confusions")


def _classes(found: Predictions) -> Html:
    rows = [
        [one["class"], f"{one['images']:,}", *(_share(one[key]) for key in ("recall", "precision", "f1"))]
        for one in found.per_class()
    ]
    head = "class", "images", "recall", "precision", "F1"
    content = table(head, rows, "Class by class", class_="numbers")
    return _details("Class by class", content) if len(rows) > SMALL else content


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def most_wrong(found: Predictions, evidence: Evidence) -> Html | None:
    """Return the images that the network is furthest from telling right."""
    if not evidence.worst:
        return section("Most wrong", tag("p", "There is no mistake.")) if len(found) else None
    note = "The mistakes whose truth was thought least probable, worst first."
    tiles = [_mistake(found, index, image) for index, image in evidence.worst]
    return section("Most wrong", tag("p", note, class_="note"), tag("div", *tiles, class_="tiles-of-images"))


def _mistake(found: Predictions, index: int, image: np.ndarray) -> Html:
    true, said = int(found.labels[index]), int(found.predicted[index])
    p = found.probabilities[index]
    words = f"{found.classes[true]}, said to be {found.classes[said]}"
    caption = tag(
        "figcaption",
        tag("span", tag("b", found.classes[said], class_="said"), f" {_sure(p[said])}", class_="answer"),
        tag("span", "is ", tag("b", found.classes[true]), f" {_sure(p[true])}", class_="answer"),
    )
    return tag("figure", _picture(pictures.shown(image), words, title=f"test image {index:,}"), caption)


def _sure(p: float) -> str:
    digits = ".1f" if p >= 0.001 or p < 1e-6 else ".1g"
    return f"{100 * p:{digits}}\N{NO-BREAK SPACE}%"


def _picture(pixels: np.ndarray, words: str, **attributes: Any) -> Html:
    H, W = pixels.shape[:2]
    return tag("img", src=pictures.address(pixels), alt=words, width=W, height=H, **attributes)


def calibration(found: Predictions) -> Html:
    """Return whether the network is as sure as it should be."""
    c = found.calibration()
    columns = c.edges[:-1], c.edges[1:], c.confidence, c.accuracy, c.counts
    bins = [(a, b, sure, right, int(n)) for a, b, sure, right, n in zip(*columns, strict=True) if n]
    chart = charts.of_calibration("How often it is right when it is so sure", bins)
    note = (
        "Were the network right as often as it is sure, every bar would end on the dotted line. Where one ends below, "
        f"the network is too sure. The expected calibration error, {percent(c.error)}, is how far they are apart on "
        "average over the images; in a bar of few images much of that is luck."
    )
    return section("Calibration", tag("div", chart, tag("p", note, class_="note"), class_="charts"))


# ---- the network -------------------------------------------------------------------------------------------


def first_layer(evidence: Evidence) -> Html | None:
    """Return the filters of the first convolution."""
    weight = None if evidence.model is None else first_filters(evidence.model)
    if weight is None:
        return None
    tiles = pictures.filters(weight)
    OC, C, KH, KW = weight.shape
    images = [_picture(pixels, f"filter {i}") for i, pixels in enumerate(tiles[:FILTERS])]
    colours = (
        "Each is drawn as the image that excites it most, in colour."
        if C == 3
        else "Blue weights are negative, red ones positive, white ones zero."
    )
    cut = f" The first {FILTERS} of {len(tiles)} pictures are shown." if len(tiles) > FILTERS else ""
    note = f"The {OC} filters of {KH}×{KW} pixels and {C} channel{'s' * (C > 1)} in the first layer. {colours}{cut}"
    return section("First-layer filters", tag("p", note, class_="note"), tag("div", *images, class_="filters"))


def network(evidence: Evidence) -> Html | None:
    """Return the layers."""
    found = evidence.summary
    if found is None:
        return None
    rows = [
        [row.path, row.layer, "×".join(map(str, row.output_shape[1:])), f"{row.parameters:,}", f"{row.macs:,}"]
        for row in found.rows
    ]
    rows.append(["total", "", "", f"{found.parameters:,}", f"{found.macs:,}"])
    content = table(["layer", "", "output", "parameters", "multiply-adds"], rows, "Layers", class_="layers")
    return section("Network", _details(f"All {len(found.rows)} layers", content))


def configuration(story: Story) -> Html:
    """Return how to repeat the run, and every setting of it."""
    parts = []
    if story.command:
        parts += [tag("p", "The run was started with", class_="note"), scrolling(tag("pre", story.command), "Command")]
    rest = {name: value for name, value in story.config.items() if name not in ("settings", "command")}
    for title, values in (("Settings", story.settings), ("Versions and machine", rest)):
        rows = [[name.replace("_", " "), _value(value)] for name, value in flat(values)]
        parts.append(tag("div", tag("h3", title), table(["setting", "value"], rows, title, class_="settings")))
    return section("Configuration", *parts[:-2], tag("div", *parts[-2:], class_="columns"))


def flat(values: dict[str, Any], before: str = "") -> Iterable[tuple[str, Any]]:
    """Return what is in dictionaries within dictionaries, by names such as ``versions · numpy``."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{before}{name} · ")
        else:
            yield f"{before}{name}", value


def _value(value: Any) -> str:
    if value is None or value in ({}, []):
        return "–"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
