"""ONNX's reference implementation as a runner. Imports onnx when a runner is made."""

import numpy as np

from refquant.backends.machine import cpu_features, cpu_model
from refquant.errors import BackendMissing

__all__ = ["OnnxReferenceRunner"]


class OnnxReferenceRunner:
    """``onnx.reference.ReferenceEvaluator`` on small models of DequantizeLinear, an operator and QuantizeLinear.

    Raises
    ------
    BackendMissing
        onnx is not installed.
    """

    name = profile = "onnx_reference"

    def __init__(self):
        try:
            import onnx.reference

            from refquant.backends.openvino_models import QDQ_MODELS
        except ImportError as error:
            raise BackendMissing(f"engine onnx_reference: needs onnx, which cannot be imported ({error}); pip install onnx") from error
        self._onnx, self._models = onnx, QDQ_MODELS

    def describe(self):
        """Return the provenance of results."""
        features = list(cpu_features())
        return {"engine": self.name, "package": "onnx", "version": self._onnx.__version__, "cpu": cpu_model(), "features": features, "threads": 1}

    def supports(self, problem):
        """Return None, or why this engine cannot be asked."""
        if problem.op not in self._models:
            return f"no model is written for {problem.op}"
        return None if problem.get("out") is not None else "the output must have parameters"

    def run(self, problem):
        """Return the engine's codes."""
        small = self._models[problem.op](problem)
        with np.errstate(all="ignore"):
            return small.finish(self._onnx.reference.ReferenceEvaluator(small.model).run(None, small.feeds)[0])
