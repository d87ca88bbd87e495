"""Inputs, constants, and the passage between real numbers and codes."""

from refquant.interop.onnx.write.emitter import Written
from refquant.interop.onnx.write.shaping import moved

__all__ = ["RULES"]


def _constant(emit, node):
    value = node.params["value"]
    name = emit.constant(f"{node.name}_value", value)
    return Written(emit.node("Identity", [name], node.name), None, tuple(value.shape))


def _embedding(emit, node, x):
    table = emit.constant(f"{node.name}_weight", node.params["weight"])
    return Written(emit.node("Gather", [table, x.name], node.name, axis=0), None, emit.shapes.get(node.name))


def _identity(emit, node, x):
    return moved(emit, node, x, "Identity")


def _quantize(emit, node, x):
    out = node.attrs["out"]
    return Written(emit.quantized(emit.real(x), out, node.name), out, x.shape)


def _dequantize(emit, node, x):
    return Written(emit.node("DequantizeLinear", [x.name, *emit.parameters(x.qparams)], node.name), None, x.shape, x)


def _observe(emit, node, x):
    emit.refuse(node, "is an observer", "convert the prepared model first, or export the float model")


def _dynamic(emit, node, x, *_):
    emit.refuse(node, "chooses its parameters from the data at run time", "quantize the model statically, or export the float model")


RULES = {
    "constant": _constant, "embedding": _embedding, "dropout": _identity, "identity": _identity, "quantize": _quantize, "dequantize": _dequantize,
    "requantize": _quantize, "observe": _observe,
    "quantize_dynamic": _dynamic, "linear_dynamic": _dynamic,
}  # fmt: skip
