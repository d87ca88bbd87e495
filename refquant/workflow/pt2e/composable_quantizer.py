"""`ComposableQuantizer`: several quantizers, one after the other."""

from refquant.errors import ArgumentError
from refquant.workflow.pt2e.quantizer import Quantizer

__all__ = ["ComposableQuantizer"]


class ComposableQuantizer(Quantizer):
    """Let quantizers annotate a graph in turn; none may change or remove what an earlier one wrote.

    Parameters
    ----------
    quantizers : sequence of Quantizer

    Raises
    ------
    ArgumentError
        While annotating: a quantizer put another annotation in the place of one that was there, or removed it.

    Examples
    --------
    >>> ComposableQuantizer([]).quantizers
    ()
    """

    def __init__(self, quantizers):
        self.quantizers = tuple(quantizers)
        for quantizer in self.quantizers:
            if not isinstance(quantizer, Quantizer):
                raise ArgumentError(f"ComposableQuantizer: {quantizer!r} is a {type(quantizer).__name__}; pass Quantizers")

    def transform_for_annotation(self, model):
        """Return what all of them make of the model, in turn."""
        for quantizer in self.quantizers:
            model = quantizer.transform_for_annotation(model)
        return model

    def annotate(self, graph):
        """Let each annotate the graph, and check that it has left the others' annotations alone."""
        written = {}
        for quantizer in self.quantizers:
            quantizer.annotate(graph)
            for node in graph.nodes:
                before, now = written.get(node), node.annotation
                if before is not None and now is not before:
                    what = "removed" if now is None else "changed"
                    raise ArgumentError(f"ComposableQuantizer: {type(quantizer).__name__} has {what} the annotation of {node.name!r}; let it skip nodes that are annotated")
                if now is not None:
                    written[node] = now
        return graph
