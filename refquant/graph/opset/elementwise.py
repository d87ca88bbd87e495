"""Sums, differences and products of two values or of a value and a number, and concatenation."""

import numpy as np

from refquant import ops
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError
from refquant.graph import shapes
from refquant.graph.opset.graph_op import GraphOp, REQUIRED, real_only
from refquant.ops import real
from refquant.ops.add import bind_add

__all__ = ["ELEMENTWISE"]


def _both_codes(node, a, b):
    if isinstance(a, QTensor) != isinstance(b, QTensor):
        raise ArgumentError(f"{node.op} got {a!r} and {b!r}; both must be real numbers or both codes, put a quantize or dequantize node between")
    return isinstance(a, QTensor)


def _add(ctx, node, a, b):
    if _both_codes(node, a, b):
        return ops.add(a, b, out=node.attrs["out"], numerics=ctx.numerics, activation=node.attrs["activation"], threads=ctx.threads)
    return real.add(a, b, node.attrs["activation"])


def _bind_add(ctx, node, a, b):
    if not (isinstance(a, QTensor) and isinstance(b, QTensor)):
        return None
    a_ = node.attrs
    codes_to_codes, out = bind_add(a, b, out=a_["out"], numerics=ctx.numerics, activation=a_["activation"], threads=ctx.threads), a_["out"]
    return lambda a, b: QTensor(codes_to_codes(a.values, b.values), out)


def _broadcast(x, shape):
    return x if x.shape == shape else QTensor(np.broadcast_to(x.values, shape).copy(), x.qparams)


def _mul(ctx, node, a, b):
    if not _both_codes(node, a, b):
        return real.mul(a, b, node.attrs["activation"])
    shape = shapes.broadcast(node, a.shape, b.shape)
    return ops.mul(_broadcast(a, shape), _broadcast(b, shape), out=node.attrs["out"], numerics=ctx.numerics, activation=node.attrs["activation"])


def _scalar(quantized, function):
    def run(ctx, node, x):
        if isinstance(x, QTensor):
            return quantized(x, node.attrs["number"], numerics=ctx.numerics, activation=node.attrs["activation"])
        return function(x, node.attrs["number"], node.attrs["activation"])

    return run


def _cat(ctx, node, *xs):
    dim = node.attrs["dim"]
    if isinstance(xs[0], QTensor):
        return ops.cat(xs, dim, out=node.attrs["out"] or xs[0].qparams, numerics=ctx.numerics)
    return real.cat(xs, dim)


def _stack(ctx, node, *xs):
    dim = node.attrs["dim"] % (len(xs[0].shape) + 1)
    along = [QTensor(np.expand_dims(x.values, dim), x.qparams) if isinstance(x, QTensor) else np.expand_dims(x, dim) for x in xs]
    if isinstance(xs[0], QTensor):
        return ops.cat(along, dim, out=xs[0].qparams, numerics=ctx.numerics)
    return real.cat(along, dim)


_TWO = {"activation": None, "out": None}
_NUMBER = {"number": REQUIRED, "activation": None}

# fmt: off
ELEMENTWISE = (
    GraphOp("add", (2, 2), _TWO, {}, ("operator.add", "torch.add", "operator.iadd", ".add", ".add_"), _add, shapes.broadcast, _bind_add),
    GraphOp("sub", (2, 2), {}, {}, ("operator.sub", "torch.sub", ".sub"), real_only(real.sub), shapes.broadcast),
    GraphOp("mul", (2, 2), _TWO, {}, ("operator.mul", "torch.mul", "operator.imul", ".mul", ".mul_"), _mul, shapes.broadcast),
    GraphOp("div", (2, 2), {}, {}, ("operator.truediv", "torch.div", ".div"), real_only(real.div), shapes.broadcast),
    GraphOp("add_scalar", (1, 1), _NUMBER, {}, ("operator.add", "torch.add", "operator.iadd", ".add", ".add_"), _scalar(ops.add_scalar, real.add_scalar), shapes.same),
    GraphOp("mul_scalar", (1, 1), _NUMBER, {}, ("operator.mul", "torch.mul", "operator.imul", ".mul", ".mul_"), _scalar(ops.mul_scalar, real.mul_scalar), shapes.same),
    GraphOp("cat", (1, None), {"dim": 1, "out": None}, {}, ("torch.cat", "torch.concat"), _cat, shapes.cat),
    GraphOp("stack", (1, None), {"dim": 0}, {}, ("torch.stack",), _stack, shapes.stack),
)
# fmt: on
"""Shapes broadcast as NumPy's do; of codes, products broadcast and sums do not, as in PyTorch's kernels. ``sub`` and ``div`` are for real numbers:
no engine that is modelled has them on codes. ``add_scalar`` and ``mul_scalar`` of codes change parameters, not codes, where they can."""
