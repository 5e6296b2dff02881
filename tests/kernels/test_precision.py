"""The precision of products on a GPU is a setting of the process."""

import pytest

from tinycnn.kernels.precision import get_precision, precision, set_precision


def test_products_are_exact_unless_told_otherwise():
    assert get_precision() == "float32"


def test_a_block_has_its_own_and_leaves_what_was():
    with precision("tf32"):
        assert get_precision() == "tf32"
        with precision("float32"):
            assert get_precision() == "float32"
        assert get_precision() == "tf32"
    assert get_precision() == "float32"


def test_a_block_that_fails_leaves_what_was():
    with pytest.raises(ValueError, match="the block's own"), precision("tf32"):
        raise ValueError("the block's own")
    assert get_precision() == "float32"


def test_an_unknown_one_is_refused():
    with pytest.raises(ValueError, match="unknown precision 'int4': choose one of float32, tf32"):
        set_precision("int4")
    assert get_precision() == "float32"
