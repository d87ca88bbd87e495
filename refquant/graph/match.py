"""Finding chains of operations in a model, the longest first."""

from typing import NamedTuple

__all__ = ["Match", "match_chain", "find_chains", "use_counts"]


class Match(NamedTuple):
    """A chain that was found: which pattern of the table, and the nodes in order of execution."""

    pattern: object
    nodes: tuple


def use_counts(model):
    """Return how many nodes read each value; being an output counts as one more."""
    counts = {n.name: 0 for n in model.nodes}
    for node in model.nodes:
        for name in set(node.inputs):
            counts[name] += 1
    for name in set(model.outputs):
        counts[name] += 1
    return counts


def match_chain(model, node, targets, uses):
    """Return the nodes of a chain that ends at `node`, or None.

    Parameters
    ----------
    model : Model
    node : Node
        The last of the chain.
    targets : tuple of str
        What each node of the chain was in its source, in order of execution.
    uses : dict of str to int
        From `use_counts`: all but the last node must have one use, the next in the chain.
    """
    nodes = []
    for i, target in enumerate(reversed(targets)):
        if node.target != target or i and uses[node.name] > 1:
            return None
        nodes.append(node)
        if i + 1 < len(targets):
            if len(node.inputs) != 1:
                return None
            node = model.node(node.inputs[0])
    return tuple(reversed(nodes))


def find_chains(model, patterns, targets=lambda pattern: pattern.targets):
    """Find the patterns of a table in a model.

    Nodes are visited from the last to the first, patterns tried from the longest to the shortest and, among equally
    long ones, in the order of the table; a node belongs to one match at most.

    Parameters
    ----------
    model : Model
    patterns : sequence
    targets : callable
        Returns the chain of a pattern.

    Returns
    -------
    dict of str to Match
        By node name; the nodes of a chain share their match.
    """
    uses = use_counts(model)
    longest_first = sorted(patterns, key=lambda pattern: -len(targets(pattern)))
    found = {}
    for node in reversed(model.nodes):
        if node.name in found:
            continue
        for pattern in longest_first:
            nodes = match_chain(model, node, targets(pattern), uses)
            if nodes is not None:
                found.update(dict.fromkeys((n.name for n in nodes), Match(pattern, nodes)))
                break
    return found
