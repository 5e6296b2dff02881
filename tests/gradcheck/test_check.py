"""The checker on tiny layers: right ones pass, and every planted bug is caught and named."""

import numpy as np
import pytest
from tiny_layers import RIGHT, BatchNorm, Conv, Dropout, Linear, Max, Param, ReLU, Tanh, TellingReLU, Tiny, normal, ties

from tinycnn.gradcheck import assert_gradients, gapped, gradcheck


@pytest.mark.parametrize(("layer", "x"), RIGHT.values(), ids=RIGHT)
def test_right_layers_pass(layer, x):
    report = gradcheck(layer, x)
    assert report.ok, str(report)
    assert report.worst < 1e-9
    assert [entry.name for entry in report.entries] == ["x", *layer.shapes()]


@pytest.mark.parametrize("seed", range(4))
def test_no_false_alarms(seed):
    for layer, x in RIGHT.values():
        moved = np.random.default_rng(seed).permutation(x, axis=0)
        report = gradcheck(layer, moved, seed=seed, directions=1)
        assert report.ok, str(report)


# bug: layer, input, tensor at fault, words of the report
BUGS = {
    "missing mean term": (BatchNorm("no mean"), normal(4, 3, 2, 2), "x", "axes (0, 2, 3)", "mean or sum"),
    "missing variance term": (BatchNorm("no variance"), normal(4, 3, 2, 2), "x", "each channel", "variance"),
    "missing gamma": (BatchNorm("no gamma"), normal(4, 3, 2, 2), "x", "axis 1 alone", "gamma"),
    "col2im assigns": (Conv("assigns"), normal(2, 4, 5), "x", "contributions are missing", "+= belongs"),
    "pads swapped": (Conv("pads swapped", pads=(2, 1, 1, 1)), normal(2, 6, 5), "x", "shifted by", "axis 1", "padding"),
    "stride, dilation": (Conv("stride and dilation swapped", stride=2), normal(2, 6, 7), "x", "wrong"),
    "kernel flipped": (Conv("flipped"), normal(2, 4, 5), "weight", "flipped in space", "180°"),
    "dropout not scaled": (Dropout("unscaled"), normal(5, 6), "x", "factor of 0.6", "dropout"),
    "transposed": (Linear("transposed"), normal(4, 3), "weight", "transposed"),
    "sign": (Linear("sign"), normal(4, 3), "weight", "sign"),
    "factor 2": (Linear("factor 2"), normal(4, 3), "weight", "factor of 2", "number 2"),
    "factor N": (Linear("times N"), normal(4, 3), "x", "factor of 4", "batch size N"),
    "factor 1/N": (Linear("mean"), normal(4, 3), "weight", "1/4", "batch size N", "mean taken twice"),
    "bias forgotten": (Linear("no bias"), normal(4, 3), "bias", "no gradient arrives"),
    "nan": (Linear("nan"), normal(4, 3), "x", "nan or inf"),
    "nothing returned": (Linear("none"), normal(4, 3), "x", "no gradient of the right shape"),
    "tiny": (Linear("tiny"), normal(4, 3), "x", "slightly off"),
    "derivative of tanh": (Tanh("1 - y"), normal(4, 3), "x", "check the formula"),
    "no gate": (ReLU("no gate"), gapped((6, 5), np.random.default_rng(0)), "x", "too many", "mask"),
    "every tie": (Max("all"), ties(6, 5), "x", "ties", "several equals"),
}


@pytest.mark.parametrize(("layer", "x", "where", "words"), [(a, b, c, d) for a, b, c, *d in BUGS.values()], ids=BUGS)
def test_planted_bugs_are_caught_and_named(layer, x, where, words):
    report = gradcheck(layer, x)
    assert not report.ok
    wrong = {entry.name: entry.cause for entry in report.entries if not entry.ok}
    assert where in wrong, str(report)
    for word in words:
        assert word in wrong[where], str(report)
    assert f"WRONG: {where}: {wrong[where]}" in str(report)


@pytest.mark.parametrize("bug", ["sign", "factor 2", "transposed"])
def test_a_bug_in_one_gradient_leaves_the_others_ok(bug):
    report = gradcheck(Linear(bug), normal(4, 3))
    assert {entry.name: entry.ok for entry in report.entries} == {"x": True, "weight": False, "bias": True}


def test_a_wrong_gradient_has_slope_one_and_a_right_one_two():
    wrong, right = (gradcheck(Tanh(bug), normal(4, 3)).entries[0] for bug in ("1 - y", ""))
    assert wrong.slope == pytest.approx(1, abs=0.1)
    assert right.slope == pytest.approx(2, abs=0.2)


def test_the_slope_decides_where_the_tolerance_is_blind():
    report = gradcheck(Tanh("1 - y"), normal(4, 3), rtol=10.0, jacobian_entries=0)
    assert not report.ok
    assert report.entries[0].error < 10


def test_the_derivative_decides_where_slope_and_jacobian_are_blind():
    class Almost(Tanh):
        def backward(self, dy):
            return super().backward(dy) * (1 + 1e-8)

    entry = gradcheck(Almost(), normal(4, 3)).entries[0]
    assert not entry.ok
    assert entry.slope > 1.5
    assert 1e-9 < entry.error < 2e-8


def test_the_jacobian_decides_where_ties_blind_the_directions():
    class Mixed(Max):
        """The maximum of the first two columns, and the others as they are; planted: they change places."""

        def forward(self, x):
            return np.column_stack([super().forward(x[:, :2]), x[:, 2:]])

        def backward(self, dy):
            others = dy[:, :0:-1] if self.options.get("swapped") else dy[:, 1:]
            return np.column_stack([super().backward(dy[:, 0]), others])

    x = np.array([[1.0, 1.0, 5.0, 5.0]])
    assert gradcheck(Mixed(), x).ok
    entry = gradcheck(Mixed(swapped=True), x).entries[0]
    assert entry.error < 1e-9
    assert entry.jacobian_error == pytest.approx(1)
    assert not entry.ok


def test_the_worst_entry_and_its_two_values():
    class OneWrong(Linear):
        def backward(self, dy):
            dx = super().backward(dy)
            dx[2, 1] += 0.5 * dy[0, 0]
            return dx

    rng = np.random.default_rng(0)  # the cotangent is the first thing drawn from the seed
    v = rng.choice([-1.0, 1.0], (4, 3)) * rng.uniform(0.5, 1.5, (4, 3))
    entry = gradcheck(OneWrong(), normal(4, 3), seed=0).entries[0]
    assert entry.index == (2, 1)
    assert entry.analytic - entry.numeric == pytest.approx(0.5 * v[0, 0], rel=1e-6)
    assert "1 contributions too many" in entry.cause


@pytest.mark.parametrize("bug", ["", "no mean"])
def test_large_tensors_are_judged_without_a_jacobian(bug):
    report = gradcheck(BatchNorm(bug), normal(8, 3, 20, 20))
    assert report.ok is not bool(bug)
    assert report.entries[0].jacobian_error is None
    if bug:
        assert report.entries[0].index is not None  # a sample of the entries is looked at


@pytest.mark.parametrize(("bug", "word"), [("transposed", "transposed"), ("factor 2", "number 2"), ("sign", "sign")])
def test_large_wrong_gradients_are_diagnosed_from_a_sample(bug, word):
    class Big(Linear):
        def shapes(self):
            return {"weight": (30, 30), "bias": (30,)}

    assert word in gradcheck(Big(bug), normal(20, 30)).entries[1].cause


def test_a_gradient_of_zero_is_noted():
    class Constant(Tiny):
        def forward(self, x):
            return np.ones_like(x)

        def backward(self, dy):
            return np.zeros_like(dy)

    report = gradcheck(Constant(), normal(4, 3))
    assert report.ok
    assert "tests little" in report.entries[0].note


# ---- kinks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [ReLU, TellingReLU])
def test_steps_that_cross_a_kink_are_given_up_and_counted(make):
    x = normal(20, 30)
    x[3, 4] = 1e-4
    report = gradcheck(make(), x)
    assert report.ok, str(report)
    assert report.entries[0].kinks > 0


def test_kinks_very_near_are_avoided_and_the_report_says_what_that_costs():
    x = normal(5, 6)
    x[3, 4] = 1e-7
    report = gradcheck(TellingReLU(), x)
    assert report.ok, str(report)
    assert "force steps of" in report.entries[0].note
    assert not gradcheck(TellingReLU("no gate"), x).ok


@pytest.mark.parametrize("make", [ReLU, TellingReLU])
def test_a_point_without_derivative_is_no_pass(make):
    report = gradcheck(make(), np.zeros((2, 3)))
    assert not report.ok
    assert "not differentiable" in report.entries[0].cause
    assert "gapped" in report.entries[0].cause


def test_zeros_are_held_still_and_the_report_says_so():
    x = normal(5, 6)
    x[:, 2] = 0
    report = gradcheck(ReLU(), x)
    assert report.ok, str(report)
    assert "hold 5 zeros still" in str(report)
    assert not gradcheck(ReLU("no gate"), x).ok


def test_ties_are_kept_and_any_sharing_among_them_is_accepted():
    class Shares(Max):
        def backward(self, dy):
            winners = self.x == self.x.max(1, keepdims=True)
            return winners / winners.sum(1, keepdims=True) * dy[:, None]

    for layer in (Max(), Shares()):
        report = gradcheck(layer, ties(6, 5))
        assert report.ok, str(report)
        assert "ties" in report.entries[0].note


# ---- options and bad input ---------------------------------------------------------------------------------


def test_one_seed_one_report():
    reports = [str(gradcheck(BatchNorm(), normal(4, 3, 2, 2), seed=seed)) for seed in (4, 4, 5)]
    assert reports[0] == reports[1] != reports[2]


class Exp(Tiny):
    def shapes(self):
        return {"scale": (3,)}

    def forward(self, x):
        self.x, self.y = x, np.exp(x * self.scale.data)
        return self.y

    def backward(self, dy):
        self.scale.grad += (dy * self.y * self.x).sum(0)
        return dy * self.y * self.scale.data


class Abs(Tiny):
    def forward(self, x):
        self.x = x
        return abs(x)

    def backward(self, dy):
        return dy * np.sign(self.x)


class Refuses(Abs):
    def forward(self, x):
        if x.dtype != np.float64:
            raise TypeError("only float64")
        return super().forward(x)


def test_complex_step_is_exact():
    report = gradcheck(Exp(), normal(4, 3), complex_step=True)
    assert report.ok, str(report)
    assert report.worst < 5e-15 < gradcheck(Exp(), normal(4, 3)).worst
    assert "no complex step" not in str(report)


@pytest.mark.parametrize(("layer", "why"), [(Abs(), "real numbers"), (Refuses(), "only float64")])
def test_complex_step_is_refused_where_it_means_nothing(layer, why):
    report = gradcheck(layer, gapped((3, 4), np.random.default_rng(0)), complex_step=True)
    assert report.ok, str(report)
    assert "no complex step" in report.entries[0].note
    assert why in report.entries[0].note


def test_assert_gradients():
    assert assert_gradients(Linear(), normal(4, 3), directions=1).directions == 1
    with pytest.raises(AssertionError, match="WRONG: weight: sign"):
        assert_gradients(Linear("sign"), normal(4, 3))


@pytest.mark.parametrize(
    ("x", "options", "error", "words"),
    [
        (normal(4, 3).astype(np.float32), {}, ValueError, "x is float32.*float64"),
        (np.ones((4, 3), int), {}, ValueError, "x is int64"),
        ([[1.0]], {}, TypeError, "array, got list"),
        (np.full((4, 3), np.nan), {}, ValueError, "nan or inf"),
        (normal(4, 3), {"directions": 0}, ValueError, "must be positive"),
        (normal(4, 3), {"rtol": 0}, ValueError, "must be positive"),
    ],
)
def test_bad_input(x, options, error, words):
    with pytest.raises(error, match=words):
        gradcheck(Linear(), x, **options)


def test_parameters_must_be_float64():
    layer = Linear()
    layer.bias = Param(layer.bias.data.astype(np.float32))
    with pytest.raises(ValueError, match=r"parameter bias is float32.*astype"):
        gradcheck(layer, normal(4, 3))


def test_a_forward_of_another_dtype_is_named():
    class Narrow(Tanh):
        def forward(self, x):
            return super().forward(x).astype(np.float32)

    report = gradcheck(Narrow(), normal(4, 3))
    assert "y is float32" in str(report)
    assert not report.ok


def test_forward_must_return_an_array():
    class Pair(Tanh):
        def forward(self, x):
            return x, x

    with pytest.raises(TypeError, match="forward returned tuple"):
        gradcheck(Pair(), normal(4, 3))


def test_a_scalar_output_will_do():
    class Total(Tiny):
        def forward(self, x):
            self.x = x
            return (x**2).sum()

        def backward(self, dy):
            return 2 * self.x * dy

    assert_gradients(Total(), normal(4, 3))


def test_an_empty_batch():
    assert gradcheck(Linear(), np.zeros((0, 3))).ok
