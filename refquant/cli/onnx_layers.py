"""Nodes of quantized ONNX models as problems of refquant's operators, and a quantized ONNX model as an audit wants it."""

import os
from pathlib import Path

import numpy as np

from refquant import numerics as profiles
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.drift.audit_network import AuditedLayer, on_level
from refquant.errors import ArgumentError, RefquantError
from refquant.verify.problem import Problem

__all__ = ["problem_of", "quantized_network", "OnnxNetwork"]

_WEIGHTS = ("QLinearConv", "QLinearMatMul", "QGemm")


def _parameters(scale, zero, dtype, axis=None):
    scale = np.asarray(scale, np.float64).reshape(-1)
    zero = np.zeros(1, np.int64) if zero is None else np.asarray(zero).astype(np.int64).reshape(-1)
    if scale.size == zero.size == 1:
        return QParams(float(scale[0]), int(zero[0]), np.dtype(dtype).name, unchecked=True)
    length = max(scale.size, zero.size)
    return QParams(np.broadcast_to(scale, length), np.broadcast_to(zero, length), np.dtype(dtype).name, axis=axis, unchecked=True)


def _tensor(codes, scale, zero, axis=None):
    return QTensor(np.ascontiguousarray(codes), _parameters(scale, zero, codes.dtype, axis))


def _out(scale, zero):
    return _parameters(scale, zero, np.uint8 if zero is None else np.asarray(zero).dtype)


def _conv(node, x, xs, xz, w, ws, wz, ys, yz, bias=None):
    dims = w.ndim - 2
    if dims not in (1, 2, 3) or (node.attrs.get("auto_pad", "NOTSET") or "NOTSET") != "NOTSET":
        return None
    pads = [int(p) for p in node.attrs.get("pads") or [0] * (2 * dims)]
    before, after = pads[:dims], pads[dims:]
    padding = tuple(before) if before == after else (0,) * dims
    if before != after:
        x = np.pad(x, ((0, 0), (0, 0), *zip(before, after)), constant_values=0 if xz is None else np.asarray(xz).item())
    sides = {name: tuple(int(v) for v in node.attrs.get(theirs) or [1] * dims) for name, theirs in (("stride", "strides"), ("dilation", "dilations"))}
    arguments = {"x": _tensor(x, xs, xz), "w": _tensor(w, ws, wz, 0), "bias": bias, "padding": padding, "groups": int(node.attrs.get("group", 1)), "out": _out(ys, yz)}
    return Problem(f"conv{dims}d", {**arguments, **sides})


def _conv_last(node, *inputs):
    problem = _conv(node, np.moveaxis(inputs[0], -1, 1), *inputs[1:]) if node.attrs.get("channels_last", 0) else _conv(node, *inputs)
    return problem


def _matmul(node, a, sa, za, b, sb, zb, sy, zy):
    if b.ndim != 2 or a.ndim < 2:
        return None
    return Problem("linear", {"x": _tensor(a, sa, za), "w": _tensor(b.T, sb, zb, 0), "out": _out(sy, zy)})


def _gemm(node, a, sa, za, b, sb, zb, c=None, sy=None, zy=None):
    channels = (b.shape[0] if node.attrs.get("transB", 0) else b.shape[1],)
    if node.attrs.get("transA", 0) or node.attrs.get("alpha", 1.0) != 1 or not (c is None or c.shape == channels):
        return None
    w = b if node.attrs.get("transB", 0) else b.T
    return Problem("linear", {"x": _tensor(a, sa, za), "w": _tensor(w, sb, zb, 0), "bias": c, "out": None if sy is None else _out(sy, zy)})


def _to_float(node, a, b, sa, sb, za=None, zb=None, bias=None):
    return None if b.ndim != 2 else Problem("linear", {"x": _tensor(a, sa, za), "w": _tensor(b.T, sb, zb, 0), "bias": bias, "out": None})


def _pair(op):
    def make(node, a, sa, za, b, sb, zb, sy, zy=None):
        same = a.shape == b.shape
        return Problem(op, {"a": _tensor(a, sa, za), "b": _tensor(b, sb, zb), "out": _out(sy, zy)}) if same else None

    return make


def _unary(op, **attrs):
    def make(node, x, sx, zx, sy, zy=None):
        more = {ours: float(np.float32(node.attrs.get(theirs, usual))) for ours, (theirs, usual) in attrs.items()}
        return Problem(op, {"x": _tensor(x, sx, zx), "out": _out(sy, zy), **more})

    return make


def _quantize(node, x, scale, zero=None):
    simple = np.asarray(x).dtype == np.float32 and not node.attrs.get("block_size", 0) and np.size(scale) == 1
    return Problem("quantize", {"x": x, "qparams": _out(scale, zero)}) if simple else None


def _dequantize(node, q, scale, zero=None):
    return Problem("dequantize", {"q": _tensor(q, scale, zero)}) if np.size(scale) == 1 and q.dtype in (np.uint8, np.int8) else None


def _concat(node, scale, zero, *parts):
    tensors = tuple(_tensor(x, s, z) for x, s, z in zip(parts[::3], parts[1::3], parts[2::3]))
    return Problem("cat", {"tensors": tensors, "dim": int(node.attrs["axis"]), "out": _out(scale, zero)})


_PROBLEMS = {
    "QLinearConv": _conv_last, "QLinearMatMul": _matmul, "QGemm": _gemm, "MatMulIntegerToFloat": _to_float, "QLinearAdd": _pair("add"), "QLinearMul": _pair("mul"),
    "QLinearSigmoid": _unary("sigmoid"), "QLinearLeakyRelu": _unary("leaky_relu", negative_slope=("alpha", 0.01)), "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize, "QLinearConcat": _concat,
}  # fmt: skip


def problem_of(node, inputs):
    """Return a node's call as a `Problem`, or None where it is not a single operator of refquant's.

    Parameters
    ----------
    node : OnnxNode
    inputs : list of (ndarray or None)
    """
    make = _PROBLEMS.get(node.op)
    if make is None:
        return None
    try:
        return make(node, *inputs)
    except (RefquantError, TypeError, ValueError, KeyError, AttributeError):
        return None


def quantized_network(path):
    """Return the `OnnxNetwork` of a file, or None if the file holds a float network; both are read by `refquant.interop.from_onnx` alone."""
    from refquant.interop import from_onnx

    model = from_onnx(path, numerics="onnxruntime", as_graph=False)
    if not any(node.op in _WEIGHTS for node in model.nodes):
        return None
    return OnnxNetwork(model, Path(os.fspath(path)).stem)


class OnnxNetwork:
    """A quantized `OnnxModel` as `refquant.drift.audit` wants a network: as ONNX Runtime fuses and runs it.

    Parameters
    ----------
    model : OnnxModel
    name : str

    Raises
    ------
    ArgumentError
        More than one input.
    """

    def __init__(self, model, name):
        if len(model.inputs) != 1:
            raise ArgumentError(f"audit: model {name} has {len(model.inputs)} inputs {list(model.inputs)} but an audit feeds one; cut the model down")
        self.model, self.name, self.numerics = model, name, profiles.get("onnxruntime")

    def run(self, x, level=None):
        """Return the first output."""
        return self._each(x, lambda part: self.model.run(part, numerics=on_level(self.numerics, level))[0])

    def _each(self, x, function):
        """Feed a batch at once, or image by image where the model fixes the size of a batch to one."""
        fixed = self.model.signature[0].shape
        if fixed and fixed[0] == 1 and len(x) > 1:
            return np.concatenate([function(x[i : i + 1]) for i in range(len(x))])
        return function(x)

    def layers(self, x):
        """Yield an `AuditedLayer` for each product with weights, in order; ties are not looked for."""
        fixed = self.model.signature[0].shape
        for part in [x[i : i + 1] for i in range(len(x))] if fixed and fixed[0] == 1 else [x]:
            yield from self._layers(part)

    def _layers(self, x):
        values = {**self.model.constants, self.model.inputs[0]: x}

        def keep(node, value):
            slot = next(name for name in node.outputs if name and name not in values)
            values[slot] = value

        self.model.run(x, hooks=keep)
        for node in self.model.nodes:
            if node.op in _WEIGHTS and node.outputs[0] in values:
                problem = problem_of(node, [values[name] if name else None for name in node.inputs])
                if problem is not None and problem["out"] is not None and problem.op in ("linear", "conv2d") and problem["x"].ndim == problem["w"].ndim:
                    yield AuditedLayer(node.name, problem.op, problem, np.asarray(values[node.outputs[0]]), None, True)
