"""`prepare_pt2e`: a float model becomes one with observers where a quantizer wants them."""

from typing import NamedTuple

import numpy as np

from refquant.errors import ArgumentError
from refquant.graph.node import Node
from refquant.graph.table import model_table
from refquant.workflow.float_model import check_float_model
from refquant.workflow.pt2e.annotation_graph import AnnotationGraph, as_exported
from refquant.workflow.pt2e.fold_batch_norm import fold_batch_norms
from refquant.workflow.pt2e.observer_groups import observer_groups, observers_of, specs_of
from refquant.workflow.pt2e.place_observers import place_observers
from refquant.workflow.pt2e.quantizer import Quantizer

__all__ = ["PreparedPT2E", "ObservedParameter", "prepare_pt2e", "annotated_graph", "observed", "check_preparable"]


class ObservedParameter(NamedTuple):
    """A weight or a bias that an observer sees.

    Attributes
    ----------
    name : str
        Of the parameter, such as ``"fc_weight"``.
    observer : ObserverBase
    value : ndarray
    readers : tuple of (str, str)
        The nodes that get it quantized, and under which name.
    """

    name: str
    observer: object
    value: np.ndarray
    readers: tuple


class PreparedPT2E:
    """A model with observers; made by `prepare_pt2e`.

    Call it with calibration batches: it returns float outputs, and its observers see every value, weights included. ``print`` shows where
    they sit and who shares one.

    Attributes
    ----------
    model : Model
        With ``observe`` nodes, batch norms folded.
    parameters : tuple of ObservedParameter
    graph : AnnotationGraph
        With what the quantizer has written.
    batches : int
        How many batches were seen.
    """

    def __init__(self, model, parameters, graph):
        self.model, self.parameters, self.graph = model, tuple(parameters), graph
        self.batches = 0

    def __call__(self, *inputs, **options):
        """Run the float model and let the observers see its values; options are those of `Model.run`."""
        if any(np.size(getattr(x, "values", x)) == 0 for x in inputs):
            raise ArgumentError(f"{self.model.name}: the calibration batch is empty; give at least one image")
        outputs = self._observed_model().run(*inputs, **options)
        self.batches += 1
        return outputs

    def _observed_model(self):
        """Let the observers of parameters see them, and return what runs."""
        for parameter in self.parameters:
            parameter.observer(parameter.value)
        return self.model

    def folded(self):
        """Return ``(model, parameters)`` for conversion."""
        return self.model, self.parameters

    @property
    def placement(self):
        """Where observers sit: ``[(observed value or parameter, number of its observer)]``; a number that comes again is a shared observer."""
        rows = [(p.name, p.observer) for p in self.parameters]
        behind = {n.name: n.inputs[0] for n in self.model.nodes if n.op == "observe"}
        for node in self.model.nodes:
            if node.op == "observe":
                value = node.inputs[0]
                while value in behind:
                    value = behind[value]
                rows.append((value, node.attrs["observer"]))
        numbers = {}
        return [(name, numbers.setdefault(id(observer), len(numbers))) for name, observer in rows]

    def __repr__(self):
        return f"<PreparedPT2E {self.model.name!r}: {len(self.placement)} observed tensors, {self.batches} batches seen>"

    def __str__(self):
        observers = {n.inputs[0]: n.attrs["observer"] for n in self.model.nodes if n.op == "observe"}
        first, extra = {}, {"": "observer"}
        for name, number in self.placement:
            kind = type(observers.get(name)).__name__ if name in observers else "of a weight"
            shared = f"#{number} as {first[number]}" if number in first else f"#{number} {kind}"
            first.setdefault(number, name)
            extra[name] = ", ".join(filter(None, [extra.get(name), shared]))
        return model_table(self.model, extra)


def prepare_pt2e(model, quantizer):
    """Fold batch norms, let a quantizer annotate the graph, and insert observers, as torchao's function of this name does.

    Parameters
    ----------
    model : Model
        On float32 arrays, not fused.
    quantizer : Quantizer
        Such as ``X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())``.

    Returns
    -------
    PreparedPT2E
        `model` itself does not change.

    Raises
    ------
    ArgumentError
        Something else than a float Model or a Quantizer; specs that point to nothing.
    UnsupportedError
        A graph that torchao's quantizer does not get through, with the nodes and a way round.

    Source
    ------
    torchao 0.18, quantization/pt2e/quantize_pt2e.py and prepare.py.

    Examples
    --------
    >>> from refquant import zoo
    >>> from refquant.data import load_split
    >>> from refquant.workflow import X86InductorQuantizer, get_default_x86_inductor_quantization_config, prepare_pt2e
    >>> x, _ = load_split("digits", "calibration")
    >>> quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
    >>> prepared = prepare_pt2e(zoo.load("digits_mobilenet"), quantizer)
    >>> y, = prepared(x[:50])
    >>> prepared.batches, prepared.placement[0]
    (1, ('stem_conv_weight', 0))
    """
    check_preparable("prepare_pt2e", model, quantizer)
    graph = annotated_graph(fold_batch_norms(as_exported(model)), quantizer, model)
    return PreparedPT2E(*observed(graph, quantizer), graph)


def annotated_graph(model, quantizer, traced):
    """Return the graph of a float model with what a quantizer writes on it; `traced` is the model before it was rewritten."""
    graph = AnnotationGraph(quantizer.transform_for_annotation(model), traced)
    quantizer.annotate(graph)
    quantizer.validate(graph)
    return graph


def observed(graph, quantizer, is_qat=False):
    """Return the model of an annotated graph with observers in it, and its observed parameters."""
    specs = specs_of(graph)
    observers = observers_of(specs, observer_groups(specs), is_qat)
    quantizer.prepare_obs_or_fq_callback(graph, observers)
    placed = place_observers(graph, observers)
    nodes, parameters = [], []
    for node in graph.nodes:
        if node.op == "parameter":
            parameters += [ObservedParameter(node.name, p.observer, node.value, p.readers) for p in placed.observers_of_parameter(node)]
        elif node.op != "output":
            nodes.append(graph.model.node(node.name).replace(inputs=placed.inputs(node)))
            nodes += [Node(p.name, "observe", [p.source], {"observer": p.observer}, path=node.path) for p in placed.observers_of_value(node)]
    return graph.model.with_nodes(nodes, outputs=placed.outputs(graph)), parameters


def check_preparable(place, model, quantizer):
    """Raise unless `model` is a float model, not fused, and `quantizer` a Quantizer."""
    check_float_model(place, model)
    fused = [n.name for n in model.nodes if n.attrs.get("activation")]
    if fused:
        raise ArgumentError(f"{place}: {fused[0]!r} of model {model.name!r} is fused with its activation; pass the model as it was built, with the activation as a node")
    if not isinstance(quantizer, Quantizer):
        kind = type(quantizer).__name__
        raise ArgumentError(f"{place}: quantizer is a {kind}; pass a Quantizer, such as X86InductorQuantizer().set_global(...)")
