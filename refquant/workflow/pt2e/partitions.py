"""Which nodes of a graph stand for one layer of the source: what ``torch.export`` writes down, and how PT2E reads it.

An exported program forgets modules and keeps notes of where each operation came from. Two ways of export leave different notes:

``strict=False``, PyTorch's default
    A node belongs to the module whose forward called it, told by its *path*. All calls of a module that is used several times are one layer.
    Sums are told by the function that was called and a running number *per function*: ``a + b`` and ``torch.add(a, b)`` count separately, so
    the first of one and the first of the other are taken for one layer. Functions such as ``F.relu`` leave no note that PT2E would read.
``strict=True``
    A node belongs to the call it came from: modules, ``F.conv2d``, ``F.relu``, ``F.hardtanh`` and sums alike, each call on its own.

Source
------
PyTorch 2.13, torch/fx/passes/utils/source_matcher_utils.py, ``get_source_partitions``; torchao 0.18, quantization/pt2e/graph_utils.py,
``find_sequential_partitions``.
"""

from itertools import product
from typing import NamedTuple

__all__ = ["Partition", "Sources"]

_SUM = "operator.add"
# What counts as the same kind of layer.
_EQUIVALENT = (
    ("nn.Conv1d", "F.conv1d"),
    ("nn.Conv2d", "F.conv2d"),
    ("nn.AdaptiveAvgPool2d", "F.adaptive_avg_pool2d"),
    ("nn.ReLU", "F.relu", "F.relu_"),
    ("nn.BatchNorm2d", "F.batch_norm"),
    ("nn.Hardtanh", "F.hardtanh", "F.hardtanh_"),
    (_SUM, "torch.add", "operator.iadd", ".add", ".add_", "add", "add_"),
)
# The function that is called at last, and its counter.
_SUM_CALLS = {"operator.add": ("add", "Tensor.add"), ".add": ("add", "Tensor.add"), "torch.add": ("add", "torch.add"), "operator.iadd": ("add_", "Tensor.add_"), ".add_": ("add_", "Tensor.add_")}


class Partition(NamedTuple):
    """The nodes of one layer of the source."""

    nodes: tuple

    @property
    def outputs(self):
        """Those that nodes outside of it read."""
        return [n for n in self.nodes if any(user not in self.nodes for user in n.users)]

    def feeds(self, other):
        """Whether a node of `other` reads one of these."""
        return any(user in other.nodes for node in self.nodes for user in node.users)


class Sources:
    """Where the nodes of a graph came from.

    Parameters
    ----------
    graph : AnnotationGraph
    strict : bool
        The way of export.

    Examples
    --------
    Two uses of one module are one layer, or two:

    >>> from refquant.graph import Model, Node
    >>> from refquant.workflow.pt2e.annotation_graph import AnnotationGraph
    >>> nodes = [Node("x", "input"), Node("a", "relu", ["x"], path="act"), Node("b", "relu", ["a"], path="act")]
    >>> graph = AnnotationGraph(Model(nodes, ["b"]))
    >>> [[p.nodes for p in Sources(graph, strict).of("nn.ReLU")] for strict in (False, True)]
    [[(a, b)], [(a,), (b,)]]
    """

    def __init__(self, graph, strict=False):
        self._rows = list(_strict_rows(graph) if strict else _default_rows(graph))

    def of(self, *kinds):
        """Return the layers of some kinds; kinds that appear first in the graph come first."""
        found = {}
        for source, key, node in self._rows:
            if source in kinds:
                found.setdefault(source, {}).setdefault(key, []).append(node)
        return [Partition(tuple(nodes)) for layers in found.values() for nodes in layers.values()]

    def chains(self, *kinds):
        """Return every chain of layers, one of each kind, that read one another."""
        layers = [self.of(*_matching(kind)) for kind in kinds]
        return [chain for chain in product(*layers) if all(a.feeds(b) for a, b in zip(chain, chain[1:]))]


def _matching(kind):
    return next((group for group in _EQUIVALENT if kind in group), (kind,))


def _default_rows(graph):
    sums = _numbered_sums(graph.traced)
    for node in graph.nodes:
        if node.name in sums:
            yield *sums[node.name], node
        elif node.target.startswith("nn."):
            yield node.target, node.path, node


def _numbered_sums(model):
    """Return ``{node name: (name of its function, running number)}``."""
    counts, found = {}, {}
    for node in model.nodes:
        if node.target in _SUM_CALLS and node.op.startswith("add"):
            name, function = _SUM_CALLS[node.target]
            counts[function] = counts.get(function, 0) + 1
            found[node.name] = name, counts[function]
    return found


def _strict_rows(graph):
    for node in graph.nodes:
        if node.target:
            yield node.target, node, node
