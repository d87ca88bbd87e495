"""Real biases of quantized layers become int32, as ONNX Runtime writes a model anew before it fuses anything."""

import numpy as np

from refquant.core.rounding import Round, round_real
from refquant.interop.onnx.table import find_executor

__all__ = ["quantize_biases"]


def quantize_biases(graph):
    """Quantize each float32 bias of a Conv, ConvTranspose or Gemm between dequantizers and a quantizer, past ReLU and Clip; return whether there was one.

    ``round(bias / f32(x_scale * w_scale))``, ties to even; so the layer runs on codes, and its results change by the rounding of the bias.

    Parameters
    ----------
    graph : object
        With ``nodes`` and ``constants``, which change, as `refquant.interop.onnx.qdq.fuse_qdq` has it.

    Source
    ------
    ONNX Runtime 1.32, core/optimizer/qdq_transformer/weight_bias_quantization.cc.
    """
    nodes = []
    for node in graph.nodes:
        made = _dequantized_bias(graph, node) if node.op in ("Conv", "ConvTranspose", "Gemm") and len(node.inputs) > 2 and not node.domain else None
        nodes += [node] if made is None else [made, node._replace(inputs=(*node.inputs[:2], made.outputs[0]))]
    changed = len(nodes) > len(graph.nodes)
    graph.nodes = nodes
    graph.index()
    return changed


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
    run = find_executor("DequantizeLinear", "", max(node.opset, 10)).run
    attrs = {} if single else {"axis": 0}
    return node._replace(name=f"{node.name}/bias", op="DequantizeLinear", inputs=tuple(names), outputs=(f"{node.name}/bias",), attrs=attrs, run=run)
