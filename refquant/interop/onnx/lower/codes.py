"""The passage between real numbers and codes, and the operators on codes of ONNX and of ONNX Runtime."""

import numpy as np

from refquant.core.qtensor import QTensor
from refquant.interop.onnx.lower.pools import average_attrs, covers_all
from refquant.interop.onnx.lower.products import conv_attrs
from refquant.ops.pack_weights import pack_weights

__all__ = ["LOWERINGS"]

_MICROSOFT = "com.microsoft"


def _dtype(low, node, index):
    """Return the dtype that a zero point has; without one it is uint8."""
    zero = low.constant(node, index, "zero point")
    dtype = np.dtype(np.uint8) if zero is None else zero.dtype
    if dtype not in (np.uint8, np.int8):
        low.refuse(node, f"quantizes to {dtype}")
    return dtype


def _out(low, node, index):
    return low.parameters(node, index, _dtype(low, node, index + 1))


def _quantize(low, node):
    if node.attrs.get("block_size", 0) or node.attrs.get("output_dtype", 0) not in (0, 2, 3):
        low.refuse(node, "quantizes by blocks, or to a type of its own")
    out = _out(low, node, 1)
    return low.add(node.name, "quantize", [low.value(node, 0)], {"out": out}, qparams=out)


def _dequantize(low, node):
    return low.add(node.name, "dequantize", [low.codes(node, 0, _out(low, node, 1))])


def _input(low, node, at):
    """Return the graph node of codes at an index, with scale and zero point behind them."""
    return low.codes(node, at, _out(low, node, at + 1))


def _packed(low, node, codes, at, groups=1, transposed=False):
    """Return packed weights of codes (OC, …) whose scale stands at an index."""
    return pack_weights(QTensor(np.ascontiguousarray(codes), low.parameters(node, at, codes.dtype, axis=0)), groups=groups)


def _params(weight, bias):
    if bias is not None:
        bias = bias.reshape(-1).copy()
        bias.flags.writeable = False
    return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}


def _conv(low, node):
    if node.domain and node.attrs.get("channels_last", 0):
        low.refuse(node, "has its channels last")
    codes, out = low.constant(node, 3, "weight"), _out(low, node, 6)
    x, attrs = conv_attrs(low, node, _input(low, node, 0), codes.shape)
    params = _params(_packed(low, node, codes, 4, attrs["groups"]), low.constant(node, 8, "bias"))
    return low.add(node.name, f"conv{codes.ndim - 2}d", [x], {**attrs, "out": out}, params, qparams=out)


def _matrix(low, node, at):
    codes = low.constant(node, at, "second factor")
    if codes.ndim != 2:
        low.refuse(node, f"multiplies by codes of shape {codes.shape}")
    return codes


def _matmul(low, node):
    out = _out(low, node, 6)
    weight = _packed(low, node, _matrix(low, node, 3).T, 4)
    return low.add(node.name, "linear", [_input(low, node, 0)], {"out": out}, _params(weight, None), qparams=out)


def _gemm(low, node):
    codes, bias = _matrix(low, node, 3), low.constant(node, 6, "bias")
    codes = codes if node.attrs.get("transB", 0) else codes.T
    if node.attrs.get("transA", 0) or node.attrs.get("alpha", 1.0) != 1 or not (bias is None or bias.size == len(codes)):
        low.refuse(node, "transposes its input, or scales and adds otherwise than a linear layer")
    out = _out(low, node, 7) if len(node.inputs) > 7 else None
    return low.add(node.name, "linear", [_input(low, node, 0)], {"out": out}, _params(_packed(low, node, codes, 4), bias), qparams=out)


def _to_float(low, node):
    """MatMulIntegerToFloat: codes first, then scales, then zero points."""
    plain = node._replace(inputs=tuple(node.inputs[i] if i < len(node.inputs) else "" for i in (0, 2, 4, 1, 3, 5, 6)))
    bias = low.constant(plain, 6, "bias")
    weight = _packed(low, plain, _matrix(low, plain, 3).T, 4)
    return low.add(node.name, "linear", [_input(low, plain, 0)], {}, _params(weight, bias))


def _pair(op):
    def rule(low, node):
        out = _out(low, node, 6)
        return low.add(node.name, op, [_input(low, node, 0), _input(low, node, 3)], {"out": out}, qparams=out)

    return rule


def _unary(op, **attributes):
    def rule(low, node):
        out = _out(low, node, 3)
        attrs = {ours: float(np.float32(node.attrs.get(theirs, usual))) for ours, (theirs, usual) in attributes.items()}
        return low.add(node.name, op, [_input(low, node, 0)], {**attrs, "out": out}, qparams=out)

    return rule


def _concat(low, node):
    out = _out(low, node, 0)
    parts = [_input(low, node, at) for at in range(2, len(node.inputs), 3)]
    return low.add(node.name, "cat", parts, {"dim": int(node.attrs["axis"]), "out": out}, qparams=out)


def _pool(low, node):
    if node.attrs.get("channels_last", 0):
        low.refuse(node, "has its channels last")
    out, x = _out(low, node, 3), _input(low, node, 0)
    if node.op == "QLinearGlobalAveragePool" or covers_all(low, node):
        op, attrs = f"adaptive_avg_pool{len(low.shape(node, 0)) - 2}d", {"output_size": 1}
    else:
        op, x, attrs = average_attrs(low, node, x)
    if not op.endswith("2d"):
        low.refuse(node, f"is an {op} on codes")
    return low.add(node.name, op, [x], {**attrs, "out": out}, qparams=out)


LOWERINGS = {
    "QuantizeLinear": _quantize, "DequantizeLinear": _dequantize, "QLinearConv": _conv, "QLinearMatMul": _matmul,
    (_MICROSOFT, "QuantizeLinear"): _quantize, (_MICROSOFT, "DequantizeLinear"): _dequantize, (_MICROSOFT, "QLinearConv"): _conv, (_MICROSOFT, "QGemm"): _gemm,
    (_MICROSOFT, "MatMulIntegerToFloat"): _to_float, (_MICROSOFT, "QLinearAdd"): _pair("add"), (_MICROSOFT, "QLinearMul"): _pair("mul"),
    (_MICROSOFT, "QLinearSigmoid"): _unary("sigmoid"), (_MICROSOFT, "QLinearLeakyRelu"): _unary("leaky_relu", negative_slope=("alpha", 0.01)),
    (_MICROSOFT, "QLinearConcat"): _concat, (_MICROSOFT, "QLinearAveragePool"): _pool, (_MICROSOFT, "QLinearGlobalAveragePool"): _pool,
}  # fmt: skip
