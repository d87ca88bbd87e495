"""`LoweringGraph`: a converted model while passes rewrite it."""

from typing import NamedTuple

__all__ = ["LoweringGraph", "Fusion"]


class Fusion(NamedTuple):
    """What one rewriting did.

    Attributes
    ----------
    name : str
        Of the pass.
    nodes : tuple of str
        That became one.
    into : str
        What they became.
    """

    name: str
    nodes: tuple
    into: str

    def __str__(self):
        return f"{self.name}: {' -> '.join(self.nodes)} => {self.into}"


class LoweringGraph:
    """Nodes by name, in order, with who reads whom; passes replace chains of nodes by one.

    Parameters
    ----------
    model : Model
    """

    def __init__(self, model):
        self.nodes = {n.name: n for n in model.nodes}
        self.outputs = list(model.outputs)
        self.fusions = []
        self._shapes = model.shapes() if all(model.node(i).attrs["shape"] is not None for i in model.inputs) else {}

    def __iter__(self):
        """All nodes as they are when their turn comes, the last first, as Inductor's matcher goes."""
        for name in reversed(list(self.nodes)):
            if name in self.nodes:
                yield self.nodes[name]

    def shape(self, name):
        """Return the shape of a value, None where it is not known."""
        node = self.nodes[name]
        return self._shapes.get(node.inputs[0] if node.op == "dequantize" and name not in self._shapes else name)

    def input(self, node, i=0):
        """Return the node whose value is input `i`."""
        return self.nodes[node.inputs[i]]

    def users(self, node):
        """Return the names of who reads a node's value; the model's output is one more."""
        return [n.name for n in self.nodes.values() if node.name in n.inputs] + ["output"] * (node.name in self.outputs)

    def alone(self, node):
        """Whether exactly one reads a node's value."""
        return len(self.users(node)) == 1

    def remaining_users(self, value, node):
        """Return the readers of a value on which `node` does not depend."""
        needed, pending = {node.name}, [node.name]
        while pending:
            for name in self.nodes[pending.pop()].inputs:
                if name not in needed:
                    needed.add(name)
                    pending.append(name)
        return [name for name in self.users(value) if name not in needed]

    def replace(self, name, chain, new):
        """Let `new` stand for a chain of nodes, the last of which others read, and note it as the fusion `name`."""
        last = chain[-1]
        kept = {}
        for key, node in self.nodes.items():
            if node is last:
                kept[new.name] = new
            elif all(node is not gone for gone in chain):
                kept[key] = node
        self.nodes = kept
        self._rename(last.name, new.name)
        self.fusions.append(Fusion(name, tuple(n.name for n in chain), new.name))
        self.drop_unread()

    def skip(self, node):
        """Remove a node that hands its input on."""
        del self.nodes[node.name]
        self._rename(node.name, node.inputs[0])

    def copy_for(self, node, user, name):
        """Give one reader of a node a copy of its own."""
        items = []
        for key, other in self.nodes.items():
            if key == user:
                items += [(name, node.replace(name=name)), (key, other.replace(inputs=[name if i == node.name else i for i in other.inputs]))]
            else:
                items.append((key, other))
        self.nodes = dict(items)

    def _rename(self, old, new):
        for name, node in self.nodes.items():
            if old in node.inputs:
                self.nodes[name] = node.replace(inputs=[new if i == old else i for i in node.inputs])
        self.outputs = [new if o == old else o for o in self.outputs]

    def drop_unread(self):
        """Remove dequantize nodes that nobody reads any more."""
        read = {i for n in self.nodes.values() for i in n.inputs} | set(self.outputs)
        self.nodes = {k: n for k, n in self.nodes.items() if k in read or n.op != "dequantize"}
