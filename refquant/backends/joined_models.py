"""Small models as independent branches of one, for an engine that takes longer to compile than to compute. Imports onnx when imported."""

import onnx
from onnx import compose, helper

__all__ = ["join_models"]


def join_models(models):
    """Return one serialized model with a branch for each of several, and what to feed it.

    Parameters
    ----------
    models : list of SmallModel
        Of the same operator sets.

    Returns
    -------
    bytes
        Its inputs and outputs are those of the models in turn, each name with the number of its model before it.
    list of ndarray
    """
    parts = [onnx.load_from_string(small.model) for small in models]
    for number, part in enumerate(parts):
        compose.add_prefix_graph(part.graph, f"m{number}_", inplace=True)
    every = lambda name: [item for part in parts for item in getattr(part.graph, name)]  # noqa: E731
    graph = helper.make_graph(every("node"), "branches", every("input"), every("output"), every("initializer"))
    joined = helper.make_model(graph, opset_imports=parts[0].opset_import, ir_version=parts[0].ir_version)
    return joined.SerializeToString(), [feed for small in models for feed in small.feeds.values()]
