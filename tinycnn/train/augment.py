"""Random changes of images, and mixtures, in words: ``crop4+flip+cutout16``, ``elastic(alpha=34, sigma=4)``.

Words can be written on a command line and kept in a file.  A name stands for a class of `tinycnn.data`, what is in
parentheses for its arguments; a number at the end of a name is its first argument.  Several are joined by ``+``, and
done in that order, before images are normalised (after it, where normalising is for the whole set: `normalization`).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .. import data
from ..backend import Array
from ..data import Compose
from ..messages import nearest


@dataclass(frozen=True)
class Place:
    """Where a change is to be done.

    Attributes:
        size: (height, width) that it must leave.
        covariance: of the channels, for ``lighting``.
    """

    size: tuple[int, int]
    covariance: tuple[tuple[float, ...], ...] | None = None


def _crop(at: Place, padding: int = 4, padding_mode: str = "constant", fill: Any = 0) -> Any:
    return data.RandomCrop(at.size, padding, padding_mode, fill)


def _resized_crop(at: Place, scale: Any = (0.08, 1.0), ratio: Any = (3 / 4, 4 / 3)) -> Any:
    return data.RandomResizedCrop(at.size, scale, ratio)


def _lighting(at: Place, std: float = 0.1) -> Any:
    return data.PCALighting(at.covariance or ((1.0,),), std)


def _anywhere(make: Callable[..., Any]) -> Callable[..., Any]:
    return lambda at, *args, **kwargs: make(*args, **kwargs)


CHANGES: dict[str, Callable[..., Any]] = {
    "crop": _crop,
    "shift": _anywhere(data.RandomShift),
    "flip": _anywhere(data.RandomHorizontalFlip),
    "vflip": _anywhere(data.RandomVerticalFlip),
    "rotate90": _anywhere(data.RandomRotation90),
    "rotate": _anywhere(data.RandomRotation),
    "affine": _anywhere(data.RandomAffine),
    "elastic": _anywhere(data.ElasticTransform),
    "resized_crop": _resized_crop,
    "cutout": _anywhere(data.Cutout),
    "erase": _anywhere(data.RandomErasing),
    "jitter": _anywhere(data.ColorJitter),
    "lighting": _lighting,
}
COLOURS = ("jitter", "lighting", "erase")
"""Those that take pixels to lie between black and white."""
MIXTURES: dict[str, Callable[..., Any]] = {"mixup": data.Mixup, "cutmix": data.CutMix}


# ---- words -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Word:
    """One change: a name and its arguments."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def words(text: str | Iterable[str], kind: str = "augment", known: Iterable[str] = CHANGES) -> tuple[str, ...]:
    """Return the changes in ``text``, one by one, in the form in which they are written down.

    >>> words("crop4+flip + cutout(16)")
    ('crop(4)', 'flip', 'cutout(16)')

    Raises:
        ValueError: it makes no sense, or has an unknown name (with the nearest known).
    """
    texts: list[Any] = list(text) if isinstance(text, list | tuple) else [text]
    return tuple(_written(word) for one in texts if one != "" for word in _parse(one, kind, known))


def _written(word: Word) -> str:
    inside = [repr(v) for v in word.args] + [f"{name}={v!r}" for name, v in word.kwargs.items()]
    return f"{word.name}({', '.join(inside)})" if inside else word.name


def _parse(text: str, kind: str, known: Iterable[str]) -> list[Word]:
    try:
        return [_word(node, kind, list(known)) for node in _terms(ast.parse(text.strip(), mode="eval").body)]
    except (SyntaxError, TypeError, AttributeError, RecursionError, MemoryError):
        raise ValueError(f"{kind}: cannot read {text!r}: write for example crop4+flip, or elastic(alpha=34)") from None


def _terms(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _terms(node.left) + _terms(node.right)
    return [node]


def _word(node: ast.expr, kind: str, known: list[str]) -> Word:
    call = node if isinstance(node, ast.Call) else None
    called = call.func if call else node
    if not isinstance(called, ast.Name):
        raise TypeError
    name, args = called.id, tuple[Any, ...]()
    if name not in known and (match := re.fullmatch(r"([a-z_]+?)(\d+)", name)):
        name, args = match[1], (int(match[2]),)
    if name not in known:
        raise ValueError(f"unknown {kind} {name!r}{nearest(name, known)} (known: {', '.join(known)})")
    try:
        given = tuple(ast.literal_eval(v) for v in (call.args if call else ()))
        named = {k.arg: ast.literal_eval(k.value) for k in (call.keywords if call else ())}
    except ValueError:
        raise TypeError from None
    if None in named:
        raise TypeError
    return Word(name, args + given, {str(k): v for k, v in named.items()})


def _made(text: str, make: Callable[..., Any], word: Word, *first: Any) -> Any:
    try:
        return make(*first, *word.args, **word.kwargs)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{text}: {str(error).rpartition('() ')[2]}") from None


# ---- what they stand for -------------------------------------------------------------------------------------


def build(changes: Iterable[str], shift: int, at: Place) -> Any:
    """Return the transform that moves images by up to ``shift`` pixels and then does ``changes``; None for nothing.

    Shifts and mirrors are one `Augment`, which a GPU does while it assembles the batch.

    Raises:
        ValueError: arguments that a change does not take.
    """
    parts = list(changes)
    if parts in (["flip"], ["vflip"], ["flip", "vflip"]) and shift:
        return data.Augment(shift, mirror="flip" in parts, upside_down="vflip" in parts)
    made = [data.RandomShift(shift)] if shift else []
    for text in parts:
        (word,) = _parse(text, "augment", CHANGES)
        made.append(_made(text, CHANGES[word.name], word, at))
    return made[0] if len(made) == 1 else Compose(made) if made else None


def build_mix(mix: Iterable[str], num_classes: int) -> Any:
    """Return what mixes images and labels: one of several, drawn for every batch; None for nothing.

    Raises:
        ValueError: arguments that a mixture does not take.
    """
    made = []
    for text in mix:
        (word,) = _parse(text, "mix", MIXTURES)
        made.append(_made(text, MIXTURES[word.name], word, num_classes))
    return made[0] if len(made) == 1 else data.RandomChoice(made) if made else None


def moves(changes: Iterable[str]) -> bool:
    """Whether a change moves images already, so that they need no shift."""
    return any(text.startswith(("crop", "shift", "resized_crop", "affine", "elastic")) for text in changes)


def needs_covariance(changes: Iterable[str]) -> bool:
    """Whether a change wants the covariance of the training images' channels."""
    return any(text.startswith("lighting") for text in changes)


def covariance(images: Array) -> tuple[tuple[float, ...], ...]:
    """Return it."""
    return data.pixel_covariance(images)
