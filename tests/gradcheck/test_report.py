"""The report reads well, is true or false, and survives JSON."""

import json
import math

import pytest
from tiny_layers import BatchNorm, Linear, normal

from tinycnn.gradcheck import Entry, Finding, GradReport, gradcheck


def report(**changes):
    entries = [
        Entry("x", (4, 3), error=1.5e-12, slope=2.004, index=(1, 2), analytic=0.25, numeric=0.25, jacobian_error=3e-11),
        Entry("weight", (3, 3), error=2e-13),
    ]
    return GradReport("Linear(3, 3)", (4, 3), (4, 3), 1e-9, 3, 0, **{"entries": entries, **changes})


def test_a_good_report():
    text = str(report(findings=[Finding("linear in dy", True), Finding("frozen untouched", True)]))
    assert text.splitlines() == [
        "gradcheck Linear(3, 3): ok",
        "  x (4, 3) -> y (4, 3), 3 directions per tensor, rtol 1e-09, seed 0",
        "      tensor  shape   rel. error  slope  Jacobian  kinks  worst entry  analytic  numeric",
        "  ok  x       (4, 3)  1.5e-12     2.00   3.0e-11   0      (1, 2)       0.25      0.25",
        "  ok  weight  (3, 3)  2.0e-13     -      -         0      -            -         -",
        "  kept: linear in dy, frozen untouched",
    ]


def test_a_bad_report():
    bad = report(findings=[Finding("linear in dy", False, "backward(2v) is not 2·backward(v)")])
    bad.entries[1].fail("sign")
    bad.entries[0].note = "frozen, not checked"
    lines = str(bad).splitlines()
    assert lines[0] == "gradcheck Linear(3, 3): FAILED"
    assert lines[4].split()[:5] == ["WRONG", "weight", "(3,", "3)", "inf"]
    assert lines[5:] == [
        "  note: x: frozen, not checked",
        "  BROKEN: linear in dy: backward(2v) is not 2·backward(v)",
        "  WRONG: weight: sign",
    ]


def test_truth():
    good = report()
    assert good.ok
    assert good
    assert good.worst == 1.5e-12
    assert not report(findings=[Finding("linear in dy", False)])
    good.entries[0].ok = False
    assert not good
    assert report(entries=[]).worst == 0


@pytest.mark.parametrize("layer", [Linear(), Linear("none"), Linear("nan"), Linear("sign")], ids=lambda p: p.bug)
def test_json(layer):
    whole = gradcheck(layer, normal(4, 3))
    values = json.loads(json.dumps(whole.to_dict(), allow_nan=False))
    assert values["ok"] is whole.ok
    assert values["layer"] == "Linear"
    assert values["x_shape"] == [4, 3]
    assert [entry["name"] for entry in values["entries"]] == ["x", "weight", "bias"]
    assert values["findings"][0] == {"rule": "forward repeatable", "ok": True, "detail": ""}
    assert values["worst"] == (whole.worst if math.isfinite(whole.worst) else None)


def test_rules_kept_carry_no_detail():
    assert not any(finding.detail for finding in gradcheck(BatchNorm(), normal(4, 3, 2, 2)).findings)


def test_the_repr_of_a_composite_is_cut_to_its_first_line():
    text = str(GradReport("Sequential(\n  (0): Identity()\n)", (1,), (1,), 1e-9, 3, 0))
    assert text.startswith("gradcheck Sequential(…): ok")
