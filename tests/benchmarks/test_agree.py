import numpy as np
import pytest

from benchmarks.agree import Disagreement, check_close, check_same, errors

EXACT = {"w": np.array([3.0, 4.0]), "b": np.array([0.0, 1e-20])}


def moved(by, name="w"):
    return {**EXACT, name: EXACT[name] + by}


def test_errors_are_relative_to_the_norm():
    assert errors(moved([0.0, 5e-3]), EXACT) == pytest.approx({"w": 1e-3, "b": 0.0})


def test_what_is_zero_but_for_rounding_is_measured_against_the_rest():
    assert errors(moved([1e-9, 0.0], "b"), EXACT)["b"] == pytest.approx(1e-9 / (1e-4 * 5))


@pytest.mark.parametrize(
    "found",
    [{"w": EXACT["w"]}, {**EXACT, "w": np.zeros(3)}, moved([np.nan, 0.0]), moved([np.inf, 0.0])],
    ids=["names", "shapes", "nan", "inf"],
)
def test_what_cannot_be_compared_is_refused(found):
    with pytest.raises(Disagreement):
        errors(found, EXACT)


def test_float64_must_be_the_same():
    assert check_same(moved([0.0, 1e-9]), EXACT, "it") < 1e-8
    with pytest.raises(Disagreement, match="it: in float64, w is off by"):
        check_same(moved([0.0, 1e-6]), EXACT, "it")


def test_float32_may_be_as_far_off_as_pytorch_and_some():
    worse = [moved([0.0, 1e-5]), moved([0.0, 1e-3])]
    mine, yours = check_close(moved([0.0, 7e-3]), worse, EXACT, "it")
    assert (mine, yours) == pytest.approx((1.4e-3, 2e-4))
    with pytest.raises(Disagreement, match=r"w is off by 1\.8e-03, PyTorch by 2\.0e-04"):
        check_close(moved([0.0, 9e-3]), worse, EXACT, "it")


def test_an_error_below_the_floor_is_always_allowed():
    check_close(moved([0.0, 4e-5]), [EXACT], EXACT, "it")
    with pytest.raises(Disagreement):
        check_close(moved([0.0, 6e-5]), [EXACT], EXACT, "it")
    check_close(moved([0.0, 6e-5]), [EXACT], EXACT, "it", floor=1e-2)
