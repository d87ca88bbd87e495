"""Each operator as a small ONNX model of DequantizeLinear, a real operator and QuantizeLinear. Imports onnx when imported."""

import numpy as np

from refquant.backends.model_builder import ModelBuilder
from refquant.core.qparams import QParams

__all__ = ["QDQ_MODELS"]


def _axis(p, **usual):
    return {"axis": p.axis, **usual} if p.per_channel else {}


def _real(g, name, q, *, constant=False, **axis):
    """Add a tensor's codes and their DequantizeLinear; return the real tensor's name."""
    codes = g.constant(name, q.values) if constant else g.feed(name, q.values)
    return g.node("DequantizeLinear", [codes, *g.parameters(name, q.qparams)], f"{name}_real", **{**_axis(q.qparams), **axis})


def _finish(g, real, problem, out, **more):
    """Add the ReLU that the problem asks for and the QuantizeLinear."""
    if problem.get("activation") == "relu":
        real = g.node("Relu", [real], "positive")
    g.node("QuantizeLinear", [real, *g.parameters("y", out)])
    return g.model(out.storage, **more)


def _quantize(problem):
    g, p = ModelBuilder(), problem["qparams"]
    g.node("QuantizeLinear", [g.feed("x", np.asarray(problem["x"], np.float32)), *g.parameters("y", p)], **_axis(p))
    return g.model(p.storage)


def _dequantize(problem):
    g, q = ModelBuilder(), problem["q"]
    g.node("DequantizeLinear", [g.feed("q", q.values), *g.parameters("q", q.qparams)], **_axis(q.qparams))
    return g.model(np.float32)


def _fake_quantize(problem):
    g, p = ModelBuilder(), problem["qparams"]
    parameters = g.parameters("q", p)
    g.node("QuantizeLinear", [g.feed("x", np.asarray(problem["x"], np.float32)), *parameters], "codes", **_axis(p))
    g.node("DequantizeLinear", ["codes", *parameters], **_axis(p))
    return g.model(np.float32)


def _requantize(problem):
    g, x, out = ModelBuilder(), problem["x"], problem["out"]
    g.node("QuantizeLinear", [_real(g, "x", x), *g.parameters("y", out)])
    return g.model(out.storage)


def _real_bias(problem):
    bias, w = problem["bias"], problem["w"].qparams
    if bias.dtype != np.int32:
        return np.asarray(bias, np.float32)
    return bias.astype(np.float32) * (np.float32(problem["x"].qparams.scale) * np.asarray(w.scale, np.float32))


def _linear(problem):
    g, x, w = ModelBuilder(), problem["x"], problem["w"]
    flat = _real(g, "x", type(x)(x.values.reshape(-1, x.shape[-1]), x.qparams))
    axis = {"axis": 1} if w.qparams.per_channel else {}
    real = g.node("MatMul", [flat, _real(g, "w", _Transposed(w), constant=True, **axis)], "product")
    if problem.get("bias") is not None:
        real = g.node("Add", [real, g.constant("bias", _real_bias(problem))], "sum")
    return _finish(g, real, problem, problem["out"], finish=lambda y: y.reshape(*x.shape[:-1], w.shape[0]))


class _Transposed:
    """Weights as MatMul takes them, (K, OC), still with their parameters along the output channels."""

    def __init__(self, w):
        self.values, self.qparams = np.ascontiguousarray(w.values.T), w.qparams


def _conv(problem):
    g, dims = ModelBuilder(), int(problem.op[4])
    sides = lambda name, usual: _sides(problem.get(name, usual), dims)  # noqa: E731
    inputs = [_real(g, "x", problem["x"]), _real(g, "w", problem["w"], constant=True)]
    if problem.get("bias") is not None:
        inputs.append(g.constant("bias", _real_bias(problem)))
    real = g.node(
        "Conv", inputs, "conv", kernel_shape=problem["w"].shape[2:], strides=sides("stride", 1), pads=sides("padding", 0) * 2,
        dilations=sides("dilation", 1), group=problem.get("groups", 1),
    )  # fmt: skip
    return _finish(g, real, problem, problem["out"])


def _conv_transpose(problem):
    g, x, w, dims = ModelBuilder(), problem["x"], problem["w"], int(problem.op[14])
    inputs = [_real(g, "x", x), _real(g, "w", w, constant=True, **({"axis": 1} if w.qparams.per_channel else {}))]
    if problem.get("bias") is not None:
        inputs.append(g.constant("bias", _real_bias(problem)))
    sides = lambda name, usual: _sides(problem.get(name, usual), dims)  # noqa: E731
    real = g.node(
        "ConvTranspose", inputs, "conv", kernel_shape=w.shape[2:], strides=sides("stride", 1), pads=sides("padding", 0) * 2,
        dilations=sides("dilation", 1), output_padding=sides("output_padding", 0), group=problem.get("groups", 1),
    )  # fmt: skip
    return _finish(g, real, problem, problem["out"])


def _quantize_dynamic(problem):
    """Codes, scale and zero point in one float32 tensor, which holds all three exactly."""
    g = ModelBuilder()
    g.feed("x", problem["x"])
    g.nodes.append(g.make("DynamicQuantizeLinear", ["x"], ["codes", "scale", "zero"]))
    flat = g.constant("flat", np.array([-1], np.int64))
    for name in ("codes", "scale", "zero"):
        g.node("Cast", [name], f"{name}_real", to=1)
        g.node("Reshape", [f"{name}_real", flat], f"{name}_flat")
    g.node("Concat", ["codes_flat", "scale_flat", "zero_flat"], axis=0)
    return g.model(np.float32, finish=lambda y: y.astype(np.float64))


def _sides(value, dims):
    return list(value) if isinstance(value, tuple) else [value] * dims


def _binary(op):
    def model(problem):
        g = ModelBuilder()
        return _finish(g, g.node(op, [_real(g, name, problem[name]) for name in "ab"], "both"), problem, problem["out"])

    return model


def _matmul(problem):
    g = ModelBuilder()
    return _finish(g, g.node("MatMul", [_real(g, name, problem[name]) for name in "ab"], "product"), problem, problem["out"])


def _where(problem):
    g = ModelBuilder()
    condition = g.feed("condition", np.asarray(problem["condition"]))
    return _finish(g, g.node("Where", [condition, *(_real(g, f"of_{name}", problem[name]) for name in "xy")], "chosen"), problem, problem["out"])


def _cat(problem):
    g = ModelBuilder()
    reals = [_real(g, f"x{i}", q) for i, q in enumerate(problem["tensors"])]
    return _finish(g, g.node("Concat", reals, "joined", axis=problem.get("dim", 1)), problem, problem["out"])


def _function(op, **attributes):
    def model(problem):
        g = ModelBuilder()
        values = {name: problem.get(*value) if isinstance(value, tuple) else value for name, value in attributes.items()}
        return _finish(g, g.node(op, [_real(g, "x", problem["x"])], "function", **values), problem, problem.get("out") or problem["x"].qparams)

    return model


def _relu(problem):
    g, x = ModelBuilder(), problem["x"]
    return _finish(g, g.node("Relu", [_real(g, "x", x)], "positive"), problem, x.qparams)


def _window(problem, dims):
    stride, kernel = problem.get("stride"), _sides(problem["kernel_size"], dims)
    return {"kernel_shape": kernel, "strides": kernel if stride is None else _sides(stride, dims), "pads": _sides(problem.get("padding", 0), dims) * 2}


def _max_pool(problem):
    g, x, dims = ModelBuilder(), problem["x"], problem["x"].ndim - 2
    dilations = _sides(problem.get("dilation", 1), dims)
    return _finish(g, g.node("MaxPool", [_real(g, "x", x)], "pooled", **_window(problem, dims), dilations=dilations), problem, x.qparams)


def _avg_pool(problem):
    g, x = ModelBuilder(), problem["x"]
    include = int(problem.get("count_include_pad", True))
    real = g.node("AveragePool", [_real(g, "x", x)], "pooled", **_window(problem, x.ndim - 2), count_include_pad=include)
    return _finish(g, real, problem, problem.get("out") or x.qparams)


def _between(op, x, out, problem, inputs=(), **attributes):
    """An operator with constant inputs."""
    g = ModelBuilder()
    return _finish(g, g.node(op, [_real(g, "x", x), *(make(g) for make in inputs)], "function", **attributes), problem, out)


def _clip(low, high):
    """Of limits, or of the names of a problem's arguments and what they are unless given."""

    def model(problem):
        limits = (problem.get(*v) if isinstance(v, tuple) else v for v in (low, high))
        with np.errstate(over="ignore"):
            inputs = [lambda g, v=v, name=name: "" if v is None else g.constant(name, np.float32(v)) for v, name in zip(limits, ("low", "high"))]
        return _between("Clip", problem["x"], problem["x"].qparams, problem, inputs)

    return model


def _prelu(problem):
    x, w = problem["x"], problem["weight"]
    slopes = type(w)(w.values.reshape(-1, *[1] * max(x.ndim - 2, 0)), w.qparams)
    return _between("PRelu", x, problem["out"], problem, [lambda g: _real(g, "w", slopes, constant=True)])


def _softmax(problem):
    x = problem["x"]
    return _between("Softmax", x, problem.get("out") or QParams(1 / 256, x.qparams.qmin, x.dtype), problem, axis=problem["dim"])


def _mean(problem):
    axes = np.atleast_1d(problem["dim"]).astype(np.int64)
    out = problem.get("out") or problem["x"].qparams
    return _between("ReduceMean", problem["x"], out, problem, [lambda g: g.constant("axes", axes)], keepdims=int(bool(problem.get("keepdim"))))


def _interpolate(problem):
    x, size, line = problem["x"], problem.get("size"), problem["mode"] == "bilinear"
    if size is not None:
        last = [lambda g: "", lambda g: g.constant("sizes", np.array([*x.shape[:2], *_sides(size, 2)], np.int64))]
    else:
        factors = np.broadcast_to(np.asarray(problem["scale_factor"], np.float32), (2,))
        last = [lambda g: g.constant("scales", np.array([1, 1, *factors], np.float32))]
    where = ("align_corners" if problem.get("align_corners") else "half_pixel") if line else "asymmetric"
    more = {"mode": "linear"} if line else {"mode": "nearest", "nearest_mode": "floor"}
    return _between("Resize", x, x.qparams, problem, [lambda g: "", *last], coordinate_transformation_mode=where, **more)


def _global_pool(problem):
    return _between("GlobalAveragePool", problem["x"], problem.get("out") or problem["x"].qparams, problem)


#: Each operator's model, as a function of a problem.
QDQ_MODELS = {
    "quantize": _quantize,
    "dequantize": _dequantize,
    "fake_quantize": _fake_quantize,
    "requantize": _requantize,
    "linear": _linear,
    "conv1d": _conv,
    "conv2d": _conv,
    "conv3d": _conv,
    "add": _binary("Add"),
    "mul": _binary("Mul"),
    "cat": _cat,
    "matmul": _matmul,
    "where": _where,
    "relu": _relu,
    "sigmoid": _function("Sigmoid"),
    "tanh": _function("Tanh"),
    "hardsigmoid": _function("HardSigmoid", alpha=1 / 6, beta=0.5),
    "hardswish": _function("HardSwish"),
    "elu": _function("Elu", alpha=("alpha", 1.0)),
    "leaky_relu": _function("LeakyRelu", alpha=("negative_slope", 0.01)),
    "gelu": _function("Gelu"),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d"), _max_pool),
    **dict.fromkeys(("avg_pool2d", "avg_pool3d"), _avg_pool),
    **dict.fromkeys(("adaptive_avg_pool2d", "adaptive_avg_pool3d"), _global_pool),
    "relu6": _clip(0.0, 6.0),
    "clamp": _clip(("min",), ("max",)),
    "hardtanh": _clip(("min_val", -1.0), ("max_val", 1.0)),
    "prelu": _prelu,
    "softmax": _softmax,
    "quantize_dynamic": _quantize_dynamic,
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv_transpose),
    "mean": _mean,
    "interpolate": _interpolate,
}
