"""Convolutions and linear layers: reading codes, then taking in what follows them.

A layer and what follows it is matched from its last node back to the layer, the longest chains first: first those that end in a quantize
node, then functions of real numbers, then sums of real numbers.
"""

from refquant import ops
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor

__all__ = ["pack_layers", "fuse_layers"]

_CONVOLUTIONS = ("conv1d", "conv2d")
_CONV_UNARY = {"relu": "relu", "hardtanh": "hardtanh", "relu6": "hardtanh", "hardswish": "hardswish", "silu": "swish"}
_LINEAR_UNARY = {"relu": "relu", "gelu": "gelu"}


def pack_layers(graph, passes):
    """Let layers read codes where they stand behind a dequantize node of their own and have weights per channel.

    Parameters
    ----------
    graph : LoweringGraph
    passes : sequence of str
    """
    for node in graph:
        name = "qconv" if node.op in _CONVOLUTIONS else "qlinear" if node.op == "linear" else None
        if name not in passes or len(node.inputs) != 1 or not _per_channel(node.params["weight"]):
            continue
        before = graph.input(node)
        if before.op != "dequantize" or not graph.alone(before) or name == "qconv" and graph.input(before).op == "quantize_dynamic":
            continue
        params = {"weight": ops.pack_weights(node.params["weight"], groups=node.attrs.get("groups", 1))}
        bias = node.params.get("bias")
        if bias is not None:
            params["bias"] = ops.dequantize(bias, numerics="inductor") if isinstance(bias, QTensor) else bias.copy()
            params["bias"].flags.writeable = False
        graph.replace(name, [before, node], node.replace(inputs=before.inputs, params=params))


def _per_channel(weight):
    return isinstance(weight, QTensor) and weight.qparams.per_channel


def fuse_layers(graph, passes):
    """Take functions, sums and quantize nodes into the layers before them."""
    for ends in (("quantize",), (*_CONV_UNARY, "gelu"), ("add",)):
        for node in graph:
            if node.op in ends:
                _fuse(graph, passes, node)


def _fuse(graph, passes, last):
    """Fuse the chain that ends at a node, if it begins at a layer on codes."""
    quantize = last if last.op == "quantize" else None
    chain, node = [last], graph.input(last) if quantize else last
    if quantize and not graph.alone(node):
        return
    unary = node if node.op in _CONV_UNARY or node.op == "gelu" else None
    if unary:
        chain, node = ([node, last] if quantize else [last]), graph.input(node)
        if not graph.alone(node):
            return
    if node.op == "add" and (unary is None or unary.op == "relu"):
        chain = chain if node is last else [node, *chain]
        return _fuse_sum(graph, passes, chain, node, unary, quantize)
    chain = [node, *chain]
    if not _on_codes(node) or not graph.alone(node):
        return
    family = "qconv" if node.op in _CONVOLUTIONS else "qlinear"
    activation = _activation(node, unary)
    if f"{family}_unary" not in passes or unary is not None and activation is None:
        return
    graph.replace(f"{family}_unary", chain, _layer(chain, activation, quantize, ()))


def _on_codes(node):
    """Whether a node is a layer that reads codes and gives real numbers, with nothing taken in."""
    packed = node.op in (*_CONVOLUTIONS, "linear") and isinstance(node.params.get("weight"), ops.PackedWeights)
    return packed and node.attrs["out"] is None and node.attrs["activation"] is None and len(node.inputs) == 1


def _activation(layer, unary):
    """Return the activation that a layer takes in, or None where it takes none."""
    if unary is None:
        return None
    name = {"linear": _LINEAR_UNARY, "conv2d": _CONV_UNARY}.get(layer.op, {"relu": "relu"}).get(unary.op)
    if name == "gelu" and unary.attrs.get("approximate", "none") != "none":
        return None
    if name == "hardtanh":
        return (name, 0.0, 6.0) if unary.op == "relu6" else (name, unary.attrs["min_val"], unary.attrs["max_val"])
    return name


def _fuse_sum(graph, passes, chain, add, unary, quantize):
    """Fuse a layer, the sum behind it, and what follows that; the first summand that fits is the layer."""
    for i in (0, 1):
        layer, other = graph.input(add, i), graph.input(add, 1 - i)
        if not _on_codes(layer) or not graph.alone(layer) or layer is other:
            continue
        family = "qconv" if layer.op in _CONVOLUTIONS else "qlinear"
        if f"{family}_binary" not in passes or layer.op == "conv1d":
            return
        if family == "qconv" and other.op != "dequantize":
            continue
        codes = family == "qconv" and quantize is not None
        summand = graph.input(other) if codes else other
        if graph.shape(layer.name) != graph.shape(other.name):
            continue
        if len(graph.remaining_users(summand, layer)) > 1 or summand.name == layer.inputs[0]:
            continue
        nodes = [layer, *chain]
        graph.replace(f"{family}_binary", nodes, _layer(nodes, "relu" if unary else None, quantize, (summand.name,)))
        return


def _layer(chain, activation, quantize, others):
    first = chain[0]
    out = None if quantize is None else _whole(quantize.attrs["out"])
    sources = [s for node in chain for s in node.sources if node.op != "quantize"]
    return first.replace(inputs=[*first.inputs, *others], attrs={**first.attrs, "activation": activation, "out": out}, sources=sources)


def _whole(out):
    """oneDNN saturates to the dtype, whatever the observer's limits were."""
    return QParams(out.scale, out.zero_point, out.dtype)
