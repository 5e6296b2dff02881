"""Features in files: what is in them, when they are computed again, and learning from them."""

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from tinycnn import (
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    LayerError,
    Linear,
    ReLU,
    Sequential,
    models,
    optim,
)
from tinycnn.data import Loader, Normalize
from tinycnn.losses import CrossEntropyLoss
from tinycnn.models import Network
from tinycnn.train import CheckpointError, Features, Trainer, evaluate, load_features, save, save_features
from tinycnn.train import features as features_module

N, CLASSES = 22, 3


def images(seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (N, 2, 6, 5)).astype(np.uint8), rng.integers(0, CLASSES, N)


def loader(seed=0, batch=8, **options):
    return Loader(*images(seed), batch, shuffle=False, **options)


def network(seed=0):
    rng = np.random.default_rng(seed)
    layers = {
        "conv1": Conv2d(2, 4, 3, padding=1, rng=rng),
        "bn1": BatchNorm2d(4),
        "relu": ReLU(),
        "conv2": Conv2d(4, 5, 3, rng=rng),
        "pool": GlobalAvgPool2d(),
        "flatten": Flatten(),
        "drop": Dropout(0.5, rng=rng),
        "fc": Linear(5, CLASSES, rng=rng),
    }
    return Network(layers, features="conv2", classifier="fc")


def by_hand(model, stop):
    """The children one after another, in evaluation, on all images at once."""
    x = images()[0].astype(np.float32) / 255
    model.eval()
    for name in ("conv1", "bn1", "relu", "conv2", "pool", "flatten", "drop", "fc"):
        x = model[name](x)
        if name == stop:
            return x
    raise AssertionError


@pytest.fixture
def counted(monkeypatch):
    """Batches that went through the network."""
    computed = features_module._computed
    counts = []

    def counting(*arguments):
        counts.append(0)
        for piece in computed(*arguments):
            counts[-1] += 1
            yield piece

    monkeypatch.setattr(features_module, "_computed", counting)
    return counts


# ---- what is in the file ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "stop"), [(None, "drop"), ("relu", "relu"), ("conv1", "conv1"), ("fc", "fc"), ("conv2", "conv2")]
)
@pytest.mark.parametrize("batch", [1, 8, 100])
def test_features_are_what_the_layers_give_in_evaluation(tmp_path, layer, stop, batch):
    model, path = network(), tmp_path / "f.safetensors"
    found = save_features(model, loader(batch=batch), path, layer)
    np.testing.assert_allclose(found.x, by_hand(model, stop), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.labels, images()[1])
    assert found.x.dtype == np.float32
    assert isinstance(found, Features)
    assert len(found) == N


def test_any_safetensors_reader_can_read_it(tmp_path):
    path = tmp_path / "f.safetensors"
    found = save_features(network(), loader(normalize=Normalize((0.5, 0.5), (0.2, 0.3))), path, "relu")
    arrays = load_file(path)
    np.testing.assert_array_equal(arrays["features"].transpose(0, 3, 1, 2), found.x)
    assert arrays["features"].shape == (N, 6, 5, 4)
    with safe_open(path, "np") as file:
        text = {key: json.loads(value) for key, value in file.metadata().items()}
    assert (text["kind"], text["layer"], text["image_shape"]) == ("features", "relu", [2, 6, 5])
    assert text["preprocessing"] == {"mean": [0.5, 0.5], "std": [0.2, 0.3], "dtype": "float32"}
    assert text["without"] == ["conv2", "fc"]


def test_it_is_mapped_and_not_copied(tmp_path):
    found = save_features(network(), loader(), tmp_path / "f.safetensors", "relu")
    assert not found.x.flags.writeable
    assert not found.x.flags.owndata
    assert np.shares_memory(found.loader(4)._images, found.x)
    again = load_features(tmp_path / "f.safetensors")
    np.testing.assert_array_equal(again.x, found.x)


def test_an_array_of_images(tmp_path):
    x, labels = images()
    x = x.astype(np.float32) / 255
    found = save_features(network(), x, tmp_path / "a.safetensors", labels=labels)
    other = save_features(network(), loader(batch=64), tmp_path / "b.safetensors")
    np.testing.assert_allclose(found.x, other.x, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="images in an array need labels"):
        save_features(network(), x, tmp_path / "c.safetensors")


def test_double_precision_and_soft_labels(tmp_path):
    x, labels = images()
    soft = np.eye(CLASSES)[labels]
    loader = Loader(x, soft, 8, shuffle=False, normalize=Normalize((0.0, 0.0), (1.0, 1.0), "float64"))
    found = save_features(network().astype(np.float64), loader, tmp_path / "f.safetensors")
    assert found.x.dtype == np.float64
    np.testing.assert_array_equal(found.labels, soft)


def test_the_network_stays_as_it_was(tmp_path):
    model, same = network().train(), network().train()
    x = images()[0].astype(np.float32)
    y, y_same = model(x), same(x)
    save_features(model, loader(), tmp_path / "f.safetensors")
    assert all(layer.training and layer.saving for layer in model.layers())
    model.backward(np.ones_like(y))
    same.backward(np.ones_like(y_same))
    for (name, p), q in zip(model.named_parameters(), same.parameters(), strict=True):
        np.testing.assert_array_equal(p.grad, q.grad, err_msg=name)
    np.testing.assert_array_equal(model(x), same(x))
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, same.state_dict()[name])


# ---- once, and again when something has changed ----------------------------------------------------------------


def test_features_are_computed_once(tmp_path, counted):
    path, seen = tmp_path / "f.safetensors", []
    first = save_features(network(), loader(), path, progress=lambda *at: seen.append(at))
    raw = path.read_bytes()
    again = save_features(network(), loader(), path, progress=lambda *at: seen.append(at))
    assert counted == [3]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert path.read_bytes() == raw
    np.testing.assert_array_equal(first.x, again.x)


def test_other_batches_need_no_other_features(tmp_path, counted):
    for batch in (8, 100, 5):
        save_features(network(), loader(batch=batch), tmp_path / "f.safetensors")
    assert counted == [3]


def test_another_classifier_needs_no_other_features(tmp_path, counted):
    path, model = tmp_path / "f.safetensors", network()
    save_features(model, loader(), path)
    model.fc.weight.data += 1
    save_features(model, loader(), path)
    model.reset_classifier(7)
    save_features(model, loader(), path)
    assert counted == [3]
    load_features(path, model)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.conv1.weight.data.__setitem__((0, 0, 0, 0), 9),
        lambda m: m.bn1.running_var.__setitem__(0, 2),
        lambda m: m.astype(np.float64).astype(np.float32).conv2.bias.data.__setitem__(4, 1),
    ],
)
def test_other_weights_are_noticed(tmp_path, counted, change):
    path, model = tmp_path / "f.safetensors", network()
    old = save_features(model, loader(), path).x.copy()
    load_features(path, model)
    change(model)
    with pytest.raises(CheckpointError, match=r"f\.safetensors: stale: computed by a network, with other"):
        load_features(path, model)
    assert (save_features(model, loader(), path).x != old).any()
    assert counted == [3, 3]
    load_features(path, model)


@pytest.mark.parametrize(
    "other",
    [
        {"images": loader(seed=1)},
        {"images": loader(normalize=Normalize((0.5, 0.5), (1.0, 1.0)))},
        {"layer": "conv2"},
        {"images": Loader(images()[0][:20], images()[1][:20], 8, shuffle=False)},
    ],
)
def test_other_images_and_layers_are_noticed(tmp_path, counted, other):
    path = tmp_path / "f.safetensors"
    save_features(network(), loader(), path)
    save_features(network(), **{"images": loader(), **other}, path=path)
    assert counted == [3, 3]


def test_other_labels_are_noticed(tmp_path):
    path = tmp_path / "f.safetensors"
    save_features(network(), loader(), path)
    x, labels = images()
    found = save_features(network(), Loader(x, (labels + 1) % CLASSES, 8, shuffle=False), path)
    np.testing.assert_array_equal(found.labels, (labels + 1) % CLASSES)


def test_another_stride_with_the_same_weights_is_noticed(tmp_path, counted):
    """Nothing but the architecture tells these apart."""
    x = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)
    for where in ("both", "end"):
        model = models.create("resnet20", pad_where=where)
        save_features(model, Loader(x, np.zeros(4, np.int64), 4), tmp_path / "f.safetensors")
    assert counted == [1, 1]
    with pytest.raises(CheckpointError, match=r"computed by resnet20 \(in_channels=3, pad_where=end\), with"):
        load_features(tmp_path / "f.safetensors", models.create("resnet20"))


def test_a_file_that_breaks_on_the_way_leaves_the_old_one(tmp_path):
    path, model = tmp_path / "f.safetensors", network()
    save_features(model, loader(), path)
    raw = path.read_bytes()

    def interrupt(done, total):
        raise KeyboardInterrupt

    model.conv1.weight.data += 1
    with pytest.raises(KeyboardInterrupt):
        save_features(model, loader(), path, progress=interrupt)
    assert path.read_bytes() == raw
    assert [file.name for file in tmp_path.iterdir()] == ["f.safetensors"]
    assert all(layer.training for layer in model.layers())


@pytest.mark.parametrize("damage", [lambda raw: raw[:-4], lambda raw: b"nothing", lambda raw: b""])
def test_damaged_files_are_refused_and_replaced(tmp_path, damage):
    path = tmp_path / "f.safetensors"
    whole = save_features(network(), loader(), path).x.copy()
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=r"f\.safetensors: "):
        load_features(path)
    np.testing.assert_array_equal(save_features(network(), loader(), path).x, whole)


def test_a_checkpoint_is_no_file_of_features(tmp_path):
    save(models.create("lenet5"), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="holds no features: make such a file with"):
        load_features(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("model", "layer", "error", "message"),
    [
        (network(), "con1", LayerError, "no layer is called 'con1'; did you mean 'conv1'"),
        (Sequential(Flatten(), Linear(60, 2)), None, ValueError, "does not say where its classifier is: name a layer"),
    ],
)
def test_layers_that_are_not_there(tmp_path, model, layer, error, message):
    with pytest.raises(error, match=message):
        save_features(model, loader(), tmp_path / "f.safetensors", layer)
    assert not list(tmp_path.iterdir())


# ---- learning from them ----------------------------------------------------------------------------------------


def trained(model, batches, epochs=5, lr=0.3):
    trainer = Trainer(model, optim.SGD(model.parameters(), lr=lr, momentum=0.9), CrossEntropyLoss())
    trainer.fit(batches, epochs)
    return trainer


def test_a_shallow_model_learns_what_the_frozen_network_would(tmp_path):
    """Batch for batch: the same steps, and a network put together again that gives the same scores."""
    model, x = network().eval(), images()[0].astype(np.float32) / 255
    model.drop.p = 0.0
    found = save_features(model, loader(), tmp_path / "f.safetensors")
    shallow = Sequential({"fc": Linear(5, CLASSES, rng=np.random.default_rng(5))})
    model.fc.load_state_dict({name.removeprefix("fc."): value for name, value in shallow.state_dict().items()})
    model.freeze()
    model.unfreeze("fc")
    one = trained(shallow, found.loader(8, seed=3))
    other = trained(model, Loader(*images(), 8, seed=3))
    for a, b in zip(one.history, other.history, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-5)
    np.testing.assert_allclose(shallow.fc.weight.data, model.fc.weight.data, rtol=1e-4, atol=1e-6)
    means = evaluate(shallow, found.loader(8, shuffle=False))
    assert means["loss"] == pytest.approx(evaluate(model, loader())["loss"], rel=1e-5)
    np.testing.assert_allclose(model.eval()(x), shallow.eval()(np.asarray(found.x)), rtol=1e-4, atol=1e-5)


def test_a_small_convolutional_head_learns_from_feature_maps(tmp_path):
    found = save_features(network(), loader(), tmp_path / "f.safetensors", "relu")
    rng = np.random.default_rng(0)
    head = Sequential(Conv2d(4, 16, 3, rng=rng), ReLU(), Flatten(), Linear(192, CLASSES, rng=rng))
    history = trained(head, found.loader(8, seed=1), 60, lr=0.05).history  # noise: it can only be learned by heart
    assert history[-1]["train_loss"] < 0.5 * history[0]["train_loss"]


def test_on_a_gpu(tmp_path, gpu):
    from tinycnn.backend import to_numpy

    model = network().to("cuda")
    found = save_features(model, loader(), tmp_path / "f.safetensors")
    assert isinstance(found.x, np.ndarray)
    x = gpu.asarray(images()[0].astype(np.float32) / 255)
    y = model.eval().forward_to("drop", x)
    np.testing.assert_allclose(found.x, to_numpy(y), rtol=1e-4, atol=1e-5)
    load_features(tmp_path / "f.safetensors", network())
