"""The parts of a report."""

import numpy as np
import pytest

from tinycnn.evaluation import Predictions
from tinycnn.report import sections
from tinycnn.report.evidence import Evidence
from tinycnn.report.story import Story

NOTHING = Evidence(None, None, None, None, [], [])


def story(tmp_path, settings=None, history=(), result=None, **config):
    return Story(tmp_path, {"settings": settings or {}, **config}, list(history), result or {})


def predictions(K, N=200):
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(K), N)
    return Predictions(p, rng.integers(0, K, N), tuple(f"class <{k}>" for k in range(K)))


def test_an_unfinished_run_says_so(tmp_path):
    html = sections.result(story(tmp_path, {"epochs": 7}, [{"epoch": 1, "val_accuracy": 0.5}]), NOTHING)
    assert "not finished: 1 of 7 epochs are done" in html
    assert "50.00 %" in html
    assert "test-accuracy" not in html


def test_without_the_images_the_result_is_told_all_the_same(tmp_path):
    html = sections.result(story(tmp_path, result={"test_accuracy": 0.9, "best_epoch": 3}), NOTHING)
    assert "90.00 %" in html
    assert "interval" not in html


def test_the_interval_and_the_recipe_are_told(tmp_path):
    found = Predictions(np.eye(2)[np.zeros(100, int)], np.repeat([0, 1], [90, 10]))
    recipe = {"title": "he-<b>, shortened: 1 of 9 epochs", "published": {"error": 8.75}}
    evidence = Evidence(None, 1, None, found, [], [])
    html = sections.result(story(tmp_path, result={"test_accuracy": 0.9}, **recipe), evidence)
    assert "82.56 to 94.48 %" in html  # Wilson's, of 90 in 100
    assert "he-&lt;b&gt;, shortened: 1 of 9 epochs" in html
    assert "91.25 %" in html
    assert "mistakes</dt><dd>10</dd>" in html


def test_a_result_measured_in_another_way_is_not_mixed_up(tmp_path):
    found = Predictions(np.eye(2)[np.zeros(100, int)], np.repeat([0, 1], [90, 10]))
    html = sections.result(story(tmp_path, result={"test_accuracy": 0.93}), Evidence(None, 1, None, found, [], []))
    assert "93.00 %" in html
    assert "Looking at each image once, it is 90.00 %" in html
    assert "interval" not in html


def test_no_epoch_no_curves(tmp_path):
    assert sections.curves(story(tmp_path)) is None
    html = sections.curves(story(tmp_path, history=[{"epoch": 1, "train_loss": 0.5, "<i>": None}]))
    assert html.count("<svg") == 1
    assert "&lt;i&gt;" in html


def test_many_classes_are_a_picture_and_the_worst_pairs():
    found = predictions(40)
    html = sections.confusion(found)
    wrong = found.confusion()
    np.fill_diagonal(wrong, 0)
    assert "data:image/png" in html
    assert f"<td>{wrong.max()}</td>" in html
    assert html.count("<tr>") == 1 + sections.CONFUSIONS + 1 + 40
    few = sections.confusion(predictions(3))
    assert "data:image/png" not in few
    assert "class &lt;0&gt;" in few
    assert "<0>" not in few


def test_a_class_without_images_has_no_scores():
    found = Predictions([[0.6, 0.3, 0.1]], [0])
    assert "–" in sections.confusion(found)


def test_no_mistake_is_a_word(tmp_path):
    found = Predictions([[0.6, 0.4]], [0])
    assert "There is no mistake" in sections.most_wrong(found, Evidence(None, 1, None, found, [], []))


def test_many_filters_are_cut_short(monkeypatch):
    monkeypatch.setattr(sections, "first_filters", lambda model: np.ones((100, 2, 3, 3)))
    html = sections.first_layer(Evidence(object(), 1, None, None, [], []))
    assert html.count("<img") == sections.FILTERS
    assert "The 100 filters of 3×3 pixels and 2 channels" in html
    assert f"The first {sections.FILTERS} of 200 pictures" in html
    assert sections.first_layer(NOTHING) is None


def test_settings_within_settings_are_told_by_path(tmp_path):
    assert list(sections.flat({"a": {"b": 1, "c": {"d": None}}, "e": {}})) == [
        ("a · b", 1),
        ("a · c · d", None),
        ("e", {}),
    ]
    settings = {"lr": 0.1, "augment": ["flip", "<crop>"], "mix": []}
    html = sections.configuration(story(tmp_path, settings, command=["tinycnn", "train", "--out", "<b>"]))
    assert "flip, &lt;crop&gt;" in html
    assert "<pre>tinycnn train --out &#x27;&lt;b&gt;&#x27;</pre>" in html


@pytest.mark.parametrize(
    ("p", "words"), [(0.5, "50.0"), (0.00123, "0.1"), (0.000123, "0.01"), (0, "0.0"), (1, "100.0")]
)
def test_probabilities_in_words(p, words):
    assert sections._sure(p) == f"{words}\N{NO-BREAK SPACE}%"


@pytest.mark.parametrize(("seconds", "words"), [(59.94, "59.9 s"), (3599.4, "59 min 59 s"), (3599.6, "1 h 0 min")])
def test_durations(seconds, words):
    assert sections.duration(seconds) == words
