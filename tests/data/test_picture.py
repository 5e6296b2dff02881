"""Pictures in files: kinds of pixels (tests/cli/test_images.py has them all), and the middle of a resized one."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tinycnn.data import DataError
from tinycnn.data.picture import cover, open_picture


def encoded(pixels, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def photo(H, W, seed=0):
    """Smooth, as photographs are."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 5, 6)))
    x = torch.nn.functional.interpolate(coarse, (H, W), mode="bicubic")[0].clamp(0, 255)
    return np.ascontiguousarray(x.permute(1, 2, 0).numpy().round().astype(np.uint8))


def test_content_becomes_grey_or_rgb():
    x = photo(9, 7)
    for channels, mode in ((3, "RGB"), (1, "L")):
        assert open_picture(encoded(x), "a.png", channels).mode == mode
        assert open_picture(encoded(x[..., 0]), "a.png", channels).mode == mode
        assert open_picture(encoded(np.dstack([x, x[..., 0]])), "a.png", channels).mode == mode
        assert open_picture(encoded(x, "JPEG"), "a.jpg", channels).size == (7, 9)
    np.testing.assert_array_equal(np.asarray(open_picture(encoded(x), "a.png", 3)), x)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "not an image that Pillow reads"),
        (b"a picture, it says", "not an image that Pillow reads"),
        (encoded(photo(40, 40))[:1500], "is it whole, and an image?"),
        (encoded(photo(40, 40), "JPEG")[:700], "is it whole, and an image?"),
        (encoded(np.zeros((4, 4), np.float32), "TIFF"), "32 bits"),
    ],
)
def test_what_is_no_whole_picture_is_named(raw, words):
    with pytest.raises(DataError, match=f"^a.png: .*{words}"):
        open_picture(raw, "a.png", 3)


@pytest.mark.parametrize(
    ("shape", "size", "shorter"),
    [
        ((60, 90), (32, 32), None),
        ((90, 60), (32, 32), None),
        ((60, 90), (24, 40), None),
        ((61, 43), (24, 40), None),
        ((60, 90), (28, 28), 32),
        ((90, 60), (28, 24), 48),
        ((20, 30), (32, 32), None),
        ((32, 32), (32, 32), None),
    ],
)
def test_the_middle_of_the_resized_picture_is_pytorchs(shape, size, shorter):
    x, (H, W) = photo(*shape), size
    scale = max(H / shape[0], W / shape[1]) if shorter is None else shorter / min(shape)
    new = [int(side * scale + (0.5 if shorter is None else 1e-9)) for side in shape]
    picture = torch.from_numpy(x.transpose(2, 0, 1)[None].astype(np.float64))
    wanted = torch.nn.functional.interpolate(picture, new, mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    top, left = round((new[0] - H) / 2), round((new[1] - W) / 2)
    found = np.asarray(cover(Image.fromarray(x), size, "a.png", shorter))
    assert found.shape == (H, W, 3)
    assert np.abs(found - wanted[top : top + H, left : left + W].numpy()).max() <= 1.01


def test_a_line_is_refused():
    with pytest.raises(DataError, match=r"a\.png: 2×300 pixels, over 100 times as long as wide"):
        cover(Image.new("RGB", (2, 300)), (32, 32), "a.png")
