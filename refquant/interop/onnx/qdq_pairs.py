"""Two quantizers in a row become one, as ONNX Runtime writes a model anew before it fuses anything."""

import numpy as np

from refquant.core.rounding import Round, round_real

__all__ = ["without_double_pairs"]

_EIGHT_BIT = (np.uint8, np.int8)


def without_double_pairs(graph):
    """Make one pair of every two pairs QuantizeLinear and DequantizeLinear that follow each other and that nothing else reads.

    Where their parameters differ, the pair that stays gets others, for the range that both have: ``s = f32(max − min) / 255`` and the zero point
    ``round(qmin − min / s)``, halves away from zero. So results differ from those of a model that is run as it stands.

    Parameters
    ----------
    graph : object
        With ``nodes``, ``outputs`` and ``constants``, which change, as `refquant.interop.onnx.qdq.fuse_qdq` has it.

    Source
    ------
    ONNX Runtime 1.32, core/optimizer/double_qdq_pairs_remover.cc.
    """
    for name in [node.name for node in graph.nodes if node.op == "DequantizeLinear"]:
        middle = next((node for node in graph.nodes if node.name == name), None)
        chain = None if middle is None else _chain(graph, middle)
        parameters = None if chain is None else _common(graph, chain[0], chain[2])
        if parameters is not None:
            _join(graph, chain, parameters)


def _only_reader(graph, node):
    readers = graph.readers.get(node.outputs[0], [])
    return readers[0] if len(readers) == 1 and node.outputs[0] not in graph.outputs else None


def _chain(graph, middle):
    """Return [quantize, dequantize, quantize, dequantize] around a dequantizer, or None."""
    first, third = graph.maker.get(middle.inputs[0]), _only_reader(graph, middle)
    if first is None or third is None or first.op != "QuantizeLinear" or third.op != "QuantizeLinear" or _only_reader(graph, first) is not middle:
        return None
    last = _only_reader(graph, third)
    if last is None or last.op != "DequantizeLinear" or not (_is_pair(graph, first, middle) and _is_pair(graph, third, last)):
        return None
    return [first, middle, third, last]


def _constants(graph, node):
    """Return the scale and zero point of a node, or None unless both are single constants."""
    found = [graph.constants.get(name) for name in node.inputs[1:3]]
    return found if len(found) == 2 and all(v is not None and v.size == 1 and v.ndim < 2 for v in found) else None


def _is_pair(graph, quantize, dequantize):
    a, b = _constants(graph, quantize), _constants(graph, dequantize)
    return a is not None and b is not None and all(u.dtype == v.dtype and u.reshape(()) == v.reshape(()) for u, v in zip(a, b))


def _common(graph, first, third):
    """Return scale and zero point of the pair that stays, or None if the two have not one type of 8 bits and float32 scales."""
    f = np.float32
    (s1, z1), (s2, z2) = ((v.reshape(()) for v in _constants(graph, node)) for node in (first, third))
    if z1.dtype != z2.dtype or z1.dtype not in _EIGHT_BIT or s1.dtype != f or s2.dtype != f:
        return None
    if z1 == z2 and abs(s1 - s2) < 1e-20:
        return s1, z1
    limits = np.iinfo(z1.dtype)
    low = max(f(limits.min - int(z)) * s for s, z in ((s1, z1), (s2, z2)))
    high = min(f(limits.max - int(z)) * s for s, z in ((s1, z1), (s2, z2)))
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = (high - low) / f(limits.max - limits.min)
        zero = f(limits.min) - low / scale
    # a range of 0 alone gives NaN, which becomes 0
    return scale, np.asarray(round_real(zero, Round.HALF_AWAY) if np.isfinite(zero) else 0).astype(z1.dtype)


def _join(graph, chain, parameters):
    first, _, _, last = chain
    names = [f"{last.name}/{part}" for part in ("scale", "zero_point")]
    graph.constants.update(zip(names, (np.asarray(v) for v in parameters)))
    made = {first.name: first._replace(inputs=(first.inputs[0], *names)), last.name: last._replace(inputs=(first.outputs[0], *names))}
    dropped = {node.name for node in chain[1:3]}
    graph.nodes = [made.get(node.name, node) for node in graph.nodes if node.name not in dropped]
    graph.index()
