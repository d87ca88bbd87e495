"""Operators that few engines have as small ONNX models. Imports onnx when imported."""

import numpy as np
from onnx import TensorProto

__all__ = ["special_models"]


def special_models(graph, sides):
    """Return each operator's model as a function of a problem.

    Parameters
    ----------
    graph : type
        Collects nodes, constants and inputs, see `refquant.backends.onnx_models`.
    sides : callable
        From one number or several to a list.
    """

    def quantize_dynamic(problem):
        g = graph()
        g.feed("x", problem["x"])
        g.nodes.append(g.make("DynamicQuantizeLinear", ["x"], ["codes", "scale", "zero"]))
        flat = g.constant("flat", np.array([-1], np.int64))
        for name in ("codes", "scale", "zero"):
            g.node("Cast", [name], f"{name}_real", to=TensorProto.DOUBLE)
            g.node("Reshape", [f"{name}_real", flat], f"{name}_flat")
        g.node("Concat", ["codes_flat", "scale_flat", "zero_flat"], axis=0)
        return g.model(np.float64)

    def requantize(problem):
        g, x, out = graph(), problem["x"], problem["out"]
        g.node("DequantizeLinear", [g.feed("x", x.values), *g.parameters("x", x.qparams)], "real")
        g.node("QuantizeLinear", ["real", *g.parameters("y", out)])
        return g.model(out.storage, literal=True)

    def clamp(problem, low, high):
        g, x = graph(), problem["x"]
        parameters = g.parameters("x", x.qparams)
        g.node("DequantizeLinear", [g.feed("x", x.values), *parameters], "real")
        limits = ["" if v is None else g.constant(name, np.float32(v)) for name, v in (("low", low), ("high", high))]
        g.node("Clip", ["real", *limits], "limited")
        g.node("QuantizeLinear", ["limited", *parameters])
        return g.model(x.values.dtype, literal=True)

    def linear_dynamic(problem):
        g, x, w, bias = graph(), problem["x"], problem["w"], problem.get("bias")
        inputs = [g.feed("x", x), g.constant("w", w.values.T), *g.parameters("w", w.qparams)]
        g.node("DynamicQuantizeMatMul", inputs + ([] if bias is None else [g.constant("bias", bias)]), domain="com.microsoft")
        return g.model(np.float32)

    def conv_integer(problem):
        g, x, w = graph(), np.asarray(problem["x"]), np.asarray(problem["w"])
        dims = x.ndim - 2
        zeros = [g.constant(f"{name}_zero", np.asarray(problem.get(f"{name}_zero_point", 0)).astype(v.dtype)) for name, v in (("x", x), ("w", w))]
        g.node(
            "ConvInteger", [g.feed("x", x), g.constant("w", w), *zeros], kernel_shape=w.shape[2:], strides=sides(problem["stride"], dims),
            pads=sides(problem["padding"], dims) * 2, dilations=sides(problem["dilation"], dims), group=problem["groups"],
        )  # fmt: skip
        return g.model(np.int32)

    return {
        "quantize_dynamic": quantize_dynamic,
        "requantize": requantize,
        "clamp": lambda problem: clamp(problem, problem.get("min"), problem.get("max")),
        "hardtanh": lambda problem: clamp(problem, problem.get("min_val", -1.0), problem.get("max_val", 1.0)),
        "relu6": lambda problem: clamp(problem, 0.0, 6.0),
        "linear_dynamic": linear_dynamic,
        "conv_integer": conv_integer,
    }
