"""Functions of one number, and softmax."""

from refquant import ops
from refquant.core.qtensor import QTensor
from refquant.errors import UnsupportedError
from refquant.graph import shapes
from refquant.graph.opset.graph_op import GraphOp, on_codes_or_reals, only_real, real_only
from refquant.ops import real

__all__ = ["ACTIVATIONS"]


def _prelu(ctx, node, x):
    weight = node.params["weight"]
    if isinstance(x, QTensor):
        return ops.prelu(x, weight, out=node.attrs["out"], numerics=ctx.numerics)
    return real.prelu(only_real(node, x), weight)


def _gelu(ctx, node, x):
    if not isinstance(x, QTensor):
        return real.gelu(x, approximate=node.attrs["approximate"], order=ctx.real)
    if node.attrs["approximate"] != "none":
        raise UnsupportedError("gelu of codes has no tanh form; put a dequantize node before it, or take approximate='none'")
    return ops.gelu(x, out=node.attrs["out"], numerics=ctx.numerics, threads=ctx.threads)


def _unary(name, attrs, targets, **options):
    """A function with a form for codes."""
    settings = [key for key in attrs if key != "out"]
    run = on_codes_or_reals(getattr(ops, name), getattr(real, name), *settings, **options)
    return GraphOp(name, (1, 1), attrs, {}, targets, run, shapes.same)


_OUT = {"out": None}

# fmt: off
ACTIVATIONS = (
    _unary("relu", {}, ("nn.ReLU", "F.relu", "torch.relu", ".relu", ".relu_", "F.relu_")),
    _unary("relu6", {}, ("nn.ReLU6", "F.relu6")),
    _unary("hardtanh", {"min_val": -1.0, "max_val": 1.0}, ("nn.Hardtanh", "F.hardtanh", "F.hardtanh_")),
    _unary("clamp", {"min": None, "max": None}, ("torch.clamp", ".clamp", "torch.clip")),
    _unary("hardswish", _OUT, ("nn.Hardswish", "F.hardswish"), out=True, threads=True),
    _unary("hardsigmoid", _OUT, ("nn.Hardsigmoid", "F.hardsigmoid"), out=True, threads=True),
    _unary("sigmoid", _OUT, ("nn.Sigmoid", "torch.sigmoid", ".sigmoid", "F.sigmoid", ".sigmoid_"), out=True, threads=True, order=True),
    _unary("tanh", _OUT, ("nn.Tanh", "torch.tanh", ".tanh", "F.tanh", ".tanh_"), out=True, threads=True, order=True),
    _unary("elu", {"alpha": 1.0, **_OUT}, ("nn.ELU", "F.elu"), out=True, threads=True, order=True),
    _unary("leaky_relu", {"negative_slope": 0.01, **_OUT}, ("nn.LeakyReLU", "F.leaky_relu"), out=True, threads=True),
    GraphOp("prelu", (1, 1), _OUT, {"weight": True}, ("nn.PReLU",), _prelu, shapes.prelu),
    GraphOp("gelu", (1, 1), {"approximate": "none", **_OUT}, {}, ("nn.GELU", "F.gelu"), _gelu, shapes.same),
    GraphOp("silu", (1, 1), {}, {}, ("nn.SiLU", "F.silu"), real_only(real.silu, order=True), shapes.same),
    _unary("softmax", {"dim": -1, **_OUT}, ("nn.Softmax", "F.softmax", "torch.softmax", ".softmax"), out=True, order=True),
    GraphOp("log_softmax", (1, 1), {"dim": -1}, {}, ("nn.LogSoftmax", "F.log_softmax", "torch.log_softmax"), real_only(real.log_softmax, "dim", order=True), shapes.same),
)
# fmt: on
"""All take codes but silu and log_softmax, of which no kernel on codes is modelled. ``out`` are the output's parameters: needed by hardswish,
elu, leaky_relu and prelu; the engine's own unless given for sigmoid, tanh, hardsigmoid, softmax and gelu."""
