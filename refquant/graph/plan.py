"""A run of a model worked out once: operators bound to their parameters, values in numbered places, dropped after their last use."""

from functools import partial
from typing import Callable, NamedTuple

from refquant.core.qtensor import QTensor
from refquant.graph.opset import graph_op

__all__ = ["Step", "signature", "make_step"]


class Step(NamedTuple):
    """One node of a planned run.

    Attributes
    ----------
    function : callable
        From the values of its inputs to its own.
    sources : tuple of int
        Places of the inputs.
    place : int
        Where the value goes.
    dropped : tuple of int
        Places of the values that no later step reads.
    """

    function: Callable
    sources: tuple
    place: int
    dropped: tuple


def signature(value):
    """Return what everything but the numbers of a run depends on: of an input, the layout and the parameters."""
    if isinstance(value, QTensor):
        return id(value.qparams), value.values.shape, value.values.strides
    return value.dtype.char, value.shape, value.strides


def make_step(context, node, inputs, sources, place, dropped):
    """Plan one node for inputs like these."""
    kind = graph_op(node.op, node.name)
    bound = kind.bind and kind.bind(context, node, *inputs)
    return Step(bound or partial(kind.run, context, node), sources, place, dropped)
