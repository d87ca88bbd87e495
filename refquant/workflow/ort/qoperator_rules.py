"""Which operator on codes stands for an operator on real numbers: one small rule an operator.

A rule returns False where it does not apply; the node then stays as it is.

Source
------
onnxruntime 1.32, python/tools/quantization/registry.py (``QLinearOpsRegistry``) and operators/*.py.
"""

from refquant.workflow.ort.codes import Codes
from refquant.workflow.ort.scales import codes_of

__all__ = ["OPERATOR_RULES", "rule_of"]


def _conv(work, node):
    x, out = work.quantized(node.inputs[0]), work.output_of(node.outputs[0])
    if work.options.per_channel and node.inputs[1] in work.graph.constants:
        w = work.constant(node.inputs[1], "int8", reduced=True, axis=0)
    else:
        w = work.weight(node.inputs[1], reduced=True)
    if out is None or x is None or w is None:
        return False
    bias = [work.bias(node, 2)] if len(node.inputs) == 3 else []
    return _finish(work, node, "QLinearConv", [*x.triple, *w.triple, *out, *bias], out, domain="")


def _gemm(work, node):
    x, out = work.quantized(node.inputs[0]), work.output_of(node.outputs[0])
    if work.options.per_channel and node.inputs[1] in work.graph.constants:
        w = work.constant(node.inputs[1], work.options.weight_type, reduced=True, axis=0 if node.attrs.get("transB", 0) > 0 else 1)
    else:
        w = work.weight(node.inputs[1], reduced=True)
    if out is None or x is None or w is None:
        return False
    bias = ""
    if len(node.inputs) == 3:
        if node.inputs[2] not in work.graph.constants:
            return False
        bias = work.bias(node, 2, float(node.attrs.get("beta", 1.0)))
    attrs = {key: value for key, value in node.attrs.items() if key != "beta"}
    return _finish(work, node, "QGemm", [*x.triple, *w.triple, bias, *out], out, attrs=attrs)


def _matmul(work, node):
    x, weight = work.quantized(node.inputs[0]), node.inputs[1]
    if weight in work.graph.constants and work.options.per_channel:
        w = work.constant(weight, work.options.weight_type, reduced=True, axis=work.graph.constants[weight].ndim - 1)
    else:
        w = work.weight(weight, reduced=True)
    out = work.output_of(node.outputs[0])
    if out is None or x is None or w is None:
        return False
    return _finish(work, node, "QLinearMatMul", [*x.triple, *w.triple, *out], out, domain="", attrs={})


def _finish(work, node, op, inputs, out, **options):
    codes = f"{node.outputs[0]}_quantized"
    work.add(node, op, inputs, codes, **options)
    work.codes[node.outputs[0]] = Codes(codes, *out)
    return True


def _binary(work, node):
    out, values = work.output_of(node.outputs[0]), [work.quantized(name) for name in node.inputs]
    if out is None or None in values:
        return False
    return _finish(work, node, f"QLinear{node.op}", [n for v in values for n in v.triple] + [*out], out)


def _concat(work, node):
    out, values = work.output_of(node.outputs[0]), [work.quantized(name) for name in node.inputs]
    if out is None or None in values:
        return False
    return _finish(work, node, "QLinearConcat", [*out, *(n for v in values for n in v.triple)], out)


def _unary(work, node, fixed=None, **attrs):
    out, x = work.output_of(node.outputs[0], fixed), work.quantized(node.inputs[0])
    if out is None or x is None:
        return False
    return _finish(work, node, f"QLinear{node.op}", [*x.triple, *out], out, attrs={**node.attrs, **attrs})


def _sigmoid(work, node):
    return _unary(work, node, (1 / 256.0, 0) if work.options["extra.Sigmoid.nnapi"] else None)


def _softmax(work, node):
    return _unary(work, node, (1 / 256.0, 0 if work.options.activation_type == "uint8" else -128), opset=work.graph.opset)


def _global_average_pool(work, node):
    x = work.codes.get(node.inputs[0])
    if x is None:
        return False
    out = work.output_of(node.outputs[0]) or (x.scale, x.zero_point)
    return _finish(work, node, "QLinearGlobalAveragePool", [*x.triple, *out], out, attrs={**node.attrs, "channels_last": 0})


def _removable(work, node):
    """ReLU and Clip vanish: the range of what comes in was made that of what comes out."""
    if node.inputs[0] not in work.codes or work.options["ActivationSymmetric"]:
        return False
    work.codes[node.outputs[0]] = work.codes[node.inputs[0]]
    return True


def _passing(work, node):
    """The operator itself works on codes."""
    x = work.codes.get(node.inputs[0])
    if work.options["ForceQuantizeNoInputCheck"]:
        x = work.quantized(node.inputs[0]) if work.graph.is_real(node.inputs[0]) else None
        if x is None:
            return False
    elif x is None:
        work.nodes.append(node)
        return True
    return _on_codes(work, node, x)


def _on_codes(work, node, x):
    codes = f"{node.outputs[0]}_quantized"
    work.codes[node.outputs[0]] = Codes(codes, x.scale, x.zero_point)
    node.inputs[0], node.outputs[0] = x.codes, codes
    work.nodes.append(node)
    return True


def _since(opset, rule):
    return lambda work, node: rule(work, node) if work.graph.opset >= opset else False


def _gather(work, node):
    x = work.quantized(node.inputs[0])
    return False if x is None else _on_codes(work, node, x)


def _split(work, node):
    x = work.quantized(node.inputs[0])
    if x is None:
        return False
    for name in node.outputs:
        work.codes[name] = Codes(f"{name}quantized", x.scale, x.zero_point)
    work.add(node, "Split", [x.codes, *node.inputs[1:]], None, domain="")
    work.nodes[-1].outputs = [f"{name}quantized" for name in node.outputs]
    return True


def _pad(work, node):
    x = work.codes.get(node.inputs[0])
    if work.graph.opset < 11 or x is None:
        return False
    if node.attrs.get("mode", "constant") == "constant":
        value = node.inputs[2] if len(node.inputs) > 2 else ""
        if value and value not in work.graph.constants:
            return False
        node.inputs[2:] = [_pad_value(work, value, x) if value else x.zero_point]
    return _on_codes(work, node, x)


def _pad_value(work, name, x):
    constants = work.graph.constants
    codes = codes_of(constants[name], constants[x.scale], constants[x.zero_point], work.options.activation_type)
    return work.graph.add_constant(f"{name}_quantized", codes)


def _where(work, node):
    if not work.options["ForceQuantizeNoInputCheck"]:
        work.nodes.append(node)
        return True
    out, values = work.output_of(node.outputs[0]), [work.quantized(name) for name in node.inputs[1:3]]
    if out is None or None in values:
        return False
    return _finish(work, node, "QLinearWhere", [node.inputs[0], *(n for v in values for n in v.triple), *out], out)


def _arg_max(work, node):
    x = work.codes.get(node.inputs[0])
    if x is not None:
        node.inputs[0] = x.codes
    work.nodes.append(node)
    return True


OPERATOR_RULES = {
    "Add": _binary,
    "ArgMax": _arg_max,
    "AveragePool": _unary,
    "Clip": _removable,
    "Concat": _concat,
    "Conv": _conv,
    "Flatten": _passing,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average_pool,
    "LeakyRelu": _unary,
    "MatMul": _matmul,
    "MaxPool": _since(12, _passing),
    "Mul": _binary,
    "Pad": _pad,
    "Relu": _removable,
    "Reshape": _passing,
    "Resize": _since(11, _passing),
    "Sigmoid": _sigmoid,
    "Softmax": _softmax,
    "Split": _split,
    "Squeeze": _passing,
    "Transpose": _passing,
    "Unsqueeze": _passing,
    "Where": _where,
}
"""The operators with a form on codes."""


def rule_of(op):
    """Return the rule of an operator, or None."""
    return OPERATOR_RULES.get(op)
