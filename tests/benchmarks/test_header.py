import re

import numpy as np
import torch

import tinycnn
from benchmarks.header import describe, gemm_peak, version


def test_the_header_says_what_it_was():
    header = describe(threads=2)
    assert {"machine", "versions", "threads", "BLAS", "precision", "memory format", "timing", "date"} <= set(header)
    for words in (f"tinycnn {tinycnn.__version__}", f"numpy {np.__version__}", f"torch {torch.__version__}"):
        assert words in header["versions"]
    assert re.search(r"\d+ cores usable, \d+ GiB", header["machine"])
    assert "one BLAS thread in each of tinycnn's 2" in header["BLAS"]
    assert "float32" in header["precision"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d[+-]\d\d:\d\d", header["date"])


def test_an_absent_package_has_no_version():
    assert version("numpy") == np.__version__
    assert version("no-such-package-as-this") is None


def test_the_peak_is_a_speed():
    assert 1e8 < gemm_peak(1, size=128, seconds=0.01) < 1e13
