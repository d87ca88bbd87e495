"""Sums, products and concatenation of values."""

import numpy as np

from refquant.interop.onnx.write.activations import on_codes, on_reals
from refquant.interop.onnx.write.emitter import MICROSOFT, Written

__all__ = ["RULES"]


def _same_kind(emit, node, values):
    kinds = {v.qparams is None for v in values}
    if len(kinds) > 1:
        emit.refuse(node, "mixes codes and real numbers", "put a quantize or dequantize node between")
    return kinds == {True}


def _pair(op, integer=None):
    def rule(emit, node, a, b):
        if _same_kind(emit, node, (a, b)):
            return on_reals(emit, node, lambda out: emit.node(op, [a.name, b.name], out))
        if integer is None or node.attrs.get("out") is None:
            emit.refuse(node, "computes with codes, which ONNX Runtime has no operator for")
        if emit.form == "qoperator":
            names = [a.name, *emit.parameters(a.qparams), b.name, *emit.parameters(b.qparams), *emit.parameters(node.attrs["out"])]
            return on_codes(emit, node, lambda out: emit.node(integer, names, out, MICROSOFT))
        names = [emit.real(a), emit.real(b)]
        return on_codes(emit, node, real=lambda out: emit.node(op, names, out))

    return rule


def _scalar(op):
    def rule(emit, node, x):
        if x.qparams is not None:
            emit.refuse(node, "computes with codes and a number, for which the engine chooses parameters at run time")
        number = emit.constant(f"{node.name}_number", np.float32(node.attrs["number"] if "number" in node.attrs else node.attrs["factor"]))
        return on_reals(emit, node, lambda out: emit.node(op, [x.name, number], out))

    return rule


def _cat(emit, node, *xs):
    axis = node.attrs["dim"]
    if _same_kind(emit, node, xs):
        return Written(emit.node("Concat", [x.name for x in xs], node.name, axis=axis), None, emit.shapes.get(node.name))
    out = node.attrs["out"] or xs[0].qparams
    if emit.form == "qoperator":
        names = [*emit.parameters(out), *(n for x in xs for n in (x.name, *emit.parameters(x.qparams)))]
        return Written(emit.node("QLinearConcat", names, node.name, MICROSOFT, axis=axis), out, emit.shapes.get(node.name))
    names = [emit.real(x) for x in xs]
    return on_codes(emit, node, real=lambda made: emit.node("Concat", names, made, axis=axis), out=out)


def _stack(emit, node, *xs):
    if not _same_kind(emit, node, xs) and any(x.qparams != xs[0].qparams for x in xs):
        emit.refuse(node, "stacks codes with different parameters, which ONNX has no operator for")
    axis = [emit.constant(f"{node.name}_axis", np.int64([node.attrs["dim"]]))]
    names = [emit.node("Unsqueeze", [x.name, *axis], emit.fresh(f"{node.name}_{k}")) for k, x in enumerate(xs)]
    return Written(emit.node("Concat", names, node.name, axis=node.attrs["dim"] % (len(xs[0].shape) + 1)), xs[0].qparams, emit.shapes.get(node.name))


RULES = {
    "add": _pair("Add", "QLinearAdd"), "mul": _pair("Mul", "QLinearMul"), "sub": _pair("Sub"), "div": _pair("Div"),
    "add_scalar": _scalar("Add"), "mul_scalar": _scalar("Mul"), "scale": _scalar("Mul"), "cat": _cat, "stack": _stack,
}  # fmt: skip
