"""`Emitter`: the nodes, constants and values of an ONNX graph while it is written. Imports onnx when imported."""

from typing import NamedTuple

import numpy as np
from onnx import helper, numpy_helper

from refquant.core.qparams import QParams
from refquant.errors import UnsupportedError

__all__ = ["Emitter", "Written", "MICROSOFT"]

MICROSOFT = "com.microsoft"


class Written(NamedTuple):
    """A value of the graph that is written.

    Attributes
    ----------
    name : str
    qparams : QParams or None
        Of codes; None says that they are real numbers.
    shape : tuple
        As far as it is known.
    origin : Written or None
        The codes that real numbers were dequantized from.
    """

    name: str
    qparams: QParams
    shape: tuple
    origin: object = None


class Emitter:
    """Collects an ONNX graph.

    Parameters
    ----------
    model : Model
    form : {"float", "qdq", "qoperator"}
        Of layers on codes: between DequantizeLinear and QuantizeLinear, or as integer operators.
    """

    def __init__(self, model, form):
        self.form, self.model = form, model
        self.nodes, self.constants, self.biases = [], [], []
        self.shapes = model.shapes()
        self._taken = {n.name for n in model.nodes}
        self._parameters = {}

    def refuse(self, node, what, remedy="export the float model, or leave this layer float when you quantize"):
        """Say that a node has no form in ONNX."""
        raise UnsupportedError(f"to_onnx: node {node.name!r} ({node.op}) {what}; {remedy}")

    def fresh(self, text):
        """Return a name that no other value has."""
        name, i = text, 1
        while name in self._taken:
            name, i = f"{text}_{i}", i + 1
        self._taken.add(name)
        return name

    def constant(self, text, array):
        """Add an initializer and return its name."""
        name = self.fresh(text)
        self.constants.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def node(self, op, inputs, output, domain="", **attributes):
        """Add a node; return its output's name. Nodes are called as the value that they make."""
        attributes = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=output, domain=domain, **attributes))
        return output

    def parameters(self, qparams):
        """Return the names of scale and zero point."""
        if qparams not in self._parameters:
            number = len(self._parameters)
            scale = self.constant(f"scale_{number}", np.asarray(qparams.scale, np.float32))
            self._parameters[qparams] = [scale, self.constant(f"zero_point_{number}", np.asarray(qparams.zero_point).astype(qparams.storage))]
        return self._parameters[qparams]

    def real(self, value):
        """Return the name of a value's real numbers, dequantized anew for each reader, as ONNX Runtime's fusions want it."""
        if value.qparams is None:
            return value.name
        return self.node("DequantizeLinear", [value.name, *self.parameters(value.qparams)], self.fresh(f"{value.name}_real"))

    def quantized(self, name, qparams, output):
        """Quantize real numbers."""
        return self.node("QuantizeLinear", [name, *self.parameters(qparams)], output)

    def weight(self, node, tensor, role="weight"):
        """Add weights on codes; return (codes, scale, zero point) by name."""
        return [self.constant(f"{node.name}_{role}", tensor.values), *self.parameters(tensor.qparams)]
