"""Which tensors of an operator are quantized in the QDQ form: one small rule an operator, a table, and a default.

Source
------
onnxruntime 1.32, python/tools/quantization/registry.py (``QDQRegistry``) and operators/*.py.
"""

import numpy as np

__all__ = ["QDQ_RULES", "rule_of"]


def _all(work, node):
    """Every input and output gets parameters of its own."""
    for name in node.inputs:
        work.mark(name)
    work.mark_outputs(node)


def _conv(work, node):
    work.mark(node.inputs[0])
    work.mark_outputs(node)
    work.mark_weight(node.inputs[1], 0 if node.op == "Conv" else 1)
    if len(node.inputs) == 3:
        work.mark_bias(node, 2, node.inputs[0], node.inputs[1])


def _gemm(work, node):
    work.mark(node.inputs[0])
    work.mark_outputs(node)
    work.mark_weight(node.inputs[1], 0 if node.attrs.get("transB", 0) > 0 else 1)
    if len(node.inputs) == 3 and work.is_constant(node.inputs[2]):
        work.mark_bias(node, 2, node.inputs[0], node.inputs[1], float(node.attrs.get("beta", 1.0)))
        if "beta" in node.attrs:
            node.attrs["beta"] = 1.0


def _matmul(work, node):
    for name in node.inputs:
        if work.is_constant(name):
            work.mark_weight(name, 1, node.op)
        else:
            work.mark(name)
    work.mark_outputs(node)


def _removable(work, node):
    """ReLU and Clip: where what goes in is quantized, the quantizer behind can take over."""
    if not work.is_marked(node.inputs[0]):
        return
    keep = work.options["ActivationSymmetric"] or work.options["QDQKeepRemovableActivations"]
    if keep or not work.removes(node):
        work.mark(node.inputs[0])
    work.mark_outputs(node)


def _passing(work, node):
    """Values pass unchanged, or as means: the output takes over the parameters of a quantized input."""
    if work.options["ForceQuantizeNoInputCheck"]:
        work.mark(node.inputs[0])
    if work.is_marked(node.inputs[0]) and not work.without_output(node):
        work.mark_like(node.outputs[0], node.inputs[0])


def _since(opset, rule):
    return lambda work, node: rule(work, node) if work.graph.opset >= opset else None


def _pad(work, node):
    for name in node.inputs:
        work.mark(name)
    if work.without_output(node):
        return
    if _pads_with_zero(work, node):
        work.mark_like(node.outputs[0], node.inputs[0])
    else:
        work.mark(node.outputs[0])


def _pads_with_zero(work, node):
    mode = node.attrs.get("mode", "constant")
    if mode in ("reflect", "edge", "wrap"):
        return True
    if mode != "constant" or not (work.is_marked(node.inputs[0]) or work.is_constant(node.inputs[0])):
        return False
    if work.graph.opset < 11:
        return node.attrs.get("value", 0) == 0
    if len(node.inputs) < 3 or not node.inputs[2]:
        return True
    value = work.graph.constants.get(node.inputs[2])
    return value is not None and value.dtype == np.float32 and float(value.reshape(-1)[0]) == 0


def _split(work, node):
    if not work.is_marked(node.inputs[0]):
        work.mark(node.inputs[0])
    if not work.without_output(node):
        for name in node.outputs:
            work.mark_like(name, node.inputs[0])


def _gather(work, node):
    if work.graph.is_real(node.inputs[0]) or work.options["ForceQuantizeNoInputCheck"]:
        work.mark(node.inputs[0])
    if work.is_marked(node.inputs[0]):
        work.mark_like(node.outputs[0], node.inputs[0])


def _where(work, node):
    values = node.inputs[1:3]
    if work.options["ForceQuantizeNoInputCheck"]:
        for name in values:
            work.mark(name)
    elif not all(work.is_marked(name) for name in values):
        return
    work.mark_outputs(node)


def _normalization(work, node):
    work.mark(node.inputs[0])
    if work.is_constant(node.inputs[1]):
        work.mark_weight(node.inputs[1], 1, node.op)
    else:
        work.mark(node.inputs[1])
    if len(node.inputs) > 2 and node.inputs[2]:
        work.mark_bias(node, 2, node.inputs[0], node.inputs[1])
    work.mark_outputs(node)


QDQ_RULES = {
    "AveragePool": _passing,
    "BatchNormalization": _normalization,
    "Clip": _removable,
    "Conv": _conv,
    "ConvTranspose": _conv,
    "CumSum": _all,
    "Flatten": _passing,
    "Gather": _gather,
    "GatherElements": _gather,
    "Gemm": _gemm,
    "InstanceNormalization": _normalization,
    "LayerNormalization": _normalization,
    "MatMul": _matmul,
    "MaxPool": _since(12, _passing),
    "Pad": _pad,
    "Relu": _removable,
    "Reshape": _passing,
    "Resize": _since(11, _passing),
    "Slice": _passing,
    "Split": _split,
    "Squeeze": _passing,
    "TopK": _passing,
    "Transpose": _passing,
    "Unsqueeze": _passing,
    "Where": _where,
}
"""The operators with a rule of their own."""


def rule_of(op):
    """Return the rule of an operator: its own, or all inputs and outputs."""
    return QDQ_RULES.get(op, _all)
