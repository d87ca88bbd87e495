"""`Lowering`: the nodes made so far, where each ONNX value is, and what had to be refused."""

import re

import numpy as np

from refquant.core.qparams import QParams
from refquant.errors import RefquantError, UnsupportedError
from refquant.graph import Model, Node
from refquant.graph.opset import graph_op
from refquant.interop.onnx.call import check_size
from refquant.interop.onnx.model import run_node
from refquant.interop.onnx.rules import rules_of

__all__ = ["Lowering"]

_REMEDY = "load the model with as_graph=False"


class Lowering:
    """Turns the nodes of an `OnnxModel` into those of a `Model`, one by one.

    Attributes
    ----------
    nodes : dict of str to Node
    place_of : dict of str to str
        Which node makes an ONNX value.
    constants : dict of str to ndarray
        Values that are known.
    shapes, qparams : dict by node name
        As far as they are known; parameters of values on codes.
    uses : dict of str to int
        How many readers an ONNX value has; an output of the model counts twice.
    """

    def __init__(self, model, rules):
        self.model, self.rules = model, rules
        self.nodes, self.place_of, self.constants = {}, {}, dict(model.constants)
        self.shapes, self.qparams, self.uses, self.refused, self.lost = {}, {}, {}, [], set()
        for node in model.nodes:
            for name in node.inputs:
                self.uses[name] = self.uses.get(name, 0) + 1
        for name in model.outputs:
            self.uses[name] = self.uses.get(name, 0) + 2

    def refuse(self, node, what):
        """Say that a node has no counterpart."""
        raise UnsupportedError(f"{node.place} {what}")

    def add(self, text, op, inputs=(), attrs=None, params=None, *, qparams=None):
        """Append a node and return its name, made from `text`; `qparams` are those of its codes."""
        name = self._fresh(text)
        self.put(Node(name, op, inputs, attrs, params))
        if qparams is not None:
            self.qparams[name] = qparams
        return name

    def put(self, node):
        """Append a node, or put it in the place of the one of its name."""
        self.nodes[node.name] = node
        shapes = [self.shapes.get(name) for name in node.inputs]
        if node.op == "input":
            self.shapes[node.name] = node.attrs["shape"]
        else:
            shape = None if None in shapes else tuple(graph_op(node.op, node.name).shape(node, *shapes))
            if shape is not None:
                check_size([1 if n is None else n for n in shape], 4, node.op)
            self.shapes[node.name] = shape

    def _fresh(self, text):
        stem = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_") or "node"
        stem = f"_{stem}" if stem[0].isdigit() else stem
        name, i = stem, 0
        while name in self.nodes:
            i += 1
            name = f"{stem}_{i}"
        return name

    def value(self, node, index):
        """Return the graph node that makes a real-valued input of `node`; a constant becomes a node."""
        name = node.inputs[index]
        if name not in self.place_of:
            array = self.real_constant(node, name)
            self.place_of[name] = self.add(name, "constant", params={"value": array})
        return self.real(node, self.place_of[name])

    def real(self, node, place):
        """Return a node's name, refusing codes."""
        if place in self.qparams:
            self.refuse(node, f"computes with the codes of {place!r} as if they were numbers")
        return place

    def any_value(self, node, index):
        """Return (graph node, its parameters or None) of an input that may be codes."""
        place = self.place_of.get(node.inputs[index])
        return (self.value(node, index), None) if place is None else (place, self.qparams.get(place))

    def real_constant(self, node, name):
        """Return a known float32 array."""
        array = self.constants[name]
        if array.dtype != np.float32:
            self.refuse(node, f"computes with the constant {name!r} of {array.dtype}")
        return array

    def shape(self, node, index):
        """Return the shape of an input, refusing an unknown rank."""
        place = self.value(node, index) if node.inputs[index] not in self.place_of else self.place_of[node.inputs[index]]
        if self.shapes[place] is None:
            self.refuse(node, "has an input of unknown shape")
        return self.shapes[place]

    def constant(self, node, index, what):
        """Return a constant input, or None where it is left out."""
        if index >= len(node.inputs) or not node.inputs[index]:
            return None
        if node.inputs[index] not in self.constants:
            self.refuse(node, f"has a {what} that is computed")
        return self.constants[node.inputs[index]]

    def parameters(self, node, scale_index, dtype, axis=None):
        """Return the `QParams` of a scale and the zero point behind it."""
        scale = np.float64(self.constant(node, scale_index, "scale")).reshape(-1)
        zero = self.constant(node, scale_index + 1, "zero point")
        zero = np.zeros(scale.size, np.int64) if zero is None else zero.astype(np.int64).reshape(-1)
        if scale.size == zero.size == 1:
            return QParams(float(scale[0]), int(zero[0]), np.dtype(dtype).name)
        if axis is None:
            self.refuse(node, f"quantizes activations with {scale.size} scales")
        return QParams(scale, zero, np.dtype(dtype).name, axis=axis)

    def codes(self, node, index, qparams):
        """Return the graph node of codes that must have these parameters."""
        place, own = self.any_value(node, index)
        if own is None or (own.scale, own.zero_point, own.dtype) != (qparams.scale, qparams.zero_point, qparams.dtype):
            self.refuse(node, f"reads {node.inputs[index]!r} with other parameters than it was quantized with")
        return place

    def run(self):
        """Return the model, or refuse everything at once that has no counterpart."""
        for wanted in self.model.signature:
            dtype = wanted.type.name
            if dtype not in ("float32", "int64"):
                self._note(f"input {wanted.name!r} is {dtype}, but inputs of graphs are float32", [wanted.name])
                continue
            self.place_of[wanted.name] = self.add(wanted.name, "input", (), {"shape": wanted.shape, "dtype": dtype})
        for node in self.model.nodes:
            self._visit(node)
        for name in self.model.outputs:
            if name not in self.place_of and name not in self.lost:
                self._note(f"output {name!r} is constant", [name])
        if self.refused:
            raise UnsupportedError(f"from_onnx: refquant's graphs do not have {len(self.refused)} of its nodes as they are: {'; '.join(self.refused)}; {_REMEDY}")
        nodes = _needed(self.nodes, [self.place_of[name] for name in self.model.outputs])
        return Model(nodes, [self.place_of[name] for name in self.model.outputs], name="onnx", numerics=self.model.numerics if self.qparams else None)

    def _note(self, text, names):
        self.refused.append(text)
        self.lost.update(names)

    def _visit(self, node):
        try:
            if all(name in self.constants for name in node.inputs if name):
                self._fold(node)
            elif self.lost.isdisjoint(node.inputs):
                self._lower(node)
            else:
                self.lost.update(node.outputs)
        except UnsupportedError as error:
            self._note(str(error), node.outputs)
        except RefquantError as error:
            self._note(f"{node.place} does not fit ({error})", node.outputs)
        except (TypeError, ValueError, IndexError, KeyError, AttributeError, ArithmeticError) as error:
            self._note(f"{node.place} has attributes or inputs without sense ({error})", node.outputs)

    def _fold(self, node):
        arrays = [self.constants[name] if name else None for name in node.inputs]
        values = run_node(node, arrays, self.model.numerics, rules_of(self.model.numerics))
        self.constants.update({name: v for name, v in zip(node.outputs, values) if name})

    def _lower(self, node):
        rule = self.rules.get((node.domain, node.op))
        if rule is None:
            self.refuse(node, "is no operator of theirs")
        made = rule(self, node)
        made = made if isinstance(made, tuple) else (made,)
        for name, value in zip(node.outputs, made):
            if isinstance(value, np.ndarray):
                self.constants[name] = value
            elif name:
                self.place_of[name] = value
        if any(self.uses.get(name) for name in node.outputs[len(made) :]):
            self.refuse(node, "has more than one output in use")


def _needed(nodes, outputs):
    """Return inputs, and the nodes that outputs depend on; a constant that was taken up by a layer is left out."""
    alive = set(outputs)
    for node in reversed(nodes.values()):
        if node.name in alive:
            alive.update(node.inputs)
    return [node for node in nodes.values() if node.name in alive or node.op == "input"]
