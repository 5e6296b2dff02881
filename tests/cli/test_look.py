"""Which images are looked at, in which views."""

from types import SimpleNamespace

import numpy as np
import pytest

from tinycnn import evaluation
from tinycnn.cli import look
from tinycnn.cli.look import Look, Measured


def trained(size=32, width=None):
    return SimpleNamespace(input_size=(size, width or size), path="runs/a", architecture={"name": "lenet5"})


def views(at=32, **given):
    return Look(**given).views_for(trained(at))


def test_views_by_name():
    assert views() == evaluation.SingleView(32)
    assert views(views="mirrored") == evaluation.Mirrored(32)
    assert views(views="ten-crop") == evaluation.MultiScale((37,), evaluation.TenCrop(32))
    assert views(224, views="ten-crop") == evaluation.MultiScale((256,), evaluation.TenCrop(224))
    assert views(224, views="multi-scale") == evaluation.MultiScale((196, 224, 252), evaluation.Mirrored())
    assert views(views="multi-scale", scales=(30, 40)) == evaluation.MultiScale((30, 40), evaluation.Mirrored())
    assert views(224, scales=(256,)) == evaluation.MultiScale((256,), evaluation.SingleView(224))
    assert views(224, views="ten-crop", scales=(256, 288)).sizes == (256, 288)


def test_unknown_names():
    with pytest.raises(ValueError, match="--views: unknown 'tencrop'; did you mean 'ten-crop'"):
        Look("tencrop")
    with pytest.raises(ValueError, match=r"--split: unknown 'val' .*known: test, train, validation"):
        Look(split="val")
    with pytest.raises(ValueError, match="takes images of 32×40"):
        Look("mirrored").views_for(trained(32, 40))


def test_scales():
    assert look.sizes(None) == ()
    assert look.sizes("256") == (256,)
    assert look.sizes("32, 40") == (32, 40)
    for text in ("", "32,", "0", "-3", "3.5", "a"):
        with pytest.raises(ValueError, match=r"--scales must be whole numbers"):
            look.sizes(text)


def test_one_dataset():
    a, b = (SimpleNamespace(path=f"runs/{name}", how={"data": name}) for name in ("mnist", "digits"))
    assert look.one_dataset([a, a], None) == "mnist"
    assert look.one_dataset([a, b], "cifar10") == "cifar10"
    with pytest.raises(ValueError, match="runs/mnist was trained on mnist, runs/digits on digits: name one"):
        look.one_dataset([a, b], None)


def test_words():
    found = evaluation.Predictions([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]], [0, 1, 1], ("ant", "a bumblebee"))
    measured = Measured(trained(), "digits", "test", (36, 40), found, 0.5)
    assert Look("ten-crop").words(measured) == "digits test, ten-crop of 36, 40 pixels"
    assert Look().words(Measured(trained(), "digits", "test", (), found, 0.5)) == "digits test"
    assert look.words_for(found, 0.5) == "accuracy 66.67 % (2 of 3), loss 0.5000"
    assert look.more_words_for(found) == "95 % interval 20.77 … 93.85 %; calibration error 33.33 %"
    assert look.class_table(found).splitlines() == [
        "class         images  precision   recall       F1",
        "ant                1      50.00   100.00    66.67",
        "a bumblebee        2     100.00    50.00    66.67",
    ]


def test_scores_that_would_be_0_over_0_are_dashes():
    found = evaluation.Predictions([[0.9, 0.1]], [0])
    assert look.class_table(found).splitlines()[2].split() == ["1", "0", "-", "-", "-"]


def test_what_top_5_is_worth_depends_on_the_classes():
    p = np.full((2, 7), 1 / 7)
    assert "top-5 50.00 %" in look.more_words_for(evaluation.Predictions(p, [0, 6]))
    assert "top-5" not in look.more_words_for(evaluation.Predictions(p[:, :5] * 1.4, [0, 4]))


def test_an_infinite_loss_is_null():
    found = evaluation.Predictions([[1.0, 0.0]], [1])
    assert look.summary(found, found.loss)["loss"] is None
