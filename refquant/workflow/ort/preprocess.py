"""What ONNX Runtime's preprocessing does before a model is quantized, as far as it changes what is quantized: norms go into convolutions.

Source
------
onnxruntime 1.32, python/tools/quantization/shape_inference.py, ``quant_pre_process``, which runs the graph optimizers of the basic level, of these
core/optimizer/conv_bn_fusion.cc, identity_elimination.cc, dropout_elimination.cc and constant_folding.cc (of ``Constant`` nodes).
"""

import numpy as np

__all__ = ["preprocessed", "folded_into_convolution"]


def preprocessed(graph):
    """Return a graph without ``Identity``, ``Dropout`` and ``Constant`` nodes, and with every BatchNormalization behind a Conv folded into it.

    Values that are outputs of the graph keep the node that makes them. The convolution keeps its name; what it gives out is called as the norm's.

    Parameters
    ----------
    graph : OnnxGraph
        Not changed.
    """
    graph = graph.copy()
    for node in list(graph.nodes):
        if node.op == "Constant" and isinstance(node.attrs.get("value"), np.ndarray):
            graph.constants[node.outputs[0]] = node.attrs["value"]
            graph.nodes.remove(node)
        elif node.op in ("Identity", "Dropout", "identity", "dropout") and node.outputs[0] not in graph.outputs and not any(map(graph.readers, node.outputs[1:])):
            graph.nodes.remove(node)
            graph.rename_input(node.outputs[0], node.inputs[0])
    for node in list(graph.nodes):
        if node.op == "BatchNormalization":
            _fold(graph, node)
    graph.drop_unused_constants()
    return graph


def _fold(graph, norm):
    conv = graph.maker(norm.inputs[0])
    alone = conv is not None and conv.op == "Conv" and len(graph.readers(norm.inputs[0])) == 1 and norm.inputs[0] not in graph.outputs
    if not alone or not all(graph.is_real(name) for name in (*conv.inputs[1:], *norm.inputs[1:])) or any(norm.outputs[1:]):
        return
    arrays = [graph.constants[name] for name in conv.inputs[1:]]
    weight, bias = folded_into_convolution(arrays[0], arrays[1] if len(arrays) > 1 else None, *(graph.constants[n] for n in norm.inputs[1:]), _epsilon(norm))
    names = [f"ConvBnFusion_W_{conv.inputs[1]}", f"ConvBnFusion_BN_B_{norm.inputs[2]}"]
    graph.constants.update(zip(names, (weight, bias)))
    conv.inputs[1:], conv.outputs = names, list(norm.outputs)
    conv.merged.append(norm.name)
    if hasattr(conv.source, "params"):
        conv.source = conv.source.replace(params={**conv.source.params, "weight": weight, "bias": bias})
    graph.nodes.remove(norm)


def _epsilon(norm):
    settings = norm.source.attrs if hasattr(norm.source, "params") else norm.attrs
    return np.float32(settings.get("eps", settings.get("epsilon", 1e-5)))


def folded_into_convolution(weight, bias, scale, shift, mean, variance, eps):
    """Return weight and bias of a convolution with a batch norm in them: ``w * s`` and ``(b - mean) * s + shift`` with ``s = scale / sqrt(variance + eps)``.

    Parameters
    ----------
    weight : ndarray of float32, (OC, IC, ...)
    bias : ndarray of float32, (OC,), or None
        Without, the new bias is ``shift - mean * s``.
    scale, shift, mean, variance : ndarray of float32, (OC,)
    eps : float32

    Notes
    -----
    Exactness: float32, every operation rounded on its own.

    Examples
    --------
    >>> one = np.float32([1])
    >>> w, b = folded_into_convolution(np.float32([[[[2]]]]), None, one * 3, one, one * 4, one * 0.25, np.float32(0))
    >>> w.item(), b.item()
    (12.0, -23.0)
    """
    s = scale / np.sqrt(variance + np.float32(eps))
    weight = weight * s.reshape(-1, *[1] * (weight.ndim - 1))
    return weight, shift - mean * s if bias is None else (bias - mean) * s + shift
