"""`OnnxGraph`: an ONNX graph as plain data that can be rewritten."""

from dataclasses import dataclass, field

import numpy as np

from refquant.errors import UnsupportedError

__all__ = ["OpNode", "OnnxGraph"]


@dataclass(eq=False)
class OpNode:
    """One operator.

    Attributes
    ----------
    name, op : str
        Its name, and ONNX's name for what it computes.
    inputs, outputs : list of str
        Names of values; an empty name is left out.
    attrs : dict
    domain : str
    source : object
        What it was made from; kept by rewriting.
    merged : list of str
        Names of the nodes that it took over.
    """

    name: str
    op: str
    inputs: list
    outputs: list
    attrs: dict = field(default_factory=dict)
    domain: str = ""
    source: object = None
    merged: list = field(default_factory=list)


class OnnxGraph:
    """Nodes, constants, inputs and outputs by name.

    Parameters
    ----------
    nodes : iterable of OpNode
    constants : dict of str to ndarray
    inputs, outputs : sequence of str
    opset : int
        Version of ONNX's operator set.

    Examples
    --------
    >>> graph = OnnxGraph([OpNode("r", "Relu", ["x"], ["y"])], {}, ["x"], ["y"])
    >>> [n.name for n in graph.readers("x")], graph.readers("y")
    (['r'], [])
    """

    def __init__(self, nodes, constants, inputs, outputs, opset=13):
        self.nodes, self.constants = list(nodes), dict(constants)
        self.inputs, self.outputs, self.opset = list(inputs), list(outputs), opset

    def copy(self):
        """Return a graph that can be rewritten without touching this one; arrays are shared."""
        nodes = [OpNode(n.name, n.op, list(n.inputs), list(n.outputs), dict(n.attrs), n.domain, n.source, list(n.merged)) for n in self.nodes]
        return OnnxGraph(nodes, self.constants, self.inputs, self.outputs, self.opset)

    def readers(self, value):
        """Return the nodes that read a value, once for each time they do."""
        return [node for node in self.nodes for name in node.inputs if name == value]

    def maker(self, value):
        """Return the node that makes a value, or None."""
        return next((node for node in self.nodes if value in node.outputs), None)

    def rename_input(self, old, new, nodes=None):
        """Make nodes, all unless some are given, read another value."""
        for node in self.nodes if nodes is None else nodes:
            node.inputs = [new if name == old else name for name in node.inputs]

    def rename_output(self, old, new):
        """Rename a value where it is made, not where it is read."""
        for node in self.nodes:
            node.outputs = [new if name == old else name for name in node.outputs]

    def add_constant(self, name, array):
        """Add a constant unless one of that name is there; return the name."""
        self.constants.setdefault(name, np.asarray(array))
        return name

    def is_real(self, name):
        """Whether a name is a constant of float32."""
        return name in self.constants and self.constants[name].dtype == np.float32

    def drop_unused_constants(self):
        """Drop constants that no node reads and no output is, or that a node makes now."""
        used = {name for node in self.nodes for name in node.inputs} | set(self.outputs)
        used -= {name for node in self.nodes for name in node.outputs}
        self.constants = {name: array for name, array in self.constants.items() if name in used}

    def sort(self):
        """Put every node behind those that it depends on, else leave the order."""
        ready = set(self.constants) | set(self.inputs) | {""}
        waiting, done = list(self.nodes), []
        while waiting:
            rest = []
            for node in waiting:
                if ready.issuperset(node.inputs):
                    ready.update(node.outputs)
                    done.append(node)
                else:
                    rest.append(node)
            if len(rest) == len(waiting):
                missing = sorted(set(rest[0].inputs) - ready)[0]
                raise UnsupportedError(
                    f"quantize_static: {rest[0].op} {rest[0].name!r} would read {missing!r}, which exists as codes alone: ONNX Runtime's tool makes the same"
                    f" broken graph; exclude the nodes around it, or take quant_format='QDQ'"
                )
            waiting = rest
        self.nodes = done
