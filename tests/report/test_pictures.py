"""Pixels as PNG, read back by Pillow."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from tinycnn.report import pictures


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (7, 5, 3), (300, 2, 3)])
def test_pillow_reads_the_pixels(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    image = Image.open(io.BytesIO(pictures.png(pixels)))
    assert image.format == "PNG"
    assert image.mode == ("L" if len(shape) == 2 else "RGB")
    assert np.array_equal(np.asarray(image), pixels)
    kind, _, content = pictures.address(pixels).partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(content) == pictures.png(pixels)


def test_images_of_any_number_of_channels_are_shown():
    x = np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 2, 3)
    assert np.array_equal(pictures.shown(x[:1]), x[0])
    assert np.array_equal(pictures.shown(x[:2]), x[0])
    assert np.array_equal(pictures.shown(x[:3]), np.dstack(list(x[:3])))
    assert np.array_equal(pictures.shown(x), np.dstack(list(x[:3])))


@pytest.mark.parametrize(("size", "new"), [((96, 96), (96, 96)), ((200, 100), (96, 48)), ((1, 4000), (1, 96))])
def test_large_images_are_shrunk(size, new):
    assert pictures.shown(np.full((3, *size), 77, np.uint8)).shape == (*new, 3)
    assert (pictures.shown(np.full((1, *size), 77, np.uint8)) == 77).all()


def test_filters_of_colour_images_are_in_colour():
    weight = np.zeros((2, 3, 1, 2), np.float32)
    weight[0, 0, 0, 0], weight[1, 2, 0, 1] = 2, -4
    first, second = pictures.filters(weight)
    assert first.tolist() == [[[191, 128, 128], [128, 128, 128]]]
    assert second.tolist() == [[[128, 128, 128], [128, 128, 0]]]


def test_other_filters_are_blue_to_red():
    weight = np.array([[[[1.0, 0], [-1, 0.5]]], [[[0, 0], [0, 0]]]])
    first, second = pictures.filters(weight)
    assert first.tolist() == [[[178, 24, 43], [247, 247, 247]], [[33, 102, 172], [212, 136, 145]]]
    assert (second == 247).all()
    assert len(pictures.filters(np.ones((4, 2, 3, 3)))) == 8
    assert np.isfinite(pictures.filters(np.zeros((1, 3, 2, 2)))).all()


def test_heat_is_darker_where_there_is_more():
    heat = pictures.heat(np.array([[4, 0], [3, 1], [0, 0]][:2]))
    assert heat.tolist() == [[0, 255], [34, 128]]
    assert pictures.heat(np.zeros((2, 2), int)).tolist() == [[255, 255], [255, 255]]
