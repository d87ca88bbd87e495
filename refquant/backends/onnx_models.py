"""Each operator as a small ONNX model of integer operators. Imports onnx when imported."""

import numpy as np

from refquant.backends.model_builder import ModelBuilder, sides
from refquant.backends.onnx_layers import LAYER_MODELS
from refquant.backends.onnx_special import SPECIAL_MODELS
from refquant.core.layout import is_channels_last

__all__ = ["MODELS"]

_MICROSOFT = "com.microsoft"


def _quantize(problem):
    g, p = ModelBuilder(), problem["qparams"]
    axis = {"axis": p.axis} if p.per_channel else {}
    g.node("QuantizeLinear", [g.feed("x", problem["x"]), *g.parameters("y", p)], **axis)
    return g.model(p.storage)


def _dequantize(problem):
    g, q = ModelBuilder(), problem["q"]
    axis = {"axis": q.qparams.axis} if q.qparams.per_channel else {}
    g.node("DequantizeLinear", [g.feed("q", q.values), *g.parameters("q", q.qparams)], **axis)
    return g.model(np.float32)


def _fake_quantize(problem):
    g, p = ModelBuilder(), problem["qparams"]
    axis = {"axis": p.axis} if p.per_channel else {}
    parameters = g.parameters("q", p)
    g.node("QuantizeLinear", [g.feed("x", problem["x"]), *parameters], "q", **axis)
    g.node("DequantizeLinear", ["q", *parameters], **axis)
    return g.model(np.float32, literal=True)


def _linear(problem):
    g = ModelBuilder()
    x, w, bias, out = problem["x"], problem["w"], problem.get("bias"), problem.get("out")
    a = [g.feed("x", x.values.reshape(-1, x.shape[-1])), *g.parameters("x", x.qparams)]
    b = [g.constant("w", w.values.T), *g.parameters("w", w.qparams)]
    dtype = np.float32 if out is None else out.storage
    y = [] if out is None else g.parameters("y", out)
    if bias is not None and bias.dtype == np.int32:
        g.node("QGemm", [*a, *b, g.constant("bias", bias), *y], domain=_MICROSOFT)
    elif out is None:
        inputs = [a[0], b[0], a[1], b[1], a[2], b[2]]
        g.node("MatMulIntegerToFloat", inputs + ([] if bias is None else [g.constant("bias", bias)]), domain=_MICROSOFT)
    else:
        g.node("QLinearMatMul", [*a, *b, *y])
    return g.model(dtype, finish=lambda y: y.reshape(*x.shape[:-1], w.shape[0]))



def _conv(problem):
    g, dims = ModelBuilder(), int(problem.op[4])
    x, w, bias, out = problem["x"], problem["w"], problem.get("bias"), problem["out"]
    each = lambda name, usual: sides(problem.get(name, usual), dims)  # noqa: E731
    last = is_channels_last(x.values)
    values = np.moveaxis(x.values, 1, -1) if last else x.values
    inputs = [g.feed("x", values), *g.parameters("x", x.qparams), g.constant("w", w.values), *g.parameters("w", w.qparams), *g.parameters("y", out)]
    if bias is not None:
        inputs.append(g.constant("bias", bias))
    g.node(
        "QLinearConv", inputs, kernel_shape=w.shape[2:], strides=each("stride", 1), pads=each("padding", 0) * 2, dilations=each("dilation", 1),
        group=problem.get("groups", 1), **({"domain": _MICROSOFT, "channels_last": 1} if last else {}),
    )  # fmt: skip
    return g.model(out.storage, finish=lambda y: np.moveaxis(y, -1, 1) if last else y)


def _matmul_integer(problem):
    g, a, b = ModelBuilder(), np.asarray(problem["a"]), np.asarray(problem["b"])
    zeros = [g.constant(f"{name}_zero", np.asarray(problem.get(f"{name}_zero_point", 0)).astype(v.dtype)) for name, v in (("a", a), ("b", b))]
    g.node("MatMulInteger", [g.feed("a", a), g.constant("b", b), *zeros])
    return g.model(np.int32)


def _binary(problem, op):
    g, a, b, out = ModelBuilder(), problem["a"], problem["b"], problem["out"]
    inputs = [g.feed("a", a.values), *g.parameters("a", a.qparams), g.feed("b", b.values), *g.parameters("b", b.qparams)]
    g.node(op, [*inputs, *g.parameters("y", out)], domain=_MICROSOFT)
    return g.model(out.storage)


def _lookup(problem, op, **attributes):
    g, x = ModelBuilder(), problem["x"]
    out = problem["out"]
    g.node(op, [g.feed("x", x.values), *g.parameters("x", x.qparams), *g.parameters("y", out)], domain=_MICROSOFT, **attributes)
    return g.model(out.storage)


def _cat(problem):
    g, out = ModelBuilder(), problem["out"]
    inputs = g.parameters("y", out)
    for i, q in enumerate(problem["tensors"]):
        inputs += [g.feed(f"x{i}", q.values), *g.parameters(f"x{i}", q.qparams)]
    g.node("QLinearConcat", inputs, domain=_MICROSOFT, axis=problem.get("dim", 1))
    return g.model(out.storage)


def _relu(problem):
    g, x = ModelBuilder(), problem["x"]
    parameters = g.parameters("x", x.qparams)
    g.node("DequantizeLinear", [g.feed("x", x.values), *parameters], "real")
    g.node("Relu", ["real"], "positive")
    g.node("QuantizeLinear", ["positive", *parameters])
    return g.model(x.values.dtype, literal=True)


def _by_reals(problem, op, **attributes):
    """A function that has float kernels alone, between DequantizeLinear and QuantizeLinear."""
    g, x = ModelBuilder(), problem["x"]
    out = problem.get("out") or x.qparams
    g.node("DequantizeLinear", [g.feed("x", x.values), *g.parameters("x", x.qparams)], "real")
    g.node(op, ["real"], "function", **attributes)
    g.node("QuantizeLinear", ["function", *g.parameters("y", out)])
    return g.model(out.storage, literal=True)


def _window(problem):
    stride = problem.get("stride")
    kernel = sides(problem["kernel_size"], 2)
    return {
        "kernel_shape": kernel,
        "strides": kernel if stride is None else sides(stride, 2),
        "pads": sides(problem.get("padding", 0), 2) * 2,
        "ceil_mode": int(problem.get("ceil_mode", False)),
    }


def _max_pool2d(problem):
    g, x = ModelBuilder(), problem["x"]
    g.node("MaxPool", [g.feed("x", x.values)], **_window(problem), dilations=sides(problem.get("dilation", 1), 2))
    return g.model(x.values.dtype)


def _avg_pool2d(problem):
    include = int(problem.get("count_include_pad", True))
    return _pool(problem, "QLinearAveragePool", **_window(problem), count_include_pad=include)


def _pool(problem, op, **attributes):
    g, x = ModelBuilder(), problem["x"]
    out = problem.get("out") or x.qparams
    last = is_channels_last(x.values)
    values = np.moveaxis(x.values, 1, -1) if last else x.values
    g.node(op, [g.feed("x", values), *g.parameters("x", x.qparams), *g.parameters("y", out)], domain=_MICROSOFT, channels_last=int(last), **attributes)
    return g.model(out.storage, finish=lambda y: np.moveaxis(y, -1, 1) if last else y)


#: Each operator's model, as a function of a problem.
MODELS = {
    "quantize": _quantize,
    "dequantize": _dequantize,
    "fake_quantize": _fake_quantize,
    "linear": _linear,
    "conv1d": _conv,
    "conv2d": _conv,
    "conv3d": _conv,
    "matmul_integer": _matmul_integer,
    "add": lambda problem: _binary(problem, "QLinearAdd"),
    "mul": lambda problem: _binary(problem, "QLinearMul"),
    "sigmoid": lambda problem: _lookup(problem, "QLinearSigmoid"),
    "leaky_relu": lambda problem: _lookup(problem, "QLinearLeakyRelu", alpha=problem.get("negative_slope", 0.01)),
    "tanh": lambda problem: _by_reals(problem, "Tanh"),
    "elu": lambda problem: _by_reals(problem, "Elu", alpha=problem.get("alpha", 1.0)),
    "gelu": lambda problem: _by_reals(problem, "Gelu"),
    "hardsigmoid": lambda problem: _by_reals(problem, "HardSigmoid", alpha=1 / 6, beta=0.5),
    "hardswish": lambda problem: _by_reals(problem, "HardSwish"),
    "relu": _relu,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": lambda problem: _pool(problem, "QLinearGlobalAveragePool"),
    "cat": _cat,
    **SPECIAL_MODELS,
    **LAYER_MODELS,
}
