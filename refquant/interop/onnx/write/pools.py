"""Pools and means."""

import math

import numpy as np

from refquant.graph.shapes import pair
from refquant.interop.onnx.write.activations import between
from refquant.interop.onnx.write.emitter import MICROSOFT, Written
from refquant.interop.onnx.write.shaping import moved

__all__ = ["RULES"]


def _window(node, dims):
    a = node.attrs
    kernel = list(pair(a["kernel_size"], dims))
    stride = kernel if a["stride"] is None else list(pair(a["stride"], dims))
    return {"kernel_shape": kernel, "strides": stride, "pads": list(pair(a["padding"], dims)) * 2, "ceil_mode": int(a["ceil_mode"])}


def _max_pool(emit, node, x):
    dims = len(x.shape) - 2
    return moved(emit, node, x, "MaxPool", **_window(node, dims), dilations=list(pair(node.attrs["dilation"], dims)))


def _avg_pool(emit, node, x):
    dims = len(x.shape) - 2
    window = _window(node, dims)
    divisor = node.attrs.get("divisor_override")
    if divisor is not None:
        if divisor != math.prod(window["kernel_shape"]) or not (node.attrs["count_include_pad"] or not any(window["pads"])) or window["ceil_mode"]:
            emit.refuse(node, f"divides by divisor_override={divisor}, which ONNX lacks", "multiply by a number behind an ordinary pool")
    return _average(emit, node, x, "AveragePool", "QLinearAveragePool", **window, count_include_pad=int(node.attrs["count_include_pad"]))


def _average(emit, node, x, op, integer, **attributes):
    shape = emit.shapes.get(node.name)
    if x.qparams is None:
        return Written(emit.node(op, [x.name], node.name, **attributes), None, shape)
    out = node.attrs.get("out") or x.qparams
    if emit.form == "qoperator":
        names = [x.name, *emit.parameters(x.qparams), *emit.parameters(out)]
        return Written(emit.node(integer, names, node.name, MICROSOFT, **attributes, channels_last=0), out, shape)
    made = emit.node(op, [emit.real(x)], emit.fresh(f"{node.name}_mean"), **attributes)
    return Written(emit.quantized(made, out, node.name), out, shape)


def _adaptive(op, integer, window):
    def rule(emit, node, x):
        sides = x.shape[2:]
        size = [n if o is None else o for n, o in zip(sides, pair(node.attrs["output_size"], len(sides)))]
        if all(o == 1 for o in size):
            return _average(emit, node, x, op, integer) if integer else Written(emit.node(op, [x.name], node.name), x.qparams, emit.shapes.get(node.name))
        if x.qparams is not None or any(n is None or n % o for n, o in zip(sides, size)):
            emit.refuse(node, f"pools {x.shape} into {tuple(size)} windows, but ONNX has the global pool alone", "pool into 1, or into windows of one size while the model is float")
        kernel = [n // o for n, o in zip(sides, size)]
        return Written(emit.node(window, [x.name], node.name, kernel_shape=kernel, strides=kernel), None, emit.shapes.get(node.name))

    return rule


def _mean(emit, node, x):
    axes = emit.constant(f"{node.name}_axes", np.int64(node.attrs["dim"]).reshape(-1))
    return between(emit, node, x, lambda name, out: emit.node("ReduceMean", [name, axes], out, keepdims=int(node.attrs["keepdim"])), node.attrs.get("out"))


RULES = {
    **{f"max_pool{d}d": _max_pool for d in (1, 2, 3)}, **{f"avg_pool{d}d": _avg_pool for d in (1, 2, 3)},
    **{f"adaptive_avg_pool{d}d": _adaptive("GlobalAveragePool", "QLinearGlobalAveragePool", "AveragePool") for d in (1, 2, 3)},
    "adaptive_max_pool2d": _adaptive("GlobalMaxPool", None, "MaxPool"), "mean": _mean,
}  # fmt: skip
