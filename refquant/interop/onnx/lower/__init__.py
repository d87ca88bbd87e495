"""From an ONNX graph to a `refquant.graph.Model`, which quantization workflows take: one small rule an operator, by family.

A model is lowered whole or not at all. What depends on constants and known sizes alone is computed on the way.
"""

from refquant.errors import ArgumentError
from refquant.interop.onnx.lower import activations, codes, elementwise, pools, norms, products, shaping
from refquant.interop.onnx.lower.lowering import Lowering

__all__ = ["to_graph", "LOWERINGS"]

LOWERINGS = {}
"""``{(domain, operator): rule}``; ``rule(lowering, node)`` returns the name of the node that it made, or one for each output."""

for _family in (activations, codes, elementwise, pools, norms, products, shaping):
    for _key, _rule in _family.LOWERINGS.items():
        _key = _key if isinstance(_key, tuple) else ("", _key)
        if LOWERINGS.setdefault(_key, _rule) is not _rule:
            raise ArgumentError(f"LOWERINGS: {_key} stands there twice; remove one")


def to_graph(model):
    """Return the `Model` of an `OnnxModel`.

    Raises
    ------
    UnsupportedError
        Names every node that refquant's graphs do not have, and why.
    """
    return Lowering(model, LOWERINGS).run()
