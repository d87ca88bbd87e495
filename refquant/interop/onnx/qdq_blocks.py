"""Products with weights alone quantized, which ONNX Runtime turns into MatMulNBits when it optimizes a model."""

import numpy as np

from refquant.errors import UnsupportedError
from refquant.interop.onnx.dtypes import type_of_array

__all__ = ["refuse_blocks"]

_MOST_SHARED = 8
_WEIGHTS = ("int2", "uint2", "int4", "uint4", "int8", "uint8")


def refuse_blocks(graph):
    """Refuse a product of real numbers and dequantized weights that becomes a MatMulNBits.

    From the level "extended" on, ONNX Runtime quantizes the activations of such a product to int8, each row by blocks of K, at run time (accuracy level 4), also
    where the weights have parameters per tensor or per column: results differ from the float32 product by thousandths. How MLAS sums the blocks is not described.
    Weights or scales that another node reads too stay as they are.

    Parameters
    ----------
    graph : object
        With ``nodes``, ``maker``, ``readers``, ``outputs`` and ``constants``, as `refquant.interop.onnx.qdq.fuse_qdq` has it.

    Raises
    ------
    UnsupportedError

    Source
    ------
    ONNX Runtime 1.32, core/optimizer/qdq_transformer/selectors_actions/qdq_selectors.cc, DQMatMulNodeGroupSelector.
    """
    for node in graph.nodes:
        if node.op in ("MatMul", "Gemm") and not node.domain and _becomes_blocks(graph, node):
            raise UnsupportedError(
                f"{node.place}: its weights alone are quantized, so that ONNX Runtime's optimizations make a MatMulNBits of it, which quantizes activations in blocks at run time and"
                " is not described; give its input a QuantizeLinear and DequantizeLinear, or pass fuse_qdq=False for what it computes with optimizations disabled or basic"
            )


def _dequantizer(graph, name):
    node = graph.maker.get(name)
    return node if node is not None and node.op == "DequantizeLinear" and not node.domain else None


def _becomes_blocks(graph, node):
    dequantize = _dequantizer(graph, node.inputs[1])
    if dequantize is None or _dequantizer(graph, node.inputs[0]) is not None or any(n.op == "QuantizeLinear" for n in graph.readers.get(node.outputs[0], ())):
        return False
    if node.inputs[1] in graph.outputs or len(graph.readers[node.inputs[1]]) != 1 or any(n and n not in graph.constants for n in dequantize.inputs):
        return False
    if any(_uses(graph, name) > 1 for name in dequantize.inputs[:2]):
        return False
    w = graph.constants[dequantize.inputs[0]]
    return (node.op == "MatMul" or _plain_gemm(graph, node, w)) and w.ndim == 2 and _fits(dequantize, w, *(graph.constants.get(n) for n in dequantize.inputs[1:]))


def _uses(graph, name):
    """Return how often a constant is read; small ones of one value were made one before (core/optimizer/constant_sharing.cc)."""
    value, names = graph.constants[name], [name]
    if value.size <= _MOST_SHARED and value.dtype in (np.float32, np.float16):
        names = [n for n, v in graph.constants.items() if v.dtype == value.dtype and v.shape == value.shape and v.tobytes() == value.tobytes()]
    return sum(len(graph.readers.get(n, ())) for n in names)


def _plain_gemm(graph, node, w):
    if node.attrs.get("alpha", 1.0) != 1 or node.attrs.get("transA", 0) or node.attrs.get("transB", 0):
        return False
    if len(node.inputs) < 3 or not node.inputs[2]:
        return True
    # what a bias is that is computed is not known here; its shape is inferred there
    bias = graph.constants.get(node.inputs[2])
    if bias is None and (made := _dequantizer(graph, node.inputs[2])) is not None:
        bias = graph.constants.get(made.inputs[0])
    return node.attrs.get("beta", 1.0) == 1 and (bias is None or bias.shape == w.shape[1:])


def _fits(dequantize, w, scale, zero_point=None):
    """Whether scales are one, one a column, or one a block of K of 16 rows and more."""
    if type_of_array(w, dequantize.place).name not in _WEIGHTS or scale.dtype not in (np.float32, np.float16):
        return False
    if zero_point is not None and zero_point.shape != scale.shape:
        return False
    size, axis = dequantize.attrs.get("block_size", 0), dequantize.attrs.get("axis", 1)
    if size:
        return axis == 0 and size >= 16 and not size & (size - 1) and scale.shape == (-(-w.shape[0] // size), w.shape[1])
    return not scale.ndim or (axis == 1 and scale.shape == w.shape[1:])
