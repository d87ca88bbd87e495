"""Normalizations."""

from refquant import ops
from refquant.core.qtensor import QTensor
from refquant.graph import shapes
from refquant.graph.opset.graph_op import GraphOp, REQUIRED, real_only
from refquant.ops import real

__all__ = ["NORMS"]


def _batch_norm(ctx, node, x):
    p, a = node.params, node.attrs
    arrays = p["running_mean"], p["running_var"], p["weight"], p["bias"]
    if isinstance(x, QTensor):
        return ops.batch_norm(x, *arrays, a["eps"], out=a["out"], numerics=ctx.numerics, activation=a["activation"])
    return real.batch_norm(x, *arrays, eps=a["eps"], order=ctx.real, activation=a["activation"])


def _layer_norm(ctx, node, x):
    weight, bias, a = node.params["weight"], node.params["bias"], node.attrs
    if isinstance(x, QTensor):
        return ops.layer_norm(x, weight.shape, weight, bias, a["eps"], out=a["out"], numerics=ctx.numerics)
    return real.layer_norm(x, weight, bias, eps=a["eps"], order=ctx.real)


def _group_norm(ctx, node, x):
    weight, bias, a = node.params.get("weight"), node.params.get("bias"), node.attrs
    if isinstance(x, QTensor):
        return ops.group_norm(x, a["num_groups"], weight, bias, a["eps"], out=a["out"], numerics=ctx.numerics)
    return real.group_norm(x, a["num_groups"], weight, bias, eps=a["eps"], order=ctx.real)


def _instance_norm(ctx, node, x):
    weight, bias, a = node.params.get("weight"), node.params.get("bias"), node.attrs
    if isinstance(x, QTensor):
        return ops.instance_norm(x, weight, bias, a["eps"], out=a["out"], numerics=ctx.numerics)
    return real.instance_norm(x, weight, bias, eps=a["eps"], order=ctx.real)


_OUT = {"eps": 1e-5, "out": None}
_LINE = {"weight": False, "bias": False}
_STATISTICS = {"weight": True, "bias": True, "running_mean": True, "running_var": True}
_BATCH = "nn.BatchNorm2d", "nn.BatchNorm1d", "nn.BatchNorm3d", "nni.BNReLU2d", "nni.BNReLU3d"
_LOCAL = {"size": REQUIRED, "alpha": 1e-4, "beta": 0.75, "k": 1.0}

# fmt: off
NORMS = (
    GraphOp("batch_norm", (1, 1), {**_OUT, "activation": None}, _STATISTICS, _BATCH, _batch_norm, shapes.per_channel),
    GraphOp("layer_norm", (1, 1), _OUT, {"weight": True, "bias": True}, ("nn.LayerNorm", "F.layer_norm"), _layer_norm, shapes.layer_norm),
    GraphOp("group_norm", (1, 1), {"num_groups": REQUIRED, **_OUT}, _LINE, ("nn.GroupNorm", "F.group_norm"), _group_norm, shapes.group_norm),
    GraphOp("instance_norm", (1, 1), _OUT, _LINE, ("nn.InstanceNorm2d", "nn.InstanceNorm1d", "nn.InstanceNorm3d", "F.instance_norm"), _instance_norm, shapes.group_norm),
    GraphOp("local_response_norm", (1, 1), _LOCAL, {}, ("nn.LocalResponseNorm", "F.local_response_norm"),
            real_only(real.local_response_norm, *_LOCAL, order=True), shapes.same),
)
# fmt: on
"""All take codes, with ``out`` given, but local_response_norm. layer_norm normalises as many last axes as its weight has; group_norm and
instance_norm need no weight and bias."""
