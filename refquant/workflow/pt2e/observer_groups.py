"""Which tensors of an annotated graph share an observer: unions of edges and outputs."""

from refquant.errors import ArgumentError, UnsupportedError
from refquant.observers import FixedQParamsFakeQuantize, FixedQParamsObserver
from refquant.workflow.pt2e.derived_observer import DerivedObserver
from refquant.workflow.pt2e.quantization_spec import DerivedQuantizationSpec, FixedQParamsQuantizationSpec, QuantizationSpec, SharedQuantizationSpec

__all__ = ["specs_of", "observer_groups", "observers_of"]

_ALIKE = ("dtype", "is_dynamic", "quant_min", "quant_max", "qscheme", "ch_axis", "scale", "zero_point")


def specs_of(graph):
    """Return ``{edge or node: spec}`` of all annotations, in the order of the graph; an edge is ``(input, node)``."""
    specs = {}
    for node in graph.nodes:
        if node.annotation is None:
            continue
        for value, spec in node.annotation.input_qspec_map.items():
            specs[value, node] = spec
        if node.annotation.output_qspec is not None:
            specs[node] = node.annotation.output_qspec
    return specs


def observer_groups(specs):
    """Return ``{edge or node: number of its group}``; members of one group share one observer.

    Shared specs say who shares. Beyond that, the readers of one value whose specs agree share an observer, and so do a node's output and
    its readers: they observe the same tensor.

    Parameters
    ----------
    specs : dict
        From `specs_of`.

    Source
    ------
    torchao 0.18, quantization/pt2e/prepare.py, ``_get_edge_or_node_to_group_id``.
    """
    forest = _Forest(specs)
    for place, spec in specs.items():
        if isinstance(place, tuple):
            value, node = place
            own = forest.root_spec(spec)
            if node.annotation.allow_implicit_sharing:
                # Other readers first, then the output: the other order would run in circles.
                for place_of_same in (*((value, user) for user in value.users if user is not node), value):
                    forest.join_if_alike(place, own, place_of_same)
        if isinstance(spec, SharedQuantizationSpec):
            forest.join(spec.edge_or_node, place)
    numbers = {}
    return {place: numbers.setdefault(forest.root(place), len(numbers)) for place in specs}


class _Forest:
    def __init__(self, specs):
        self.specs, self.parent = specs, {place: place for place in specs}

    def root(self, place):
        if place not in self.parent:
            raise ArgumentError(f"prepare_pt2e: a SharedQuantizationSpec points to {place!r}, which has no spec; annotate that edge or node too")
        seen = []
        while self.parent[place] != place:
            seen.append(place)
            place = self.parent[place]
        for passed in seen:
            self.parent[passed] = place
        return place

    def root_spec(self, spec):
        for _ in range(len(self.specs) + 1):
            if not isinstance(spec, SharedQuantizationSpec):
                return spec
            spec = self.specs[self.root(spec.edge_or_node)]
        raise ArgumentError("prepare_pt2e: SharedQuantizationSpecs point to one another in a circle; let one of them have a spec of its own")

    def join(self, parent, child):
        above, below = self.root(parent), self.root(child)
        spec = self.specs[above]
        if isinstance(spec, SharedQuantizationSpec) and spec.edge_or_node == below:
            self.parent[above] = below
        else:
            self.parent[below] = above

    def join_if_alike(self, place, own, other):
        if other not in self.specs:
            return
        spec = self.root_spec(self.specs[other])
        if spec is not None and all(_alike(spec, own, name) for name in _ALIKE):
            self.join(other, place)


def _alike(a, b, name):
    missing = object()
    x, y = getattr(a, name, missing), getattr(b, name, missing)
    return x is y or missing not in (x, y) and x == y


def observers_of(specs, groups, is_qat=False):
    """Return ``{edge or node: observer or None}``: one new observer for each group, made as the spec that comes first says.

    Parameters
    ----------
    specs, groups : dict
    is_qat : bool
        Fixed parameters are rounded to, not only noted.

    Raises
    ------
    ArgumentError
        A shared or derived spec that points to what has no observer yet.
    """
    observers, by_group = {}, {}
    for place, spec in specs.items():
        group = groups[place]
        if group not in by_group:
            by_group[group] = _observer(spec, observers, is_qat)
        observers[place] = by_group[group]
    return observers


def _observer(spec, known, is_qat):
    if spec is None:
        return None
    if isinstance(spec, SharedQuantizationSpec):
        return _known(spec.edge_or_node, known)
    if isinstance(spec, DerivedQuantizationSpec):
        return DerivedObserver(spec, [_known(place, known) for place in spec.derived_from])
    if isinstance(spec, FixedQParamsQuantizationSpec):
        limits = {} if spec.quant_min is None else {"quant_min": spec.quant_min, "quant_max": spec.quant_max}
        scheme = {} if spec.qscheme is None else {"qscheme": spec.qscheme}
        arguments = {"scale": spec.scale, "zero_point": spec.zero_point, "dtype": spec.dtype, **limits, **scheme}
        return FixedQParamsFakeQuantize(FixedQParamsObserver.with_args(**arguments)) if is_qat else FixedQParamsObserver(**arguments)
    if isinstance(spec, QuantizationSpec):
        return spec.observer()
    raise UnsupportedError(f"prepare_pt2e: {spec!r} is a {type(spec).__name__}; use one of the four specs of refquant.workflow")


def _known(place, known):
    if place not in known:
        raise ArgumentError(f"prepare_pt2e: a spec points to {place!r}, which comes later in the graph or has no spec; point to an edge or node that is observed before")
    return known[place]
