"""`place_observers`: where observers stand in the graph, given who shares which."""

from typing import NamedTuple

__all__ = ["place_observers", "Placed"]


class PlacedObserver(NamedTuple):
    """An observer in the graph: its own name, the name of the value or observer that it reads, and who reads a parameter behind it."""

    name: str
    source: str
    observer: object
    readers: tuple


class _Spot:
    """An observer while the graph is changing."""

    def __init__(self, name, source, observer):
        self.name, self.source, self.observer, self.users = name, source, observer, []


def place_observers(graph, observers):
    """Insert observers before inputs and behind outputs, each where it does not stand yet.

    Parameters
    ----------
    graph : AnnotationGraph
    observers : dict
        ``{edge or node: observer or None}``.

    Returns
    -------
    Placed

    Source
    ------
    torchao 0.18, quantization/pt2e/prepare.py, ``_maybe_insert_input_and_output_observers_for_node``.
    """
    work = Placed(graph, observers)
    for node in graph.nodes:
        if node.annotation is not None:
            work.visit(node)
    return work


class Placed:
    """The graph with observers: what each node reads, and which observers stand behind each value."""

    def __init__(self, graph, observers):
        self._observers = observers
        self._args = {node: list(node.args) for node in graph.nodes}
        self._users = {node: list(node.users) for node in graph.nodes}
        self._behind = {node: [] for node in graph.nodes}
        self._count = 0

    def visit(self, node):
        """Place the observers of one annotated node."""
        for i, arg in enumerate(self._args[node]):
            self._read(node, i, self._observed(node, arg))
        observer = self._observers.get(node)
        if observer is None:
            return
        spot = self._insert(node, observer)
        for user in list(self._users[node]):
            if user is not spot:
                for i, arg in enumerate(self._args[user]):
                    if arg is node:
                        self._read(user, i, spot)

    def _observed(self, node, arg):
        """Return what `node` is to read instead of `arg`."""
        value = _value(arg)
        observer = self._observers.get((value, node))
        if observer is None or observer is self._observers.get(value):
            return arg
        standing = [user for user in self._readers(arg) if isinstance(user, _Spot) and user.observer is observer]
        return standing[0] if standing else self._insert(arg, observer)

    def _insert(self, source, observer):
        spot = _Spot(f"activation_post_process_{self._count}", source, observer)
        self._count += 1
        self._readers(source).append(spot)
        self._behind[_value(source)].append(spot)
        return spot

    def _readers(self, source):
        return source.users if isinstance(source, _Spot) else self._users[source]

    def _read(self, node, i, source):
        """Let argument `i` of a node be `source`."""
        old = self._args[node][i]
        if old is source:
            return
        self._args[node][i] = source
        if old not in self._args[node]:
            self._readers(old).remove(node)
        if node not in self._readers(source):
            self._readers(source).append(node)

    def inputs(self, node):
        """Return the names of the values, or observers of values, that an operation reads."""
        return [arg.name for arg in self._args[node][: len(node.inputs)]]

    def outputs(self, graph):
        """Return the names of what the model returns."""
        return self.inputs(graph.nodes[-1])

    def observers_of_value(self, node):
        """Return the observers behind the output of an operation."""
        return [PlacedObserver(s.name, s.source.name, s.observer, ()) for s in self._behind[node]]

    def observers_of_parameter(self, node):
        """Return the observers of a weight or a bias, with who reads it behind each."""
        found = []
        for spot in self._behind[node]:
            readers = [(user, key) for user in spot.users if not isinstance(user, _Spot) for key, value in user.params.items() if value is node]
            found.append(PlacedObserver(spot.name, node.name, spot.observer, tuple((user.name, key) for user, key in readers)))
        return found


def _value(arg):
    while isinstance(arg, _Spot):
        arg = arg.source
    return arg
