"""`Quantizer`: the base of what annotates a graph for `refquant.workflow.prepare_pt2e`."""

from abc import ABC, abstractmethod

__all__ = ["Quantizer"]


class Quantizer(ABC):
    """Says which tensors of a graph are quantized, and how: a subclass writes annotations on nodes.

    Notes
    -----
    Source: torchao 0.18, ``quantization/pt2e/quantizer/quantizer.py``. There, graphs are of ``torch.fx`` and operations are told by
    ``node.target``; here they are `AnnotationGraph`s and told by ``node.op``.

    Examples
    --------
    A quantizer of linear layers alone:

    >>> import numpy as np
    >>> from refquant.graph import Builder
    >>> from refquant.observers import MinMaxObserver
    >>> from refquant.workflow import QuantizationAnnotation, QuantizationSpec, prepare_pt2e, convert_pt2e
    >>> class LinearOnly(Quantizer):
    ...     def annotate(self, graph):
    ...         codes = QuantizationSpec("uint8", MinMaxObserver, 0, 255, "per_tensor_affine")
    ...         weight = QuantizationSpec("int8", MinMaxObserver, -128, 127, "per_tensor_symmetric")
    ...         for node in graph.nodes:
    ...             if node.op == "linear":
    ...                 specs = {node.inputs[0]: codes, node.params["weight"]: weight}
    ...                 node.meta["quantization_annotation"] = QuantizationAnnotation(specs, output_qspec=codes)
    ...         return graph
    >>> b = Builder(seed=0)
    >>> prepared = prepare_pt2e(b.build(b.input(shape=(None, 4)).linear(2, name="fc")), LinearOnly())
    >>> _ = prepared(np.ones((1, 4), np.float32))
    >>> [n.op for n in convert_pt2e(prepared).nodes]
    ['input', 'quantize', 'dequantize', 'linear', 'quantize', 'dequantize']
    """

    def transform_for_annotation(self, model):
        """Return the float `Model` that is to be annotated, perhaps rewritten."""
        return model

    @abstractmethod
    def annotate(self, graph):
        """Write a `QuantizationAnnotation` into ``node.meta["quantization_annotation"]`` of the nodes to be quantized; return the graph."""

    def validate(self, graph):
        """Raise if the annotated graph is nothing that the engine can do."""

    def prepare_obs_or_fq_callback(self, graph, observers):
        """Change observers before they are placed: `observers` is a dict by edge and node."""
