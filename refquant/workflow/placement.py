"""Where observers go: PyTorch's rules of placement and sharing, on a fused model."""

from refquant.core.dtypes import int_type
from refquant.graph.match import find_chains
from refquant.graph.node import Node
from refquant.workflow.patterns import QUANTIZED, SHARE
from refquant.workflow.qconfig import REUSE_INPUT

__all__ = ["place_observers", "quantized_nodes", "observed_dtype"]


def quantized_nodes(model, qconfigs):
    """Return ``{node name: Match}`` of what will be quantized: it matches the table, has a QConfig, and engines take its activations.

    The activations of a chain are observed as its last node's QConfig says.
    """
    matches = find_chains(model, QUANTIZED)
    return {name: match for name, match in matches.items() if qconfigs[name] and _supported(qconfigs[match.nodes[-1].name])}


def _supported(qconfig):
    """Engines take uint8 activations; a layer that asks for others stays float, as in PyTorch."""
    return qconfig is not None and observed_dtype(qconfig.activation) == "uint8"


def observed_dtype(maker):
    """Return the dtype, in NumPy's spelling, that an observer class or factory quantizes to."""
    return int_type(maker().dtype).name


def place_observers(model, qconfigs):
    """Insert ``observe`` nodes into a fused model.

    A quantized chain is observed at its inputs, where nothing has observed them yet, and at its output. What shares its
    observer with its input (pools, ReLU, flatten, concatenation) hands on *one* observer, which then sees all those values.

    Parameters
    ----------
    model : Model
    qconfigs : dict of str to QConfig or None

    Returns
    -------
    Model
        The new nodes are called ``activation_post_process_0``, … in the order in which they were placed, as PyTorch calls them.

    Source
    ------
    PyTorch 2.13, torch/ao/quantization/fx/prepare.py, ``insert_observers_for_model``.
    """
    work = _Placement(model, quantized_nodes(model, qconfigs), qconfigs)
    for node in model.nodes:
        if node.op != "input" and node.name in work.chosen:
            work.visit(node)
    return model.with_nodes(work.nodes(), outputs=[work.renamed.get(o, o) for o in model.outputs])


class _Placement:
    """The graph under change: inputs of nodes, and the observers behind each value."""

    def __init__(self, model, chosen, qconfigs):
        self.model, self.chosen, self.qconfigs = model, chosen, qconfigs
        self.inputs = {n.name: list(n.inputs) for n in model.nodes}
        self.behind = {n.name: [] for n in model.nodes}  # names of the observers right after a value, the nearest first
        self.observer, self.renamed = {}, {}
        self.bare = set()  # values that share an observer which is not there: PyTorch takes them for observed
        self.count = 0

    def visit(self, node):
        match = self.chosen[node.name]
        qconfig = self.qconfigs[match.nodes[-1].name]
        if node.name == match.nodes[0].name and qconfig != REUSE_INPUT:
            self.inputs[node.name] = [self._observed_input(i, qconfig) for i in self.inputs[node.name]]
        if node.name == match.nodes[-1].name:
            name = self._insert(node.name, qconfig.activation())
            self._redirect(node.name, name)
            if (match.pattern.observation == SHARE or qconfig == REUSE_INPUT) and not self._share(node.name, name):
                self._remove(node.name, name)

    def _observed_input(self, name, qconfig):
        """Return the observer of an input: the one that is there, or a new one for values that are float so far."""
        if name in self.observer or name in self.bare:
            return name
        wanted = qconfig.activation()
        for other in self.behind[name]:
            if type(self.observer[other]) is type(wanted) and self.observer[other].dtype == wanted.dtype:
                return other
        return self._insert(name, wanted)

    def _insert(self, value, observer):
        name = f"activation_post_process_{self.count}"
        self.count += 1
        self.behind[value].insert(0, name)
        self.observer[name] = observer
        return name

    def _redirect(self, old, new):
        """Let all readers of a value read its observer instead."""
        for inputs in self.inputs.values():
            inputs[:] = [new if i == old else i for i in inputs]
        self.renamed[old] = new

    def _remove(self, value, name):
        for inputs in self.inputs.values():
            inputs[:] = [value if i == name else i for i in inputs]
        self.behind[value].remove(name)
        self.bare.add(value)
        del self.renamed[value], self.observer[name]

    def _share(self, node, own):
        """Give the output, and all inputs but the first, the observer of the first input; False if there is none."""
        found = [self._nearest(i) for i in self.inputs[node]]
        if None in found:
            return False
        for name in (*found[1:], own):
            self.observer[name] = self.observer[found[0]]
        return True

    def _nearest(self, name):
        """Go up from a value to the first observer; None if the model's input comes first."""
        while name not in self.observer:
            if not self.inputs.get(name):
                return None
            name = self.inputs[name][0]
        return name

    def nodes(self):
        for node in self.model.nodes:
            yield node.replace(inputs=self.inputs[node.name])
            for name in self.behind[node.name]:
                yield Node(name, "observe", [node.name], {"observer": self.observer[name]}, path=node.path)
