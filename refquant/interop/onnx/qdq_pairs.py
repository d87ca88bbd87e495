"""Two quantizers in a row become one, as ONNX Runtime writes a model anew before it fuses anything."""

import numpy as np

from refquant.core.rounding import Round, round_real

__all__ = ["without_double_pairs"]

_TYPES = (np.uint8, np.int8, np.uint16, np.int16)


def without_double_pairs(graph):
    """Make one pair of every two pairs QuantizeLinear and DequantizeLinear that follow each other and that nothing else reads; return whether there was one.

    The second pair may have several dequantizers, all with its own parameters. Where those of the two pairs differ, the pair that stays gets others, for the
    range that both have: ``s = f32(max − min) / f32(qmax − qmin)`` and the zero point ``round(qmin − min / s)``, halves away from zero. So results differ from
    those of a model that is run as it stands.

    Parameters
    ----------
    graph : object
        With ``nodes``, ``outputs`` and ``constants``, which change, as `refquant.interop.onnx.qdq.fuse_qdq` has it.

    Source
    ------
    ONNX Runtime 1.32, core/optimizer/double_qdq_pairs_remover.cc.
    """
    joined = False
    for name in [node.name for node in graph.nodes if node.op == "QuantizeLinear"]:
        first = next((node for node in graph.nodes if node.name == name), None)
        chain = None if first is None else _chain(graph, first)
        parameters = None if chain is None else _common(*(_constants(graph, node) for node in (first, chain[1])))
        if parameters is not None:
            _join(graph, first, *chain, parameters)
            joined = True
    return joined


def _only_reader(graph, node, op):
    readers = graph.readers.get(node.outputs[0], [])
    return readers[0] if len(readers) == 1 and readers[0].op == op and node.outputs[0] not in graph.outputs else None


def _chain(graph, first):
    """Return (dequantize, quantize, [dequantize, ...]) behind a quantizer, or None."""
    middle = _only_reader(graph, first, "DequantizeLinear")
    third = None if middle is None else _only_reader(graph, middle, "QuantizeLinear")
    last = [] if third is None or third.outputs[0] in graph.outputs else graph.readers.get(third.outputs[0], [])
    if not last or not _is_pair(graph, first, middle) or not all(node.op == "DequantizeLinear" and _is_pair(graph, third, node) for node in last):
        return None
    return middle, third, last


def _constants(graph, node):
    """Return the scale and zero point of a node, or None unless both are single constants."""
    found = [graph.constants.get(name) for name in node.inputs[1:3]]
    return found if len(found) == 2 and all(v is not None and v.size == 1 and v.ndim < 2 for v in found) else None


def _is_pair(graph, quantize, dequantize):
    a, b = _constants(graph, quantize), _constants(graph, dequantize)
    return a is not None and b is not None and all(u.dtype == v.dtype and u.reshape(()) == v.reshape(()) for u, v in zip(a, b))


def _common(first, third):
    """Return scale and zero point of the pair that stays, or None if the two have not one type of 8 or 16 bits and float32 scales."""
    f = np.float32
    (s1, z1), (s2, z2) = ([v.reshape(()) for v in pair] for pair in (first, third))
    if z1.dtype != z2.dtype or z1.dtype not in _TYPES or s1.dtype != f or s2.dtype != f:
        return None
    if z1 == z2 and abs(s1 - s2) < 1e-20:
        return first
    limits = np.iinfo(z1.dtype)
    low = max(f(limits.min - int(z)) * s for s, z in ((s1, z1), (s2, z2)))
    high = min(f(limits.max - int(z)) * s for s, z in ((s1, z1), (s2, z2)))
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = (high - low) / f(limits.max - limits.min)
        zero = f(limits.min) - low / scale
    # a range of 0 alone gives NaN, which becomes 0
    zero = np.asarray(round_real(zero, Round.HALF_AWAY) if np.isfinite(zero) else 0).astype(z1.dtype)
    return scale.reshape(1), zero.reshape(1)


def _join(graph, first, middle, third, last, parameters):
    names = [f"{third.name}/{part}" for part in ("scale", "zero_point")]
    graph.constants.update(zip(names, (np.asarray(v) for v in parameters)))
    made = {node.name: node._replace(inputs=(source, *names)) for node, source in ((first, first.inputs[0]), *((node, first.outputs[0]) for node in last))}
    graph.nodes = [made.get(node.name, node) for node in graph.nodes if node.name not in (middle.name, third.name)]
    graph.index()
