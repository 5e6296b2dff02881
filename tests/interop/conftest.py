"""Running ONNX files in ONNX Runtime, which shares no code with tinycnn."""

import functools

import onnx
import onnxruntime
import pytest

from tinycnn.interop import export_onnx


@pytest.fixture
def exported(tmp_path):
    """Export a layer, have ONNX check the file, and return its path and a function that runs it, on one thread."""

    def export(layer, input_shape=None, **options):
        path = tmp_path / "net.onnx"
        export_onnx(layer, path, input_shape, **options)
        onnx.checker.check_model(str(path), full_check=True)

        @functools.cache
        def session():
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            options.add_session_config_entry("session.disable_prepacking", "1")  # no further copy of the weights
            return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

        return path, lambda x: session().run(["output"], {"input": x})[0]

    return export
