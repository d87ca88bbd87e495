"""The operations of a model: one line each, in one table a family; `OPS` is all of them.

The same operation runs on float32 arrays and on QTensors: which of the two comes in decides. An operation that no engine has on
codes says so when it gets some.
"""

import numpy as np

from refquant.core.qparams import QParams
from refquant.errors import ArgumentError, choose
from refquant.graph.opset.activations import ACTIVATIONS
from refquant.graph.opset.elementwise import ELEMENTWISE
from refquant.graph.opset.graph_op import REQUIRED, Context, GraphOp
from refquant.graph.opset.norms import NORMS
from refquant.graph.opset.pools import POOLS
from refquant.graph.opset.products import PRODUCTS
from refquant.graph.opset.shaping import SHAPING
from refquant.graph.opset.values import VALUES
from refquant.ops.post_operations import POST_OPERATIONS

__all__ = ["GraphOp", "OPS", "REQUIRED", "Context", "graph_op", "checked_attrs", "op_of_target"]

OPS = (*VALUES, *PRODUCTS, *ACTIVATIONS, *ELEMENTWISE, *NORMS, *POOLS, *SHAPING)

_BY_NAME = {kind.name: kind for kind in OPS}
if len(_BY_NAME) != len(OPS):
    raise ArgumentError("graph: two operations share a name; rename one")
# Of operations with one target, such as the sum with a value and the sum with a number, the first stands for it.
_BY_TARGET = {target: kind for kind in reversed(OPS) for target in kind.targets}
_LAYERS = {kind.name for kind in PRODUCTS}


def graph_op(name, place):
    """Return the operation of a name, or say which there are."""
    return _BY_NAME[choose(place, "op", name, _BY_NAME)]


def op_of_target(target, place):
    """Return the operation of a source's name for it, such as ``"nn.Conv2d"``."""
    return _BY_TARGET[choose(place, "target", target, _BY_TARGET)]


def checked_attrs(kind, given, name):
    """Return all attributes of a node, defaults filled in."""
    place = f"node {name!r} ({kind.name})"
    for key, value in given.items():
        choose(place, "attribute", key, kind.attrs)
        if key == "activation":
            # Of layers, any function that a fused kernel of some engine applies, as a name or as (name, parameters, …).
            function = value[0] if isinstance(value, tuple) and value and kind.name in _LAYERS else value
            choose(place, key, function, [None, *(POST_OPERATIONS if kind.name in _LAYERS else ["relu"])])
        if key == "out" and not (value is None and kind.attrs[key] is None or isinstance(value, QParams)):
            raise ArgumentError(f"{place}: out={value!r} must be a QParams; build one with refquant.QParams")
        if key == "number" and not np.isscalar(value):
            raise ArgumentError(f"{place}: number={value!r} must be a number")
    attrs = {**kind.attrs, **given}
    missing = [key for key, value in attrs.items() if value is REQUIRED]
    if missing:
        raise ArgumentError(f"{place}: attribute {missing[0]!r} is missing; give it")
    return attrs
