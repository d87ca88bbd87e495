"""Layers with weights: convolutions, transposed convolutions, linear; and the product of two values."""

from functools import partial

from refquant import ops
from refquant.core.qtensor import QTensor
from refquant.graph import shapes
from refquant.graph.opset.graph_op import GraphOp, only_real
from refquant.ops import real
from refquant.ops.conv import bind_convolution
from refquant.ops.linear import bind_linear
from refquant.ops.pack_weights import bias_key, is_reusable

__all__ = ["PRODUCTS"]


def _settings(ctx, node, extra=()):
    a = node.attrs
    return {"out": a["out"], "numerics": ctx.numerics, "activation": a["activation"], **{k: a[k] for k in extra}}


def _layer(function, real_function, geometry=()):
    """``run`` of a layer: a second input is added before the activation."""

    def run(ctx, node, x, other=None):
        p, settings = node.params, _settings(ctx, node, geometry)
        if isinstance(x, QTensor):
            return function(x, p["weight"], p.get("bias"), **settings, **({} if other is None else {"other": other}))
        plain, weights = {k: settings[k] for k in geometry}, [_real(ctx, p["weight"]), _real(ctx, p.get("bias"))]
        if other is None:
            return real_function(x, *weights, order=ctx.real, activation=settings["activation"], **plain)
        return real.add(real_function(x, *weights, order=ctx.real, **plain), other, settings["activation"])

    return run


def _real(ctx, parameter):
    """Codes of a layer that computes on real numbers are dequantized first."""
    return ops.dequantize(parameter, numerics=ctx.numerics) if isinstance(parameter, QTensor) else parameter


def _bind(binder, geometry=()):
    def bind(ctx, node, x, *other):
        settings = _settings(ctx, node, geometry)
        weight, bias, out = node.params["weight"], node.params.get("bias"), settings["out"]
        if other or settings["activation"] not in (None, "relu") or not is_reusable(x, weight, bias) or bias_key(bias)[1]:
            return None  # a bias that can still be changed
        codes_to_codes = binder(x, weight, bias, **settings)
        return lambda x: codes_to_codes(x.values) if out is None else QTensor(codes_to_codes(x.values), out)

    return bind


def _matmul(ctx, node, a, b):
    if isinstance(a, QTensor) and isinstance(b, QTensor):
        return ops.matmul(a, b, out=node.attrs["out"], numerics=ctx.numerics)
    return real.matmul(only_real(node, a), only_real(node, b), order=ctx.real)


def _linear_dynamic(ctx, node, x):
    settings = {"activation": node.attrs["activation"], "reduce_range": node.attrs["reduce_range"], "numerics": ctx.numerics}
    return ops.linear_dynamic(only_real(node, x), node.params["weight"], node.params.get("bias"), **settings)


_LAYER = {"activation": None, "out": None}
_GEOMETRY = ("stride", "padding", "dilation", "groups")
_CONV = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, **_LAYER}
_TRANSPOSED = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1, "groups": 1, **_LAYER}
_WEIGHT = {"weight": True, "bias": False}


def _conv(dims):
    name = f"conv{dims}d"
    run, bind = _layer(getattr(ops, name), getattr(real, name), _GEOMETRY), _bind(partial(bind_convolution, dims), _GEOMETRY)
    targets = f"nn.Conv{dims}d", f"nni.ConvReLU{dims}d", f"nni.ConvAdd{dims}d", f"nni.ConvAddReLU{dims}d", f"F.conv{dims}d"
    return GraphOp(name, (1, 2), _CONV, _WEIGHT, targets if dims == 2 else (targets[0], targets[1], targets[4]), run, shapes.conv, bind)


def _conv_transpose(dims):
    name = f"conv_transpose{dims}d"
    run = _layer(getattr(ops, name), getattr(real, name), tuple(key for key in _TRANSPOSED if key not in _LAYER))
    return GraphOp(name, (1, 1), _TRANSPOSED, _WEIGHT, (f"nn.ConvTranspose{dims}d", f"F.conv_transpose{dims}d"), run, shapes.conv_transpose)


_LINEAR = "nn.Linear", "nni.LinearReLU", "nni.LinearLeakyReLU", "nni.LinearTanh", "F.linear"

PRODUCTS = (
    *(_conv(dims) for dims in (1, 2, 3)),
    *(_conv_transpose(dims) for dims in (1, 2, 3)),
    GraphOp("linear", (1, 2), _LAYER, _WEIGHT, _LINEAR, _layer(ops.linear, real.linear), shapes.linear, _bind(bind_linear)),
    GraphOp("linear_dynamic", (1, 1), {"activation": None, "reduce_range": False}, _WEIGHT, ("linear_dynamic",), _linear_dynamic, shapes.linear),
    GraphOp("matmul", (2, 2), {"out": None}, {}, ("torch.matmul", "operator.matmul", "torch.bmm", ".matmul", ".bmm"), _matmul, shapes.matmul),
)
"""Weights are (OC, IC / groups, …), of transposed convolutions (IC, OC / groups, …), of linear (OC, K). A second input of a convolution or a
linear layer is added before its activation, as fused layers do. ``linear_dynamic`` takes real numbers and quantizes them as it runs. ``matmul`` of codes is
ONNX Runtime's alone; without ``out`` it gives real numbers."""
