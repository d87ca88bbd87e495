"""Functions of one number, and what layers end in: on real numbers, on codes, and on codes by way of real numbers."""

import numpy as np

from refquant.interop.onnx.write.emitter import MICROSOFT, Written

__all__ = ["RULES", "on_reals", "on_codes", "between"]


def on_reals(emit, node, function, *others):
    """Write a layer on real numbers: what ``function(output name)`` writes, a second input added, the activation."""
    activation = node.attrs.get("activation")
    if activation not in (None, "relu"):
        emit.refuse(node, f"ends in {activation}", "keep the activation a node of its own")
    steps = [lambda _, out: function(out)]
    if others:
        steps.append(lambda name, out: emit.node("Add", [name, others[0].name], out))
    if activation == "relu":
        steps.append(lambda name, out: emit.node("Relu", [name], out))
    name = None
    for i, step in enumerate(steps):
        name = step(name, node.name if i == len(steps) - 1 else emit.fresh(f"{node.name}_linear"))
    return Written(name, None, emit.shapes.get(node.name))


def on_codes(emit, node, codes=None, *, real=None, out=None):
    """Write a layer on codes and its ReLU.

    Parameters
    ----------
    emit : Emitter
    node : Node
    codes : callable
        ``codes(output name)`` writes what gives codes.
    real : callable
        In its place: ``real(output name)`` writes what gives real numbers, which are quantized here.
    out : QParams, optional
        The output's, the node's own unless given.
    """
    out, rectified = out or node.attrs["out"], node.attrs.get("activation") == "relu"
    lowest = out.zero_point == np.iinfo(out.storage).min
    if real is not None:
        name = real(emit.fresh(f"{node.name}_linear"))
        if rectified and lowest:
            name = emit.node("Relu", [name], emit.fresh(f"{node.name}_relu"))
        made = lambda target: emit.quantized(name, out, target)  # noqa: E731
    else:
        made = codes
    if not rectified or lowest:  # saturation at the lowest code is the ReLU
        return Written(made(node.name), out, emit.shapes.get(node.name))
    value = Written(made(emit.fresh(f"{node.name}_codes")), out, emit.shapes.get(node.name))
    return Written(rectify(emit, value, node.name), out, value.shape)


def rectify(emit, value, output):
    """Write the ReLU of codes: none below the zero point."""
    if emit.form == "qoperator":
        zero = emit.constant(f"{output}_least", np.asarray(value.qparams.zero_point).astype(value.qparams.storage))
        return emit.node("Clip", [value.name, zero], output)
    return emit.quantized(emit.node("Relu", [emit.real(value)], emit.fresh(f"{output}_relu")), value.qparams, output)


def _relu(emit, node, x):
    shape = emit.shapes.get(node.name)
    if x.qparams is None:
        return Written(emit.node("Relu", [x.name], node.name), None, shape)
    return Written(rectify(emit, x, node.name), x.qparams, shape)


def between(emit, node, x, function, out=None):
    """Write a function of real numbers; of codes, between DequantizeLinear and QuantizeLinear."""
    shape = emit.shapes.get(node.name)
    if x.qparams is None:
        return Written(function(x.name, node.name), None, shape)
    made = function(emit.real(x), emit.fresh(f"{node.name}_function"))
    return Written(emit.quantized(made, out or x.qparams, node.name), out or x.qparams, shape)


def _function(op, integer=None, keeps=False, **renamed):
    """A function that ONNX has; `integer` names ONNX Runtime's operator on codes, `renamed` gives attributes their names here."""

    def rule(emit, node, x):
        attributes = {theirs: float(node.attrs[ours]) if isinstance(ours, str) and ours in node.attrs else ours for theirs, ours in renamed.items()}
        if x.qparams is not None and not keeps and node.attrs.get("out") is None:
            emit.refuse(node, "leaves the parameters of its output to the engine, which ONNX does not", "give the node out=QParams")
        if integer and x.qparams is not None and emit.form == "qoperator":
            names = [x.name, *emit.parameters(x.qparams), *emit.parameters(node.attrs["out"])]
            return Written(emit.node(integer, names, node.name, MICROSOFT, **attributes), node.attrs["out"], emit.shapes.get(node.name))
        return between(emit, node, x, lambda name, out: emit.node(op, [name], out, **attributes), node.attrs.get("out"))

    return rule


def _clip(least, most):
    """A limit on both sides; an argument is a number or the name of an attribute."""

    def rule(emit, node, x):
        limits = [node.attrs[v] if isinstance(v, str) else v for v in (least, most)]
        names = ["" if v is None else emit.constant(f"{node.name}_limit", np.float32(v)) for v in limits]
        return between(emit, node, x, lambda name, out: emit.node("Clip", [name, *names], out))

    return rule


def _prelu(emit, node, x):
    weight, shape = np.asarray(node.params["weight"]), emit.shapes[node.name]
    slope = weight.reshape(-1, *[1] * max(len(shape) - 2, 0)) if weight.size > 1 else weight
    name = emit.constant(f"{node.name}_slope", slope)
    return between(emit, node, x, lambda real, out: emit.node("PRelu", [real, name], out), node.attrs.get("out"))


def _gelu(emit, node, x):
    approximate = node.attrs.get("approximate", "none")
    return between(emit, node, x, lambda name, out: emit.node("Gelu", [name], out, approximate=approximate), node.attrs.get("out"))


def _silu(emit, node, x):
    gate = emit.node("Sigmoid", [x.name], emit.fresh(f"{node.name}_gate"))
    return Written(emit.node("Mul", [x.name, gate], node.name), None, emit.shapes.get(node.name))


def _softmax(op):
    def rule(emit, node, x):
        if x.qparams is not None and node.attrs.get("out") is None:
            emit.refuse(node, "leaves the parameters of its output to the engine, which ONNX does not", "give the node out=QParams")
        return between(emit, node, x, lambda name, out: emit.node(op, [name], out, axis=node.attrs["dim"]), node.attrs.get("out"))

    return rule


RULES = {
    "relu": _relu, "relu6": _clip(0.0, 6.0), "hardtanh": _clip("min_val", "max_val"), "clamp": _clip("min", "max"),
    "sigmoid": _function("Sigmoid", "QLinearSigmoid"), "tanh": _function("Tanh"), "elu": _function("Elu", alpha="alpha"),
    "leaky_relu": _function("LeakyRelu", "QLinearLeakyRelu", alpha="negative_slope"), "hardsigmoid": _function("HardSigmoid", alpha=1 / 6, beta=0.5),
    "hardswish": _function("HardSwish"), "gelu": _gelu, "silu": _silu, "prelu": _prelu, "softmax": _softmax("Softmax"), "log_softmax": _softmax("LogSoftmax"),
}  # fmt: skip
