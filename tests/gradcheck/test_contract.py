"""Each rule of the contract catches who breaks it, and nobody else."""

import numpy as np
import pytest
from tiny_layers import RIGHT, Linear, normal

from tinycnn.gradcheck import gradcheck

RULES = [
    "forward repeatable",
    "shapes and dtypes",
    "backward repeatable",
    "linear in dy",
    "zero for dy = 0",
    "gradients accumulate",
    "frozen untouched",
    "inputs unmutated",
]

# bug: the only rules broken, words of the finding
BUGS = {
    "assigns": (["gradients accumulate"], "weight is assigned (= where += belongs)"),
    "rebinds": (["gradients accumulate"], "weight is assigned"),
    "mutates dy": (["inputs unmutated"], "has changed dy in place"),
    "mutates x": (["inputs unmutated"], "has changed x in place"),
    "mutates weight": (["backward repeatable", "inputs unmutated"], "has changed weight in place"),
    "keeps": (["backward repeatable"], "x: other bits the second time"),
    "offset": (["linear in dy", "zero for dy = 0"], "for x"),
    "wrong shape": (["shapes and dtypes"], "x has (4, 2) float64, expected (4, 3) float64"),
    "float32": (["shapes and dtypes"], "x has (4, 3) float32"),
    "none": (["shapes and dtypes"], "x is NoneType"),
}


@pytest.mark.parametrize(("bug", "broken", "words"), [(bug, *row) for bug, row in BUGS.items()], ids=BUGS)
def test_broken_rules_are_named(bug, broken, words):
    findings = gradcheck(Linear(bug), normal(4, 3)).findings
    assert [finding.rule for finding in findings] == RULES
    assert [finding.rule for finding in findings if not finding.ok] == broken
    assert any(words in finding.detail for finding in findings)


@pytest.mark.parametrize(("layer", "x"), RIGHT.values(), ids=RIGHT)
def test_right_layers_keep_every_rule(layer, x):
    assert all(finding.ok for finding in gradcheck(layer, x).findings)


def test_hidden_randomness_is_named():
    hidden = iter(range(10**6))

    class Moody(Linear):
        def forward(self, x):
            return super().forward(x) * (1 + 0.1 * next(hidden))

    report = gradcheck(Moody(), normal(4, 3))
    assert "BROKEN: forward repeatable" in str(report)
    assert "random_state()" in str(report)


def test_a_gradient_of_zero_may_be_rounding():
    class Centred(Linear):
        """The mean over the batch is taken away, and with it what the bias has added."""

        def forward(self, x):
            y = super().forward(x)
            return y - y.mean(0)

        def backward(self, dy):
            return super().backward(dy - dy.mean(0))

    for seed in range(10):
        report = gradcheck(Centred(), normal(7, 3, seed=seed), seed=seed)
        assert 0 <= abs(report.entries[2].analytic) < 1e-14
        assert report.ok, str(report)


class Respects(Linear):
    """Computes no gradient for a frozen weight."""

    def backward(self, dy):
        before = self.weight.grad.copy()
        dx = super().backward(dy)
        self.weight.grad[...] = before
        return dx


def test_frozen_parameters_must_be_left_alone():
    for make in (Linear, Respects):
        layer = make()
        layer.weight.requires_grad = False
        report = gradcheck(layer, normal(4, 3))
        assert "frozen, not checked" in report.entries[1].note
        assert report.ok is (make is Respects)
        assert ("BROKEN: frozen untouched: weight" in str(report)) is (make is Linear)
    assert np.array_equal(layer.weight.grad, np.zeros((3, 3)))
