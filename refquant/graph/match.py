"""Finding patterns of operations in a model, the largest first. A pattern is written as the expression that it matches."""

import re
from functools import lru_cache
from typing import NamedTuple

from refquant.errors import ArgumentError

__all__ = ["ANY", "Match", "Pattern", "parse_pattern", "find_patterns", "use_counts"]

ANY = "*"
"""What stands for any value in a pattern."""


class Pattern(NamedTuple):
    """One operation of a pattern, and the patterns of its inputs.

    Attributes
    ----------
    target : str
        What the node was in its source, such as ``"nn.ReLU"``; `ANY` for any value.
    inputs : tuple of Pattern
        Empty where the inputs do not matter.
    """

    target: str
    inputs: tuple = ()

    @property
    def size(self):
        """How many operations and values the pattern names."""
        return 1 + sum(p.size for p in self.inputs)

    @property
    def targets(self):
        """All targets, the last operation first."""
        return (self.target, *(t for p in self.inputs for t in p.targets))

    def __str__(self):
        return self.target + (f"({', '.join(map(str, self.inputs))})" if self.inputs else "")


class Match(NamedTuple):
    """A place where a pattern was found.

    Attributes
    ----------
    pattern : object
        The row of the caller's table.
    nodes : tuple of Node
        In the order of the pattern's `Pattern.targets`: the last operation first, what `ANY` stands for left out.
    root : Node
        The operation deepest inside, at whose inputs the pattern begins.
    others : tuple of str
        The values that `ANY` stands for.
    """

    pattern: object
    nodes: tuple
    root: object
    others: tuple

    @property
    def last(self):
        """The operation whose value leaves the pattern."""
        return self.nodes[0]


@lru_cache(maxsize=None)
def parse_pattern(text):
    """Return the `Pattern` of an expression.

    Examples
    --------
    >>> parse_pattern("nn.ReLU(operator.add(nn.Conv2d, *))").targets
    ('nn.ReLU', 'operator.add', 'nn.Conv2d', '*')
    >>> parse_pattern("nn.ReLU(")
    Traceback (most recent call last):
        ...
    refquant.errors.ArgumentError: pattern 'nn.ReLU(': it ends where an operation is expected; write it as the expression that it matches, such as 'nn.ReLU(nn.Conv2d)'
    """
    tokens = re.findall(r"[\w.]+|\S", text)
    pattern = _read(text, tokens)
    if tokens:
        _refuse(text, f"{tokens[0]!r} stands behind its end")
    return pattern


def _read(text, tokens):
    if not tokens:
        _refuse(text, "it ends where an operation is expected")
    target, inputs = tokens.pop(0), []
    if not re.fullmatch(r"[\w.]+|\*", target):
        _refuse(text, f"{target!r} is no operation")
    if tokens[:1] == ["("]:
        while not inputs or tokens[:1] == [","]:
            tokens.pop(0)
            inputs.append(_read(text, tokens))
        if tokens[:1] != [")"]:
            _refuse(text, "a ')' is missing")
        tokens.pop(0)
    return Pattern(target, tuple(inputs))


def _refuse(text, rule):
    raise ArgumentError(f"pattern {text!r}: {rule}; write it as the expression that it matches, such as 'nn.ReLU(nn.Conv2d)'")


def use_counts(model):
    """Return how many nodes read each value; being an output counts as one more."""
    counts = {n.name: 0 for n in model.nodes}
    for node in model.nodes:
        for name in set(node.inputs):
            counts[name] += 1
    for name in set(model.outputs):
        counts[name] += 1
    return counts


def _matches(model, node, pattern, uses, left_alone, inside=False):
    if pattern.target == ANY:
        return True
    if node.name in left_alone or node.target != pattern.target or inside and uses[node.name] > 1:
        return False
    if not pattern.inputs:
        return True
    if len(pattern.inputs) != len(node.inputs):
        return False
    return all(_matches(model, model.node(i), p, uses, left_alone, inside=True) for i, p in zip(node.inputs, pattern.inputs))


def _collect(model, node, pattern, nodes, others):
    """Add the nodes of a match to the lists and return its root."""
    nodes.append(node)
    root = None
    for name, inner in zip(node.inputs, pattern.inputs):
        if inner.target == ANY:
            others.append(name)
            continue
        found = _collect(model, model.node(name), inner, nodes, others)
        root = found if root is None else root
    return node if root is None else root


def find_patterns(model, rows, left_alone=(), text=lambda row: row.pattern):
    """Find the patterns of a table in a model.

    Nodes are visited from the last to the first, patterns tried from the largest to the smallest and, among equally large ones, in the order of the
    table. Inside of a match, every value but the last has one use. A node belongs to one match at most.

    Parameters
    ----------
    model : Model
    rows : iterable
    left_alone : collection of str
        Nodes that no pattern reaches.
    text : callable
        Returns the expression of a row.

    Returns
    -------
    dict of str to Match
        By node name, in the order in which they were found; the nodes of a match share it.

    Source
    ------
    PyTorch 2.13, torch/ao/quantization/fx/match_utils.py, ``_is_match`` and ``_find_matches``.
    """
    uses = use_counts(model)
    table = sorted(((parse_pattern(text(row)), row) for row in rows), key=lambda entry: -entry[0].size)
    found = {}
    for node in reversed(model.nodes):
        if node.name in found:
            continue
        for pattern, row in table:
            if _matches(model, node, pattern, uses, left_alone):
                nodes, others = [], []
                root = _collect(model, node, pattern, nodes, others)
                match = Match(row, tuple(nodes), root, tuple(others))
                for inner in nodes:
                    found.setdefault(inner.name, match)
                break
    return found
