"""Where values begin, what looks at them, and what leaves them as they are."""

import numpy as np

from refquant import ops
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError, RangeError
from refquant.graph import shapes
from refquant.graph.opset.graph_op import GraphOp, REQUIRED, only_real

__all__ = ["VALUES"]


def _identity(ctx, node, x):
    return x


def _constant(ctx, node):
    return node.params["value"]


def _embedding(ctx, node, x):
    """Rows of a table; of a table of codes, what the rows dequantize to."""
    table, x = node.params["weight"], np.asarray(only_real(node, x))
    if x.dtype.kind not in "iu":
        raise ArgumentError(f"embedding: indices have dtype {x.dtype} but must be integers; let the input node have dtype='int64'")
    if x.size and not (0 <= x.min() and x.max() < len(table)):
        raise RangeError(f"embedding: indices reach from {x.min()} to {x.max()} but the table has {len(table)} rows; indices must be 0 … {len(table) - 1}")
    return table[x]


def _quantize(ctx, node, x):
    return ops.quantize(only_real(node, x), node.attrs["out"], numerics=ctx.numerics)


def _quantize_dynamic(ctx, node, x):
    x = only_real(node, x)
    return ops.quantize(x, ops.choose_qparams(x, **node.attrs, numerics=ctx.numerics), numerics=ctx.numerics)


def _dequantize(ctx, node, x):
    return ops.dequantize(x, numerics=ctx.numerics)


def _fake_quantize(ctx, node, x):
    return ops.fake_quantize(only_real(node, x), node.attrs["out"], numerics=ctx.numerics)


def _requantize(ctx, node, x):
    if not isinstance(x, QTensor):
        raise ArgumentError("requantize takes codes; put a quantize node before it")
    return ops.requantize(x, out=node.attrs["out"], numerics=ctx.numerics)


def _observe(ctx, node, x):
    other = node.attrs["observer"](only_real(node, x))
    return x if other is None else other


def _call(ctx, node, *xs):
    """A part of a model, or what a user's object computes in its place."""
    function, part = node.attrs["function"], node.attrs["part"]
    value = (part.run if function is None else function)(*xs, numerics=ctx.numerics, real=ctx.real, threads=ctx.threads)
    value = value[0] if function is None else value
    if not isinstance(value, (np.ndarray, QTensor)):
        raise ArgumentError(f"call: {type(function).__name__} returned a {type(value).__name__} but must return one array or QTensor")
    return value


def _call_shape(node, *xs):
    part = node.attrs["part"]
    return part.shapes(*xs)[part.outputs[0]]


VALUES = (
    GraphOp("input", (0, 0), {"shape": None, "dtype": "float32"}, {}, ("input",), _identity, shapes.same),
    GraphOp("constant", (0, 0), {}, {"value": True}, ("get_attr",), _constant, shapes.constant),
    GraphOp("embedding", (1, 1), {}, {"weight": True}, ("nn.Embedding", "F.embedding"), _embedding, shapes.embedding),
    GraphOp("dropout", (1, 1), {}, {}, ("nn.Dropout", "F.dropout", "nn.Dropout2d", "F.dropout2d"), _identity, shapes.same),
    GraphOp("identity", (1, 1), {}, {}, ("nn.Identity", ".contiguous", ".detach"), _identity, shapes.same),
    GraphOp("quantize", (1, 1), {"out": REQUIRED}, {}, ("quantize",), _quantize, shapes.same),
    GraphOp("quantize_dynamic", (1, 1), {"dtype": "uint8", "symmetric": False, "reduce_range": False, "eps": 2.0**-23}, {}, ("quantize_dynamic",), _quantize_dynamic, shapes.same),
    GraphOp("dequantize", (1, 1), {}, {}, ("dequantize",), _dequantize, shapes.same),
    GraphOp("requantize", (1, 1), {"out": REQUIRED}, {}, ("requantize",), _requantize, shapes.same),
    GraphOp("fake_quantize", (1, 1), {"out": REQUIRED}, {}, ("fake_quantize",), _fake_quantize, shapes.same),
    GraphOp("observe", (1, 1), {"observer": REQUIRED}, {}, ("observe",), _observe, shapes.same),
    GraphOp("call", (1, None), {"function": None, "part": REQUIRED}, {}, ("call",), _call, _call_shape),
)
"""``input`` with dtype ``"int64"`` takes indices. ``constant`` is a parameter array as a value. ``observe`` shows its input to an observer; what
the observer returns takes the value's place, which is how fake-quantizers simulate. ``call`` is a model with one output as one node: its `part`, unless a
`function` of the same inputs, numerics, real and threads stands in for it."""
