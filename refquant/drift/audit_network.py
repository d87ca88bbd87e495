"""A quantized network as an audit sees it: outputs on a processor level, and every layer with weights as a `Problem`."""

from typing import NamedTuple

import numpy as np

from refquant import numerics as profiles
from refquant.core.qtensor import QTensor
from refquant.drift.exact import PRODUCTS, codes_to_real
from refquant.drift.pairing import weight_codes
from refquant.drift.ties import has_ties, tie_mask
from refquant.verify.problem import Problem

__all__ = ["AuditedLayer", "GraphNetwork", "on_level"]


class AuditedLayer(NamedTuple):
    """One layer at work on a batch.

    Attributes
    ----------
    name, label : str
    problem : Problem
        The call, on the codes that the network on a processor with VNNI hands it.
    codes : ndarray
        Its output there.
    ties : ndarray of bool, or None
        Outputs on a rounding tie; None where that is not known.
    weights : bool
        Whether it multiplies weights.
    """

    name: str
    label: str
    problem: Problem
    codes: np.ndarray
    ties: np.ndarray
    weights: bool


def on_level(numerics, level):
    """Return a profile on a processor level.

    >>> on_level("x86", "avx2").isa, on_level("x86", None).name
    ('avx2', 'x86')
    """
    profile = profiles.get(numerics)
    return profile if level is None else profile.replace(isa=level, name=f"{profile.name.partition('@')[0]}@{level}")


class GraphNetwork:
    """A converted `Model`.

    Parameters
    ----------
    model : Model
        On codes.
    """

    def __init__(self, model):
        self.model, self.name, self.numerics = model, model.name, profiles.get(model.numerics)

    def run(self, x, level=None):
        """Return the network's output as real numbers; on a processor with VNNI unless a level is given."""
        y = self.model.run(x, numerics=on_level(self.numerics, level))[0]
        return codes_to_real(y) if isinstance(y, QTensor) else y

    def layers(self, x):
        """Yield an `AuditedLayer` for each product and sum on codes, in order."""
        values = {}

        def keep(node, value):
            values[node.name] = value

        self.model.run(x, hooks=keep)
        for node in self.model.nodes:
            value = values[node.name]
            if isinstance(value, QTensor) and has_ties(node) and all(isinstance(values[i], QTensor) for i in node.inputs):
                inputs = [values[i] for i in node.inputs]
                yield AuditedLayer(node.name, _label(node), _problem(node, inputs), value.values, tie_mask(node, inputs, value.qparams), node.op in PRODUCTS)


def _label(node):
    depthwise = node.op.startswith("conv") and node.attrs["groups"] > 1
    activation = node.attrs.get("activation")
    return ("dw" if depthwise else "") + node.op + (f"+{activation}" if activation else "")


def _problem(node, inputs):
    if node.op == "add":
        a, b = inputs
        return Problem("add", {"a": a, "b": b, "out": node.attrs["out"], "activation": node.attrs["activation"]})
    arguments = {k: v for k, v in node.attrs.items() if k in ("stride", "padding", "dilation", "groups", "out", "activation")}
    return Problem(node.op, {"x": inputs[0], "w": weight_codes(node), "bias": node.params.get("bias"), **arguments})
