"""ONNX Runtime's CPU provider as a runner. Imports onnx and onnxruntime when a runner is made."""

import numpy as np

from refquant.backends.machine import cpu_features, cpu_model, profile_here
from refquant.errors import BackendMissing

__all__ = ["OnnxRuntimeRunner"]

_PRODUCTS = ("linear", "conv1d", "conv2d", "conv3d")


class OnnxRuntimeRunner:
    """ONNX Runtime on one-node models of integer operators.

    Raises
    ------
    BackendMissing
        onnx or onnxruntime is not installed.
    """

    name = "onnxruntime"

    def __init__(self):
        try:
            import onnxruntime

            from refquant.backends import onnx_models
        except ImportError as error:
            raise BackendMissing(f"engine onnxruntime: needs onnx and onnxruntime, which cannot be imported ({error}); pip install 'refquant[onnxruntime]'") from error
        self.profile = profile_here(self.name)
        self._runtime, self._models = onnxruntime, onnx_models.MODELS

    def describe(self):
        """Return the provenance of results."""
        return {
            "engine": self.name,
            "package": "onnxruntime",
            "version": self._runtime.__version__,
            "cpu": cpu_model(),
            "features": list(cpu_features()),
            "threads": 1,
        }

    def supports(self, problem):
        """Return None, or why this engine cannot be asked."""
        if problem.op not in self._models:
            return f"no model is written for {problem.op}"
        return _refuse(problem)

    def run(self, problem):
        """Return the engine's codes or numbers."""
        small = self._models[problem.op](problem)
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if small.literal:
            options.graph_optimization_level = self._runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = self._runtime.InferenceSession(small.model, options, providers=["CPUExecutionProvider"])
        return small.finish(session.run(None, small.feeds)[0])


def _refuse(problem):
    if problem.op in _PRODUCTS:
        return _refuse_product(problem)
    if problem.op in ("matmul", "gemm"):
        return _refuse_matrices(problem)
    if problem.op in ("quantize", "dequantize", "fake_quantize"):
        return _refuse_conversion(problem)
    if problem.op in ("sigmoid", "leaky_relu", "tanh", "hardsigmoid") and problem.get("out") is None:
        return "the output must have parameters"
    if problem.op == "quantize_dynamic" and (problem.get("dtype", "uint8") != "uint8" or problem.get("reduce_range")):
        return "DynamicQuantizeLinear gives uint8, the whole of it"
    if problem.op == "linear_dynamic" and (problem.get("activation") or problem.get("reduce_range")):
        return "DynamicQuantizeMatMul has neither a ReLU nor a narrower range of codes"
    if problem.op == "lstm_dynamic":
        return _refuse_lstm(problem)
    if problem.op == "conv_integer":
        return _refuse_conv_integer(problem)
    if problem.op == "matmul_integer" and problem.get("isa") is not None:
        return "the engine chooses its instructions itself"
    if problem.op in ("add", "mul", "cat") and _relu_is_not_the_range(problem):
        return "a ReLU fuses only where the output's zero point is its smallest code"
    if problem.op in ("add", "mul", "cat"):
        inputs = problem["tensors"] if problem.op == "cat" else (problem["a"], problem["b"])
        if {q.dtype for q in inputs} != {problem["out"].dtype}:
            return "inputs and output must have one dtype"
    if problem.op in ("avg_pool2d", "avg_pool3d") and problem.get("divisor_override") is not None:
        return "AveragePool has no divisor_override"
    if problem.op.startswith("adaptive_avg_pool") and set(np.atleast_1d(problem["output_size"]).tolist()) != {1}:
        return "there is no adaptive pooling but the global one"
    if problem.op == "interpolate" and problem["mode"] == "nearest-exact":
        return "Resize has no mode that takes the nearest centre as PyTorch does"
    return None


def _refuse_lstm(problem):
    for q in (problem["w"], problem["r"]):
        zeros = set(np.atleast_1d(q.qparams.zero_point).tolist())
        if len(zeros) > 1 or (q.dtype == "int8" and q.qparams.per_channel and zeros != {0}):
            return "weights per channel must have one zero point, which of int8 is 0"
    return None


def _refuse_conv_integer(problem):
    if problem["x"].dtype == np.int8 and problem["w"].dtype == np.uint8:
        return "int8 activations with uint8 weights are not implemented"
    if np.size(problem.get("w_zero_point", 0)) > 1:
        return "the weights of a convolution must have one zero point"
    return None


def _relu_is_not_the_range(problem):
    out = problem.get("out")
    return problem.get("activation") == "relu" and (out is None or out.zero_point != out.qmin)


def _refuse_conversion(problem):
    (p,) = problem.quantized()
    p = getattr(p, "qparams", p)
    if problem.op != "dequantize" and p.dtype == "int32":
        return "QuantizeLinear has no int32 output"
    if (p.qmin, p.qmax) != (p._type.qmin, p._type.qmax):
        return "QuantizeLinear has no narrower range of codes"
    if problem.op == "dequantize" and p.dtype == "int32" and np.any(p.zero_point):
        return "DequantizeLinear takes int32 with zero point 0 only"
    return None


def _refuse_matrices(problem):
    a, b, out = problem["a"], problem["b"], problem.get("out")
    if a.dtype == "int8" and b.dtype == "uint8":
        return "int8 activations with uint8 weights are not implemented"
    if out is not None and out.dtype != a.dtype:
        return "input and output must have one dtype"
    if problem.op == "matmul" and out is not None and problem.get("bias") is not None:
        return "QLinearMatMul has no bias"
    return None


def _refuse_product(problem):
    x, w, bias, out = problem["x"], problem["w"], problem.get("bias"), problem.get("out")
    if x.dtype == "int8" and w.dtype == "uint8":
        return "int8 activations with uint8 weights are not implemented"
    if out is not None and out.dtype != x.dtype:
        return "input and output must have one dtype"
    if out is not None and bias is not None and np.asarray(bias).dtype != np.int32:
        return "a bias must be int32"
    if out is None and problem.op != "linear":
        return "there is no convolution with a float output"
    if _relu_is_not_the_range(problem):
        return "a ReLU fuses only where the output's zero point is its smallest code"
    if problem.op != "linear" and len(set(np.atleast_1d(w.qparams.zero_point).tolist())) > 1:
        return "the weights of a convolution must have one zero point"
    return None
