"""The operations of a model: one line each in `OPS`, one function each below.

The same operation runs on float32 arrays and on QTensors: which of the two comes in decides.
"""

from functools import partial
from typing import Callable, NamedTuple

import numpy as np

from refquant import ops
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError, choose
from refquant.graph import shapes
from refquant.ops import real
from refquant.ops.add import bind_add
from refquant.ops.conv import bind_convolution
from refquant.ops.linear import bind_linear
from refquant.ops.pack_weights import bias_key, is_reusable

__all__ = ["GraphOp", "OPS", "REQUIRED", "Context", "graph_op", "checked_attrs", "op_of_target"]

REQUIRED = type("Required", (), {"__repr__": lambda self: "required"})()


class GraphOp(NamedTuple):
    """An operation of a model.

    Attributes
    ----------
    name : str
    arity : tuple of int
        Least and greatest number of inputs; None for "any".
    attrs : dict
        Settings with their defaults; `REQUIRED` for those without.
    params : dict
        Arrays, and whether each is required.
    targets : tuple of str
        What it is called where models come from; the first is the usual one.
    run : callable
        ``run(context, node, *inputs)`` returns the value.
    shape : callable
        ``shape(node, *input shapes)`` returns the shape.
    bind : callable, optional
        ``bind(context, node, *inputs)`` returns ``run`` for inputs like these with all but their values worked out, or None.
    """

    name: str
    arity: tuple
    attrs: dict
    params: dict
    targets: tuple
    run: Callable
    shape: Callable
    bind: Callable = None


class Context(NamedTuple):
    """What a run of a model is carried out under: the profile of its quantized nodes, the order of its real sums, the engine's threads."""

    numerics: object
    real: str
    threads: int


def _conv(dims, function, real_function):
    def settings(ctx, node):
        geometry = {k: node.attrs[k] for k in ("stride", "padding", "dilation", "groups")}
        return {**_layer_settings(ctx, node), **geometry}

    def run(ctx, node, x):
        p = node.params
        if isinstance(x, QTensor):
            return function(x, p["weight"], p.get("bias"), **settings(ctx, node))
        a = {k: v for k, v in settings(ctx, node).items() if k not in ("out", "numerics")}
        return real_function(x, p["weight"], p.get("bias"), order=ctx.real, **a)

    def bind(ctx, node, x):
        return _bind_layer(partial(bind_convolution, dims), x, node, settings(ctx, node))

    return {"run": run, "bind": bind}


def _layer_settings(ctx, node):
    return {"out": node.attrs["out"], "numerics": ctx.numerics, "activation": node.attrs["activation"]}


def _bind_layer(binder, x, node, settings):
    weight, bias, out = node.params["weight"], node.params.get("bias"), settings["out"]
    if not is_reusable(x, weight, bias) or bias_key(bias)[1]:
        return None  # a bias that can still be changed
    codes_to_codes = binder(x, weight, bias, **settings)
    return lambda x: codes_to_codes(x.values) if out is None else QTensor(codes_to_codes(x.values), out)


def _linear(ctx, node, x):
    p = node.params
    if isinstance(x, QTensor):
        return ops.linear(x, p["weight"], p.get("bias"), **_layer_settings(ctx, node))
    return real.linear(x, p["weight"], p.get("bias"), order=ctx.real, activation=node.attrs["activation"])


def _bind_linear(ctx, node, x):
    return _bind_layer(bind_linear, x, node, _layer_settings(ctx, node))


def _batch_norm(ctx, node, x):
    p = node.params
    arrays = p["running_mean"], p["running_var"], p["weight"], p["bias"]
    return real.batch_norm(_only_real(node, x), *arrays, eps=node.attrs["eps"], order=ctx.real, activation=node.attrs["activation"])


def _relu(ctx, node, x):
    return ops.relu(x, numerics=ctx.numerics) if isinstance(x, QTensor) else real.relu(x)


def _add(ctx, node, a, b):
    if isinstance(a, QTensor):
        return ops.add(a, b, out=node.attrs["out"], numerics=ctx.numerics, activation=node.attrs["activation"], threads=ctx.threads)
    return real.add(a, b, activation=node.attrs["activation"])


def _bind_add(ctx, node, a, b):
    if not (isinstance(a, QTensor) and isinstance(b, QTensor)):
        return None
    codes_to_codes, out = bind_add(a, b, **_layer_settings(ctx, node), threads=ctx.threads), node.attrs["out"]
    return lambda a, b: QTensor(codes_to_codes(a.values, b.values), out)


def _cat(ctx, node, *xs):
    dim = node.attrs["dim"]
    if isinstance(xs[0], QTensor):
        return ops.cat(xs, dim, out=node.attrs["out"] or xs[0].qparams, numerics=ctx.numerics)
    return real.cat(xs, dim)


def _max_pool2d(ctx, node, x):
    if isinstance(x, QTensor):
        return ops.max_pool2d(x, **node.attrs, numerics=ctx.numerics)
    return real.max_pool2d(x, **node.attrs)


def _avg_pool2d(ctx, node, x):
    if isinstance(x, QTensor):
        return ops.avg_pool2d(x, **node.attrs, numerics=ctx.numerics)
    return real.avg_pool2d(x, **node.attrs, order=ctx.real)


def _adaptive_avg_pool2d(ctx, node, x):
    size = tuple(n if o is None else o for n, o in zip(x.shape[2:], shapes.pair(node.attrs["output_size"], 2)))
    if isinstance(x, QTensor):
        return ops.adaptive_avg_pool2d(x, size, numerics=ctx.numerics)
    return real.adaptive_avg_pool2d(x, size, order=ctx.real)


def _flatten(ctx, node, x):
    start = node.attrs["start_dim"]
    return ops.flatten(x, start) if isinstance(x, QTensor) else real.flatten(x, start)


def _reshape(ctx, node, x):
    shape = tuple(x.shape[i] if n is None else n for i, n in enumerate(node.attrs["shape"]))
    return ops.reshape(x, shape) if isinstance(x, QTensor) else np.reshape(x, shape)


def _layer_norm(ctx, node, x):
    return real.layer_norm(_only_real(node, x), node.params["weight"], node.params["bias"], eps=node.attrs["eps"], order=ctx.real)


def _real(function):
    return lambda ctx, node, *xs: function(*(_only_real(node, x) for x in xs), **node.attrs, order=ctx.real)


def _scale(ctx, node, x):
    return real.scale(_only_real(node, x), node.attrs["factor"])


def _permute(ctx, node, x):
    if isinstance(x, QTensor):
        return QTensor(real.permute(x.values, node.attrs["dims"]), x.qparams)
    return real.permute(x, node.attrs["dims"])


def _quantize(ctx, node, x):
    return ops.quantize(_only_real(node, x), node.attrs["out"], numerics=ctx.numerics)


def _dequantize(ctx, node, x):
    return ops.dequantize(x, numerics=ctx.numerics)


def _observe(ctx, node, x):
    node.attrs["observer"](_only_real(node, x))
    return x


def _identity(ctx, node, x):
    return x


def _only_real(node, x):
    if isinstance(x, QTensor):
        raise ArgumentError(f"{node.op} takes real numbers but got {x!r}; put a dequantize node before it")
    return x


_POOL = {"kernel_size": REQUIRED, "stride": None, "padding": 0}
_CONV = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "activation": None, "out": None}
_WEIGHT = {"weight": True, "bias": False}
_NORM = {"weight": True, "bias": True, "running_mean": True, "running_var": True}

# fmt: off
OPS = (
    GraphOp("input", (0, 0), {"shape": None}, {}, ("input",), _identity, shapes.same),
    GraphOp("conv1d", (1, 1), _CONV, _WEIGHT, ("nn.Conv1d", "nni.ConvReLU1d"), shape=shapes.conv, **_conv(1, ops.conv1d, real.conv1d)),
    GraphOp("conv2d", (1, 1), _CONV, _WEIGHT, ("nn.Conv2d", "nni.ConvReLU2d"), shape=shapes.conv, **_conv(2, ops.conv2d, real.conv2d)),
    GraphOp("linear", (1, 1), {"activation": None, "out": None}, _WEIGHT, ("nn.Linear", "nni.LinearReLU"), _linear, shapes.linear, _bind_linear),
    GraphOp("batch_norm", (1, 1), {"eps": 1e-5, "activation": None}, _NORM, ("nn.BatchNorm2d", "nn.BatchNorm1d", "nni.BNReLU2d"), _batch_norm, shapes.per_channel),
    GraphOp("relu", (1, 1), {}, {}, ("nn.ReLU", "F.relu", "torch.relu", ".relu"), _relu, shapes.same),
    GraphOp("add", (2, 2), {"activation": None, "out": None}, {}, ("operator.add", "torch.add", "operator.iadd"), _add, shapes.add, _bind_add),
    GraphOp("cat", (1, None), {"dim": 1, "out": None}, {}, ("torch.cat",), _cat, shapes.cat),
    GraphOp("max_pool2d", (1, 1), {**_POOL, "dilation": 1, "ceil_mode": False}, {}, ("nn.MaxPool2d", "F.max_pool2d"), _max_pool2d, shapes.pool),
    GraphOp("avg_pool2d", (1, 1), {**_POOL, "ceil_mode": False, "count_include_pad": True, "divisor_override": None}, {},
            ("nn.AvgPool2d", "F.avg_pool2d"), _avg_pool2d, shapes.pool),
    GraphOp("adaptive_avg_pool2d", (1, 1), {"output_size": REQUIRED}, {}, ("nn.AdaptiveAvgPool2d", "F.adaptive_avg_pool2d"), _adaptive_avg_pool2d, shapes.adaptive_pool),
    GraphOp("flatten", (1, 1), {"start_dim": 1}, {}, ("torch.flatten", "nn.Flatten", ".flatten"), _flatten, shapes.flatten),
    GraphOp("reshape", (1, 1), {"shape": REQUIRED}, {}, (".reshape", ".view", "torch.reshape"), _reshape, shapes.reshape),
    GraphOp("layer_norm", (1, 1), {"eps": 1e-5}, {"weight": True, "bias": True}, ("nn.LayerNorm",), _layer_norm, shapes.layer_norm),
    GraphOp("softmax", (1, 1), {"dim": -1}, {}, ("nn.Softmax", "F.softmax"), _real(real.softmax), shapes.same),
    GraphOp("gelu", (1, 1), {}, {}, ("nn.GELU", "F.gelu"), _real(real.gelu), shapes.same),
    GraphOp("matmul", (2, 2), {}, {}, ("torch.matmul", "operator.matmul"), _real(real.matmul), shapes.matmul),
    GraphOp("permute", (1, 1), {"dims": REQUIRED}, {}, (".permute", "torch.permute"), _permute, shapes.permute),
    GraphOp("scale", (1, 1), {"factor": REQUIRED}, {}, ("operator.mul", "torch.mul"), _scale, shapes.same),
    GraphOp("dropout", (1, 1), {}, {}, ("nn.Dropout", "F.dropout"), _identity, shapes.same),
    GraphOp("identity", (1, 1), {}, {}, ("nn.Identity",), _identity, shapes.same),
    GraphOp("quantize", (1, 1), {"out": REQUIRED}, {}, ("quantize",), _quantize, shapes.same),
    GraphOp("dequantize", (1, 1), {}, {}, ("dequantize",), _dequantize, shapes.same),
    GraphOp("observe", (1, 1), {"observer": REQUIRED}, {}, ("observe",), _observe, shapes.same),
)
# fmt: on

_BY_NAME = {kind.name: kind for kind in OPS}
if len(_BY_NAME) != len(OPS):
    raise ArgumentError("graph: two operations share a name; rename one")
_BY_TARGET = {target: kind for kind in OPS for target in kind.targets}


def graph_op(name, place):
    """Return the operation of a name, or say which there are."""
    return _BY_NAME[choose(place, "op", name, _BY_NAME)]


def op_of_target(target, place):
    """Return the operation of a source's name for it, such as ``"nn.Conv2d"``."""
    return _BY_TARGET[choose(place, "target", target, _BY_TARGET)]


def checked_attrs(kind, given, name):
    """Return all attributes of a node, defaults filled in."""
    place = f"node {name!r} ({kind.name})"
    for key, value in given.items():
        choose(place, "attribute", key, kind.attrs)
        if key == "activation":
            choose(place, key, value, [None, "relu"])
        if key == "out" and not (value is None and kind.attrs[key] is None or isinstance(value, QParams)):
            raise ArgumentError(f"{place}: out={value!r} must be a QParams; build one with refquant.QParams")
    attrs = {**kind.attrs, **given}
    missing = [key for key, value in attrs.items() if value is REQUIRED]
    if missing:
        raise ArgumentError(f"{place}: attribute {missing[0]!r} is missing; give it")
    return attrs
