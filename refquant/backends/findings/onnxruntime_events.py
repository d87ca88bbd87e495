"""What ONNX Runtime's calibration makes of batches, and its optimizations of layers. Imports onnx and onnxruntime when called."""

import tempfile
from pathlib import Path

import numpy as np

from refquant.backends.findings.batches import BATCHES

__all__ = ["entropy", "few_intermediate_outputs", "bias_of_another_scale", "weights_alone_quantized"]


def entropy():
    """Return the range that the default Entropy calibration finds."""
    return _range("Entropy", {})


def few_intermediate_outputs():
    """Return the range that MinMax calibration finds with CalibMaxIntermediateOutputs=2."""
    return _range("MinMax", {"max_intermediate_outputs": 2})


def _range(method, options):
    import onnx
    from onnx import TensorProto, helper
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, BATCHES[0].shape) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        calibrator = create_calibrator(str(path), ["Relu"], str(Path(folder) / "augmented.onnx"), getattr(CalibrationMethod, method), extra_options=options)
        calibrator.collect_data(_Reader(BATCHES))
        low, high = calibrator.compute_data().data["x"].range_value
    return [float(low), float(high)] if method == "Entropy" else [float(low[0]), float(high[0])]


def bias_of_another_scale():
    """Return what a Gemm of codes (2, 4) and (2, 3), of scales 0.5 and 0.25, with an int32 bias of 100 and its scale of 1 gives."""
    constants = {
        "sx": np.float32(0.5), "zx": np.uint8(0), "w": np.int8([[2], [3]]), "sw": np.float32(0.25), "zw": np.int8(0), "b": np.int32([100]),
        "sb": np.float32(1), "sy": np.float32(1),
    }  # fmt: skip
    nodes = (
        ("QuantizeLinear", ["x", "sx", "zx"], "q"), ("DequantizeLinear", ["q", "sx", "zx"], "dx"), ("DequantizeLinear", ["w", "sw", "zw"], "dw"),
        ("DequantizeLinear", ["b", "sb"], "db"), ("Gemm", ["dx", "dw", "db"], "g"), ("QuantizeLinear", ["g", "sy", "zx"], "c"), ("DequantizeLinear", ["c", "sy", "zx"], "y"),
    )  # fmt: skip
    return _run(nodes, constants, np.float32([[1, 2]]))


def weights_alone_quantized():
    """Return the product of (1, 0.003) and the codes (0, 1) of scale 1."""
    constants = {"w": np.int8([[0], [1]]), "s": np.float32(1), "z": np.int8(0)}
    return _run((("DequantizeLinear", ["w", "s", "z"], "d"), ("MatMul", ["x", "d"], "y")), constants, np.float32([[1, 0.003]]))


def _run(nodes, constants, x):
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", x.shape), ("y", None))]
    made = [helper.make_node(op, inputs, [output]) for op, inputs, output in nodes]
    graph = helper.make_graph(made, "g", values[:1], values[1:], [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0].ravel()


class _Reader:
    def __init__(self, batches):
        self._batches = iter(batches)

    def get_next(self):
        """Return the next batch, or None."""
        batch = next(self._batches, None)
        return None if batch is None else {"x": batch}
