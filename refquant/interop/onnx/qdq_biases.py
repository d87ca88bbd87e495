"""Real weights and biases of quantized layers become codes, as ONNX Runtime writes a model anew before it fuses anything."""

import numpy as np

from refquant.core.rounding import Round, round_real
from refquant.interop.onnx.table import find_executor

__all__ = ["quantize_biases"]

_LAYERS = ("Conv", "ConvTranspose", "Gemm")


def quantize_biases(graph):
    """Quantize real weights and biases of a Conv, ConvTranspose or Gemm between dequantizers and a quantizer, past ReLU and Clip; return whether there was one.

    A float32 bias becomes int32 by ``round(bias / f32(x_scale * w_scale))``, ties to even. A float32 weight becomes int8 of one scale for all,
    ``f32(max − min) / 255`` with 0 in the range, and a zero point, ``round(−128 − min / scale)``. So the layer runs on codes, and its results change.

    Parameters
    ----------
    graph : object
        With ``nodes`` and ``constants``, which change, as `refquant.interop.onnx.qdq.fuse_qdq` has it.

    Source
    ------
    ONNX Runtime 1.32, core/optimizer/qdq_transformer/weight_bias_quantization.cc, core/util/qmath.h.
    """
    nodes = []
    for node in graph.nodes:
        if node.op in _LAYERS and not node.domain:
            for part, make in ((1, _dequantized_weight), (2, _dequantized_bias)):
                made = make(graph, node) if len(node.inputs) > part else None
                if made is not None:
                    nodes.append(made)
                    graph.maker[made.outputs[0]] = made
                    node = node._replace(inputs=(*node.inputs[:part], made.outputs[0], *node.inputs[part + 1 :]))
        nodes.append(node)
    changed = len(nodes) > len(graph.nodes)
    graph.nodes = nodes
    graph.index()
    return changed


def _dequantizer(node, part, inputs, axis=None):
    run = find_executor("DequantizeLinear", "", max(node.opset, 10)).run
    name = f"{node.name}/{part}"
    return node._replace(name=name, op="DequantizeLinear", inputs=tuple(inputs), outputs=(name,), attrs={} if axis is None else {"axis": axis}, run=run)


def _dequantized_weight(graph, node):
    """Return the DequantizeLinear that takes a real weight's place, its constants made, or None where the weight stays."""
    w, x = graph.constants.get(node.inputs[1]), _scale(graph, node.inputs[0])
    if w is None or w.dtype != np.float32 or not w.size or x is None or x[1].size != 1 or not _leads_to_quantizer(graph, node):
        return None
    if len(node.inputs) > 2 and node.inputs[2] and getattr(graph.constants.get(node.inputs[2]), "ndim", 0) != 1:
        return None
    f = np.float32
    low, high = min(w.min(), f(0)), max(w.max(), f(0))
    scale = f(1) if low == high else (high - low) / f(255)
    zero = np.int8(round_real(min(max(f(-128) - low / scale, f(-128)), f(127)), Round.HALF_EVEN))
    codes = np.clip(round_real(w / scale, Round.HALF_EVEN).astype(np.int64) + int(zero), -128, 127).astype(np.int8)
    names = [f"{node.name}/{part}" for part in ("weight_codes", "weight_scale", "weight_zero_point")]
    graph.constants.update(zip(names, (codes, np.asarray(scale), np.asarray(zero))))
    return _dequantizer(node, "weight", names)


def _leads_to_quantizer(graph, node):
    readers = graph.readers.get(node.outputs[0], [])
    if len(readers) != 1:
        return False
    return readers[0].op == "QuantizeLinear" or (readers[0].op in ("Relu", "Clip") and _leads_to_quantizer(graph, readers[0]))


def _scale(graph, name):
    """Return the dequantizer that makes a value and its scale, or None unless that is a constant."""
    made = graph.maker.get(name)
    scale = graph.constants.get(made.inputs[1]) if made is not None and made.op == "DequantizeLinear" else None
    return None if scale is None or scale.dtype != np.float32 or made.attrs.get("block_size", 0) else (made, scale)


def _dequantized_bias(graph, node):
    """Return the DequantizeLinear that takes the bias's place, its constants made, or None where the bias stays."""
    bias, x, w = graph.constants.get(node.inputs[2]), _scale(graph, node.inputs[0]), _scale(graph, node.inputs[1])
    if bias is None or bias.dtype != np.float32 or bias.ndim != 1 or x is None or w is None or x[1].size != 1 or not _leads_to_quantizer(graph, node):
        return None
    single = w[1].size == 1
    rank = graph.constants[w[0].inputs[0]].ndim if w[0].inputs[0] in graph.constants else 0
    along = int(node.op == "Gemm" and not node.attrs.get("transB", 0))
    if not single and (w[1].shape != bias.shape or not rank or w[0].attrs.get("axis", 1) % rank != along):
        return None
    scale = x[1].reshape(()) * w[1]
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        codes = round_real(bias / scale, Round.HALF_EVEN)
    if not (np.abs(codes) < 2.0**31).all():
        return None
    names = [f"{node.name}/{part}" for part in ("bias_codes", "bias_scale")]
    graph.constants.update(zip(names, (codes.astype(np.int32), scale)))
    return _dequantizer(node, "bias", names, None if single else 0)
