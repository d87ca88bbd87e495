"""Running the part of a model that lies below a value, with another value in its place."""

from refquant.graph.node import Node

__all__ = ["Below"]


class Below:
    """The part of a model that depends on a node's value.

    Parameters
    ----------
    model : Model
    name : str
        The node whose value will be replaced.

    Examples
    --------
    >>> import numpy as np
    >>> from refquant.graph import Model, Node
    >>> model = Model([Node("x", "input"), Node("r", "relu", ["x"]), Node("s", "add", ["r", "x"])], ["s"])
    >>> Below(model, "r").run({"x": np.float32([1, 2])}, np.float32([5, 5]))
    array([6., 7.], dtype=float32)
    """

    def __init__(self, model, name):
        reached, nodes = {name}, []
        for node in model.nodes:
            if node.name != name and reached.intersection(node.inputs):
                reached.add(node.name)
                nodes.append(node)
        own = {n.name for n in nodes}
        self.name = name
        self.output = model.outputs[0]
        self.beside = sorted({i for n in nodes for i in n.inputs} - own - {name})
        inputs = [Node(i, "input") for i in (name, *self.beside)]
        self.model = model.with_nodes([*inputs, *nodes], outputs=[self.output]) if self.output in own else None

    def run(self, values, value):
        """Return the model's first output.

        Parameters
        ----------
        values : dict of str to value
            All values of a run of the whole model.
        value : ndarray or QTensor
            What takes the node's place.
        """
        if self.model is None:
            return value if self.output == self.name else values[self.output]
        return self.model.run(value, *(values[i] for i in self.beside))[0]
