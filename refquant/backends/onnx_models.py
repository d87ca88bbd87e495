"""Each operator as a small ONNX model of integer operators. Imports onnx when imported."""

from typing import NamedTuple

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from refquant.backends.onnx_layers import layer_models
from refquant.backends.onnx_special import special_models
from refquant.core.layout import is_channels_last

__all__ = ["MODELS", "ModelBuilder", "SmallModel"]

_TYPES = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8, "int32": TensorProto.INT32, "uint16": TensorProto.UINT16, "int16": TensorProto.INT16, "float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "bool": TensorProto.BOOL}
_OPSETS = (("", 21), ("com.microsoft", 1))
_MICROSOFT = "com.microsoft"


class SmallModel(NamedTuple):
    """A serialized model, what to feed it, whether graph rewriting must stay off, and what to do with its output."""

    model: bytes
    feeds: dict
    literal: bool
    finish: object


class ModelBuilder:
    """Collects nodes, constants and inputs."""

    def __init__(self):
        self.nodes, self.constants, self.inputs, self.feeds = [], [], [], {}

    def feed(self, name, array):
        array = np.ascontiguousarray(array)
        self.inputs.append(helper.make_tensor_value_info(name, _TYPES[array.dtype.name], array.shape))
        self.feeds[name] = array
        return name

    def constant(self, name, array):
        self.constants.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def scale(self, name, p):
        return self.constant(name, np.asarray(p.scale, np.float32))

    def parameters(self, name, p):
        """Add scale and zero point as constants; return their names."""
        return [self.scale(f"{name}_scale", p), self.constant(f"{name}_zero", np.asarray(p.zero_point).astype(p.storage))]

    def node(self, op, inputs, output="y", domain="", **attributes):
        self.nodes.append(helper.make_node(op, inputs, [output], domain=domain, **attributes))
        return output

    make = staticmethod(helper.make_node)

    def model(self, dtype, *, literal=False, finish=None):
        y = helper.make_tensor_value_info("y", _TYPES[np.dtype(dtype).name], None)
        graph = helper.make_graph(self.nodes, "problem", self.inputs, [y], self.constants)
        opsets = [helper.make_opsetid(*o) for o in _OPSETS]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        return SmallModel(model.SerializeToString(), self.feeds, literal, finish or (lambda y: y))


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
    sides = lambda name, usual: _sides(problem.get(name, usual), dims)  # noqa: E731
    last = is_channels_last(x.values)
    values = np.moveaxis(x.values, 1, -1) if last else x.values
    inputs = [g.feed("x", values), *g.parameters("x", x.qparams), g.constant("w", w.values), *g.parameters("w", w.qparams), *g.parameters("y", out)]
    if bias is not None:
        inputs.append(g.constant("bias", bias))
    g.node(
        "QLinearConv", inputs, kernel_shape=w.shape[2:], strides=sides("stride", 1), pads=sides("padding", 0) * 2, dilations=sides("dilation", 1),
        group=problem.get("groups", 1), **({"domain": _MICROSOFT, "channels_last": 1} if last else {}),
    )  # fmt: skip
    return g.model(out.storage, finish=lambda y: np.moveaxis(y, -1, 1) if last else y)


def _sides(value, dims):
    return list(value) if isinstance(value, tuple) else [value] * dims


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
    kernel = _sides(problem["kernel_size"], 2)
    return {
        "kernel_shape": kernel,
        "strides": kernel if stride is None else _sides(stride, 2),
        "pads": _sides(problem.get("padding", 0), 2) * 2,
        "ceil_mode": int(problem.get("ceil_mode", False)),
    }


def _max_pool2d(problem):
    g, x = ModelBuilder(), problem["x"]
    g.node("MaxPool", [g.feed("x", x.values)], **_window(problem), dilations=_sides(problem.get("dilation", 1), 2))
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
    **special_models(ModelBuilder, _sides),
    **layer_models(ModelBuilder),
}
