"""Products with weights alone quantized become MatMulNBits, as ONNX Runtime optimizes a model."""

import numpy as np

from refquant.errors import UnsupportedError
from refquant.interop.onnx.cast import real_of
from refquant.interop.onnx.dtypes import type_of_array
from refquant.interop.onnx.table import find_executor

__all__ = ["make_blocks"]

_MOST_SHARED = 8
_BITS = {"int2": 2, "uint2": 2, "int4": 4, "uint4": 4, "int8": 8, "uint8": 8}
_USUAL_BLOCK = 32


def make_blocks(graph):
    """Make a MatMulNBits of each product of real numbers and dequantized weights.

    From the level "extended" on, ONNX Runtime quantizes the activations of such a product to int8, each row by blocks of K, at run time (accuracy level 4), also
    where the weights have parameters per tensor or per column, which become blocks of 32: results differ from the float32 product by thousandths. Weights or
    scales that another node reads too stay as they are.

    Parameters
    ----------
    graph : object
        With ``nodes``, ``maker``, ``readers``, ``outputs`` and ``constants``, as `refquant.interop.onnx.qdq.fuse_qdq` has it; nodes and constants change.

    Raises
    ------
    UnsupportedError
        Weights of 2 bits, or scales of float16.

    Source
    ------
    ONNX Runtime 1.32, core/optimizer/qdq_transformer/selectors_actions/qdq_selectors.cc, DQMatMulNodeGroupSelector; qdq_actions.cc, DQMatMulToMatMulNBitsAction.
    """
    graph.nodes = [_in_blocks(graph, node) if node.op in ("MatMul", "Gemm") and not node.domain and _becomes_blocks(graph, node) else node for node in graph.nodes]
    graph.index()


def _in_blocks(graph, node):
    dequantize = graph.maker[node.inputs[1]]
    w, scale, *zero = (graph.constants[name] for name in dequantize.inputs if name)
    kind = type_of_array(w, dequantize.place).name
    bits = _BITS[kind]
    if bits == 2 or scale.dtype != np.float32:
        raise UnsupportedError(
            f"{node.place}: its weights alone are quantized, to {kind} with scales of {scale.dtype}, so that ONNX Runtime makes a MatMulNBits of it that is not described;"
            " give its input a QuantizeLinear and DequantizeLinear, or pass fuse_qdq=False for what it computes with optimizations disabled"
        )
    middle = 1 << bits - 1 if kind.startswith("int") else 0
    block = dequantize.attrs.get("block_size", 0) or _USUAL_BLOCK
    count = -(-w.shape[0] // block)
    codes = np.zeros((w.shape[1], count * block), np.uint8)
    codes[:, : len(w)] = (real_of(w).astype(np.int64) + middle).T
    parts = {"b": _packed(codes.reshape(-1, count, block), bits), "scales": _by_columns(scale, (count, w.shape[1]))}
    if zero or not middle:
        own = real_of(zero[0]).astype(np.int64) if zero else np.zeros(scale.shape, np.int64)
        parts["zero_points"] = _packed(_by_columns(own + middle, (count, w.shape[1])).astype(np.uint8), bits)
    names = {part: f"{node.name}/{part}" for part in parts}
    graph.constants.update((names[part], v) for part, v in parts.items())
    inputs = [node.inputs[0], names["b"], names["scales"], names.get("zero_points", ""), "", *node.inputs[2:]]
    while not inputs[-1]:
        inputs.pop()
    attrs = {"K": len(w), "N": w.shape[1], "bits": bits, "block_size": block, "accuracy_level": 4}
    return node._replace(op="MatMulNBits", domain="com.microsoft", inputs=tuple(inputs), attrs=attrs, run=find_executor("MatMulNBits", "com.microsoft", 1).run)


def _by_columns(parameter, shape):
    """Return parameters of one, of columns or of blocks (B, N) as (N, B)."""
    return np.ascontiguousarray(np.broadcast_to(parameter, shape).T)


def _packed(codes, bits):
    if bits == 8:
        return codes
    if codes.shape[-1] % 2:
        codes = np.concatenate([codes, np.zeros((*codes.shape[:-1], 1), np.uint8)], axis=-1)
    return codes[..., 0::2] | codes[..., 1::2] << 4


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
    if type_of_array(w, dequantize.place).name not in _BITS or scale.dtype not in (np.float32, np.float16):
        return False
    if zero_point is not None and zero_point.shape != scale.shape:
        return False
    size, axis = dequantize.attrs.get("block_size", 0), dequantize.attrs.get("axis", 1)
    if size:
        return axis == 0 and size >= 16 and not size & (size - 1) and scale.shape == (-(-w.shape[0] // size), w.shape[1])
    return not scale.ndim or (axis == 1 and scale.shape == w.shape[1:])
