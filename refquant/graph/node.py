"""`Node`: one operation of a model."""

from types import MappingProxyType

from refquant.errors import ArgumentError
from refquant.graph.opset import checked_attrs, graph_op

__all__ = ["Node"]


class Node:
    """One operation: what it is called, what it computes, from what.

    Nodes are immutable; `replace` returns a changed copy.

    Parameters
    ----------
    name : str
        Unique in a model, a Python identifier.
    op : str
        One of `refquant.graph.OPS`.
    inputs : sequence of str
        Names of the nodes whose values go in.
    attrs : dict
        Plain settings, such as ``stride``; those that are left out take the operation's default.
    params : dict
        Arrays, such as ``weight``: float32, or packed codes in a quantized model.
    target : str
        What the operation was in its source: ``"nn.ReLU"``, ``"F.relu"``, ``"torch.add"``, ``".view"``. Patterns of
        quantization workflows tell modules from functions. The operation's usual source unless given.
    path : str
        Dotted path of the module: of the module itself for ``"nn."`` targets, else of the module that contains the call.
    sources : sequence of str
        Names of the nodes that were merged into this one, in order of execution. Itself unless given.

    Examples
    --------
    >>> node = Node("relu", "relu", ["x"])
    >>> node.target, node.sources, node.replace(inputs=["y"]).inputs
    ('nn.ReLU', ('relu',), ('y',))
    """

    __slots__ = ("name", "op", "inputs", "attrs", "params", "target", "path", "sources")

    def __init__(self, name, op, inputs=(), attrs=None, params=None, *, target=None, path=None, sources=None):
        if not isinstance(name, str) or not name.isidentifier():
            raise ArgumentError(f"Node: name={name!r} must be a Python identifier; replace other characters by '_'")
        kind = graph_op(op, f"node {name!r}")
        put = object.__setattr__
        put(self, "name", name)
        put(self, "op", op)
        put(self, "inputs", tuple(inputs))
        put(self, "attrs", MappingProxyType(checked_attrs(kind, attrs or {}, name)))
        put(self, "params", MappingProxyType(dict(params or {})))
        put(self, "target", target or kind.targets[0])
        put(self, "path", name if path is None else path)
        put(self, "sources", tuple(sources or (name,)))

    def __setattr__(self, name, value):
        raise AttributeError(f"Node is immutable; build a new one with node.replace({name}=...)")

    @property
    def is_module(self):
        """Whether the source was a module, which has a path of its own."""
        return self.target.startswith(("nn.", "nni."))

    def replace(self, **changes):
        """Return a copy with some fields changed."""
        fields = {slot: changes.pop(slot, getattr(self, slot)) for slot in self.__slots__}
        if changes:
            raise ArgumentError(f"Node.replace: unknown fields {sorted(changes)}; choose among {', '.join(self.__slots__)}")
        name, op = fields.pop("name"), fields.pop("op")
        inputs, attrs, params = fields.pop("inputs"), dict(fields.pop("attrs")), fields.pop("params")
        return Node(name, op, inputs, attrs, params, **fields)

    def __reduce__(self):
        return _rebuild, (self.name, self.op, self.inputs, dict(self.attrs), dict(self.params), self.target, self.path, self.sources)

    def __repr__(self):
        return f"Node({self.name!r}, {self.op!r}, {list(self.inputs)})"


def _rebuild(name, op, inputs, attrs, params, target, path, sources):
    return Node(name, op, inputs, attrs, params, target=target, path=path, sources=sources)
