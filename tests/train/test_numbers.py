"""How files write numbers, held to PyTorch's reading of the same bytes."""

import numpy as np
import pytest
import torch

from tinycnn.train.numbers import TYPES, decode

FLOAT8 = [name for name in TYPES if name.startswith("float8")]


@pytest.mark.parametrize("name", FLOAT8)
def test_all_numbers_of_8_bits(name):
    raw = np.arange(256, dtype=np.uint8)
    expected = torch.from_numpy(raw.copy()).view(getattr(torch, name)).float().numpy()
    np.testing.assert_array_equal(decode(raw, name), expected)
    signs = np.signbit(expected[~np.isnan(expected)]) == np.signbit(decode(raw, name)[~np.isnan(expected)])
    assert signs.all()


def test_all_bfloat16():
    raw = np.arange(1 << 16, dtype=np.uint16)
    expected = torch.from_numpy(raw.copy()).view(torch.bfloat16).float().numpy()
    found = decode(raw.view(np.uint8), "bfloat16")
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("name", [name for name in TYPES if name not in FLOAT8])
def test_every_other_type(name, big_endian):
    values = torch.tensor([0, 1, 1, 0, 1] if name == "bool" else [0, 1, 2, 3, 100]).to(getattr(torch, name))
    raw = values.view(torch.uint8).numpy() if name != "bool" else values.numpy().view(np.uint8)
    if big_endian:
        size = TYPES[name].itemsize
        if name.startswith("complex"):
            size //= 2  # each part by itself
        raw = raw.reshape(-1, size)[:, ::-1].reshape(-1).copy()
    found = decode(raw, name, big_endian)
    wide = {"bfloat16": torch.float32, "complex32": torch.complex64}.get(name)
    expected = (values if wide is None else values.to(wide)).numpy()
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_reading_is_a_view_where_that_can_be():
    raw = np.zeros(16, np.uint8)
    assert np.shares_memory(decode(raw, "float32"), raw)
    assert decode(np.array([0, 1, 2, 255], np.uint8), "bool").tolist() == [False, True, True, True]
