"""Changes of images in words."""

import numpy as np
import pytest

from tinycnn import data
from tinycnn.train import augment
from tinycnn.train.augment import Place, build, build_mix, words

AT = Place((32, 32))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("flip", ("flip",)),
        ("flip()", ("flip",)),
        ("crop4+flip", ("crop(4)", "flip")),
        (" crop( 4 ) +  flip + cutout16", ("crop(4)", "flip", "cutout(16)")),
        (["crop4", "flip+vflip"], ("crop(4)", "flip", "vflip")),
        ("rotate90", ("rotate90",)),
        ("rotate10", ("rotate(10)",)),
        ("affine(degrees=10, scale=(0.9, 1.1))", ("affine(degrees=10, scale=(0.9, 1.1))",)),
        ("crop(4, padding_mode='reflect')", ("crop(4, padding_mode='reflect')",)),
        ("rotate((-5, 5))", ("rotate((-5, 5))",)),
    ],
)
def test_words(text, expected):
    assert words(text) == expected
    assert words(expected) == expected, "what is written down is read again"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crp4", "unknown augment 'crp'; did you mean 'crop'"),
        ("flip(", r"cannot read 'flip\('"),
        ("flip flip", "cannot read"),
        ("flip - crop", "cannot read"),
        ("flip.p", "cannot read"),
        ("cutout(open('x'))", "cannot read"),
        ("cutout(**{'size': 3})", "cannot read"),
        ("__import__('os')", "unknown augment '__import__'"),
        ("3", "cannot read"),
    ],
)
def test_words_that_make_no_sense(text, message):
    with pytest.raises(ValueError, match=message):
        words(text)


@pytest.mark.parametrize(
    ("changes", "shift", "expected"),
    [
        ((), 0, None),
        ((), 2, data.RandomShift(2)),
        (("flip",), 4, data.Augment(4, mirror=True)),
        (("flip", "vflip"), 4, data.Augment(4, mirror=True, upside_down=True)),
        (("flip",), 0, data.RandomHorizontalFlip()),
        (("flip(0.25)",), 4, data.Compose([data.RandomShift(4), data.RandomHorizontalFlip(0.25)])),
        (("crop(4)", "flip"), 0, data.Compose([data.RandomCrop((32, 32), 4), data.RandomHorizontalFlip()])),
        (("crop(2, padding_mode='reflect')",), 0, data.RandomCrop((32, 32), 2, "reflect")),
        (("cutout(16)",), 1, data.Compose([data.RandomShift(1), data.Cutout(16)])),
        (("elastic(alpha=34, sigma=4)",), 0, data.ElasticTransform(34, 4)),
        (("resized_crop(scale=(0.5, 1))",), 0, data.RandomResizedCrop((32, 32), (0.5, 1))),
    ],
)
def test_what_they_stand_for(changes, shift, expected):
    assert build(changes, shift, AT) == expected


def test_every_name_can_be_built_and_used():
    arguments = {"shift": "(2)", "rotate": "(10)", "affine": "(10)", "cutout": "(4)", "jitter": "(0.2)"}
    at = Place((8, 8), ((0.1, 0, 0), (0, 0.1, 0), (0, 0, 0.1)))
    x = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)
    for name in augment.CHANGES:
        (word,) = words(name + arguments.get(name, ""))
        y = build([word], 0, at)(x, np.random.default_rng(1))
        assert y.shape == x.shape
        assert y.dtype == x.dtype


@pytest.mark.parametrize("text", ["crop(a=3)", "cutout", "crop(-1)", "flip(2.0)", "elastic(alpha='x')"])
def test_arguments_that_are_refused(text):
    with pytest.raises(ValueError, match=r"^" + text.split("(")[0]):
        build(words(text), 0, AT)


def test_mixtures():
    assert build_mix((), 10) is None
    assert build_mix(words("mixup0", "mix", augment.MIXTURES)[:0], 10) is None
    assert build_mix(("mixup(0.2)",), 10) == data.Mixup(10, 0.2)
    assert build_mix(("mixup", "cutmix"), 3) == data.RandomChoice([data.Mixup(3), data.CutMix(3)])
    with pytest.raises(ValueError, match=r"^mixup\(-1\): Mixup: alpha must be"):
        build_mix(("mixup(-1)",), 3)
    with pytest.raises(ValueError, match="unknown mix 'flip'"):
        words("flip", "mix", augment.MIXTURES)


def test_moves():
    assert augment.moves(["flip", "crop(4)"])
    assert not augment.moves(["flip", "cutout(16)"])
