"""Quantizers move past operators that only move numbers, as ONNX Runtime writes a model anew before it fuses anything."""

from refquant.interop.onnx.table import find_executor

__all__ = ["propagate_pairs"]

# Operators that move numbers, from which version of ONNX on.
_MOVING = {"MaxPool": 12, "Reshape": 5, "Transpose": 1, "Squeeze": 1, "Unsqueeze": 1, "Slice": 1}


def propagate_pairs(graph):
    """Put a pair QuantizeLinear and DequantizeLinear before each operator that moves numbers to a quantizer, then behind each that moves dequantized ones; return whether any was.

    No number changes; but more operators stand between dequantizers and a quantizer, so that they run on codes.

    Parameters
    ----------
    graph : object
        With ``nodes`` and ``outputs``, as `refquant.interop.onnx.qdq.fuse_qdq` has it; `nodes` changes.

    Source
    ------
    ONNX Runtime 1.32, core/optimizer/qdq_transformer/qdq_propagation.cc.
    """
    count = len(graph.nodes)
    quantizers, dequantizers = ([node.name for node in graph.nodes if node.op == op] for op in ("QuantizeLinear", "DequantizeLinear"))
    for name in quantizers:
        _backward(graph, _named(graph, name))
    for name in dequantizers:
        _forward(graph, _named(graph, name))
    return len(graph.nodes) > count


def _named(graph, name):
    return next(node for node in graph.nodes if node.name == name)


def _moves(node):
    return not node.domain and _MOVING.get(node.op, node.opset + 1) <= node.opset


def _parameters(graph, node):
    """Return the names of a single scale and zero point that are constants, or None."""
    names = node.inputs[1:]
    return names if all(n in graph.constants and graph.constants[n].size == 1 and graph.constants[n].ndim < 2 for n in names) else None


def _forward(graph, dequantize):
    """Follow the one reader of a dequantizer, and what reads it."""
    readers, parameters = graph.readers.get(dequantize.outputs[0], []), _parameters(graph, dequantize)
    if parameters is None or len(readers) != 1 or dequantize.outputs[0] in graph.outputs:
        return
    waiting = [readers[0]]
    while waiting:
        node = waiting.pop()
        value = node.outputs[0]
        behind = [r for r in graph.readers.get(value, []) if r.op != "QuantizeLinear"]
        if not _moves(node) or value in graph.outputs or not behind:
            continue
        _insert(graph, value, [r.name for r in behind], parameters, node.opset)
        waiting += [_named(graph, r.name) for r in behind if _moves(r)]


def _backward(graph, quantize):
    """Follow the makers of what a quantizer reads, as long as nothing else reads it."""
    parameters, node = _parameters(graph, quantize), quantize
    while parameters is not None and (maker := _sole_maker(graph, node)) is not None and _moves(maker):
        before = _sole_maker(graph, maker)
        if before is None or before.op == "DequantizeLinear":
            return
        _insert(graph, maker.inputs[0], [maker.name], parameters, maker.opset)
        node = maker._replace(inputs=(before.outputs[0], *maker.inputs[1:]))


def _sole_maker(graph, node):
    value = node.inputs[0]
    alone = value not in graph.outputs and len([r for r in graph.readers.get(value, ()) if not r.name.startswith(f"{value}/")]) <= 1
    return graph.maker.get(value) if alone else None


def _insert(graph, value, readers, parameters, opset):
    """Let some readers of a value read it through a quantizer and a dequantizer each."""
    codes, nodes = f"{value}/q", []
    template = next(node for node in graph.nodes if value in node.outputs)

    def pair_node(op, source, target):
        return template._replace(name=f"{target}/{op}", op=op, domain="", inputs=(source, *parameters), outputs=(target,), attrs={}, run=find_executor(op, "", opset).run)

    real = {name: f"{value}/d{i}" for i, name in enumerate(readers)}
    made = [pair_node("QuantizeLinear", value, codes), *(pair_node("DequantizeLinear", codes, target) for target in real.values())]
    for node in graph.nodes:
        if node.name in real:
            node = node._replace(inputs=tuple(real[node.name] if n == value else n for n in node.inputs))
        nodes.append(node)
        if value in node.outputs:
            nodes += made
    graph.nodes = nodes
    graph.index()
