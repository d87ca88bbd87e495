"""What ONNX Runtime's calibration makes of batches. Imports onnx and onnxruntime when called."""

import tempfile
from pathlib import Path

from refquant.backends.findings.batches import BATCHES

__all__ = ["entropy", "few_intermediate_outputs"]


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


class _Reader:
    def __init__(self, batches):
        self._batches = iter(batches)

    def get_next(self):
        """Return the next batch, or None."""
        batch = next(self._batches, None)
        return None if batch is None else {"x": batch}
