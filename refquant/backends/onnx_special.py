"""Operators that few engines have as small ONNX models. Imports onnx when imported."""

import numpy as np
from onnx import TensorProto

from refquant.backends.model_builder import ModelBuilder, sides
from refquant.core.qparams import QParams

__all__ = ["SPECIAL_MODELS"]


def _quantize_dynamic(problem):
    g = ModelBuilder()
    g.feed("x", problem["x"])
    g.nodes.append(g.make("DynamicQuantizeLinear", ["x"], ["codes", "scale", "zero"]))
    flat = g.constant("flat", np.array([-1], np.int64))
    for name in ("codes", "scale", "zero"):
        g.node("Cast", [name], f"{name}_real", to=TensorProto.DOUBLE)
        g.node("Reshape", [f"{name}_real", flat], f"{name}_flat")
    g.node("Concat", ["codes_flat", "scale_flat", "zero_flat"], axis=0)
    return g.model(np.float64)


def _requantize(problem):
    g, x, out = ModelBuilder(), problem["x"], problem["out"]
    g.node("DequantizeLinear", [g.feed("x", x.values), *g.parameters("x", x.qparams)], "real")
    g.node("QuantizeLinear", ["real", *g.parameters("y", out)])
    return g.model(out.storage, literal=True)


def _clamp(problem, low, high):
    g, x = ModelBuilder(), problem["x"]
    parameters = g.parameters("x", x.qparams)
    g.node("DequantizeLinear", [g.feed("x", x.values), *parameters], "real")
    limits = ["" if v is None else g.constant(name, np.float32(v)) for name, v in (("low", low), ("high", high))]
    g.node("Clip", ["real", *limits], "limited")
    g.node("QuantizeLinear", ["limited", *parameters])
    return g.model(x.values.dtype, literal=True)


def _between(problem, op, inputs=(), **attributes):
    """A float operator between DequantizeLinear and QuantizeLinear."""
    g, x, out = ModelBuilder(), problem["x"], problem.get("out") or problem["x"].qparams
    g.node("DequantizeLinear", [g.feed("x", x.values), *g.parameters("x", x.qparams)], "real")
    g.node(op, ["real", *(make(g) for make in inputs)], "function", **attributes)
    g.node("QuantizeLinear", ["function", *g.parameters("y", out)])
    return g.model(out.storage, literal=True)


def _prelu(problem):
    w, axes = problem["weight"], max(problem["x"].ndim - 2, 0)

    def slopes(g):
        codes = g.constant("w", w.values.reshape(-1, *[1] * axes))
        return g.node("DequantizeLinear", [codes, *g.parameters("w", w.qparams)], "slopes")

    return _between(problem, "PRelu", [slopes])


def _mean(problem):
    axes = np.atleast_1d(problem["dim"]).astype(np.int64)
    return _between(problem, "ReduceMean", [lambda g: g.constant("axes", axes)], keepdims=int(bool(problem.get("keepdim"))))


def _microsoft(problem, op, usual, **attributes):
    """A com.microsoft operator on one tensor of codes."""
    g, x, out = ModelBuilder(), problem["x"], problem.get("out") or usual
    g.node(op, [g.feed("x", x.values), *g.parameters("x", x.qparams), *g.parameters("y", out)], domain="com.microsoft", **attributes)
    return g.model(out.storage)


def _softmax(problem):
    x = problem["x"]
    return _microsoft(problem, "QLinearSoftmax", QParams(1 / 256, x.qparams.qmin, x.dtype), axis=problem["dim"], opset=13)


def _window(problem, dims):
    stride, kernel = problem.get("stride"), sides(problem["kernel_size"], dims)
    return {"kernel_shape": kernel, "strides": kernel if stride is None else sides(stride, dims), "pads": sides(problem.get("padding", 0), dims) * 2, "ceil_mode": int(problem.get("ceil_mode", False))}


def _max_pool(problem, dims):
    g, x = ModelBuilder(), problem["x"]
    g.node("MaxPool", [g.feed("x", x.values)], **_window(problem, dims), dilations=sides(problem.get("dilation", 1), dims))
    return g.model(x.values.dtype)


def _interpolate(problem):
    g, x = ModelBuilder(), problem["x"]
    size, factors = problem.get("size"), problem.get("scale_factor")
    if size is not None:
        sizes = ["", g.constant("sizes", np.array([*x.shape[:2], *sides(size, 2)], np.int64))]
    else:
        sizes = [g.constant("scales", np.array([1, 1, *np.broadcast_to(np.asarray(factors, np.float32), (2,))], np.float32))]
    line = problem["mode"] == "bilinear"
    where = ("align_corners" if problem.get("align_corners") else "half_pixel") if line else "asymmetric"
    more = {"mode": "linear"} if line else {"mode": "nearest", "nearest_mode": "floor"}
    g.node("Resize", [g.feed("x", x.values), "", *sizes], coordinate_transformation_mode=where, **more)
    return g.model(x.values.dtype)


def _linear_dynamic(problem):
    g, x, w, bias = ModelBuilder(), problem["x"], problem["w"], problem.get("bias")
    inputs = [g.feed("x", x), g.constant("w", w.values.T), *g.parameters("w", w.qparams)]
    g.node("DynamicQuantizeMatMul", inputs + ([] if bias is None else [g.constant("bias", bias)]), domain="com.microsoft")
    return g.model(np.float32)


def _matmul(problem):
    g, a, b, out, bias = ModelBuilder(), problem["a"], problem["b"], problem.get("out"), problem.get("bias")
    left = [g.feed("a", a.values), *g.parameters("a", a.qparams)]
    right = [(g.constant if b.ndim == 2 else g.feed)("b", b.values)]
    # Of a stack of matrices each has its own row of parameters.
    rows = (*b.shape[:-2], 1, b.shape[-1]) if b.qparams.per_channel and b.ndim > 2 else np.shape(b.qparams.scale)
    for name, v in (("b_scale", np.asarray(b.qparams.scale, np.float32)), ("b_zero", np.asarray(b.qparams.zero_point).astype(b.values.dtype))):
        right.append(g.constant(name, np.broadcast_to(v, rows)))
    if out is None:
        inputs = [name for pair in zip(left, right) for name in pair]
        g.node("MatMulIntegerToFloat", inputs + ([] if bias is None else [g.constant("bias", bias)]), domain="com.microsoft")
        return g.model(np.float32)
    g.node("QLinearMatMul", [*left, *right, *g.parameters("y", out)])
    return g.model(out.storage)


def _gemm(problem):
    g, a, b, c, out = ModelBuilder(), problem["a"], problem["b"], problem.get("c"), problem.get("out")
    inputs = [g.feed("a", a.values), *g.parameters("a", a.qparams), g.constant("b", b.values), *g.parameters("b", b.qparams)]
    inputs += ["" if c is None else g.feed("c", c), *([] if out is None else g.parameters("y", out))]
    turns = {"transA": int(problem.get("transpose_a", False)), "transB": int(problem.get("transpose_b", False))}
    g.node("QGemm", inputs, domain="com.microsoft", alpha=float(problem.get("alpha", 1.0)), **turns)
    return g.model(np.float32 if out is None else out.storage)


def _where(problem):
    g, x, y, out = ModelBuilder(), problem["x"], problem["y"], problem["out"]
    inputs = [g.feed("condition", problem["condition"])]
    for name, q in (("x", x), ("y", y)):
        inputs += [g.feed(name + "_codes", q.values), *g.parameters(name + "_codes", q.qparams)]
    g.node("QLinearWhere", [*inputs, *g.parameters("z", out)], domain="com.microsoft")
    return g.model(out.storage)


def _conv_integer(problem):
    g, x, w = ModelBuilder(), np.asarray(problem["x"]), np.asarray(problem["w"])
    dims = x.ndim - 2
    zeros = [g.constant(f"{name}_zero", np.asarray(problem.get(f"{name}_zero_point", 0)).astype(v.dtype)) for name, v in (("x", x), ("w", w))]
    g.node(
        "ConvInteger", [g.feed("x", x), g.constant("w", w), *zeros], kernel_shape=w.shape[2:], strides=sides(problem["stride"], dims),
        pads=sides(problem["padding"], dims) * 2, dilations=sides(problem["dilation"], dims), group=problem["groups"],
    )  # fmt: skip
    return g.model(np.int32)


#: Each operator's model, as a function of a problem.
SPECIAL_MODELS = {
    "quantize_dynamic": _quantize_dynamic,
    "requantize": _requantize,
    "clamp": lambda problem: _clamp(problem, problem.get("min"), problem.get("max")),
    "hardtanh": lambda problem: _clamp(problem, problem.get("min_val", -1.0), problem.get("max_val", 1.0)),
    "relu6": lambda problem: _clamp(problem, 0.0, 6.0),
    "linear_dynamic": _linear_dynamic,
    "conv_integer": _conv_integer,
    "matmul": _matmul,
    "gemm": _gemm,
    "where": _where,
    "prelu": _prelu,
    "mean": _mean,
    "softmax": _softmax,
    "interpolate": _interpolate,
    "max_pool1d": lambda problem: _max_pool(problem, 1),
    "max_pool3d": lambda problem: _max_pool(problem, 3),
    "avg_pool3d": lambda problem: _microsoft(problem, "QLinearAveragePool", problem["x"].qparams, **_window(problem, 3), count_include_pad=int(problem.get("count_include_pad", True))),
    "adaptive_avg_pool3d": lambda problem: _microsoft(problem, "QLinearGlobalAveragePool", problem["x"].qparams),
}
