"""The network between float and INT8: reals all through, with weights or activations on their grids, and nothing else rounded."""

import numpy as np

from refquant.drift.exact import PRODUCTS, on_grid
from refquant.drift.pairing import weight_reals

__all__ = ["real_model", "grid_hook"]


def real_model(int8, layers, *, weights):
    """Return a quantized model's structure on real numbers.

    Parameters
    ----------
    int8 : Model
    layers : list of Layer
    weights : bool
        Whether weights are those of the grid, or the float ones.

    Returns
    -------
    Model
        Quantize and dequantize nodes pass values through.
    """
    floats = {layer.name: layer.weight for layer in layers if layer.weight is not None}
    nodes = []
    for node in int8.nodes:
        if node.op in ("quantize", "dequantize"):
            node = node.replace(op="identity", attrs={})
        elif "out" in node.attrs:
            node = node.replace(attrs={**node.attrs, "out": None})
        if node.op in PRODUCTS:
            weight = weight_reals(node) if weights else floats.get(node.name, weight_reals(node))
            node = node.replace(params={**node.params, "weight": weight})
        nodes.append(node)
    return int8.with_nodes(nodes)


def grid_hook(layers):
    """Return a hook that moves every layer's output onto its grid, in exact arithmetic."""
    grids = {layer.name: layer.out for layer in layers if layer.out is not None}

    def move(node, value):
        return on_grid(value, grids[node.name]).astype(np.float32) if node.name in grids else None

    return move
