"""What goes into a page, and what is left out where there is no room."""

import numpy as np
import pytest

from tinycnn import LayerError, contract, models
from tinycnn.explain import Example, study_layer, study_network, write
from tinycnn.explain.pack import decode
from tinycnn.layers import Linear

CLASSES = ("a", "b", "c", "d")


def array(study, number):
    group, first, count = study.store.places[number]
    return decode(study.store.groups[group], study.store.kept)[first : first + count]


def test_passes_are_the_true_class_first_and_then_all(model, examples):
    study = study_network(model, examples, CLASSES, "small", checks=False)
    assert [s["label"] for s in study.data["samples"]] == [2, 0]
    assert [list(s["passes"]) for s in study.data["samples"]] == [["2", "0", "1", "3"], ["0", "1", "2", "3"]]
    for s in study.data["samples"]:
        logits = array(study, s["logits"]).astype(np.float64)
        p = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(s["p"], p, rtol=1e-5)
        for label, one in s["passes"].items():
            assert one["loss"] == pytest.approx(-np.log(p[int(label)]), rel=1e-4)
            np.testing.assert_allclose(array(study, one["dlogits"]), p - np.eye(4)[int(label)], rtol=1e-4, atol=2e-6)


def test_norms_are_those_of_the_arrays(model, examples):
    study = study_network(model, examples[:1], CLASSES, "small", checks=False)
    (sample,) = study.data["samples"]
    for i, norms in enumerate(sample["passes"]["2"]["norms"]):
        dy = array(study, sample["passes"]["2"]["layers"][str(i)]["dy"]).astype(np.float64)
        assert norms["dy"] == pytest.approx(np.sqrt((dy**2).sum()), rel=1e-5)
        assert norms["variance"] == pytest.approx(((dy - dy.mean()) ** 2).mean(), rel=1e-4)


def test_the_model_stays_as_it_is(model, examples):
    before = model.state_dict()
    training = [layer.training for layer in model.layers()]
    study_network(model, examples, CLASSES, "small", training=False)
    assert training == [layer.training for layer in model.layers()]
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_where_room_is_short_bytes_go_first_then_layers(model, examples):
    whole = study_network(model, examples[:1], CLASSES, "small", checks=False)
    assert whole.store.kept == 4
    first = len(whole.store.groups[0])
    fewer = study_network(model, examples[:1], CLASSES, "small", checks=False, room=int(0.9 * first))
    assert fewer.store.kept == 3
    assert all(layer["shown"] for layer in fewer.data["layers"])
    assert any("left out" in note for note in fewer.notes)
    some = study_network(model, examples[:1], CLASSES, "small", checks=False, room=first // 2)
    shown = [layer["path"] for layer in some.data["layers"] if layer["shown"]]
    assert 0 < len(shown) < len(some.data["layers"])
    assert any("too large to embed whole" in note for note in some.notes)
    assert some.store.size <= first // 2 + 10_000
    with pytest.raises(LayerError, match="too large to draw: use a smaller image"):
        study_network(model, examples[:1], CLASSES, "small", checks=False, room=10)


def test_layers_can_be_chosen(model, examples):
    study = study_network(model, examples[:1], CLASSES, "small", layers=("conv", "block.*"), checks=False)
    shown = [layer["path"] for layer in study.data["layers"] if layer["shown"]]
    assert shown[0] == "conv"
    assert len(shown) > 3
    assert all(path.startswith(("conv", "block.")) for path in shown)
    with pytest.raises(LayerError, match=r"no layer is called 'cnv'; did you mean 'conv'\?"):
        study_network(model, examples[:1], CLASSES, "small", layers=("cnv",))


def test_an_image_of_the_wrong_size(model, examples):
    wrong = type(examples[0])(examples[0].x[:, :, :6], 0, "small")
    with pytest.raises(LayerError, match="fc"):
        study_network(model, [wrong], CLASSES, "small")


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_a_network_that_ran_away(tmp_path):
    model, x = models.create("lenet5"), np.ones((1, 1, 32, 32), np.float32)
    for p in model.parameters():
        p.data[...] *= 1e5  # large, and all sums still numbers
    write(study_network(model, [Example(x, 3, "ones")], "0123456789", "large", checks=False), tmp_path / "page.html")
    model.conv2.weight.data[0, 0] = np.inf
    with pytest.raises(LayerError, match=r"conv2: its output has numbers that are infinite .* an earlier checkpoint"):
        study_network(model, [Example(x, 3, "ones")], "0123456789", "large", checks=False)


@pytest.mark.parametrize("name", contract.CASES)
def test_every_layer_can_be_studied_alone(name):
    case, rng = contract.CASES[name], np.random.default_rng(0)
    study = study_layer(case.build(rng), case.input(rng), name)
    assert study.data["layers"]
    for layer in study.data["layers"]:
        assert layer["check"] is None or layer["check"]["ok"], layer


def test_one_layer_takes_one_item():
    study = study_layer(Linear(5, 3), np.ones((4, 5), np.float32), "Linear")
    assert study.data["layers"][0]["in"] == [5]
