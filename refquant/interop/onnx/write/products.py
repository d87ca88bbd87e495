"""Convolutions, transposed convolutions and fully connected layers."""

import math
from typing import NamedTuple

import numpy as np

from refquant import numerics as profiles
from refquant.graph.shapes import pair
from refquant.interop.onnx.write.activations import on_codes, on_reals
from refquant.interop.onnx.write.emitter import MICROSOFT
from refquant.ops.output_stage import integer_bias
from refquant.ops.pack_weights import as_qtensor

__all__ = ["RULES", "BiasChange"]


class BiasChange(NamedTuple):
    """What rounding a float32 bias to int32, in units of ``x_scale * w_scale``, does to one layer.

    Attributes
    ----------
    node : str
    channels, moved : int
        How many there are, and of how many the bias is no whole number of those units.
    codes : float
        The largest change, in units of the output's codes. A code changes only where the real result lies nearer to a rounding boundary
        than this, and then by one.
    saturated : int
        Channels whose bias does not fit into int32.
    """

    node: str
    channels: int
    moved: int
    codes: float
    saturated: int


def _int32_bias(emit, node, x, w, out):
    """Add the layer's bias as int32; return (name, its scale), or None without one. `x`, `w` and `out` are QParams."""
    bias = node.params.get("bias")
    if bias is None:
        return None
    codes = integer_bias(profiles.get("onnxruntime").conv, np.asarray(bias), x, w)
    unit = np.broadcast_to(np.float32(x.scale) * np.asarray(w.scale, np.float32), codes.shape)
    if bias.dtype.kind == "f":
        off = np.abs(codes.astype(np.float64) * unit - bias)
        full = (codes == -(2**31)) | (codes == 2**31 - 1)
        emit.biases.append(BiasChange(node.name, codes.size, int((off > 0).sum()), float(off.max(initial=0)) / out.scale, int((full & (off > unit)).sum())))
    return emit.constant(f"{node.name}_bias", codes), unit


def _geometry(node, dims):
    a = node.attrs
    return {
        "kernel_shape": list(node.params["weight"].shape[2:]), "strides": list(pair(a["stride"], dims)), "pads": list(pair(a["padding"], dims)) * 2,
        "dilations": list(pair(a["dilation"], dims)), "group": a["groups"],
    }  # fmt: skip


def _plain(emit, node):
    """Return the weights of a layer on codes, refusing what ONNX's integer operators lack."""
    if len(node.inputs) > 1:
        emit.refuse(node, "adds a second input before its activation, which no ONNX operator does in one step")
    if node.attrs["out"] is None:
        emit.refuse(node, "takes codes and gives real numbers, which ONNX Runtime's convolutions and biased products do otherwise")
    if node.attrs["activation"] not in (None, "relu"):
        emit.refuse(node, f"ends in {node.attrs['activation']}, which ONNX Runtime does not fuse")
    return as_qtensor(node.params["weight"], "weight", f"to_onnx: {node.name}")[0]


def _conv(emit, node, x, *others):
    dims = node.params["weight"].ndim - 2
    geometry = _geometry(node, dims)
    if x.qparams is None:
        names = _real_weights(emit, node, x)
        return on_reals(emit, node, lambda out: emit.node("Conv", [x.name, *names], out, **geometry), *others)
    w = _plain(emit, node)
    bias = _int32_bias(emit, node, x.qparams, w.qparams, node.attrs["out"])
    if emit.form == "qoperator":
        names = [x.name, *emit.parameters(x.qparams), *emit.weight(node, w), *emit.parameters(node.attrs["out"]), *([bias[0]] if bias else [])]
        return on_codes(emit, node, lambda out: emit.node("QLinearConv", names, out, **geometry))
    names = [emit.real(x), _dequantized(emit, node, w), *_dequantized_bias(emit, node, bias)]
    return on_codes(emit, node, real=lambda out: emit.node("Conv", names, out, **geometry))


def _float_weights(emit, node, weight=None):
    return [emit.constant(f"{node.name}_{key}", node.params[key] if weight is None or key == "bias" else weight) for key in ("weight", "bias") if node.params.get(key) is not None]


def _real_weights(emit, node, x):
    """Return weight and bias of a layer on real numbers; where it stands between codes, as PT2E leaves it, so that ONNX Runtime can fuse it."""
    weight = node.params["weight"]
    if isinstance(weight, np.ndarray):
        return _float_weights(emit, node)
    w, out = as_qtensor(weight, "weight", f"to_onnx: {node.name}")[0], _quantizer(emit, node)
    if x.origin is None or out is None or node.params.get("bias") is None:
        return [_dequantized(emit, node, w), *([] if node.params.get("bias") is None else [emit.constant(f"{node.name}_bias", node.params["bias"])])]
    return [_dequantized(emit, node, w), *_dequantized_bias(emit, node, _int32_bias(emit, node, x.origin.qparams, w.qparams, out))]


def _quantizer(emit, node):
    """Return the parameters that a layer's real numbers are quantized to, perhaps behind a ReLU, or None."""
    users = emit.model.users(node.name)
    if len(users) == 1 and users[0].op == "relu" and node.name not in emit.model.outputs:
        return _quantizer(emit, users[0])
    return users[0].attrs["out"] if len(users) == 1 and users[0].op == "quantize" and node.name not in emit.model.outputs else None


def _dequantized(emit, node, w):
    axis = w.qparams.axis if w.qparams.per_channel else None
    return emit.node("DequantizeLinear", emit.weight(node, w), emit.fresh(f"{node.name}_weight_real"), axis=axis)


def _dequantized_bias(emit, node, bias):
    if bias is None:
        return []
    scale = emit.constant(f"{node.name}_bias_scale", bias[1])
    zero = emit.constant(f"{node.name}_bias_zero_point", np.zeros(bias[1].shape, np.int32))
    return [emit.node("DequantizeLinear", [bias[0], scale, zero], emit.fresh(f"{node.name}_bias_real"), axis=0)]


def _conv_transpose(emit, node, x):
    dims = node.params["weight"].ndim - 2
    if x.qparams is not None:
        emit.refuse(node, "is a transposed convolution on codes, of which ONNX has float kernels alone")
    if not isinstance(node.params["weight"], np.ndarray):
        emit.refuse(node, "is a transposed convolution whose weights are codes", "leave its weights float")
    attributes = {**_geometry(node, dims), "output_padding": list(pair(node.attrs["output_padding"], dims))}
    return on_reals(emit, node, lambda out: emit.node("ConvTranspose", [x.name, *_float_weights(emit, node)], out, **attributes))


def _linear(emit, node, x, *others):
    if x.qparams is None:
        return on_reals(emit, node, lambda out: _float_linear(emit, node, x, out), *others)
    w = _plain(emit, node)
    bias = _int32_bias(emit, node, x.qparams, w.qparams, node.attrs["out"])
    if emit.form == "qoperator":
        return on_codes(emit, node, lambda out: _with_rows(emit, node, x, out, lambda rows, y: _qgemm(emit, node, x, rows, w, bias, y)))
    if len(x.shape) == 2:
        names = [emit.real(x), _dequantized(emit, node, w), *_dequantized_bias(emit, node, bias)]
        return on_codes(emit, node, real=lambda out: emit.node("Gemm", names, out, transB=1))
    return on_codes(emit, node, lambda out: _with_rows(emit, node, x, out, lambda rows, y: _gemm_between(emit, node, x, rows, w, bias, y)))


def _float_linear(emit, node, x, out):
    if len(x.shape) == 2:
        return emit.node("Gemm", [x.name, *_real_weights(emit, node, x)], out, transB=1)
    if not isinstance(node.params["weight"], np.ndarray):
        emit.refuse(node, "multiplies rows of more axes by codes in real numbers", "lower the model first, so that the layer reads codes")
    weight, *bias = _float_weights(emit, node, np.asarray(node.params["weight"]).T)
    product = emit.node("MatMul", [x.name, weight], emit.fresh(f"{node.name}_product") if bias else out)
    return emit.node("Add", [product, *bias], out) if bias else product


def _qgemm(emit, node, x, rows, w, bias, out):
    a, b = [rows, *emit.parameters(x.qparams)], emit.weight(node, w)
    return emit.node("QGemm", [*a, *b, bias[0] if bias else "", *emit.parameters(node.attrs["out"])], out, MICROSOFT, transB=1)


def _gemm_between(emit, node, x, rows, w, bias, out):
    names = [emit.real(x._replace(name=rows)), _dequantized(emit, node, w), *_dequantized_bias(emit, node, bias)]
    return emit.quantized(emit.node("Gemm", names, emit.fresh(f"{node.name}_product"), transB=1), node.attrs["out"], out)


def _with_rows(emit, node, x, out, product):
    """Compute a product of rows (M, K): as it is, or with the leading axes laid together and apart again."""
    if len(x.shape) == 2:
        return product(x.name, out)
    leading = [-1 if n is None else n for n in x.shape[:-1]]
    if leading.count(-1) > 1:
        emit.refuse(node, f"multiplies a value of shape {x.shape} with more than one open side", "state the shape of the model's inputs")
    rows = emit.node("Reshape", [x.name, emit.constant(f"{node.name}_rows", np.int64([-1 if -1 in leading else math.prod(leading), x.shape[-1]]))], emit.fresh(f"{x.name}_rows"))
    made = product(rows, emit.fresh(f"{node.name}_rows"))
    return emit.node("Reshape", [made, emit.constant(f"{node.name}_shape", np.int64([*leading, node.params["weight"].shape[0]]))], out)


def _matmul(emit, node, a, b):
    if (a.qparams is None) != (b.qparams is None):
        emit.refuse(node, "multiplies codes and real numbers", "put a quantize or dequantize node between")
    y = node.attrs["out"]
    if a.qparams is None or emit.form != "qoperator":
        names = [v.name if v.qparams is None else emit.real(v) for v in (a, b)]
        write = lambda out: emit.node("MatMul", names, out)  # noqa: E731
        return on_reals(emit, node, write) if a.qparams is None or y is None else on_codes(emit, node, real=write)
    (sa, za), (sb, zb) = emit.parameters(a.qparams), emit.parameters(b.qparams)
    if y is None:
        return on_reals(emit, node, lambda out: emit.node("MatMulIntegerToFloat", [a.name, b.name, sa, sb, za, zb], out, MICROSOFT))
    return on_codes(emit, node, lambda out: emit.node("QLinearMatMul", [a.name, sa, za, b.name, sb, zb, *emit.parameters(y)], out))


RULES = {
    **{f"conv{d}d": _conv for d in (1, 2, 3)}, **{f"conv_transpose{d}d": _conv_transpose for d in (1, 2, 3)},
    "linear": _linear, "matmul": _matmul,
}  # fmt: skip
