"""ONNX files: what is in them, and what cannot be written."""

import json
import sys
import tracemalloc

import numpy as np
import onnx
import pytest
from helpers import relative_error

import tinycnn
from tinycnn import models
from tinycnn.interop import export_onnx
from tinycnn.interop import onnx as exporting
from tinycnn.layers import BatchNorm2d, Conv2d, Dropout, Flatten, LayerError, Linear, ReLU, Sequential

# ---- the file ------------------------------------------------------------------------------------------------


def net():
    """Convolution, normalisation, dropout and a linear layer, for 2×6×5."""
    rng = np.random.default_rng(1)
    parts = Conv2d(2, 3, 3, rng=rng), BatchNorm2d(3), ReLU(), Dropout(0.5, rng=rng), Flatten(), Linear(36, 4, rng=rng)
    return Sequential(*parts)


SHAPE = (2, 6, 5)


def test_what_was_written_is_returned(tmp_path):
    path = tmp_path / "net.onnx"
    file = export_onnx(net(), str(path), SHAPE)
    assert (file.path, file.bytes, file.opset, file.nodes) == (path, path.stat().st_size, 18, 5)
    assert file.inputs == {"input": ("N", 2, 6, 5)}
    assert file.outputs == {"output": ("N", 4)}
    assert file.dtype == "float32"
    graph = onnx.load(path).graph
    assert [value.name for value in (*graph.input, *graph.output)] == ["input", "output"]


def test_metadata_say_who_wrote_it_and_what_it_is(tmp_path):
    model = models.create("resnet20", 7, 1, shortcut="B")
    export_onnx(model, tmp_path / "a.onnx")
    proto = onnx.load(tmp_path / "a.onnx")
    found = {entry.key: json.loads(entry.value) for entry in proto.metadata_props}
    assert (proto.producer_name, proto.producer_version) == ("tinycnn", tinycnn.__version__)
    assert found["tinycnn"] == tinycnn.__version__
    assert found["architecture"] == {
        "name": "resnet20",
        "num_classes": 7,
        "in_channels": 1,
        "shortcut": "B",
    }
    export_onnx(net(), tmp_path / "a.onnx", SHAPE, metadata={"mean": [0.5, 0.25]})
    props = onnx.load(tmp_path / "a.onnx").metadata_props
    assert {entry.key: json.loads(entry.value) for entry in props} == {
        "tinycnn": tinycnn.__version__,
        "mean": [0.5, 0.25],
    }


def test_old_runtimes_can_read_it(tmp_path):
    """Opset 18 came with version 8 of the format: no newer one is claimed."""
    for opset, version in ((18, 8), (21, 10)):
        export_onnx(net(), tmp_path / "a.onnx", SHAPE, opset=opset)
        proto = onnx.load(tmp_path / "a.onnx")
        assert (proto.ir_version, [(o.domain, o.version) for o in proto.opset_import]) == (version, [("", opset)])


def test_the_bytes_are_those_of_the_library(tmp_path):
    """Weights are encoded here: read and written again by the library, not a byte more or fewer."""
    weight = np.random.default_rng(0).standard_normal((300, 70, 1, 2))  # lengths of one byte and of several
    model = Sequential(Conv2d(70, 300, (1, 2), init=lambda shape, rng: weight), BatchNorm2d(300))
    path = tmp_path / "a.onnx"
    export_onnx(model, path, (70, 3, 3))
    proto = onnx.load(path)
    assert proto.ByteSize() == len(proto.SerializeToString()) == path.stat().st_size
    (found,) = (onnx.numpy_helper.to_array(i) for i in proto.graph.initializer if i.name == "0.weight")
    np.testing.assert_array_equal(found, weight.astype(np.float32))


def test_the_same_network_gives_the_same_bytes(tmp_path):
    for name in "ab":
        export_onnx(net(), tmp_path / name, SHAPE)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_weights_are_not_copied(tmp_path):
    model = Sequential(*(Linear(1000, 1000, rng=np.random.default_rng(0)) for _ in range(8)))  # 32 MB
    export_onnx(net(), tmp_path / "a.onnx", SHAPE)  # imports
    tracemalloc.start()
    export_onnx(model, tmp_path / "a.onnx", (1000,))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "a.onnx").stat().st_size > 32e6
    assert peak < 5e6


# ---- the model is left alone ---------------------------------------------------------------------------------


def test_a_network_in_training_is_written_as_it_evaluates_and_goes_on_training(exported):
    model, x = net(), np.random.default_rng(2).standard_normal((3, *SHAPE), np.float32)
    other = net()
    dy = np.ones_like(other(x))
    model(x)
    before, streams = model.state_dict(), model.random_state()
    _, run = exported(model, SHAPE)
    assert all(layer.training and layer.saving for layer in model.layers())
    assert model.random_state() == streams
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    np.testing.assert_array_equal(model.backward(dy), other.backward(dy))  # of the forward before
    assert relative_error(run(x), model.eval()(x)) < 1e-5


def test_what_evaluates_but_could_not_train_on_one_image(exported):
    """A single number for each channel has no variance, but there are running statistics."""
    model, x = Sequential(BatchNorm2d(3)), np.random.default_rng(2).standard_normal((2, 3, 1, 1), np.float32)
    np.testing.assert_allclose(exported(model, (3, 1, 1))[1](x), model.eval()(x), atol=1e-6)


def test_a_network_that_cannot_be_written_is_left_alone_too(tmp_path):
    model = net()
    with pytest.raises(LayerError):
        export_onnx(model, tmp_path / "a.onnx", (3, 6, 5))
    assert all(layer.training and layer.saving for layer in model.layers())
    assert not list(tmp_path.iterdir())


def test_a_network_on_a_gpu(exported, gpu):
    model, x = net(), np.random.default_rng(2).standard_normal((3, *SHAPE), np.float32)
    _, run = exported(model.to("cuda"), SHAPE)
    assert relative_error(run(x), model.to("cpu").eval()(x)) < 1e-5


# ---- what cannot be done -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((3, 6, 5), r"0 \(Conv2d\(2, 3, 3\)\): expected 2 channels"),
        ((2, 2, 5), r"0 \(Conv2d\(2, 3, 3\)\): the window covers 3×3"),
        ((2, 7, 5), r"5 \(Linear\(36, 4\)\): expected 36 features"),
        ((36,), r"0 \(Conv2d\(2, 3, 3\)\): expected an input of shape \(N, C, H, W\)"),
        ((1, 2, 6, 5), r"0 \(Conv2d\(2, 3, 3\)\): expected an input of shape \(N, C, H, W\)"),
        ((2, 0, 5), r"input_shape must be sizes of at least 1, \(C, H, W\) without the batch, got \(2, 0, 5\)"),
        ((2, 6.0, 5), "input_shape must be sizes of at least 1"),
        (("N", 6, 5), "input_shape must be sizes of at least 1"),
        ((), "input_shape must be sizes of at least 1"),
        (36, "input_shape must be sizes of at least 1"),
        (None, r"Sequential does not say what it is made for: give input_shape, \(C, H, W\) of one image"),
    ],
)
def test_inputs_that_do_not_fit(tmp_path, shape, words):
    with pytest.raises(ValueError, match=words):
        export_onnx(net(), tmp_path / "a.onnx", shape)


def test_opsets(tmp_path):
    for opset in (17, 1000, -1):
        with pytest.raises(
            ValueError, match=rf"opset must be from 18 to \d+, the newest that onnx .* knows, got {opset}"
        ):
            export_onnx(net(), tmp_path / "a.onnx", SHAPE, opset=opset)


def test_more_than_2_gib_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match=r"a\.onnx: would take 1,\d+ bytes, and an ONNX file has 2 GiB at most"):
        export_onnx(net(), tmp_path / "a.onnx", SHAPE)
    assert not list(tmp_path.iterdir())


def test_a_missing_library_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'tinycnn\[onnx\]'"):
        export_onnx(net(), tmp_path / "a.onnx", SHAPE)


def test_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere/a\.onnx"):
        export_onnx(net(), tmp_path / "nowhere" / "a.onnx", SHAPE)


def test_a_disk_that_fills_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.onnx"
    path.write_bytes(b"old")

    def fail(piece):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "_raw", fail)
    with pytest.raises(OSError, match="No space left"):
        export_onnx(net(), path, SHAPE)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
