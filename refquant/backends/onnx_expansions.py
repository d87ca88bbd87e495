"""Operators that ONNX's text has as several nodes, as small models of those nodes. Imports onnx when imported."""

import numpy as np

from refquant.backends.model_builder import ModelBuilder

__all__ = ["EXPANSIONS"]

_FLOAT = 1  # TensorProto.FLOAT


def _scaled(g, codes, zeros, scales, bias):
    """Add MatMulInteger, the product of the scales, and a bias to the sums where it is int32, else to the result; return the real tensor's name."""
    sums = g.node("MatMulInteger", [*codes, *zeros], "sums")
    bias = None if bias is None else np.asarray(bias)
    if bias is not None and bias.dtype == np.int32:
        sums, bias = g.node("Add", [sums, g.constant("bias", bias)], "biased"), None
    g.node("Cast", [sums], "sums_real", to=_FLOAT)
    real = g.node("Mul", ["sums_real", g.node("Mul", scales, "scale_product")], "product")
    return real if bias is None else g.node("Add", [real, g.constant("bias", bias)], "biased")


def _linear_dynamic(problem):
    g, w = ModelBuilder(), problem["w"]
    g.nodes.append(g.make("DynamicQuantizeLinear", [g.feed("x", problem["x"])], ["codes", "scale", "zero"]))
    w_scale, w_zero = g.parameters("w", w.qparams)
    real = _scaled(g, ["codes", g.constant("w", w.values.T)], ["zero", w_zero], ["scale", w_scale], problem.get("bias"))
    g.node("Relu" if problem.get("activation") == "relu" else "Identity", [real])
    return g.model(np.float32)


def _matmul(problem):
    g, a, b, out = ModelBuilder(), problem["a"], problem["b"], problem.get("out")
    (a_scale, a_zero), (b_scale, b_zero) = g.parameters("a", a.qparams), g.parameters("b", b.qparams)
    real = _scaled(g, [g.feed("a", a.values), g.feed("b", b.values)], [a_zero, b_zero], [a_scale, b_scale], problem.get("bias"))
    g.node(*(("Identity", [real]) if out is None else ("QuantizeLinear", [real, *g.parameters("y", out)])))
    return g.model(np.float32 if out is None else out.storage)


def _gemm(problem):
    """The codes turned where the problem asks for it, the factor on the scale of the first."""
    g, a, b, out = ModelBuilder(), problem["a"], problem["b"], problem.get("out")
    (a_scale, a_zero), (b_scale, b_zero) = g.parameters("a", a.qparams), g.parameters("b", b.qparams)
    codes = [g.feed(name, problem[name].values) for name in "ab"]
    codes = [g.node("Transpose", [c], f"{c}_turned", perm=[1, 0]) if problem.get(f"transpose_{c}") else c for c in codes]
    scale = g.node("Mul", [g.constant("alpha", np.float32(problem.get("alpha", 1.0))), a_scale], "a_scaled")
    real = _scaled(g, codes, [a_zero, b_zero], [scale, b_scale], problem.get("c"))
    g.node(*(("Identity", [real]) if out is None else ("QuantizeLinear", [real, *g.parameters("y", out)])))
    return g.model(np.float32 if out is None else out.storage)


def _where(problem):
    g, out = ModelBuilder(), problem["out"]
    for name in ("x", "y"):
        q = problem[name]
        g.node("DequantizeLinear", [g.feed(f"{name}_codes", q.values), *g.parameters(f"{name}_codes", q.qparams)], f"{name}_real")
    g.node("Where", [g.feed("condition", problem["condition"]), "x_real", "y_real"], "chosen")
    g.node("QuantizeLinear", ["chosen", *g.parameters("z", out)])
    return g.model(out.storage)


#: Each operator's model, as a function of a problem.
EXPANSIONS = {"linear_dynamic": _linear_dynamic, "matmul": _matmul, "gemm": _gemm, "where": _where}
