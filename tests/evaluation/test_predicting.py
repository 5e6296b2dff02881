"""Probabilities of a network over a loader."""

import numpy as np
import pytest
import small_networks
from scipy.special import softmax

from tinycnn import data, evaluation
from tinycnn.backend import to_device
from tinycnn.layers import AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Dropout, Flatten, LayerError, Linear, Sequential
from tinycnn.losses import CrossEntropyLoss

torch = pytest.importorskip("torch")


def loader(N=10, C=3, size=8, batch_size=4, K=3, seed=0, device="cpu", dtype="float32"):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 256, (N, C, size, size), dtype=np.uint8), rng.integers(0, K, N)
    x, y = to_device(x, device), to_device(y, device)
    return data.Loader(x, y, batch_size, shuffle=False, normalize=data.Normalize((0.4,) * C, (0.2,) * C, dtype))


def network(dtype="float32"):
    """Small, of any size of images, with all that behaves otherwise in training."""
    rng = np.random.default_rng(5)
    layers = [Conv2d(3, 6, 3, rng=rng), BatchNorm2d(6), Dropout(0.5, rng=rng), AdaptiveAvgPool2d(1), Flatten()]
    model = Sequential(*layers, Linear(6, 3, rng=rng)).astype(dtype)
    for name, value in model.named_buffers():
        if name.endswith("running_mean"):
            value[...] = rng.standard_normal(value.shape)
    return model


def logits_in_torch(model, x):
    """The network above, with its numbers, in float64."""
    state = {name: torch.from_numpy(np.asarray(value, np.float64)) for name, value in model.state_dict().items()}
    f = torch.nn.functional
    z = f.conv2d(torch.from_numpy(np.ascontiguousarray(x, np.float64)), state["0.weight"], state["0.bias"])
    z = f.batch_norm(z, state["1.running_mean"], state["1.running_var"], state["1.weight"], state["1.bias"])
    return f.linear(z.mean((2, 3)), state["5.weight"], state["5.bias"]).numpy()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)])
@pytest.mark.parametrize("views", [None, evaluation.TenCrop(6), evaluation.MultiScale((6, 11), evaluation.Mirrored())])
def test_mean_of_the_softmax_image_by_image(dtype, tolerance, views):
    model, batches = network(dtype), loader(dtype=dtype)
    found = evaluation.predict(model, batches, views, ("a", "b", "c"))
    assert found.probabilities.dtype == np.float64
    assert found.classes == ("a", "b", "c")
    i = 0
    for x, y in batches.epoch(0):
        for image, label in zip(x, y, strict=True):
            shown = [image[None]] if views is None else list(views(image[None]))
            expected = np.mean([softmax(logits_in_torch(model, view)[0]) for view in shown], axis=0)
            np.testing.assert_allclose(found.probabilities[i], expected, rtol=tolerance)
            assert found.labels[i] == label
            i += 1
    assert i == len(found) == 10


def test_ten_crops_of_whole_images_are_mirrored_views():
    model, batches = network("float64"), loader(dtype="float64")
    ten = evaluation.predict(model, batches, evaluation.TenCrop(8)).probabilities
    two = evaluation.predict(model, batches, evaluation.Mirrored()).probabilities
    one = evaluation.predict(model, batches).probabilities
    np.testing.assert_allclose(ten, two, rtol=1e-14)
    assert np.abs(two - one).max() > 1e-3


def test_the_mean_is_of_probabilities_not_of_scores():
    class Steps:
        """Two views with scores (0, 0) and (0, 20)."""

        def __call__(self, x):
            yield x * 0
            yield x * 0 + 10

    model = Sequential(Flatten(), Linear(2, 2))
    model[1].weight.data[...], model[1].bias.data[...] = [[0, 0], [1, 1]], 0
    batches = data.Loader(np.ones((1, 2, 1, 1), np.float32), np.array([1]), 1)
    found = evaluation.predict(model, batches, Steps())
    np.testing.assert_allclose(found.probabilities[0, 1], (0.5 + 1) / 2, rtol=1e-7)


def test_scores_however_large():
    model = Sequential(Flatten())
    x = np.array([[1e5, 0, -1e5], [1e-3, 2e-3, 3e-3]], np.float32)[:, :, None, None]
    found = evaluation.predict(model, data.Loader(x, np.array([0, 1]), 2, shuffle=False))
    np.testing.assert_allclose(found.probabilities, softmax(x[:, :, 0, 0].astype(np.float64), axis=1), rtol=1e-12)


def test_the_network_is_left_as_it_was():
    model, batches = network(), loader()
    model.train()
    model[2].eval(backward=True)  # one layer apart
    x, _ = next(batches.epoch(0))
    y = model.forward(x)
    before = {name: value.copy() for name, value in model.state_dict().items()}
    streams = model.random_state()
    evaluation.predict(model, batches, evaluation.Mirrored())
    assert [layer.training for layer in model.layers()] == [True] * 3 + [False] + [True] * 3
    for name, value in model.state_dict().items():
        assert np.array_equal(value, before[name])
    assert {k: list(v) for k, v in model.random_state().items()} == {k: list(v) for k, v in streams.items()}
    model.backward(np.ones_like(y))  # due from the forward before


def test_no_batch_sees_another():
    model = network("float64")
    whole, single = (evaluation.predict(model, loader(batch_size=n, dtype="float64")).probabilities for n in (10, 1))
    np.testing.assert_allclose(whole, single, rtol=1e-12)


def test_on_a_gpu(gpu):
    model, batches = network(), loader()
    views = evaluation.MultiScale((8, 11), evaluation.TenCrop(6))
    expected = evaluation.predict(model, batches, views)
    found = evaluation.predict(model.to("cuda"), loader(device="cuda"), views)
    assert isinstance(found.probabilities, np.ndarray)
    assert type(found.probabilities) is type(found.labels) is np.ndarray
    np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=1e-4)
    assert np.array_equal(found.labels, expected.labels)


@pytest.mark.parametrize("name", ["resnet20", "nin_cifar"])
def test_networks_with_global_average_pooling_take_any_size(name):
    model = small_networks.made(name)
    views = evaluation.MultiScale((28, 36), evaluation.SingleView())
    assert evaluation.predict(model, loader(N=2, size=32, K=10), views).probabilities.shape == (2, 10)


def test_networks_with_a_linear_layer_after_pixels_do_not():
    model = small_networks.made("vgg16_bn_cifar")
    with pytest.raises(ValueError, match=r"MultiScale\(sizes=\(64,\).*of 64×64, .*classifier.*a size it takes"):
        evaluation.predict(model, loader(N=2, size=32, K=10), evaluation.MultiScale((64,)))


def test_scores_and_targets_of_other_shapes():
    with pytest.raises(ValueError, match=r"scores \(N, K\), one for each class, got \(4, 6, 6, 6\)"):
        evaluation.predict(Sequential(Conv2d(3, 6, 3)), loader())
    soft = data.Loader(np.zeros((2, 3, 8, 8), np.uint8), np.full((2, 3), 1 / 3), 2)
    with pytest.raises(ValueError, match=r"labels float64 \(2, 3\)"):
        evaluation.predict(network(), soft)


def test_what_has_nothing_to_do_with_views_is_said_as_it_is():
    with pytest.raises(LayerError, match="input is float32, parameters are float64"):
        evaluation.predict(network("float64"), loader(), evaluation.Mirrored())


def test_scores_that_are_not_numbers():
    model = network()
    model[5].bias.data[1] = np.nan
    with pytest.raises(ValueError, match="the probabilities of image 0 must"):
        evaluation.predict(model, loader())


def test_a_loss_that_notes():
    rng = np.random.default_rng(0)
    noted = evaluation.Noted()
    loss_fn, plain = noted.beside(CrossEntropyLoss()), CrossEntropyLoss()
    batches = [(rng.standard_normal((n, 3)).astype(np.float32), rng.integers(0, 3, n)) for n in (4, 2)]
    for z, y in batches:
        for found, expected in zip(loss_fn(z, y), plain(z, y), strict=True):
            assert np.array_equal(found, expected)
    found = noted.predictions(("a", "b", "c"))
    z = np.concatenate([z for z, _ in batches]).astype(np.float64)
    np.testing.assert_allclose(found.probabilities, softmax(z, axis=1), rtol=1e-14)
    assert np.array_equal(found.labels, np.concatenate([y for _, y in batches]))
