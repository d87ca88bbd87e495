"""`AnnotationGraph`: a model as quantizers see it, with weights as nodes of their own, users, and room for annotations."""

from refquant.workflow.pt2e.quantization_spec import ANNOTATION

__all__ = ["AnnotationGraph", "GraphNode", "as_exported"]


class GraphNode:
    """One node: an operation of the model, one of its weights (``op == "parameter"``), or ``op == "output"`` at the end.

    Attributes
    ----------
    name : str
        Of an operation, that of the model's node.
    op, target, path, attrs
        As in `refquant.graph.Node`.
    args : tuple of GraphNode
        Values first, then weight, bias and other parameters.
    inputs : tuple of GraphNode
        The values alone.
    params : dict of str to GraphNode
        The parameters alone.
    users : list of GraphNode
        Who reads it, in order.
    shape : tuple or None
    value : ndarray or None
        Of a parameter.
    meta : dict
        Under ``"quantization_annotation"`` what a quantizer has written.
    """

    __slots__ = ("name", "op", "target", "path", "attrs", "inputs", "params", "users", "shape", "value", "meta")

    def __init__(self, name, op, *, target="", path="", attrs=None, inputs=(), params=None, shape=None, value=None):
        self.name, self.op, self.target, self.path, self.attrs = name, op, target, path, attrs or {}
        self.inputs, self.params, self.users, self.shape, self.value, self.meta = tuple(inputs), dict(params or {}), [], shape, value, {}
        for node in self.args:
            if self not in node.users:
                node.users.append(self)

    @property
    def args(self):
        """Values, then parameters."""
        return (*self.inputs, *self.params.values())

    @property
    def annotation(self):
        """The annotation, or None."""
        return self.meta.get(ANNOTATION)

    def __repr__(self):
        return self.name


class AnnotationGraph:
    """A float model for quantizers to annotate.

    Parameters
    ----------
    model : Model
    traced : Model, optional
        What it was before batch norms were folded and unread nodes dropped; itself unless given. Export numbers sums as it meets them.

    Attributes
    ----------
    nodes : list of GraphNode
        Parameters first, as in an exported program; ``output`` last. One parameter that several nodes read is one node.
    traced : Model

    Examples
    --------
    >>> from refquant.graph import Builder
    >>> b = Builder(seed=0)
    >>> graph = AnnotationGraph(b.build(b.input(shape=(None, 4)).linear(2, name="fc").relu()))
    >>> graph.nodes
    [fc_weight, fc_bias, x, fc, relu, output]
    >>> graph.node("fc").inputs, graph.node("fc").params, graph.node("fc").users
    ((x,), {'weight': fc_weight, 'bias': fc_bias}, [relu])
    """

    def __init__(self, model, traced=None):
        self.model, self.traced = model, model if traced is None else traced
        parameters, operations = {}, {}
        shapes = model.shapes() if all(model.node(i).attrs["shape"] is not None for i in model.inputs) else {}
        for node in model.nodes:
            params = {key: _parameter(parameters, node, key) for key in node.params}
            operations[node.name] = GraphNode(
                node.name, node.op, target=node.target, path=node.path, attrs=dict(node.attrs), inputs=[operations[i] for i in node.inputs],
                params=params, shape=shapes.get(node.name),
            )  # fmt: skip
        output = GraphNode("output", "output", inputs=[operations[o] for o in model.outputs])
        self.nodes = [*parameters.values(), *operations.values(), output]
        self._by_name = operations

    def node(self, name):
        """Return the node of an operation of the model."""
        self.model.node(name)
        return self._by_name[name]

    def drop_unread(self):
        """Remove operations whose values nobody reads, all but dropouts."""
        kept = set()
        for node in reversed(self.nodes):
            if node.op in ("output", "input", "dropout") or any(user in kept for user in node.users):
                kept.add(node)
        for node in self.nodes:
            node.users = [user for user in node.users if user in kept]
        self.nodes = [node for node in self.nodes if node in kept]
        self.model = self.model.with_nodes([n for n in self.model.nodes if self._by_name[n.name] in kept])


def _parameter(known, node, key):
    array = node.params[key]
    place = (node.path, key) if node.is_module else (node.name, key)
    if place in known and known[place].value is not array and not _same(known[place].value, array):
        place = (node.name, key)
    if place not in known:
        known[place] = GraphNode(f"{place[0].replace('.', '_')}_{key}", "parameter", path=f"{place[0]}.{key}", shape=array.shape, value=array)
    return known[place]


def _same(a, b):
    return a.shape == b.shape and (a == b).all()


def as_exported(model, unread=False):
    """Return a model without ``identity`` nodes, which an exported program does not have.

    Nodes whose values nobody reads stay, unless there is a batch norm: before folding it, PyTorch removes them, all but dropouts; with `unread` they stay.
    """
    behind, nodes = {}, []
    for node in model.nodes:
        inputs = [behind.get(i, i) for i in node.inputs]
        if node.op == "identity":
            behind[node.name] = inputs[0]
        else:
            nodes.append(node.replace(inputs=inputs))
    outputs = [behind.get(o, o) for o in model.outputs]
    if not unread and any(n.op == "batch_norm" for n in nodes):
        read = {*outputs, *(n.name for n in nodes if n.op in ("dropout", "input"))}
        for node in reversed(nodes):
            read.update(node.inputs if node.name in read else ())
        nodes = [n for n in nodes if n.name in read]
    return model.with_nodes(nodes, outputs=outputs)
