"""A product of matrices and the addition behind it become one Gemm, as ONNX Runtime writes a model anew before it fuses anything."""

import math

import numpy as np

from refquant.interop.onnx.table import find_executor

__all__ = ["join_products"]


def join_products(graph):
    """Make a Gemm of each MatMul by a matrix and the Add behind it, with a Reshape on either side where the first factor is no matrix; return whether there was one.

    So a real bias becomes int32 and the layer runs on codes, with the addition before the quantizer.

    Parameters
    ----------
    graph : object
        With ``nodes``, ``constants`` and ``shapes``, as `refquant.interop.onnx.qdq.fuse_qdq` has it; nodes and constants change.

    Source
    ------
    ONNX Runtime 1.32, core/optimizer/matmul_add_fusion.cc.
    """
    made, dropped = {}, set()
    for node in graph.nodes:
        add = _addition(graph, node) if node.op == "MatMul" and not node.domain else None
        gemm = None if add is None else _gemm(graph, node, add)
        if gemm:
            made[add.name] = gemm
            dropped.add(node.name)
    graph.nodes = [part for node in graph.nodes if node.name not in dropped for part in made.get(node.name, [node])]
    graph.index()
    return bool(made)


def _addition(graph, node):
    readers = graph.readers.get(node.outputs[0], [])
    alone = len(readers) == 1 and node.outputs[0] not in graph.outputs
    return readers[0] if alone and readers[0].op == "Add" and not readers[0].domain and len(set(readers[0].inputs)) == 2 else None


def _shape(graph, name):
    if name in graph.constants:
        return graph.constants[name].shape
    maker = graph.maker.get(name)
    if maker is not None and maker.op in ("QuantizeLinear", "DequantizeLinear"):
        return _shape(graph, maker.inputs[0]) or graph.shapes().get(name)
    return graph.shapes().get(name)


def _gemm(graph, node, add):
    """Return the nodes that take the place of both, or None."""
    a, b = (_shape(graph, name) for name in node.inputs)
    bias_name = add.inputs[1 if add.inputs[0] == node.outputs[0] else 0]
    bias = _shape(graph, bias_name)
    if a is None or b is None or bias is None or len(b) != 2 or b[1] is None:
        return None
    flat = len(a) == 2
    fits = bias == (b[1],) or flat and len(bias) == 2 and (bias == (1, b[1]) or bias[0] == a[0] is not None and bias[1] in (1, b[1]))
    if not fits or not flat and (None in a or b[0] is None):
        return None
    run = {op: find_executor(op, "", max(node.opset, 13)).run for op in ("Gemm", "Reshape")}
    if flat:
        return [add._replace(name=f"{node.name}/gemm", op="Gemm", inputs=(*node.inputs, bias_name), attrs={}, run=run["Gemm"])]
    names = [f"{node.name}/{part}" for part in ("rows", "shape", "matrix", "product")]
    graph.constants.update({names[0]: np.int64([math.prod(a[:-1]), b[0]]), names[1]: np.int64([*a[:-1], b[1]])})
    return [
        node._replace(name=names[2], op="Reshape", inputs=(node.inputs[0], names[0]), outputs=(names[2],), attrs={}, run=run["Reshape"]),
        node._replace(name=f"{node.name}/gemm", op="Gemm", inputs=(names[2], node.inputs[1], bias_name), outputs=(names[3],), attrs={}, run=run["Gemm"]),
        add._replace(name=f"{node.name}/reshape", op="Reshape", inputs=(names[3], names[1]), attrs={}, run=run["Reshape"]),
    ]
